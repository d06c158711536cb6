"""What the ops require of tensors without data: the checks of csrc/torch/checks.h, in the same order and words.

All but those that look at memory. A test compares the two. Of a size that is not known until a program runs only what
is known of it is refused, and no guard is put on it; the rest is for the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false, statically_known_true

from spp_ext._boxes import TORCHVISION
from spp_ext._checks import DTYPE_NAMES, DTYPES, MAX_DIVISIONS
from spp_ext._torch.op_table import Pooling, Rows

_INT32_MAX = 2**31 - 1
# From here on, halfway between the greatest float32 and the power of two after it, a float64 rounds to infinity.
_NO_FLOAT32 = 2.0**128 - 2.0**103


def _differ(sizes: Sequence[Any], others: Sequence[Any]) -> bool:
    pairs = zip(sizes, others, strict=False)
    return len(sizes) != len(others) or any(statically_known_true(a != b) for a, b in pairs)


def check_device(op: str, name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Both tensors are on one device."""
    if tensor.device != other.device:
        raise ValueError(f"spp_ext.{op}: expected {name} and {other_name} on one device, got two")


def check_dtype(op: str, name: str, tensor: Tensor) -> None:
    """The kernels have the dtype."""
    if tensor.dtype not in DTYPES:
        raise ValueError(f"spp_ext.{op}: expected {name} of dtype {DTYPE_NAMES}, got {tensor.dtype}")


def check_elements(op: str, what: str, sizes: Sequence[Any]) -> None:
    """A tensor of these sizes, or of those of them that are not 0, has numbers for its elements."""
    product = 1
    for size in sizes:
        if not statically_known_true(size == 0):
            product = product * size
    if statically_known_true(product > 2**60):
        raise ValueError(f"spp_ext.{op}: expected {what} of fewer than 2^60 elements, got more")


# ---- maps ----


def _check_map(op: str, name: str, map: Tensor) -> None:
    check_dtype(op, name, map)
    if map.dim() != 4:
        raise ValueError(f"spp_ext.{op}: expected {name} of shape [N, C, H, W], got {list(map.shape)}")
    height, width = map.shape[2:]
    if statically_known_true(height == 0) or statically_known_true(width == 0):
        raise ValueError(f"spp_ext.{op}: expected {name} with at least one row and one column, got {list(map.shape)}")
    if statically_known_true(height * width > _INT32_MAX):
        raise ValueError(f"spp_ext.{op}: expected {name} with fewer than 2^31 cells in a plane, got {list(map.shape)}")


def check_maps(op: str, name: str, maps: Sequence[Tensor], of_maps: bool) -> str:
    """Maps that differ in nothing but H, W and layout. Returns the name of the first."""
    if not of_maps:
        _check_map(op, name, maps[0])
        return name
    if not maps:
        raise ValueError(f"spp_ext.{op}: expected at least one map in {name}, got none")
    for m, map in enumerate(maps):
        its_name = f"{name}[{m}]"
        _check_map(op, its_name, map)
        check_device(op, its_name, map, f"{name}[0]", maps[0])
        if map.shape[:2] != maps[0].shape[:2]:
            raise ValueError(
                f"spp_ext.{op}: expected maps of one batch size and number of channels, got {name}[0] of shape "
                f"{list(maps[0].shape)} and {its_name} of shape {list(map.shape)}"
            )
        if map.dtype != maps[0].dtype:
            raise ValueError(
                f"spp_ext.{op}: expected maps of one dtype, got {name}[0] of {maps[0].dtype} and {its_name} of "
                f"{map.dtype}"
            )
    return f"{name}[0]"


def check_gradient_sizes(op: str, of_maps: bool, numbers: Sequence[Any], channels_last: Any) -> None:
    """N, C, H and W of one map after another; ``channels_last`` has a bool for each, or is that of the only one."""
    maps = len(channels_last) if of_maps else 1
    if of_maps and (maps == 0 or len(numbers) != 4 * maps):
        raise ValueError(
            f"spp_ext.{op}: expected input_sizes of 4 numbers, N, C, H and W, for each of at least one map"
        )
    if not of_maps and len(numbers) != 4:
        raise ValueError(f"spp_ext.{op}: expected input_size of 4 numbers, N, C, H and W")
    for m in range(maps):
        n, c, h, w = size = numbers[4 * m : 4 * m + 4]
        if any(map(statically_known_true, (n < 0, c < 0, h < 1, w < 1))) or statically_known_true(h * w > _INT32_MAX):
            raise ValueError(f"spp_ext.{op}: expected input_size with N, C >= 0 and H, W >= 1 and H * W < 2^31")
        check_elements(op, "a gradient", size)
        if _differ(size[:2], numbers[:2]):
            raise ValueError(f"spp_ext.{op}: expected input_sizes with one N and one C")


# ---- regions ----


