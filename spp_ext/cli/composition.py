"""What the demo and ``benchmarks/`` set beside spp_ext: the same results from torch alone, and boxes to pool."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 16  # image pixels per feature cell, wherever there are regions

Grid = int | tuple[int, int]  # a level of n x n bins, or of rows and columns


def compose(input: Tensor, levels: Sequence[Grid]) -> Tensor:
    """Whole-map pooling, ``[N, C, H, W]`` to ``[N, C * B]``, from torch's own ops: one per level."""
    return torch.cat([F.adaptive_max_pool2d(input, level).flatten(1) for level in levels], 1)


def compose_indices(input: Tensor, levels: Sequence[Grid]) -> Tensor:
    """The argmax of `compose`."""
    pooled = [F.adaptive_max_pool2d(input, level, return_indices=True) for level in levels]
    return torch.cat([indices.flatten(1) for _, indices in pooled], 1)


def loop_over_slices(input: Tensor, windows: Sequence[tuple[int, int, int, int]], levels: Sequence[Grid]) -> Tensor:
    """Region pooling from torch's own ops: `compose` on the slice of each window ``(y0, y1, x0, x1)``."""
    # Each slice is copied once: each level would otherwise copy it again.
    return torch.cat([compose(input[:, :, y0:y1, x0:x1].contiguous(), levels) for y0, y1, x0, x1 in windows])


def boxes_around(x: Tensor, y: Tensor, width: Tensor, height: Tensor, rows: float, columns: float) -> Tensor:
    """Boxes of one image by their centres and sizes, clipped to it, ``[count, 5]`` of (0, x1, y1, x2, y2)."""
    left, right = (x - width / 2).clamp(0, columns), (x + width / 2).clamp(0, columns)
    top, bottom = (y - height / 2).clamp(0, rows), (y + height / 2).clamp(0, rows)
    return torch.stack([torch.zeros_like(x), left, top, right, bottom], 1)


def propose_regions(count: int, rows: int, columns: int, seed: int) -> Tensor:
    """Boxes like a detector's proposals, ``[count, 5]`` of (0, x1, y1, x2, y2) in pixels, inside the image.

    Scale (root of the area, from a cell to the image's longer side) and aspect (1:3 to 3:1) are log-uniform.
    """
    generator = torch.Generator().manual_seed(seed)
    scale, aspect, x, y = torch.rand(4, count, generator=generator)
    smallest, largest = math.log(STRIDE), math.log(max(rows, columns, STRIDE + 1))
    side = torch.exp(smallest + scale * (largest - smallest))
    stretch = torch.exp((aspect - 0.5) * math.log(3))
    return boxes_around(x * columns, y * rows, side * stretch, side / stretch, rows, columns)
