"""Results without data: what graphs, fake and meta tensors are told of an op's shapes, strides and dtypes.

What does not fit is refused here too (`checks`), in the kernels' words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spp_ext._torch.captures import to_onnx
from spp_ext._torch.checks import (
    check_dtype,
    check_elements,
    check_gradient,
    check_gradient_sizes,
    check_linear,
    check_maps,
    check_places,
    check_pooling,
)
from spp_ext._torch.layouts import empty_map, is_channels_last
from spp_ext._torch.op_table import Linear, Pooling, Rows, Shapes
from spp_ext._torch.outs import check_pooled_into
from spp_ext.levels import decode_levels


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
        check_pooling(op, maps, rows, arguments)
        input, level_bins = maps[0], bins_of(op, maps, arguments)
        n, c, h, w = input.shape
        blocks, count = len(level_bins), n if rows.rois is None else rows.rois.shape[0]
        if op.of_blocks:
            check_elements(op.spoken, "output channels", [blocks, c])
            check_elements(op.spoken, "an output", [n, blocks * c, h * w])
        else:
            check_elements(op.spoken, "an output", [count, c, sum(level_bins)])

        def empty(dtype: torch.dtype) -> Tensor:
            if op.of_blocks:
                return empty_map(input, (n, blocks * c, h, w), is_channels_last(input), dtype)
            return input.new_empty((count, c * sum(level_bins)), dtype=dtype)

        return (empty(input.dtype), empty(torch.int32)) if with_argmax else empty(input.dtype)

    return fake


def fake_pooling_into(op: Pooling) -> Callable[..., Any]:
    """What a pooling op with ``out`` asks of its arguments and gives back."""
    pooled = fake_pooling(op, False)

    def fake(*inputs: Any, out: Tensor) -> Tensor:
        maps, _, arguments = op.split(inputs)
        check_pooled_into(op, out, pooled(*inputs), bins_of(op, maps, arguments))
        check_places(op.spoken, out)
        return out

    return fake


def shapes_from(of_maps: bool, size: Sequence[Any], channels_last: Any) -> Shapes:
    """The shapes of gradients from the last arguments of a registered scatter."""
    if not of_maps:
        return [(size, channels_last)]
    return [(size[4 * m : 4 * m + 4], layout) for m, layout in enumerate(channels_last)]


def fake_linear(op: Linear) -> Callable[..., Any]:
    """The result of gather or scatter without its data."""

    def gather(source: Any, argmax: Tensor, *rest: Any) -> Tensor:
        *rows, level_bins = rest
        sources = source if op.of_maps else [source]
        first = check_maps(op.name, "sources" if op.of_maps else "source", sources, op.of_maps)
        check_linear(op.name, argmax, Rows(*rows), level_bins, sources[0].shape, first, sources[0])
        if argmax.dim() == 4:
            return empty_map(sources[0], argmax.shape, is_channels_last(argmax), sources[0].dtype)
        return sources[0].new_empty(argmax.shape)

    def scatter(grad_output: Tensor, argmax: Tensor, *rest: Any) -> Any:
        *rows, level_bins, size, channels_last = rest
        check_dtype(op.name, "grad_output", grad_output)
        check_gradient_sizes(op.name, op.of_maps, size, channels_last)
        check_linear(op.name, argmax, Rows(*rows), level_bins, size, "grad_output", grad_output)
        check_gradient(op.name, grad_output, argmax)
        grads = [
            empty_map(grad_output, *shape, grad_output.dtype) for shape in shapes_from(op.of_maps, size, channels_last)
        ]
        return grads if op.of_maps else grads[0]

    return gather if op.is_gather else scatter
