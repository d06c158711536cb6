"""The executable specification: spatial pyramid max pooling in plain Python and NumPy, slow, made to be read.

Every fast path is tested against this module, which shares no code with the kernels. It follows Appendix A of
He, Zhang, Ren, Sun, "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition" (2014,
arXiv:1406.4729) and the rules in the README. Read from top to bottom: where a bin begins and ends, where a
region lies on the map, which cell of a bin wins, how the outputs are laid out, and the gradient.

Letters: N images, C channels, H rows, W columns of the feature map; K regions; B bins over all levels. A
*window* is a half-open rectangle of cells ``[y0, y1) x [x0, x1)``. An *argmax* is ``row * W + column`` in its
plane, or -1 for an empty bin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import torch

from spp_ext.levels import Bins, Level, ParsedLevel, parse_levels

Array: TypeAlias = torch.Tensor | np.ndarray
Rectangle: TypeAlias = tuple[int, int, int, int]

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


CONVENTIONS = {"roi_pool": roi_pool_span, "spp_net": spp_net_span, "outer": outer_span}


def roi_window(
    box: Sequence[float],  # x1, y1, x2, y2 in image pixels
    spatial_scale: float,  # feature cells per image pixel, 1/16 for a network of stride 16
    convention: str,  # a key of CONVENTIONS
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
    if isinstance(boxes, (list, tuple)):
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
        row_lo, row_hi = bin_span(top, bottom, divisions[0], y1 - y0)
        col_lo, col_hi = bin_span(left, right, divisions[1], x1 - x0)
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
                values[here], argmax[here] = pool_window(maps[m][image, channel], *window, *bins)
                column += level.bins
    return values, argmax


def spatial_pyramid_pool(
    input: Array, levels: Sequence[Level] = (1, 2, 3, 6), *, return_indices: bool = False
) -> Array | tuple[Array, Array]:
    """Pools whole maps: ``torch.cat([F.adaptive_max_pool2d(x, l).flatten(1) for l in levels], 1)``.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``, a torch tensor or a NumPy array of floats.
        levels: each is ``n`` for an n x n grid, ``(rows, cols)``, or a `Bins`.
        return_indices: whether to return the argmax too.

    Returns:
        ``[N, C * B]`` or ``[C * B]``, of the input's kind and dtype; with the argmax (int64) if asked for.
    """
    op = "spp_ext.reference.spatial_pyramid_pool"
    parsed = parse_levels(op, levels)
    maps = _maps(op, "input", input if input.ndim != 3 else input[None])
    images, _, height, width = maps.shape
    values, argmax = pool_rows([maps], [0] * images, range(images), [(0, height, 0, width)] * images, parsed)
    if input.ndim == 3:
        values, argmax = values[0], argmax[0]
    return (_like(values, input), _like(argmax, input)) if return_indices else _like(values, input)


def roi_spatial_pyramid_pool(
    input: Array | Sequence[Array],
    boxes: Array | Sequence[Array],
    levels: Sequence[Level] = (1, 2, 3, 6),
    spatial_scale: float | Sequence[float] = 1.0,
    *,
    convention: str = "roi_pool",
    return_indices: bool = False,
    map_indices: Sequence[int] | Array | None = None,
) -> Array | tuple[Array, Array]:
    """Pools regions: the window of each box is divided into the bins of every level.

    Args:
        input: ``[N, C, H, W]``, a torch tensor or a NumPy array of floats; or M of them, alike but for H and W.
        boxes: ``[K, 5]`` rows of (batch_index, x1, y1, x2, y2) in image pixels, or a list of ``[L, 4]``.
        levels: each is ``n`` for an n x n grid, ``(rows, cols)``, or a `Bins`.
        spatial_scale: feature cells per image pixel; one number, or one for each of the maps.
        convention: how a box becomes a window: ``"roi_pool"``, ``"spp_net"`` or ``"outer"``.
        return_indices: whether to return the argmax too.
        map_indices: with several maps, the one each region lies on. Their gradients are those that `scatter` gives of
            the rows of each.

    Returns:
        ``[K, C * B]``, of the input's kind and dtype; with the argmax (int64) if asked for.
    """
    op = "spp_ext.reference.roi_spatial_pyramid_pool"
    parsed = parse_levels(op, levels)
    inputs = input if map_indices is not None else [input]
    maps = [_maps(op, "input", x) for x in inputs]
    if len({(x.shape[:2], x.dtype) for x in maps}) > 1:
        raise ValueError(f"{op}: expected maps of one N, C and dtype, got shapes {[list(x.shape) for x in maps]}")
    if convention not in CONVENTIONS:
        raise ValueError(f"{op}: expected a convention of {list(CONVENTIONS)}, got {convention!r}")
    batch_index, coordinates = split_boxes(op, boxes, maps[0].shape[0])
    dtype = coordinates.dtype.type
    scales = spatial_scale if isinstance(spatial_scale, (list, tuple)) else [spatial_scale] * len(maps)
    with np.errstate(over="ignore"):
        for scale in scales:
            if not np.isfinite(dtype(scale)):
                raise ValueError(f"{op}: expected a finite spatial_scale, got {scale} ({dtype.__name__})")
    map_of_row = [0] * len(batch_index) if map_indices is None else [int(m) for m in map_indices]
    windows = []
    for row, (m, box) in enumerate(zip(map_of_row, coordinates, strict=True)):
        if not 0 <= m < len(maps):
            raise IndexError(f"{op}: expected a map index in [0, {len(maps)}), got {m} in row {row}")
        windows.append(roi_window(box, scales[m], convention, *maps[m].shape[2:], dtype))
    values, argmax = pool_rows(maps, map_of_row, batch_index, windows, parsed)
    return (_like(values, inputs[0]), _like(argmax, inputs[0])) if return_indices else _like(values, inputs[0])


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


def multi_kernel_max_pool2d(
    input: Array, kernel_sizes: Sequence[int] = (5, 9, 13), *, cascade: bool = False, return_indices: bool = False
) -> Array | tuple[Array, Array]:
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
    maps = _maps(op, "input", input if input.ndim != 3 else input[None])
    if any(size < 1 or size % 2 == 0 for size in kernel_sizes) or (cascade and sorted(kernel_sizes) != [*kernel_sizes]):
        raise ValueError(f"{op}: expected kernel_sizes to be odd, and ascending in a cascade, got {kernel_sizes}")
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
    shape = [images, (1 + len(kernel_sizes)) * channels, height, width]
    values, argmax = values.reshape(shape), argmax.reshape(shape)
    if input.ndim == 3:
        values, argmax = values[0], argmax[0]
    return (_like(values, input), _like(argmax, input)) if return_indices else _like(values, input)


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
    grad_output: Array,
    argmax: Array,
    levels: Sequence[Level],
    input_shape: Sequence[int],
    batch_index: Sequence[int] | Array | None = None,
) -> Array:
    """Adds the gradient of every output to the cell its value came from.

    Sums start at 0 and are made in float32 (float64 for float64), one term after another in the order of
    `chosen_cells`; each is rounded once, at the end, to the dtype of ``grad_output``.

    Args:
        grad_output, argmax: ``[rows, C * B]``.
        levels, input_shape: of the forward; ``(N, C, H, W)``.
        batch_index: the image of each row; None when row r is image r.

    Returns:
        ``[N, C, H, W]``, of the kind and dtype of ``grad_output``.
    """
    op = "spp_ext.reference.scatter"
    parsed = parse_levels(op, levels)
    cells = _to_numpy(argmax)
    grad = _floats(op, "grad_output", grad_output)
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
    source: Array, argmax: Array, levels: Sequence[Level], batch_index: Sequence[int] | Array | None = None
) -> Array:
    """Reads, for every output, the cell of ``source`` that its value came from; 0 for an empty bin.

    Args:
        source: ``[N, C, H, W]``, the input or a tangent of it.
        argmax, levels, batch_index: as in `scatter`, whose transpose this is.

    Returns:
        ``[rows, C * B]``, of the kind and dtype of ``source``.
    """
    op = "spp_ext.reference.gather"
    parsed = parse_levels(op, levels)
    cells = _to_numpy(argmax)
    planes = _maps(op, "source", source)
    out = np.zeros(cells.shape, planes.dtype)
    for row, column, image, channel, cell in chosen_cells(op, cells, parsed, planes.shape, batch_index):
        out[row, column] = planes[image, channel].flat[cell]
    return _like(out, source)


# ---- torch and NumPy ----


def _to_numpy(x: Array) -> np.ndarray:
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


def _boxes(op: str, x: Array, columns: int) -> np.ndarray:
    boxes = _floats(op, "boxes", x)
    if boxes.ndim != 2 or boxes.shape[1] != columns:
        raise ValueError(f"{op}: expected boxes [K, 5] or a list of [L, 4], got {list(boxes.shape)}")
    return boxes.astype(np.promote_types(boxes.dtype, np.float32))


def _like(result: np.ndarray, x: Array) -> Array:
    """The result as a tensor or an array, as ``x`` is; floats take its dtype, indices stay int64."""
    if isinstance(x, torch.Tensor):
        return torch.from_numpy(result).to(x.device, torch.int64 if result.dtype == np.int64 else x.dtype)
    with np.errstate(over="ignore"):
        return result if result.dtype == np.int64 else result.astype(x.dtype)
