"""What `torch.utils.flop_counter.FlopCounterMode` counts: the comparisons of a pooling, the additions of its backward.

A bin of n cells takes n - 1 comparisons, as if each were read by itself; the kernels merge bins and take fewer. Of
regions without data, fake ones or meta tensors, nothing is known, and nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from spp_ext._boxes import CONVENTIONS
from spp_ext._torch.op_table import LINEAR, NAMESPACE, POOLINGS, Linear, Pooling
from spp_ext.levels import Grid, ParsedLevel, decode_levels

_CONVENTIONS = [*CONVENTIONS, "roi_pool"]  # torchvision's windows are those of "roi_pool"


def _lengths(edges: Sequence[tuple[int, int]], divisions: int, begin: int, end: int, extent: int) -> list[int]:
    """How many cells of a map of ``extent`` the bins of a window from ``begin`` to ``end`` cover, in one dimension."""
    from spp_ext import _core

    spans = [_core.bin_span(first, last, divisions, end - begin) for first, last in edges]
    return [max(0, min(begin + last, extent) - max(begin + first, 0)) for first, last in spans]


def _comparisons(levels: Sequence[ParsedLevel], window: Sequence[int], size: Sequence[int]) -> int:
    """Of one channel: the cells of all bins of a window ``top, bottom, left, right``, less one a bin."""
    top, bottom, left, right = window
    height, width = size
    total = 0
    for level in levels:
        if isinstance(level, Grid):
            rows = _lengths([(i, i + 1) for i in range(level.rows)], level.rows, top, bottom, height)
            cols = _lengths([(j, j + 1) for j in range(level.cols)], level.cols, left, right, width)
            total += sum(rows) * sum(cols) - (len(rows) - rows.count(0)) * (len(cols) - cols.count(0))
        else:
            y, x = level.divisions
            rows = _lengths([(first, last) for first, _, last, _ in level.rectangles], y, top, bottom, height)
            cols = _lengths([(first, last) for _, first, _, last in level.rectangles], x, left, right, width)
            total += sum(max(0, h * w - 1) for h, w in zip(rows, cols, strict=True))
    return total


def _of_pooling(op: Pooling) -> Callable[..., int]:
    def count(*inputs: Any, **_: Any) -> int:
        maps, (rois, map_indices), arguments = op.split(inputs)
        n, c, h, w = maps[0].shape
        if op.of_blocks:
            around = [[min(i + k // 2 + 1, h) - max(i - k // 2, 0) for i in range(h)] for k in arguments[0]]
            beside = [[min(j + k // 2 + 1, w) - max(j - k // 2, 0) for j in range(w)] for k in arguments[0]]
            return n * c * sum(sum(rows) * sum(cols) - h * w for rows, cols in zip(around, beside, strict=True))
        levels = decode_levels(f"spp_ext.{op.spoken}", arguments[0])
        if rois is None:
            return n * c * _comparisons(levels, (0, h, 0, w), (h, w))
        if type(rois) is not Tensor or rois.is_meta:
            return 0
        from spp_ext import _core

        scales, convention = (arguments[1] if op.of_maps else [arguments[1]]), _CONVENTIONS[arguments[2]]
        chosen = [0] * len(rois) if map_indices is None else map_indices.tolist()
        total = 0
        for m, (_, *corners) in zip(chosen, rois.tolist(), strict=True):
            size = maps[m].shape[2:]
            x1, y1, x2, y2 = corners
            of_float64 = rois.dtype == torch.float64
            window = _core.roi_window(convention, x1, y1, x2, y2, scales[m], size[0], size[1], of_float64)
            total += c * _comparisons(levels, window, size)
        return total

    return count


def _of_linear(op: Linear) -> Callable[..., int]:
    def count(tensor: Any, argmax: Tensor, *_: Any, **__: Any) -> int:
        return 0 if op.is_gather else argmax.numel()

    return count


def register() -> None:
    """Registers the formulas, by the table of ops."""
    ops = getattr(torch.ops, NAMESPACE)
    for pooling in POOLINGS:
        register_flop_formula([getattr(ops, name) for name in (pooling.name, pooling.with_argmax)], get_raw=True)(
            _of_pooling(pooling)
        )
    for linear in LINEAR:
        register_flop_formula(getattr(ops, linear.name), get_raw=True)(_of_linear(linear))
