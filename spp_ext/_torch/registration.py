"""What torch is told about the registered ops beside their kernels: results without data, and derivatives.

With these ``torch.ops.spp_ext.*`` may be called directly, as an exported or compiled program does: shapes and strides
are known without running a kernel, and a derivative is right or an error, never silently zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spp_ext._torch import functions as autograd
from spp_ext._torch.library import load_error, ops

_NAMESPACE = "spp_ext"
_library = torch.library.Library(_NAMESPACE, "FRAGMENT")  # lives as long as the process


# ---- results without data ----


def _check_map(op: str, name: str, map: Tensor) -> None:
    if map.dim() != 4:
        raise ValueError(f"spp_ext.{op}: expected {name} of shape [N, C, H, W], got {list(map.shape)}")


def _check_maps(op: str, name: str, maps: Sequence[Tensor]) -> None:
    for m, map in enumerate(maps):
        _check_map(op, f"{name}[{m}]", map)
        if map.shape[:2] != maps[0].shape[:2]:
            raise ValueError(
                f"spp_ext.{op}: expected maps of one batch size and number of channels, got {name}[0] of shape "
                f"{list(maps[0].shape)} and {name}[{m}] of shape {list(map.shape)}"
            )
        if map.dtype != maps[0].dtype:
            raise ValueError(
                f"spp_ext.{op}: expected maps of one dtype, got {name}[0] of {maps[0].dtype} and {name}[{m}] of "
                f"{map.dtype}"
            )


def _check_rois(op: str, rois: Tensor) -> None:
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            f"spp_ext.{op}: expected boxes of shape [K, 5] (batch_index, x1, y1, x2, y2), got {list(rois.shape)}"
        )


def _empty_map(like: Tensor, size: Sequence[Any], channels_last: bool, dtype: torch.dtype) -> Tensor:
    """``[N, C, H, W]`` with the strides of the kernels, which do not depend on which sizes are 0 or 1."""
    _, c, h, w = size
    strides = (h * w * c, 1, w * c, c) if channels_last else (c * h * w, h * w, w, 1)
    return like.new_empty_strided(tuple(size), strides, dtype=dtype)


def _fake_gather(source: Tensor, argmax: Tensor, rois: Tensor | None, level_bins: Sequence[int]) -> Tensor:
    _check_map("gather", "source", source)
    if argmax.dim() == 4:
        return _empty_map(source, argmax.shape, autograd.is_channels_last(argmax), source.dtype)
    return source.new_empty(argmax.shape)


def _fake_scatter(
    grad_output: Tensor,
    argmax: Tensor,
    rois: Tensor | None,
    level_bins: Sequence[int],
    input_size: Sequence[Any],
    channels_last: bool,
) -> Tensor:
    return _empty_map(grad_output, input_size, channels_last, grad_output.dtype)


def _fake_gather_of_maps(
    sources: Sequence[Tensor], argmax: Tensor, rois: Tensor, map_indices: Tensor, level_bins: Sequence[int]
) -> Tensor:
    _check_maps("gather_of_maps", "sources", sources)
    return sources[0].new_empty(argmax.shape)


def _fake_scatter_of_maps(
    grad_output: Tensor,
    argmax: Tensor,
    rois: Tensor,
    map_indices: Tensor,
    level_bins: Sequence[int],
    input_sizes: Sequence[Any],
    channels_last: Sequence[bool],
) -> list[Tensor]:
    shapes = _shapes(input_sizes, channels_last)
    return [_empty_map(grad_output, size, layout, grad_output.dtype) for size, layout in shapes]


# ---- poolings: what each knows of its result ----


class _Pyramids:
    """Whole maps and regions: ``op(input, [rois, [map_indices]], levels, ...)``, to ``[N or K, C * B]``."""

    def __init__(self, name: str, rows: int) -> None:
        self.name = name
        self.rows = rows  # how many tensors say what each row of the output is; two if `input` is a list of maps

    def level_bins(self, input: Tensor, levels: Sequence[int], *_: Any) -> list[Any]:
        return level_bins(levels)

    def empty(self, input: Tensor, rois: Tensor | None, level_bins: Sequence[Any], dtype: torch.dtype) -> Tensor:
        rows = (input if rois is None else rois).shape[0]
        return input.new_empty((rows, input.shape[1] * sum(level_bins)), dtype=dtype)


class _Kernels:
    """Pools of several sizes around every cell: ``op(input, kernel_sizes, ...)``, to ``[N, L * C, H, W]``."""

    name = "multi_kernel_max_pool2d"
    rows = 0

    def level_bins(self, input: Tensor, kernel_sizes: Sequence[int], *_: Any) -> list[Any]:
        return [input.shape[2] * input.shape[3]] * (1 + len(kernel_sizes))

    def empty(self, input: Tensor, rois: Tensor | None, level_bins: Sequence[Any], dtype: torch.dtype) -> Tensor:
        n, c, h, w = input.shape
        return _empty_map(input, (n, len(level_bins) * c, h, w), autograd.is_channels_last(input), dtype)


def level_bins(levels: Sequence[int]) -> list[int]:
    """Bins of each level of an encoded pyramid; `levels.encode_levels` has the form."""
    bins: list[int] = []
    at = 0
    while at < len(levels):
        if levels[at] < 0:
            bins.append(-levels[at])
            at += 3 + 4 * -levels[at]
        else:
            bins.append(levels[at] * levels[at + 1])
            at += 2
    return bins


# ---- registration ----


def _has_tangent(tensor: Tensor) -> bool:
    # Not forward_ad._current_level: a compiled graph opens levels that only torch's C++ knows of.
    return torch._VF._unpack_dual(tensor, level=0).tangent is not None


def _needs_derivative(tensor: Tensor) -> bool:
    return (tensor.requires_grad and torch.is_grad_enabled()) or _has_tangent(tensor)


def _register(name: str, fake: Callable[..., Any], differentiable: Callable[..., Any]) -> None:
    op = getattr(getattr(torch.ops, _NAMESPACE), name).default
    torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_library)

    # Not torch.library.register_autograd: its kernel drops tangents silently.
    def kernel(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
        tensors = arguments[:1] if isinstance(arguments[0], Tensor) else arguments[0]
        if any(map(_needs_derivative, tensors)):
            return differentiable(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    _library.impl(name, kernel, "Autograd", with_keyset=True)
    # A torch.func transform takes an op apart level by level and would reach the kernel above in the middle of that,
    # where a Function cannot be told of it. Here, before the first level, it can.
    _library.impl(name, differentiable, "FuncTorchDynamicLayerFrontMode")


def _register_pooling(kind: _Pyramids | _Kernels, with_argmax: bool) -> None:
    def split(input: Any, rest: tuple[Any, ...]) -> tuple[Sequence[Tensor], list[Tensor | None], tuple[Any, ...]]:
        rows = [*rest[: kind.rows], None, None][:2]
        return (input if kind.rows == 2 else [input]), rows, rest[kind.rows :]

    def fake(input: Any, *rest: Any) -> Any:
        maps, (rois, map_indices), arguments = split(input, rest)
        if map_indices is None:
            _check_map(kind.name, "input", input)
        else:
            _check_maps("roi_spatial_pyramid_pool", "input", maps)
        if rois is not None:
            _check_rois("roi_spatial_pyramid_pool", rois)
        bins = kind.level_bins(maps[0], *arguments)
        output = kind.empty(maps[0], rois, bins, maps[0].dtype)
        return (output, kind.empty(maps[0], rois, bins, torch.int32)) if with_argmax else output

    def differentiable(input: Any, *rest: Any) -> Any:
        maps, rows, arguments = split(input, rest)
        pooled = autograd.Pool.apply(*rows, kind.name, arguments, kind.level_bins(maps[0], *arguments), *maps)
        return pooled if with_argmax else pooled[0]

    _register(kind.name + ("_with_argmax" if with_argmax else ""), fake, differentiable)


def _shapes(sizes: Sequence[Any], channels_last: Sequence[bool]) -> autograd.Shapes:
    return [(sizes[4 * m : 4 * m + 4], layout) for m, layout in enumerate(channels_last)]


def _gather(source: Tensor, argmax: Tensor, rois: Tensor | None, level_bins: Sequence[int]) -> Tensor:
    return autograd.Gather.apply(argmax, rois, None, level_bins, source)


def _gather_of_maps(sources: Sequence[Tensor], *rows_and_bins: Any) -> Tensor:
    return autograd.Gather.apply(*rows_and_bins, *sources)


def _scatter(
    grad_output: Tensor, argmax: Tensor, rois: Tensor | None, level_bins: Sequence[int], *shape: Any
) -> Tensor:
    return autograd.Scatter.apply(grad_output, argmax, rois, None, level_bins, [shape])[0]


def _scatter_of_maps(
    grad_output: Tensor,
    argmax: Tensor,
    rois: Tensor,
    map_indices: Tensor,
    level_bins: Sequence[int],
    *sizes_and_layouts: Any,
) -> list[Tensor]:
    shapes = _shapes(*sizes_and_layouts)
    return list(autograd.Scatter.apply(grad_output, argmax, rois, map_indices, level_bins, shapes))


# ---- gradients in batches ----

# The vmap behind is_grads_batched is not that of torch.func: it knows no Function, and runs an op sample by sample
# only if there are no lists of tensors. So each map is read, or added to, by the op for one; no other row has a cell.


def _cells_of(m: int, argmax: Tensor, map_indices: Tensor) -> Tensor:
    return torch.where((map_indices == m).unsqueeze(-1), argmax, -1)


def _gather_map_by_map(
    sources: Sequence[Tensor], argmax: Tensor, rois: Tensor, map_indices: Tensor, level_bins: Sequence[int]
) -> Tensor:
    gathered = ops.gather(sources[0], _cells_of(0, argmax, map_indices), rois, level_bins)
    for m, source in enumerate(sources[1:], 1):
        part = ops.gather(source, _cells_of(m, argmax, map_indices), rois, level_bins)
        gathered = torch.where((map_indices == m).unsqueeze(-1), part, gathered)
    return gathered


def _scatter_map_by_map(
    grad_output: Tensor,
    argmax: Tensor,
    rois: Tensor,
    map_indices: Tensor,
    level_bins: Sequence[int],
    *sizes_and_layouts: Any,
) -> list[Tensor]:
    return [
        ops.scatter(grad_output, _cells_of(m, argmax, map_indices), rois, level_bins, *shape)
        for m, shape in enumerate(_shapes(*sizes_and_layouts))
    ]


def register_map_by_map(library: torch.library.Library) -> None:
    """Registers what runs where gradients come in batches, for the ops of the library's namespace."""
    library.impl("gather_of_maps", _gather_map_by_map, "Batched")
    library.impl("scatter_of_maps", _scatter_map_by_map, "Batched")


if load_error() is None:
    for _kind in (
        _Pyramids("spatial_pyramid_pool", 0),
        _Pyramids("roi_spatial_pyramid_pool", 1),
        _Pyramids("roi_spatial_pyramid_pool_of_maps", 2),
        _Kernels(),
    ):
        for _with_argmax in (False, True):
            _register_pooling(_kind, _with_argmax)
    _register("gather", _fake_gather, _gather)
    _register("scatter", _fake_scatter, _scatter)
    _register("gather_of_maps", _fake_gather_of_maps, _gather_of_maps)
    _register("scatter_of_maps", _fake_scatter_of_maps, _scatter_of_maps)
    register_map_by_map(_library)
