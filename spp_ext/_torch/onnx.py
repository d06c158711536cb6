"""How poolings are written in ONNX; `spp_ext.onnx` says how to use it and what cannot be expressed.

`written` is asked while a model is exported; what it leaves to the registered ops, `translations` translate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spp_ext._boxes import CONVENTIONS, TORCHVISION, widened
from spp_ext._torch.captures import is_traced
from spp_ext._torch.compositions import pyramid, stride1_pools
from spp_ext._torch.op_table import MAPS, NAMESPACE, POOLINGS, REGIONS, REGIONS_OF_MAPS, STRIDE1, Pooling, Request
from spp_ext.levels import Grid, decode_levels

# Beyond this a float32 no longer holds every cell boundary.
_FARTHEST = float(2**23)

# Whether somebody has asked for `translations`, without which nobody can have given them to an export.
_has_translations = False


def written(
    maps: Sequence[Tensor], rows: tuple[Tensor | None, Tensor | None], request: Request, with_argmax: bool
) -> Tensor | None:
    """The values of a pooling by ops that torch's exporters know; None where only `translations` can write it."""
    op, arguments, _ = request
    if op is MAPS and not with_argmax:
        return pyramid(maps[0], decode_levels("spp_ext.onnx", arguments[0]))
    if op is STRIDE1:
        return torch.cat(stride1_pools(maps[0], *arguments), 1)
    if op is REGIONS and arguments[2] == TORCHVISION:
        output_size, scale, *_ = arguments
        assert rows[0] is not None
        return _max_roi_pool(maps[0], widened(rows[0]), output_size, scale)
    if with_argmax:
        _refuse_indices(op)()
    check_translated(op)
    return None


def check_translated(op: Pooling) -> None:
    """Raises NotImplementedError where an export that has come to a registered op will not get beyond it."""
    if op.of_maps:
        _refuse_several_maps()
    if is_traced() or not _has_translations:
        raise NotImplementedError(
            f"spp_ext.{op.spoken}: expected torch.onnx.export(..., dynamo=True, "
            "custom_translation_table=spp_ext.onnx.translations()), got an export without the table"
        )


def _max_roi_pool(input: Tensor, rois: Tensor, output_size: Sequence[int], scale: float) -> Tensor:
    """Torchvision's RoI pooling, ``[K, C * rows * cols]``: one node of ONNX."""
    for name, tensor in (("an input", input), ("boxes", rois)):
        if tensor.dtype != torch.float32:
            raise NotImplementedError(
                f"spp_ext.ops.roi_pool: expected {name} of float32 for ONNX's MaxRoiPool, got {tensor.dtype}"
            )
    if is_traced():
        _register_max_roi_pool()
        op = getattr(torch.ops, NAMESPACE).roi_spatial_pyramid_pool
        return op(input, rois, output_size, scale, TORCHVISION, False)
    pooled = torch.onnx.ops.symbolic(
        "MaxRoiPool",
        (input, rois),
        {"pooled_shape": list(output_size), "spatial_scale": scale},
        dtype=input.dtype,
        shape=(rois.shape[0], input.shape[1], *output_size),
    )
    return pooled.flatten(1)


