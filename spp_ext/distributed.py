"""Teaches DTensor the ops of ``torch.ops.spp_ext``; to be imported by whoever calls those with DTensors directly.

The public functions need no such import.
"""

import spp_ext._torch.dtensor  # noqa: F401
