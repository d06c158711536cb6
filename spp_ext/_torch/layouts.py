"""The two layouts of a map, contiguous and channels_last, as torch's strides; csrc/torch/tensors.h has the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def is_channels_last(input: Tensor) -> bool:
    """Whether the kernels read ``input`` as channels_last, in which case its gradient is channels_last too."""
    return not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)


def empty_map(like: Tensor, size: Sequence[Any], channels_last: bool, dtype: torch.dtype) -> Tensor:
    """``[N, C, H, W]`` with the strides of the kernels, which do not depend on which sizes are 0 or 1."""
    _, c, h, w = size
    strides = (h * w * c, 1, w * c, c) if channels_last else (c * h * w, h * w, w, 1)
    return like.new_empty_strided(tuple(size), strides, dtype=dtype)
