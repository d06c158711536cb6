"""The executable specification: spatial pyramid max pooling in plain Python and NumPy, slow, made to be read.

Every public op has a function of its name here, and every fast path is tested against this module, which shares no
code with the kernels. It follows Appendix A of He, Zhang, Ren, Sun, "Spatial Pyramid Pooling in Deep Convolutional
Networks for Visual Recognition" (2014, arXiv:1406.4729) and the rules in the README. Read from top to bottom: where a
bin begins and ends, where a region lies on the map, which cell of a bin wins, how the outputs are laid out, and the
gradient.

Letters: N images, C channels, H rows, W columns of the feature map; K regions; B bins over all levels. A
*window* is a half-open rectangle of cells ``[y0, y1) x [x0, x1)``. An *argmax* is ``row * W + column`` in its
plane, or -1 for an empty bin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Literal, TypeAlias, TypeVar, overload

import numpy as np
import torch

from spp_ext._boxes import Convention
from spp_ext._checks import shown
from spp_ext.levels import Bins, Grid, Level, ParsedLevel, parse_levels

Array: TypeAlias = torch.Tensor | np.ndarray
ArrayT = TypeVar("ArrayT", torch.Tensor, np.ndarray)  # what comes back is of the kind that was given
Rectangle: TypeAlias = tuple[int, int, int, int]
BinSpan: TypeAlias = Callable[[int, int, int, int], tuple[int, int]]

# Scaled coordinates saturate here before they become integers: far outside any map, and exact in float32.
COORDINATE_LIMIT = 2.0**40


# ---- bins ----


def bin_span(begin: int, end: int, divisions: int, length: int) -> tuple[int, int]:
    """The cells ``[lo, hi)`` of a bin covering parts ``begin`` to ``end`` when ``length`` cells are divided.

    Floor at the beginning, ceiling at the end (Appendix A, "Implementation of Pooling Bins"), in exact
    integers. Bin ``i`` of ``n`` is ``bin_span(i, i + 1, n, length)``; an edge inside a cell gives it to both.
    """
    lo = begin * length // divisions
    hi = -(-end * length // divisions)  # a ceiling, because // is a floor
    return lo, hi


def torchvision_bin_span(
    begin: int, end: int, divisions: int, length: int, dtype: type[np.floating]
) -> tuple[int, int]:
    """The same cells as ``torchvision.ops.roi_pool`` finds them: multiples of a quotient rounded to ``dtype``.

    Every operand and every result is rounded to ``dtype``, np.float32 or np.float64, before the floor and the ceiling.
    So an edge may be one cell off: in float32 the last of 7 bins of 57 cells ends at 58.
    """
    size = dtype(length) / dtype(divisions)
    return math.floor(dtype(begin) * size), math.ceil(dtype(end) * size)


def level_rectangles(level: ParsedLevel) -> tuple[list[Rectangle], tuple[int, int]]:
    """Each bin as ``(top, left, bottom, right)`` in divisions of the window; the ``(rows, cols)`` divisions.

    A grid's bins are unit squares in row-major order; a `Bins` level lists its own.
    """
    if isinstance(level, Bins):
        return list(level.rectangles), level.divisions
    unit_squares = [(i, j, i + 1, j + 1) for i in range(level.rows) for j in range(level.cols)]
    return unit_squares, (level.rows, level.cols)


# ---- regions: from a box in image pixels to a window of the map ----


def scale_coordinate(x: float, spatial_scale: float, dtype: type[np.floating]) -> Fraction:
    """``x * spatial_scale`` in feature cells: one product in ``dtype``, saturated; from there on exact.

    Both factors are first rounded to ``dtype``, np.float32 or np.float64. A product that overflows saturates.
    """
    with np.errstate(over="ignore", under="ignore"):
        product = float(dtype(x) * dtype(spatial_scale))
    return Fraction(min(max(product, -COORDINATE_LIMIT), COORDINATE_LIMIT))


def round_half_away(x: Fraction) -> int:
    """The nearest integer; a half goes away from zero, as in C's ``round``."""
    return math.floor(x + Fraction(1, 2)) if x >= 0 else math.ceil(x - Fraction(1, 2))


