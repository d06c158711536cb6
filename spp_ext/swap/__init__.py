"""Swaps the pooling inside a model for this package's.

`replace` finds and swaps, `fuse` and `pyramids` rewrite forwards, `calls` reads them, `training` keeps a swap and
`restore` takes it back.
"""

from spp_ext.swap.replace import Replacements, Row, replace_pooling, restore_pooling
from spp_ext.swap.training import replace_pooling_in_training

__all__ = ["Replacements", "Row", "replace_pooling", "replace_pooling_in_training", "restore_pooling"]