@functools.cache
def _register_max_roi_pool() -> None:
    """Tells torch's exporter of TorchScript what the registered op is, for torchvision's bin edges."""
    from torch.onnx import symbolic_helper

    @symbolic_helper.parse_args("v", "v", "is", "f", "i", "b")
    def symbolic(graph: Any, input: Any, rois: Any, output_size: Any, scale: float, _: int, __: bool) -> Any:
        pooled = graph.op("MaxRoiPool", input, rois, pooled_shape_i=output_size, spatial_scale_f=scale)
        return graph.op("Flatten", pooled, axis_i=1)

    register = torch.onnx.register_custom_op_symbolic  # type: ignore[attr-defined]
    register(f"{NAMESPACE}::{REGIONS.name}", symbolic, 9)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The ``custom_translation_table`` for ``torch.onnx.export(..., dynamo=True)``; needs onnxscript."""
    global _has_translations
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ImportError(
            "spp_ext.onnx: expected onnxscript to be installed: pip install spp_ext[integration]"
        ) from None
    _has_translations = True
    ops = getattr(torch.ops, NAMESPACE)
    table: dict[Callable[..., Any], Callable[..., Any]] = {}
    for op in POOLINGS:
        table[getattr(ops, op.name).default] = _TRANSLATIONS[op]
        table[getattr(ops, op.with_argmax).default] = _refuse_several_maps if op.of_maps else _refuse_indices(op)
    return table


def _refuse_indices(op: Pooling) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise NotImplementedError(
            f"spp_ext.{op.spoken}: expected no return_indices for ONNX, whose MaxRoiPool has none"
        )

    return refuse


def _refuse_several_maps(*_: Any) -> Any:
    raise NotImplementedError(
        "spp_ext.roi_spatial_pyramid_pool: expected one map for ONNX, whose MaxRoiPool has one, got several"
    )


def _check_input(name: str, input: Any) -> None:
    from onnxscript import ir

    if input.dtype != ir.DataType.FLOAT:
        raise NotImplementedError(
            f"spp_ext.{name}: expected an input of float32 for ONNX's MaxRoiPool, got {input.dtype}"
        )


_TRANSLATED_CONVENTIONS = (*(CONVENTIONS[name] for name in ("roi_pool", "spp_net", "outer")), TORCHVISION)


def _rectangles(encoded: Sequence[int]) -> list[list[tuple[int, ...]]]:
    """Of every level, the bins as (top, left, bottom, right, row divisions, column divisions)."""
    levels: list[list[tuple[int, ...]]] = []
    for level in decode_levels("spp_ext.onnx", encoded):
        if isinstance(level, Grid):
            rows, cols = level
            levels.append([(y, x, y + 1, x + 1, rows, cols) for y in range(rows) for x in range(cols)])
        else:
            levels.append([(*rectangle, *level.divisions) for rectangle in level.rectangles])
    return levels


def _ints(op: Any, *values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _size(op: Any, tensor: Any, dim: int) -> Any:
    return op.Shape(tensor, start=dim, end=dim + 1)


def _flatten(op: Any, pooled: Any, rows: Any, columns: Any) -> Any:
    # Reshape's -1 cannot be told where there are no rows.
    return op.Reshape(pooled, op.Concat(rows, columns, axis=0), allowzero=1)


def _pool_windows(op: Any, input: Any, image: Any, windows: Sequence[Any], encoded: Sequence[int]) -> Any:
    """Pools windows of ``input``: ``image [K, 1]`` float32 and ``windows``, int64 ``y0, y1, x0, x1 [K, 1]``."""
    y0, y1, x0, x1 = windows
    levels = _rectangles(encoded)
    columns = zip(*(rectangle for level in levels for rectangle in level), strict=True)
    top, left, bottom, right, rows, cols = (op.Unsqueeze(_ints(op, *column), _ints(op, 0)) for column in columns)
    one = _ints(op, 1)

    def first(begin: Any, length: Any, edge: Any, divisions: Any) -> Any:
        return op.Add(begin, op.Div(op.Mul(edge, length), divisions))

    def last(begin: Any, length: Any, edge: Any, divisions: Any) -> Any:
        end = op.Div(op.Sub(op.Add(op.Mul(edge, length), divisions), one), divisions)
        return op.Sub(op.Add(begin, end), one)

    height, width = op.Sub(y1, y0), op.Sub(x1, x0)
    corners = [
        first(x0, width, left, cols),
        first(y0, height, top, rows),
        last(x0, width, right, cols),
        last(y0, height, bottom, rows),
    ]  # each [K, B]
    corners = [op.Cast(corner, to=1) for corner in corners]
    image = op.Expand(image, op.Shape(corners[0]))
    boxes = op.Concat(*(op.Unsqueeze(part, _ints(op, 2)) for part in (image, *corners)), axis=2)  # [K, B, 5]
    boxes = op.Reshape(boxes, _ints(op, -1, 5))
    pooled = op.MaxRoiPool(input, boxes, pooled_shape=[1, 1], spatial_scale=1.0)  # [K * B, C, 1, 1]
    bins, channels = sum(map(len, levels)), _size(op, input, 1)
    regions = _size(op, image, 0)
    by_bin = op.Reshape(pooled, op.Concat(regions, _ints(op, bins), channels, axis=0), allowzero=1)
    by_channel = op.Transpose(by_bin, perm=[0, 2, 1])  # [K, C, B]
    flat, begin = [], 0
    for level in levels:
        end = begin + len(level)
        part = op.Slice(by_channel, _ints(op, begin), _ints(op, end), _ints(op, 2))
        flat.append(_flatten(op, part, regions, op.Mul(channels, _ints(op, len(level)))))
        begin = end
    return flat[0] if len(flat) == 1 else op.Concat(*flat, axis=1)


def _spatial_pyramid_pool(input: Any, levels: Sequence[int]) -> Any:
    from onnxscript import opset18 as op

    _check_input("spatial_pyramid_pool", input)
    zero, batch = op.Constant(value_int=0), op.Squeeze(_size(op, input, 0))
    image = op.Unsqueeze(op.Cast(op.Range(zero, batch, op.Constant(value_int=1)), to=1), _ints(op, 1))  # [N, 1]
    window = (_ints(op, 0), _size(op, input, 2), _ints(op, 0), _size(op, input, 3))
    shape = op.Shape(image)
    return _pool_windows(op, input, image, [op.Expand(end, shape) for end in window], levels)


def _roi_spatial_pyramid_pool(
    input: Any, rois: Any, levels: Sequence[int], spatial_scale: float, convention: int, validate: bool
) -> Any:
    if convention not in _TRANSLATED_CONVENTIONS:
        raise NotImplementedError(
            f"spp_ext.roi_spatial_pyramid_pool: expected a convention that ONNX can express, got number {convention}"
        )
    from onnxscript import ir
    from onnxscript import opset18 as op

    _check_input("roi_spatial_pyramid_pool", input)
    dtype = ir.DataType.DOUBLE if rois.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    rois = op.Cast(rois, to=dtype)  # [K, 5]

    if convention == TORCHVISION:  # MaxRoiPool's own arithmetic, in float32
        if dtype != ir.DataType.FLOAT:
            raise NotImplementedError(
                "spp_ext.ops.roi_pool: expected boxes of float32 for ONNX's MaxRoiPool, got float64"
            )
        pooled = op.MaxRoiPool(input, rois, pooled_shape=list(levels), spatial_scale=spatial_scale)
        return _flatten(op, pooled, _size(op, rois, 0), op.Mul(_size(op, input, 1), _ints(op, levels[0] * levels[1])))

    def number(value: float) -> Any:
        return op.Cast(op.Constant(value_float=value), to=dtype)

    # A double is not among the constants of the opset's short forms, and a float of it would be another scale.
    scale = op.Constant(value=ir.tensor([spatial_scale], dtype=dtype))

    def column(i: int) -> Any:
        return op.Slice(rois, _ints(op, i), _ints(op, i + 1), _ints(op, 1))

    def whole(cells: Any) -> Any:
        return op.Cast(op.Clip(cells, number(-_FARTHEST), number(_FARTHEST)), to=7)

    one = _ints(op, 1)
    floor = op.Floor

    def half_away(x: Any) -> Any:
        size = op.Abs(x)
        up = op.Cast(op.GreaterOrEqual(op.Sub(size, floor(size)), number(0.5)), to=dtype)
        return op.Mul(op.Sign(x), op.Add(floor(size), up))

    def span(begin: Any, end: Any, extent: Any) -> tuple[Any, Any]:
        begin, end = op.Mul(begin, scale), op.Mul(end, scale)
        if convention == CONVENTIONS["roi_pool"]:
            begin, end = whole(half_away(begin)), op.Add(whole(half_away(end)), one)
            return begin, op.Max(end, op.Add(begin, one))
        begin, end = whole(floor(begin)), whole(op.Ceil(end))
        if convention == CONVENTIONS["outer"]:
            return begin, op.Max(end, op.Add(begin, one))
        left, right = op.Add(begin, one), op.Sub(end, one)  # the paper's, from 1, both inside
        # An integer division would round toward zero.
        middle = op.Cast(
            floor(op.Mul(op.Cast(op.Add(left, right), to=11), op.Cast(op.Constant(value_float=0.5), to=11))), to=7
        )
        crossed = op.Greater(left, right)
        left, right = op.Where(crossed, middle, left), op.Where(crossed, middle, right)
        left, right = (op.Min(op.Max(side, one), extent) for side in (left, right))
        return op.Sub(left, one), right

    x0, x1 = span(column(1), column(3), _size(op, input, 3))
    y0, y1 = span(column(2), column(4), _size(op, input, 2))
    # Truncated, as everywhere: MaxRoiPool rounds nothing here.
    image = op.Cast(op.Cast(column(0), to=7), to=1)
    return _pool_windows(op, input, image, (y0, y1, x0, x1), levels)


def _multi_kernel_max_pool2d(input: Any, kernel_sizes: Sequence[int], cascade: bool) -> Any:
    from onnxscript import opset18 as op

    _check_input("ops.multi_kernel_max_pool2d", input)
    pools = [op.MaxPool(input, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[1, 1])[0] for k in kernel_sizes]
    return op.Concat(input, *pools, axis=1)


_TRANSLATIONS: dict[Pooling, Callable[..., Any]] = {
    MAPS: _spatial_pyramid_pool,
    REGIONS: _roi_spatial_pyramid_pool,
    REGIONS_OF_MAPS: _refuse_several_maps,
    STRIDE1: _multi_kernel_max_pool2d,
}