def roi_pool_span(first: Fraction, last: Fraction, extent: int) -> tuple[int, int]:
    """Cells ``[begin, end)`` of one axis as in Fast R-CNN and torchvision: both rounded ends are inside.

    At least one cell, at ``first``. The window may leave the map, whose size ``extent`` plays no part.
    """
    begin = round_half_away(first)
    return begin, begin + max(round_half_away(last) - begin + 1, 1)


def spp_net_span(first: Fraction, last: Fraction, extent: int) -> tuple[int, int]:
    """Cells ``[begin, end)`` of one axis as in the paper (Appendix A, "Mapping a Window to Feature Maps").

    ``left`` and ``right`` count from 1 and are both inside, as in the paper. Ends that cross become their
    midpoint; then both are clamped into the map of ``extent`` cells, so the window is never empty.
    """
    left = math.floor(first) + 1
    right = math.ceil(last) - 1
    if left > right:
        left = right = (left + right) // 2
    left = min(max(left, 1), extent)
    right = min(max(right, 1), extent)
    return left - 1, right


def outer_span(first: Fraction, last: Fraction, extent: int) -> tuple[int, int]:
    """The fewest cells ``[begin, end)`` of one axis that cover ``first`` to ``last``.

    At least one cell, at ``first``. The window may leave the map, whose size ``extent`` plays no part.
    """
    begin = math.floor(first)
    return begin, begin + max(math.ceil(last) - begin, 1)


CONVENTIONS: dict[Convention, Callable[..., tuple[int, int]]] = {
    "roi_pool": roi_pool_span,
    "spp_net": spp_net_span,
    "outer": outer_span,
}


def roi_window(
    box: Sequence[float],  # x1, y1, x2, y2 in image pixels
    spatial_scale: float,  # feature cells per image pixel, 1/16 for a network of stride 16
    convention: Convention,
    height: int,
    width: int,
    dtype: type[np.floating],  # coordinates are scaled in np.float32 or np.float64
) -> tuple[int, int, int, int]:
    """The window ``(y0, y1, x0, x1)`` of a box, for a ``height x width`` map, which it may leave."""
    span = CONVENTIONS[convention]
    x1, y1, x2, y2 = (scale_coordinate(x, spatial_scale, dtype) for x in box)
    return *span(y1, y2, height), *span(x1, x2, width)


def split_boxes(op: str, boxes: Array | Sequence[Array], images: int) -> tuple[list[int], np.ndarray]:
    """Checks boxes; returns the image of each and their coordinates ``[K, 4]``, float32 or float64.

    Args:
        op: the name that error messages begin with.
        boxes: ``[K, 5]`` rows of (batch_index, x1, y1, x2, y2), or a list of ``[L, 4]``, one per image.
            Half types become float32. A batch index is truncated toward zero.
        images: N, how many images there are.

    Raises:
        ValueError: a row holds a NaN or an infinity.
        IndexError: a batch index lies outside ``[0, images)``. Both name the row, counted over all boxes.
    """
    if isinstance(boxes, Sequence):
        parts = [np.insert(_boxes(op, part, 4), 0, image, axis=1) for image, part in enumerate(boxes)]
        rois = np.concatenate([np.zeros([0, 5], np.float32), *parts])  # [K, 5]
    else:
        rois = _boxes(op, boxes, 5)
    batch_index = []
    for row, roi in enumerate(rois.tolist()):
        if not all(math.isfinite(number) for number in roi):
            raise ValueError(f"{op}: expected finite boxes, got {roi} in row {row}")
        if not 0 <= math.trunc(roi[0]) < images:
            raise IndexError(f"{op}: expected a batch index in [0, {images}), got {roi[0]} in row {row}")
        batch_index.append(math.trunc(roi[0]))
    return batch_index, rois[:, 1:]


# ---- pooling ----


