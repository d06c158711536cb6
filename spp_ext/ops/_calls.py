"""What the drop-ins share: one way to call a kernel, so that errors name the op that the user called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spp_ext._torch.functions import pool

DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
DTYPE_NAMES = "float32, float64, float16 or bfloat16"


def pool_as(
    name: str,  # of the public op, on whose behalf errors speak
    input: Tensor,  # [N, C, H, W]
    rois: Tensor | None,  # [K, 5]
    op: str,
    arguments: tuple[Any, ...],
    level_bins: Sequence[int],
    with_argmax: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`autograd.pool`; what a kernel refuses is refused in the name of the public op."""
    try:
        return pool(input, rois, op, arguments, level_bins, with_argmax)
    except (ValueError, IndexError) as error:
        raise type(error)(str(error).replace(f"spp_ext.{op}:", f"{name}:", 1)) from None


def check_tensor(op: str, input: object) -> None:
    """Raises TypeError unless ``input`` is a tensor of a dtype the kernels know."""
    if not isinstance(input, Tensor):
        raise TypeError(f"{op}: expected input to be a Tensor, got {type(input).__name__}")
    if input.dtype not in DTYPES:
        raise TypeError(f"{op}: expected input of dtype {DTYPE_NAMES}, got {input.dtype}")
