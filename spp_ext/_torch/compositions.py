"""Torch's own ops for what the kernels pool: for graphs that are read by those who know no ops of this package.

The values are equal; `choose_path` says when these run. Sizes may be symbols of a graph: nothing here compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spp_ext._torch.captures import to_onnx
from spp_ext.levels import Grid, ParsedLevel


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool) -> Any:
    """Torch's op; in ONNX slices, since torch's exporters have that op only for sizes that never change."""
    sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    known = len(sizes) == 2 and all(size is None or (type(size) is int and size > 0) for size in sizes)
    if to_onnx() and known and not return_indices:
        return _grid(input, *sizes)
    return F.adaptive_max_pool2d(input, output_size, return_indices)  # type: ignore[call-overload]


def pyramid(input: Tensor, levels: Sequence[ParsedLevel]) -> Tensor:
    """``[N, C, H, W]`` to ``[N, C * B]``."""
    parts = [_grid(input, *level) if isinstance(level, Grid) else _rectangles(input, level) for level in levels]
    return torch.cat([part.flatten(1) for part in parts], 1)


def stride1_pools(input: Tensor, kernel_sizes: Sequence[int], cascade: bool) -> list[Tensor]:
    """The map, and its stride-1 pools of ascending sizes, which are total sizes in a cascade."""
    maps, before = [input], 1
    for size in kernel_sizes:
        kernel = size - before + 1 if cascade else size
        maps.append(F.max_pool2d(maps[-1] if cascade else input, kernel, 1, kernel // 2))
        before = size
    return maps


def _grid(input: Tensor, rows: int | None, cols: int | None) -> Tensor:
    """The maxima of rows, then of columns: not every bin takes a slice. None keeps the input's size."""
    if rows is not None:
        input = torch.stack([_band(input, -2, y, y + 1, rows).amax(-2) for y in range(rows)], -2)
    if cols is not None:
        input = torch.stack([_band(input, -1, x, x + 1, cols).amax(-1) for x in range(cols)], -1)
    return input


def _rectangles(input: Tensor, level: Any) -> Tensor:
    rows, cols = level.divisions
    bins = [
        _band(_band(input, -2, top, bottom, rows), -1, left, right, cols).amax((-2, -1))
        for top, left, bottom, right in level.rectangles
    ]
    return torch.stack(bins, -1)


def _band(input: Tensor, dim: int, begin: int, end: int, divisions: int) -> Tensor:
    """From ``begin`` to ``end`` of so many parts of a dimension, -1 or -2, in whole cells."""
    size: Any = input.shape[dim]
    first = begin * size // divisions if begin else None
    last = (end * size + divisions - 1) // divisions if end < divisions else None
    if first is None and last is None:
        return input
    return input[..., first:last, :] if dim == -2 else input[..., first:last]