def pool_window(
    plane: np.ndarray,  # [H, W]
    y0: int,
    y1: int,
    x0: int,
    x1: int,
    rectangles: Sequence[Rectangle],  # of one level, with its
    divisions: tuple[int, int],
    span: BinSpan = bin_span,  # how a bin's edges are computed
) -> tuple[np.ndarray, np.ndarray]:
    """Max-pools a window of one plane into the bins of one level: values ``[bins]`` and argmax ``[bins]``.

    Cells are visited row by row. The first is the best so far; a cell replaces the best if it is greater, or
    if it is NaN. So the first of equal maxima wins, the last NaN wins, and a bin of only -inf gives its first
    cell. Cells outside the map do not exist: a bin without any has the value 0 and the argmax -1.
    """
    height, width = plane.shape
    cells = plane.tolist()  # Python floats, which hold every value of the smaller types exactly
    values = np.zeros(len(rectangles), plane.dtype)
    argmax = np.full(len(rectangles), -1, np.int64)
    for b, (top, left, bottom, right) in enumerate(rectangles):
        row_lo, row_hi = span(top, bottom, divisions[0], y1 - y0)
        col_lo, col_hi = span(left, right, divisions[1], x1 - x0)
        best = None
        for y in range(max(y0 + row_lo, 0), min(y0 + row_hi, height)):
            for x in range(max(x0 + col_lo, 0), min(x0 + col_hi, width)):
                if best is None or cells[y][x] > best or math.isnan(cells[y][x]):
                    best = cells[y][x]
                    values[b] = plane[y, x]
                    argmax[b] = y * width + x
    return values, argmax


def pool_rows(
    maps: Sequence[np.ndarray],  # each [N, C, H, W], alike but for H and W
    map_indices: Sequence[int],  # the map of each output row
    images: Sequence[int],  # its image
    windows: Sequence[tuple[int, int, int, int]],  # and its window (y0, y1, x0, x1)
    levels: Sequence[ParsedLevel],
    span: BinSpan = bin_span,  # how the edges of bins are computed
) -> tuple[np.ndarray, np.ndarray]:
    """Pools one window per output row: values and argmax, both ``[rows, C * B]``.

    A row holds level after level; in a level channel after channel; in a channel bin after bin.
    """
    channels = maps[0].shape[1]
    shape = [len(windows), channels * sum(level.bins for level in levels)]
    values, argmax = np.zeros(shape, maps[0].dtype), np.zeros(shape, np.int64)
    for row, (m, image, window) in enumerate(zip(map_indices, images, windows, strict=True)):
        column = 0
        for level in levels:
            bins = level_rectangles(level)
            for channel in range(channels):
                here = (row, slice(column, column + level.bins))
                values[here], argmax[here] = pool_window(maps[m][image, channel], *window, *bins, span)
                column += level.bins
    return values, argmax


def pool_maps(
    maps: np.ndarray,  # [N, C, H, W]
    levels: Sequence[ParsedLevel],
) -> tuple[np.ndarray, np.ndarray]:
    """Pools whole maps, one window per image: values and argmax, both ``[N, C * B]``."""
    images, _, height, width = maps.shape
    return pool_rows([maps], [0] * images, range(images), [(0, height, 0, width)] * images, levels)