def check_rows(op: str, rows: Rows) -> None:
    """Boxes, and the number of a map for each."""
    rois, map_indices = rows
    if rois is None:
        return
    check_dtype(op, "boxes", rois)
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            f"spp_ext.{op}: expected boxes of shape [K, 5] (batch_index, x1, y1, x2, y2), got {list(rois.shape)}"
        )
    if statically_known_true(rois.shape[0] > _INT32_MAX):
        raise ValueError(f"spp_ext.{op}: expected fewer than 2^31 boxes, got {list(rois.shape)}")
    if map_indices is None:
        return
    check_device(op, "map_indices", map_indices, "boxes", rois)
    if map_indices.dtype != torch.int64:
        raise ValueError(f"spp_ext.{op}: expected map_indices of dtype torch.int64, got {map_indices.dtype}")
    if map_indices.dim() != 1 or guard_or_false(map_indices.shape[0] != rois.shape[0]):
        raise ValueError(
            f"spp_ext.{op}: expected map_indices of shape [{rois.shape[0]}], one for each of the boxes, got "
            f"{list(map_indices.shape)}"
        )


# ---- calls ----


def check_pooling(op: Pooling, maps: Sequence[Tensor], rows: Rows, arguments: Sequence[Any]) -> None:
    """The arguments of a pooling op but its levels, which whoever decodes them checks."""
    first = check_maps(op.spoken, "input", maps, op.of_maps)
    if op.of_regions:
        _, scales, convention, _ = arguments
        _check_regions(op, maps, first, rows, scales if op.of_maps else [scales], convention)
    if op.of_blocks:
        _check_kernel_sizes(op.spoken, arguments[0])


def _check_regions(
    op: Pooling, maps: Sequence[Tensor], first: str, rows: Rows, scales: Sequence[float], convention: int
) -> None:
    if len(scales) != len(maps):
        raise ValueError(
            f"spp_ext.{op.spoken}: expected a spatial_scale for each of {len(maps)} maps, got {len(scales)}"
        )
    assert rows.rois is not None
    check_device(op.spoken, first, maps[0], "boxes", rows.rois)
    check_rows(op.spoken, rows)
    for scale in scales:
        if not 0 < scale < _NO_FLOAT32:
            raise ValueError(
                f"spp_ext.{op.spoken}: expected spatial_scale to be a positive finite number, got {scale:f}"
            )
    if not 0 <= convention <= TORCHVISION:
        raise ValueError(f"spp_ext.{op.spoken}: expected convention from 0 to {TORCHVISION}, got {convention}")


def _check_kernel_sizes(op: str, kernel_sizes: Sequence[int]) -> None:
    last = 1
    for size in kernel_sizes:
        if size < last or size % 2 == 0 or size > MAX_DIVISIONS:
            raise ValueError(f"spp_ext.{op}: expected kernel_sizes to be odd, ascending and at most 2^20, got {size}")
        last = size


def check_linear(
    op: str,
    argmax: Tensor,
    rows: Rows,
    level_bins: Sequence[int],
    size: Sequence[Any],  # [N, C, ...] of any of the maps
    other_name: str,
    other: Tensor,
) -> None:
    """What gather and scatter share: the argmax of rows of maps, beside another tensor."""
    check_device(op, "argmax", argmax, other_name, other)
    if rows.rois is not None:
        check_device(op, "rois", rows.rois, other_name, other)
    check_rows(op, rows)
    if argmax.dtype != torch.int32:
        raise ValueError(f"spp_ext.{op}: expected argmax of dtype torch.int32, got {argmax.dtype}")
    bins = 0
    for level in level_bins:
        if statically_known_true(level < 1) or statically_known_true(level > _INT32_MAX - bins):
            raise ValueError(f"spp_ext.{op}: expected level_bins of at least 1 that sum to less than 2^31")
        bins += level
    images, channels = size[:2]
    count = images if rows.rois is None else rows.rois.shape[0]
    check_elements(op, "an argmax row", [channels, bins])
    if not _differ(argmax.shape, [count, channels * bins]):
        return
    if argmax.dim() == 4 and rows.rois is None and level_bins:
        cells = argmax.shape[2] * argmax.shape[3]
        got = [*argmax.shape[:2], *[cells] * len(level_bins)]
        if not _differ(got, [count, channels * len(level_bins), *level_bins]):
            return
    raise ValueError(
        f"spp_ext.{op}: expected argmax of shape {[count, channels * bins]}, or [N, L * C, H, W] for L levels of H * W "
        f"bins, got {list(argmax.shape)}"
    )


def check_gradient(op: str, grad_output: Tensor, argmax: Tensor) -> None:
    """A gradient for each element of the argmax."""
    if _differ(grad_output.shape, argmax.shape):
        raise ValueError(
            f"spp_ext.{op}: expected grad_output of the shape of argmax, {list(argmax.shape)}, got "
            f"{list(grad_output.shape)}"
        )


def check_places(op: str, out: Tensor) -> None:
    """No two elements of ``out`` are one, as far as its strides show it and are known."""
    dims = [(stride, size) for size, stride in zip(out.shape, out.stride(), strict=True) if size != 1]
    if not all(type(number) is int for dim in dims for number in dim) or out.numel() == 0:
        return
    extent = 1  # elements from the first to the last along the dimensions so far
    for stride, size in sorted(dims):
        if stride < extent:
            raise ValueError(
                f"spp_ext.{op}: expected every element of out in a place of its own, got some that share one"
            )
        extent += (size - 1) * stride
