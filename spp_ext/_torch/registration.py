"""Registers with the dispatcher what the ops need beside their kernels: results without data, and derivatives.

With these ``torch.ops.spp_ext.*`` may be called directly, as an exported or compiled program does: shapes and strides
are known without running a kernel, and a derivative is right or an error, never silently zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spp_ext._torch import flops, library
from spp_ext._torch.checks import check_gradient_sizes, check_pooling
from spp_ext._torch.errors import raise_as_documented
from spp_ext._torch.fakes import bins_of, fake_linear, fake_pooling, fake_pooling_into, shapes_from
from spp_ext._torch.functions import Gather, Pool, Scatter
from spp_ext._torch.kernels import kernels
from spp_ext._torch.op_table import (
    GATHER_OF_MAPS,
    LINEAR,
    NAMESPACE,
    POOLINGS,
    SCATTER_OF_MAPS,
    Linear,
    Pooling,
    Request,
    Rows,
    overload,
)
from spp_ext._torch.outs import check_pooled_into, refuse_derivatives
from spp_ext._torch.private import after_autograd, after_versions, below_autograd, increment_versions, unpack_dual

_registry = torch.library.Library(NAMESPACE, "FRAGMENT")  # lives as long as the process


# ---- derivatives ----


def _differentiable_pooling(op: Pooling, with_argmax: bool) -> Callable[..., Any]:
    def differentiable(*inputs: Any) -> Any:
        maps, rows, arguments = op.split(inputs)
        check_pooling(op, maps, rows, arguments)  # before anything is asked of their shapes
        pooled = Pool.apply(rows, Request(op, arguments, bins_of(op, maps, arguments)), *maps)
        return pooled if with_argmax else pooled[0]

    return differentiable


def _differentiable_linear(op: Linear) -> Callable[..., Any]:
    def gather(source: Any, argmax: Tensor, *rest: Any) -> Tensor:
        *rows, level_bins = rest
        return Gather.apply(argmax, Rows(*rows), level_bins, *(source if op.of_maps else (source,)))

    def scatter(grad_output: Tensor, argmax: Tensor, *rest: Any) -> Any:
        *rows, level_bins, size, channels_last = rest
        check_gradient_sizes(op.name, op.of_maps, size, channels_last)
        shapes = shapes_from(op.of_maps, size, channels_last)
        grads = Scatter.apply(grad_output, argmax, Rows(*rows), level_bins, shapes)
        return list(grads) if op.of_maps else grads[0]

    return gather if op.is_gather else scatter


def _needs_derivative(tensor: Tensor) -> bool:
    return (tensor.requires_grad and torch.is_grad_enabled()) or unpack_dual(tensor, level=0).tangent is not None


def _register(name: str, fake: Callable[..., Any], differentiable: Callable[..., Any]) -> None:
    op = getattr(getattr(torch.ops, NAMESPACE), name).default
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_registry)

    # Not torch.library.register_autograd: its kernel drops tangents silently.
    def kernel(keyset: Any, *arguments: Any) -> Any:
        tensors = arguments[:1] if isinstance(arguments[0], Tensor) else arguments[0]
        if any(map(_needs_derivative, tensors)):
            return differentiable(*arguments)
        try:
            with below_autograd():
                return op.redispatch(keyset & after_autograd, *arguments)
        except RuntimeError as error:
            raise_as_documented(error)

    _registry.impl(name, kernel, "Autograd", with_keyset=True)
    # A torch.func transform takes an op apart level by level and would reach the kernel above in the middle of that,
    # where a Function cannot be told of it. Here, before the first level, it can.
    _registry.impl(name, differentiable, "FuncTorchDynamicLayerFrontMode")


# ---- results in memory that is given ----


def _register_out(op: Pooling) -> None:
    into, values = (overload(getattr(torch.ops, NAMESPACE), name) for name in (op.into, op.name))
    torch.library.register_fake(f"{NAMESPACE}::{op.into}", fake_pooling_into(op), lib=_registry)

    def without_derivative(keyset: Any, *inputs: Any, out: Tensor) -> Tensor:
        refuse_derivatives(op, op.split(inputs)[0], out)
        try:
            with below_autograd():
                return into.redispatch(keyset & after_autograd, *inputs, out=out)
        except RuntimeError as error:
            raise_as_documented(error)

    def counted(keyset: Any, *inputs: Any, out: Tensor) -> Tensor:
        into.redispatch(keyset & after_versions, *inputs, out=out)
        increment_versions((out,))
        return out

    def as_a_copy(*inputs: Any, out: Tensor) -> Tensor:
        pooled = values(*inputs)
        level_bins = bins_of(op, *op.split(inputs)[::2])
        return out.copy_(pooled.view(check_pooled_into(op, out, pooled, level_bins).shape))

    def refused(*inputs: Any, out: Tensor) -> None:
        refuse_derivatives(op, op.split(inputs)[0], out)

    _registry.impl(op.into, without_derivative, "Autograd", with_keyset=True)
    _registry.impl(op.into, counted, "ADInplaceOrView", with_keyset=True)
    # A graph that writes nothing in place, as torch makes of its own ops with out.
    _registry.impl(op.into, as_a_copy, "Functionalize")
    _registry.impl(op.into, refused, "FuncTorchDynamicLayerFrontMode")


# ---- gradients in batches ----

# The vmap behind is_grads_batched is not that of torch.func: it knows no Function, and runs an op sample by sample
# only if the op takes no list of tensors. So the op for one map runs for each map, on an argmax in which the rows of
# all other maps are -1.


def _cells_of(m: int, argmax: Tensor, map_indices: Tensor) -> Tensor:
    return torch.where((map_indices == m).unsqueeze(-1), argmax, -1)


def _gather_map_by_map(sources: Any, argmax: Tensor, rois: Tensor, map_indices: Tensor, level_bins: Any) -> Tensor:
    gathered = kernels.gather(sources[0], _cells_of(0, argmax, map_indices), rois, level_bins)
    for m, source in enumerate(sources[1:], 1):
        part = kernels.gather(source, _cells_of(m, argmax, map_indices), rois, level_bins)
        gathered = torch.where((map_indices == m).unsqueeze(-1), part, gathered)
    return gathered


def _scatter_map_by_map(
    grad_output: Tensor, argmax: Tensor, rois: Tensor, map_indices: Tensor, level_bins: Any, sizes: Any, layouts: Any
) -> list[Tensor]:
    return [
        kernels.scatter(grad_output, _cells_of(m, argmax, map_indices), rois, level_bins, *shape)
        for m, shape in enumerate(shapes_from(True, sizes, layouts))
    ]


def register_map_by_map(registry: torch.library.Library) -> None:
    """Registers what runs where gradients come in batches, for the ops of the registry's namespace."""
    registry.impl(GATHER_OF_MAPS.name, _gather_map_by_map, "Batched")
    registry.impl(SCATTER_OF_MAPS.name, _scatter_map_by_map, "Batched")


if library.load_error() is None:
    for _op in POOLINGS:
        _register(_op.name, fake_pooling(_op, False), _differentiable_pooling(_op, False))
        _register(_op.with_argmax, fake_pooling(_op, True), _differentiable_pooling(_op, True))
        _register_out(_op)
    for _linear in LINEAR:
        _register(_linear.name, fake_linear(_linear), _differentiable_linear(_linear))
    register_map_by_map(_registry)
    flops.register()