def pool_parts(
    maps: np.ndarray,  # [N, C, H, W]
    sizes: Sequence[tuple[int, int]],  # the valid rows and columns of each image
    levels: Sequence[ParsedLevel],
) -> tuple[np.ndarray, np.ndarray]:
    """Crops every image and pools it as a whole map: values and argmax, in the plane before the cut, ``[N, C * B]``."""
    width = maps.shape[3]
    values, argmax = pool_maps(maps[:0], levels)
    for n, (rows, cols) in enumerate(sizes):
        part, cells = pool_maps(maps[n : n + 1, :, :rows, :cols], levels)
        values, argmax = np.concatenate([values, part]), np.concatenate([argmax, cells // cols * width + cells % cols])
    return values, argmax


@overload
def spatial_pyramid_pool(
    input: ArrayT | Sequence[ArrayT],
    levels: Sequence[Level] = ...,
    *,
    sizes: Array | None = ...,
    return_indices: Literal[False] = ...,
) -> ArrayT: ...
@overload
def spatial_pyramid_pool(
    input: ArrayT | Sequence[ArrayT],
    levels: Sequence[Level] = ...,
    *,
    sizes: Array | None = ...,
    return_indices: Literal[True],
) -> tuple[ArrayT, ArrayT]: ...
@overload
def spatial_pyramid_pool(
    input: ArrayT | Sequence[ArrayT],
    levels: Sequence[Level] = ...,
    *,
    sizes: Array | None = ...,
    return_indices: bool,
) -> ArrayT | tuple[ArrayT, ArrayT]: ...
def spatial_pyramid_pool(
    input: ArrayT | Sequence[ArrayT],
    levels: Sequence[Level] = (1, 2, 3, 6),
    *,
    sizes: Array | None = None,
    return_indices: bool = False,
) -> ArrayT | tuple[ArrayT, ArrayT]:
    """Pools whole maps: ``torch.cat([F.adaptive_max_pool2d(x, l).flatten(1) for l in levels], 1)``.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``, a torch tensor or a NumPy array of floats; or several of them, which
            are pooled one after another.
        levels: each is ``n`` for an n x n grid, ``(rows, cols)``, or a `Bins`.
        sizes: the rows and columns ``[N, 2]`` of each image of ``[N, C, H, W]`` that are valid; the rest is cut off.
        return_indices: whether to return the argmax too.

    Returns:
        ``[N, C * B]`` or ``[C * B]``, of the input's kind and dtype; with the argmax (int64) if asked for. Of several
        maps, the rows of all.
    """
    op = "spp_ext.reference.spatial_pyramid_pool"
    parsed = parse_levels(op, levels)
    inputs = input if isinstance(input, Sequence) else [input]
    if sizes is None:
        pooled = [pool_maps(_images(op, x), parsed) for x in inputs]
    else:
        (maps,) = (_maps(op, "input", x) for x in inputs)
        cuts = [(int(rows), int(cols)) for rows, cols in _to_numpy(sizes)]
        if len(cuts) != len(maps) or not all(1 <= h <= maps.shape[2] and 1 <= w <= maps.shape[3] for h, w in cuts):
            raise ValueError(f"{op}: expected sizes [N, 2] from 1 to the rows and columns of the map, got {cuts}")
        pooled = [pool_parts(maps, cuts, parsed)]
    values, argmax = (np.concatenate(parts) for parts in zip(*pooled, strict=True))
    is_one_image = not isinstance(input, Sequence) and input.ndim == 3
    return _results((values, argmax), values.shape[1:] if is_one_image else values.shape, inputs[0], return_indices)


@overload
def adaptive_max_pool2d(
    input: ArrayT, output_size: int | Sequence[int | None], *, return_indices: Literal[False] = ...
) -> ArrayT: ...
@overload
def adaptive_max_pool2d(
    input: ArrayT, output_size: int | Sequence[int | None], *, return_indices: Literal[True]
) -> tuple[ArrayT, ArrayT]: ...
@overload
def adaptive_max_pool2d(
    input: ArrayT, output_size: int | Sequence[int | None], *, return_indices: bool
) -> ArrayT | tuple[ArrayT, ArrayT]: ...
def adaptive_max_pool2d(
    input: ArrayT, output_size: int | Sequence[int | None], *, return_indices: bool = False
) -> ArrayT | tuple[ArrayT, ArrayT]:
    """Pools whole maps into one grid: `torch.nn.functional.adaptive_max_pool2d`.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``, a torch tensor or a NumPy array of floats.
        output_size: ``n`` for n x n bins, or ``(rows, cols)``, where None keeps the input's size. As in torch it may
            be 0.
        return_indices: whether to return the argmax too.

    Returns:
        ``[N, C, rows, cols]`` or ``[C, rows, cols]``, of the input's kind and dtype; with the argmax (int64) if asked
        for.
    """
    op = "spp_ext.reference.adaptive_max_pool2d"
    maps = _images(op, input)
    level = _grid(op, output_size, 0, maps.shape[2:])
    return _results(pool_maps(maps, [level]), [*input.shape[:-2], level.rows, level.cols], input, return_indices)


@overload
def roi_spatial_pyramid_pool(
    input: ArrayT | Sequence[ArrayT],
    boxes: Array | Sequence[Array],
    levels: Sequence[Level] = ...,
    spatial_scale: float | Sequence[float] = ...,
    *,
    convention: Convention = ...,
    return_indices: Literal[False] = ...,
    map_indices: Sequence[int] | Array | Sequence[Array] | None = ...,
) -> ArrayT: ...
@overload
def roi_spatial_pyramid_pool(
    input: ArrayT | Sequence[ArrayT],
    boxes: Array | Sequence[Array],
    levels: Sequence[Level] = ...,
    spatial_scale: float | Sequence[float] = ...,
    *,
    convention: Convention = ...,
    return_indices: Literal[True],
    map_indices: Sequence[int] | Array | Sequence[Array] | None = ...,
) -> tuple[ArrayT, ArrayT]: ...
@overload
def roi_spatial_pyramid_pool(
    input: ArrayT | Sequence[ArrayT],
    boxes: Array | Sequence[Array],
    levels: Sequence[Level] = ...,
    spatial_scale: float | Sequence[float] = ...,
    *,
    convention: Convention = ...,
    return_indices: bool,
    map_indices: Sequence[int] | Array | Sequence[Array] | None = ...,
) -> ArrayT | tuple[ArrayT, ArrayT]: ...
def roi_spatial_pyramid_pool(
    input: ArrayT | Sequence[ArrayT],
    boxes: Array | Sequence[Array],
    levels: Sequence[Level] = (1, 2, 3, 6),
    spatial_scale: float | Sequence[float] = 1.0,
    *,
    convention: Convention = "roi_pool",
    return_indices: bool = False,
    map_indices: Sequence[int] | Array | Sequence[Array] | None = None,
) -> ArrayT | tuple[ArrayT, ArrayT]:
    """Pools regions: the window of each box is divided into the bins of every level.

    Args:
        input: ``[N, C, H, W]``, a torch tensor or a NumPy array of floats; or M of them, alike but for H and W.
        boxes: ``[K, 5]`` rows of (batch_index, x1, y1, x2, y2) in image pixels, or a list of ``[L, 4]``.
        levels: each is ``n`` for an n x n grid, ``(rows, cols)``, or a `Bins`.
        spatial_scale: feature cells per image pixel; one number, or one for each of the maps.
        convention: how a box becomes a window: ``"roi_pool"``, ``"spp_net"`` or ``"outer"``.
        return_indices: whether to return the argmax too.
        map_indices: with several maps, the one each region lies on: ``[K]``, or a list of ``[L]`` as boxes are. Their
            gradients are those that `scatter` gives of the rows of each.

    Returns:
        ``[K, C * B]``, of the input's kind and dtype; with the argmax (int64) if asked for.
    """
    op = "spp_ext.reference.roi_spatial_pyramid_pool"
    parsed = parse_levels(op, levels)
    inputs = input if isinstance(input, Sequence) else [input]
    if isinstance(input, Sequence) != (map_indices is not None):
        got = "none" if map_indices is None else "them with one map"
        raise ValueError(f"{op}: expected map_indices with a sequence of maps, and only then, got {got}")
    maps = [_maps(op, "input", x) for x in inputs]
    if len({(x.shape[:2], x.dtype) for x in maps}) > 1:
        raise ValueError(f"{op}: expected maps of one N, C and dtype, got shapes {[list(x.shape) for x in maps]}")
    if convention not in CONVENTIONS:
        raise ValueError(f"{op}: expected a convention of {list(CONVENTIONS)}, got {shown(convention)}")
    batch_index, coordinates = split_boxes(op, boxes, maps[0].shape[0])
    dtype = coordinates.dtype.type
    scales = spatial_scale if isinstance(spatial_scale, Sequence) else [spatial_scale] * len(maps)
    for scale in scales:
        _check_scale(op, scale, dtype)
    map_of_row = [0] * len(batch_index)
    if map_indices is not None:
        map_of_row = [int(m) for part in map_indices for m in np.atleast_1d(_to_numpy(part))]
    windows = []
    for row, (m, box) in enumerate(zip(map_of_row, coordinates, strict=True)):
        if not 0 <= m < len(maps):
            raise IndexError(f"{op}: expected a map index in [0, {len(maps)}), got {m} in row {row}")
        height, width = maps[m].shape[2:]
        windows.append(roi_window(box, scales[m], convention, height, width, dtype))
    pooled = pool_rows(maps, map_of_row, batch_index, windows, parsed)
    return _results(pooled, pooled[0].shape, inputs[0], return_indices)


@overload
def roi_pool(
    input: ArrayT,
    boxes: Array | Sequence[Array],
    output_size: int | Sequence[int],
    spatial_scale: float = ...,
    *,
    return_indices: Literal[False] = ...,
) -> ArrayT: ...
@overload
def roi_pool(
    input: ArrayT,
    boxes: Array | Sequence[Array],
    output_size: int | Sequence[int],
    spatial_scale: float = ...,
    *,
    return_indices: Literal[True],
) -> tuple[ArrayT, ArrayT]: ...
@overload
def roi_pool(
    input: ArrayT,
    boxes: Array | Sequence[Array],
    output_size: int | Sequence[int],
    spatial_scale: float = ...,
    *,
    return_indices: bool,
) -> ArrayT | tuple[ArrayT, ArrayT]: ...
def roi_pool(
    input: ArrayT,
    boxes: Array | Sequence[Array],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    *,
    return_indices: bool = False,
) -> ArrayT | tuple[ArrayT, ArrayT]:
    """Pools regions into one grid: `torchvision.ops.roi_pool`, but NaN and -inf are values as everywhere here.

    Windows are those of the convention ``"roi_pool"``; they are divided by `torchvision_bin_span`, in float32, or
    float64 if the boxes are float64.

    Args:
        input: ``[N, C, H, W]``, a torch tensor or a NumPy array of floats.
        boxes: ``[K, 5]`` rows of (batch_index, x1, y1, x2, y2) in image pixels, or a list of ``[L, 4]``.
        output_size: ``n`` for n x n bins, or ``(rows, cols)``.
        spatial_scale: feature cells per image pixel.
        return_indices: whether to return the argmax too.

    Returns:
        ``[K, C, rows, cols]``, of the input's kind and dtype; with the argmax (int64) if asked for.
    """
    op = "spp_ext.reference.roi_pool"
    maps, level = _maps(op, "input", input), _grid(op, output_size, 1)
    batch_index, coordinates = split_boxes(op, boxes, maps.shape[0])
    dtype = coordinates.dtype.type
    _check_scale(op, spatial_scale, dtype)
    height, width = maps.shape[2:]
    windows = [roi_window(box, spatial_scale, "roi_pool", height, width, dtype) for box in coordinates]
    span = partial(torchvision_bin_span, dtype=dtype)
    pooled = pool_rows([maps], [0] * len(windows), batch_index, windows, [level], span)
    return _results(pooled, [len(windows), maps.shape[1], level.rows, level.cols], input, return_indices)


# ---- YOLO's blocks: a pool around every cell ----


def pool_around_cells(plane: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Max-pools the ``size x size`` cells around each cell of a plane: values and argmax, both ``[H, W]``.

    ``size`` is odd. Cells outside the plane do not exist. As in `pool_window`, the first of equal maxima wins and
    the last NaN wins.
    """
    height, width = plane.shape
    reach = size // 2
    cells = plane.tolist()
    values, argmax = np.empty_like(plane), np.empty(plane.shape, np.int64)
    for row in range(height):
        for column in range(width):
            best = None
            for y in range(max(row - reach, 0), min(row + reach + 1, height)):
                for x in range(max(column - reach, 0), min(column + reach + 1, width)):
                    if best is None or cells[y][x] > best or math.isnan(cells[y][x]):
                        best = cells[y][x]
                        values[row, column] = plane[y, x]
                        argmax[row, column] = y * width + x
    return values, argmax


@overload
def multi_kernel_max_pool2d(
    input: ArrayT, kernel_sizes: Sequence[int] = ..., *, cascade: bool = ..., return_indices: Literal[False] = ...
) -> ArrayT: ...
@overload
def multi_kernel_max_pool2d(
    input: ArrayT, kernel_sizes: Sequence[int] = ..., *, cascade: bool = ..., return_indices: Literal[True]
) -> tuple[ArrayT, ArrayT]: ...
@overload
def multi_kernel_max_pool2d(
    input: ArrayT, kernel_sizes: Sequence[int] = ..., *, cascade: bool = ..., return_indices: bool
) -> ArrayT | tuple[ArrayT, ArrayT]: ...
def multi_kernel_max_pool2d(
    input: ArrayT, kernel_sizes: Sequence[int] = (5, 9, 13), *, cascade: bool = False, return_indices: bool = False
) -> ArrayT | tuple[ArrayT, ArrayT]:
    """A map, then its stride-1 max pools of several sizes: the pooling of YOLO's SPP, or in cascade SPPF.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``, a torch tensor or a NumPy array of floats.
        kernel_sizes: odd sizes; in a cascade ascending.
        cascade: whether each pool reads the values of the one before, with what is missing to its size. Where an
            argmax leads into the result before, it is followed to the cell of the input.
        return_indices: whether to return the argmax too.

    Returns:
        ``[N, (1 + L) * C, H, W]`` or ``[(1 + L) * C, H, W]``, a block of C channels for the input and for each of L
        sizes, of the input's kind and dtype; with the argmax (int64) if asked for.
    """
    op = "spp_ext.reference.multi_kernel_max_pool2d"
    maps = _images(op, input)
    if any(size < 1 or size % 2 == 0 for size in kernel_sizes) or (cascade and sorted(kernel_sizes) != [*kernel_sizes]):
        raise ValueError(
            f"{op}: expected kernel_sizes to be odd, and ascending in a cascade, got {shown(kernel_sizes)}"
        )
    images, channels, height, width = maps.shape
    values = np.empty([images, 1 + len(kernel_sizes), channels, height, width], maps.dtype)
    argmax = np.empty(values.shape, np.int64)
    values[:, 0], argmax[:, 0] = maps, np.arange(height * width).reshape(height, width)
    for n in range(images):
        for c in range(channels):
            before = 1
            for block, size in enumerate(kernel_sizes, 1):
                if cascade:
                    values[n, block, c], cells = pool_around_cells(values[n, block - 1, c], size - before + 1)
                    argmax[n, block, c] = argmax[n, block - 1, c].flat[cells]
                else:
                    values[n, block, c], argmax[n, block, c] = pool_around_cells(maps[n, c], size)
                before = size
    shape = [*input.shape[:-3], (1 + len(kernel_sizes)) * channels, height, width]
    return _results((values, argmax), shape, input, return_indices)


# ---- gather, the derivative of pooling, and scatter, its transpose: the gradient ----


def chosen_cells(
    op: str,
    argmax: np.ndarray,  # [rows, C * B]
    levels: Sequence[ParsedLevel],
    shape: Sequence[int],  # N, C, H, W
    batch_index: Sequence[int] | Array | None,
) -> Iterator[tuple[int, int, int, int, int]]:
    """Yields ``(row, column, image, channel, cell)`` of every output, in order, leaving out the empty bins.

    So the outputs of any one plane come row after row, in a row level after level, in a level bin after bin.
    """
    images, channels, height, width = shape
    if argmax.ndim != 2 or argmax.shape[1] != channels * sum(level.bins for level in levels):
        raise ValueError(f"{op}: expected argmax [rows, C * B] for C = {channels}, got {list(argmax.shape)}")
    for row in range(argmax.shape[0]):
        image = row if batch_index is None else int(batch_index[row])
        column = 0
        for level in levels:
            for channel in range(channels):
                for _ in range(level.bins):
                    cell = int(argmax[row, column])
                    if cell != -1:
                        if not (0 <= image < images and 0 <= cell < height * width):
                            raise IndexError(f"{op}: row {row}: image {image}, cell {cell} not in {shape}")
                        yield row, column, image, channel, cell
                    column += 1


def scatter(
    grad_output: ArrayT,
    argmax: Array,
    levels: Sequence[Level],
    input_shape: Sequence[int],
    batch_index: Sequence[int] | Array | None = None,
) -> ArrayT:
    """Adds the gradient of every output to the cell its value came from, whichever function above pooled it.

    Sums start at 0 and are made in float32 (float64 for float64), one term after another in the order of
    `chosen_cells`; each is rounded once, at the end, to the dtype of ``grad_output``.

    Args:
        grad_output, argmax: ``[rows, C * B]``, or what flattens to it, such as ``[rows, C, rows of bins, cols]``.
        levels: of the forward. The output of `multi_kernel_max_pool2d` has ``1 + L`` levels ``(H, W)``, for there is a
            bin around every cell.
        input_shape: ``(N, C, H, W)``.
        batch_index: the image of each row; None when row r is image r.

    Returns:
        ``[N, C, H, W]``, of the kind and dtype of ``grad_output``.
    """
    op = "spp_ext.reference.scatter"
    parsed = parse_levels(op, levels)
    cells, grad = _flat(_to_numpy(argmax)), _flat(_floats(op, "grad_output", grad_output))
    grad = grad.astype(np.promote_types(grad.dtype, np.float32))
    if grad.shape != cells.shape:
        raise ValueError(f"{op}: expected grad_output and argmax alike, got {grad.shape} and {cells.shape}")
    images, channels, height, width = input_shape
    total = np.zeros([images, channels, height * width], grad.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for row, column, image, channel, cell in chosen_cells(op, cells, parsed, input_shape, batch_index):
            total[image, channel, cell] += grad[row, column]
    return _like(total.reshape(input_shape), grad_output)


def gather(
    source: ArrayT, argmax: Array, levels: Sequence[Level], batch_index: Sequence[int] | Array | None = None
) -> ArrayT:
    """Reads, for every output, the cell of ``source`` that its value came from; 0 for an empty bin.

    Args:
        source: ``[N, C, H, W]``, the input or a tangent of it.
        argmax, levels, batch_index: as in `scatter`, whose transpose this is.

    Returns:
        In the shape of ``argmax``, of the kind and dtype of ``source``.
    """
    op = "spp_ext.reference.gather"
    parsed = parse_levels(op, levels)
    cells, planes = _flat(_to_numpy(argmax)), _maps(op, "source", source)
    out = np.zeros(cells.shape, planes.dtype)
    for row, column, image, channel, cell in chosen_cells(op, cells, parsed, planes.shape, batch_index):
        out[row, column] = planes[image, channel].flat[cell]
    return _like(out.reshape(argmax.shape), source)


# ---- torch and NumPy ----


def _to_numpy(x: Array | int) -> np.ndarray:
    """The same values as a NumPy array; bfloat16, which NumPy lacks, becomes float32."""
    if isinstance(x, torch.Tensor):
        return (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
    return np.asarray(x)


def _floats(op: str, name: str, x: Array) -> np.ndarray:
    array = _to_numpy(x)
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise TypeError(f"{op}: expected {name} in float16, bfloat16, float32 or float64, got {array.dtype}")
    return array


def _maps(op: str, name: str, x: Array) -> np.ndarray:
    maps = _floats(op, name, x)
    if maps.ndim != 4 or 0 in maps.shape[2:]:
        raise ValueError(f"{op}: expected {name} [N, C, H, W] with H, W > 0, got {list(maps.shape)}")
    return maps


def _images(op: str, x: Array) -> np.ndarray:
    """``[N, C, H, W]``, of one image if ``x`` is ``[C, H, W]``."""
    return _maps(op, "input", x[None] if x.ndim == 3 else x)


def _grid(op: str, output_size: int | Sequence[int | None], least: int, kept: Sequence[int] = ()) -> Grid:
    """``output_size`` as a level; where ``kept`` has the sizes that None stands for, None is allowed."""
    given = list(output_size) if isinstance(output_size, Sequence) else [output_size, output_size]
    given[: len(kept)] = [size if n is None else n for n, size in zip(given, kept, strict=False)]
    sizes = [n for n in given if isinstance(n, (int, np.integer)) and n >= least]
    if len(given) != 2 or len(sizes) != 2:
        raise ValueError(f"{op}: expected output_size, an int or a pair, of at least {least}, got {shown(output_size)}")
    return Grid(*sizes)


def _check_scale(op: str, spatial_scale: float, dtype: type[np.floating]) -> None:
    with np.errstate(over="ignore"):
        if not np.isfinite(dtype(spatial_scale)):
            raise ValueError(f"{op}: expected a finite spatial_scale, got {spatial_scale} ({dtype.__name__})")


def _boxes(op: str, x: Array, columns: int) -> np.ndarray:
    boxes = _floats(op, "boxes", x)
    if boxes.ndim != 2 or boxes.shape[1] != columns:
        raise ValueError(f"{op}: expected boxes [K, 5] or a list of [L, 4], got {list(boxes.shape)}")
    return boxes.astype(np.promote_types(boxes.dtype, np.float32))


def _like(result: np.ndarray, x: ArrayT) -> ArrayT:
    """The result as a tensor or an array, as ``x`` is; floats take its dtype, indices stay int64."""
    if isinstance(x, torch.Tensor):
        return torch.from_numpy(result).to(x.device, torch.int64 if result.dtype == np.int64 else x.dtype)
    with np.errstate(over="ignore"):
        return result if result.dtype == np.int64 else result.astype(x.dtype)


def _results(
    pooled: tuple[np.ndarray, np.ndarray], shape: Sequence[int], x: ArrayT, return_indices: bool
) -> ArrayT | tuple[ArrayT, ArrayT]:
    """Values and argmax in ``shape``, each as `_like` makes it; the values alone unless both are asked for."""
    values, argmax = (_like(result.reshape(shape), x) for result in pooled)
    return (values, argmax) if return_indices else values


def _flat(x: np.ndarray) -> np.ndarray:
    """``[rows, ...]`` as ``[rows, C * B]``."""
    return x.reshape(*x.shape[:1], math.prod(x.shape[1:]))
