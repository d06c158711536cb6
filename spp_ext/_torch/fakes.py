"""Results without data: what graphs, fake and meta tensors are told of an op's shapes, strides and dtypes.

What does not fit is refused here too, as far as that can be told from dtypes, devices, ranks and numbers; the rest is
refused by the kernel, when there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false

from spp_ext._boxes import TORCHVISION
from spp_ext._checks import DTYPE_NAMES, DTYPES, MAX_DIVISIONS
from spp_ext._torch.captures import to_onnx
from spp_ext._torch.layouts import empty_map, is_channels_last
from spp_ext._torch.op_table import Linear, Pooling, Rows, Shapes
from spp_ext._torch.outs import check_pooled_into
from spp_ext.levels import decode_levels

# ---- checks, with the sentences of csrc/torch/checks.h, as far as they ask for no data and no symbolic size ----


def _check_device(op: str, name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(f"spp_ext.{op}: expected {name} and {other_name} on one device, got two")


def _check_dtype(op: str, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise ValueError(f"spp_ext.{op}: expected {name} of dtype {DTYPE_NAMES}, got {tensor.dtype}")


def _check_maps(op: str, name: str, maps: Sequence[Tensor], of_maps: bool) -> str:
    """Returns the name of the first map."""
    if not maps:
        raise ValueError(f"spp_ext.{op}: expected at least one map in {name}, got none")
    for m, map in enumerate(maps):
        its_name = f"{name}[{m}]" if of_maps else name
        _check_dtype(op, its_name, map)
        if map.dim() != 4:
            raise ValueError(f"spp_ext.{op}: expected {its_name} of shape [N, C, H, W], got {list(map.shape)}")
        _check_device(op, its_name, map, f"{name}[0]", maps[0])
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
    return f"{name}[0]" if of_maps else name


def _check_rows(op: str, rows: Rows) -> None:
    rois, map_indices = rows
    if rois is None:
        return
    _check_dtype(op, "boxes", rois)
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            f"spp_ext.{op}: expected boxes of shape [K, 5] (batch_index, x1, y1, x2, y2), got {list(rois.shape)}"
        )
    if map_indices is None:
        return
    _check_device(op, "map_indices", map_indices, "boxes", rois)
    if map_indices.dtype != torch.int64:
        raise ValueError(f"spp_ext.{op}: expected map_indices of dtype int64, got {map_indices.dtype}")
    # Where the sizes are not known until the program runs, it is for the kernel to compare them.
    if map_indices.dim() != 1 or guard_or_false(map_indices.shape[0] != rois.shape[0]):
        raise ValueError(
            f"spp_ext.{op}: expected map_indices of shape [{rois.shape[0]}], one for each of the boxes, got "
            f"{list(map_indices.shape)}"
        )


def _check_arguments(op: Pooling, maps: int, arguments: Sequence[Any]) -> None:
    if op.of_blocks:
        last = 1
        for size in arguments[0]:
            if size < last or size % 2 == 0 or size > MAX_DIVISIONS:
                raise ValueError(
                    f"spp_ext.{op.spoken}: expected kernel_sizes to be odd, ascending and at most 2^20, got {size}"
                )
            last = size
    if not op.of_regions:
        return
    _, scales, convention, _ = arguments
    scales = scales if op.of_maps else [scales]
    if len(scales) != maps:
        raise ValueError(f"spp_ext.{op.spoken}: expected a spatial_scale for each of {maps} maps, got {len(scales)}")
    for scale in scales:
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(
                f"spp_ext.{op.spoken}: expected spatial_scale to be a positive finite number, got {scale:f}"
            )
    if not 0 <= convention <= TORCHVISION:
        raise ValueError(f"spp_ext.{op.spoken}: expected convention from 0 to {TORCHVISION}, got {convention}")


# ---- results ----


def bins_of(op: Pooling, maps: Sequence[Tensor], arguments: Sequence[Any]) -> list[Any]:
    """The bins of each level of a pooling's output, from the other arguments of the registered op."""
    if op.of_blocks:
        cells = maps[0].shape[2] * maps[0].shape[3]
        return [cells] * (1 + len(arguments[0]))
    return [level.bins for level in decode_levels(f"spp_ext.{op.spoken}", arguments[0])]


