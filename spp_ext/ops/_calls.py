"""What the drop-ins share: one way to call a kernel, so that errors name the op that the user called."""

from __future__ import annotations

import torch
from torch import Tensor

from spp_ext.autograd import Forward, pool

DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
DTYPE_NAMES = "float32, float64, float16 or bfloat16"


def pool_as(
    op: str,  # the public op on whose behalf errors speak
    input: Tensor,  # [N, C, H, W]
    rois: Tensor | None,  # [K, 5]
    forward: Forward,
    with_argmax: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`autograd.pool`; what a kernel refuses is refused in the name of ``op``."""
    try:
        return pool(input, rois, forward, with_argmax)
    except (ValueError, IndexError) as error:
        raise type(error)(str(error).replace(f"spp_ext.{forward.op}:", f"{op}:", 1)) from None


def check_tensor(op: str, input: object) -> None:
    """Raises TypeError unless ``input`` is a tensor of a dtype the kernels know."""
    if not isinstance(input, Tensor):
        raise TypeError(f"{op}: expected input to be a Tensor, got {type(input).__name__}")
    if input.dtype not in DTYPES:
        raise TypeError(f"{op}: expected input of dtype {DTYPE_NAMES}, got {input.dtype}")
