"""What torch is told about the registered ops beside their kernels: results without data, and derivatives.

With these ``torch.ops.spp_ext.*`` may be called directly, as an exported or compiled program does: shapes and strides
are known without running a kernel, and a derivative is right or an error, never silently zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spp_ext import autograd
from spp_ext._library import load_error

_NAMESPACE = "spp_ext"
_library = torch.library.Library(_NAMESPACE, "FRAGMENT")  # lives as long as the process


# ---- results without data ----


def _check_map(op: str, name: str, map: Tensor) -> None:
    if map.dim() != 4:
        raise ValueError(f"spp_ext.{op}: expected {name} of shape [N, C, H, W], got {list(map.shape)}")


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


# ---- poolings: what each knows of its result ----


class _Pyramids:
    """Whole maps and regions: ``op(input, [rois], levels, ...)``, to ``[N or K, C * B]``."""

    def __init__(self, name: str, has_rois: bool) -> None:
        self.name = name
        self.has_rois = has_rois

    def level_bins(self, input: Tensor, levels: Sequence[int], *_: Any) -> list[Any]:
        return level_bins(levels)

    def empty(self, input: Tensor, rois: Tensor | None, level_bins: Sequence[Any], dtype: torch.dtype) -> Tensor:
        rows = (input if rois is None else rois).shape[0]
        return input.new_empty((rows, input.shape[1] * sum(level_bins)), dtype=dtype)


class _Kernels:
    """Pools of several sizes around every cell: ``op(input, kernel_sizes, ...)``, to ``[N, L * C, H, W]``."""

    name = "multi_kernel_max_pool2d"
    has_rois = False

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


def _register(name: str, fake: Callable[..., Any], differentiable: Callable[..., Any]) -> None:
    op = getattr(getattr(torch.ops, _NAMESPACE), name).default
    torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_library)

    # Not torch.library.register_autograd: its kernel drops tangents silently.
    def kernel(keyset: torch._C.DispatchKeySet, *arguments: Any) -> Any:
        tensor = arguments[0]
        if (tensor.requires_grad and torch.is_grad_enabled()) or _has_tangent(tensor):
            return differentiable(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    _library.impl(name, kernel, "Autograd", with_keyset=True)
    # A torch.func transform takes an op apart level by level and would reach the kernel above in the middle of that,
    # where a Function cannot be told of it. Here, before the first level, it can.
    _library.impl(name, differentiable, "FuncTorchDynamicLayerFrontMode")


def _register_pooling(kind: _Pyramids | _Kernels, with_argmax: bool) -> None:
    def split(rest: tuple[Any, ...]) -> tuple[Tensor | None, tuple[Any, ...]]:
        return (rest[0], rest[1:]) if kind.has_rois else (None, rest)

    def fake(input: Tensor, *rest: Any) -> Any:
        rois, arguments = split(rest)
        _check_map(kind.name, "input", input)
        if rois is not None:
            _check_rois(kind.name, rois)
        bins = kind.level_bins(input, *arguments)
        output = kind.empty(input, rois, bins, input.dtype)
        return (output, kind.empty(input, rois, bins, torch.int32)) if with_argmax else output

    def differentiable(input: Tensor, *rest: Any) -> Any:
        rois, arguments = split(rest)
        pooled = autograd.Pool.apply(input, rois, kind.name, arguments, kind.level_bins(input, *arguments))
        return pooled if with_argmax else pooled[0]

    _register(kind.name + ("_with_argmax" if with_argmax else ""), fake, differentiable)


if load_error() is None:
    for _kind in (_Pyramids("spatial_pyramid_pool", False), _Pyramids("roi_spatial_pyramid_pool", True), _Kernels()):
        for _with_argmax in (False, True):
            _register_pooling(_kind, _with_argmax)
    _register("gather", _fake_gather, autograd.Gather.apply)
    _register("scatter", _fake_scatter, autograd.Scatter.apply)