def fake_pooling(op: Pooling, with_argmax: bool) -> Callable[..., Any]:
    """The results of a pooling op without their data."""

    def fake(*inputs: Any) -> Any:
        maps, rows, arguments = op.split(inputs)
        if to_onnx():
            from spp_ext._torch import onnx

            onnx.check_translated(op)
        first = _check_maps(op.spoken, "input", maps, op.of_maps)
        if rows.rois is not None:
            _check_device(op.spoken, first, maps[0], "boxes", rows.rois)
        _check_rows(op.spoken, rows)
        _check_arguments(op, len(maps), arguments)
        input, level_bins = maps[0], bins_of(op, maps, arguments)

        def empty(dtype: torch.dtype) -> Tensor:
            n, c, h, w = input.shape
            if op.of_blocks:
                return empty_map(input, (n, len(level_bins) * c, h, w), is_channels_last(input), dtype)
            return input.new_empty((n if rows.rois is None else rows.rois.shape[0], c * sum(level_bins)), dtype=dtype)

        return (empty(input.dtype), empty(torch.int32)) if with_argmax else empty(input.dtype)

    return fake


def fake_pooling_into(op: Pooling) -> Callable[..., Any]:
    """What a pooling op with ``out`` asks of its arguments and gives back."""
    pooled = fake_pooling(op, False)

    def fake(*inputs: Any, out: Tensor) -> Tensor:
        maps, _, arguments = op.split(inputs)
        return check_pooled_into(op, out, pooled(*inputs), len(bins_of(op, maps, arguments)))

    return fake


def _check_linear(op: str, argmax: Tensor, rows: Rows, other_name: str, other: Tensor) -> None:
    _check_device(op, "argmax", argmax, other_name, other)
    if rows.rois is not None:
        _check_device(op, "rois", rows.rois, other_name, other)
    _check_rows(op, rows)
    if argmax.dtype != torch.int32:
        raise ValueError(f"spp_ext.{op}: expected argmax of dtype int32, got {argmax.dtype}")


def shapes_from(of_maps: bool, size: Sequence[Any], channels_last: Any) -> Shapes:
    """The shapes of gradients from the last arguments of a registered scatter."""
    if not of_maps:
        return [(size, channels_last)]
    return [(size[4 * m : 4 * m + 4], layout) for m, layout in enumerate(channels_last)]


def fake_linear(op: Linear) -> Callable[..., Any]:
    """The result of gather or scatter without its data."""

    def gather(source: Any, argmax: Tensor, *rest: Any) -> Tensor:
        sources, rows = (source, Rows(*rest[:-1])) if op.of_maps else ([source], Rows(rest[0]))
        first = _check_maps(op.name, "sources" if op.of_maps else "source", sources, op.of_maps)
        _check_linear(op.name, argmax, rows, first, sources[0])
        if argmax.dim() == 4:
            return empty_map(sources[0], argmax.shape, is_channels_last(argmax), sources[0].dtype)
        return sources[0].new_empty(argmax.shape)

    def scatter(grad_output: Tensor, argmax: Tensor, *rest: Any) -> Any:
        *rows, _, size, channels_last = rest
        _check_dtype(op.name, "grad_output", grad_output)
        if op.of_maps and (not channels_last or len(size) != 4 * len(channels_last)):
            raise ValueError(
                f"spp_ext.{op.name}: expected input_sizes of 4 numbers, N, C, H and W, for each of at least one map"
            )
        if not op.of_maps and len(size) != 4:
            raise ValueError(f"spp_ext.{op.name}: expected input_size of 4 numbers, N, C, H and W")
        _check_linear(op.name, argmax, Rows(*rows), "grad_output", grad_output)
        grads = [
            empty_map(grad_output, *shape, grad_output.dtype) for shape in shapes_from(op.of_maps, size, channels_last)
        ]
        return grads if op.of_maps else grads[0]

    return gather if op.is_gather else scatter
