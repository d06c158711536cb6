"""Derivatives: one linear pair serves every op, and one function per op chooses how torch is told about it.

Every op of this package is an argmax pooling, ``output[e] = input[plane(e), argmax[e]]``, so two functions are enough:
gather reads the cells an argmax names, and scatter, its transpose, adds to them.

    op        jvp                        vjp
    pool      gather(tangent, argmax)    scatter(grad, argmax)
    gather    gather                     scatter
    scatter   scatter                    gather

The table is closed, which is what makes every higher derivative work. How torch is told of it depends on the caller:

    torch.compile, torch.export       the registered op, which the graph keeps; `_registrations` gives it what follows
    a torch.func transform, or        a Function with setup_context, vmap and jvp
    a forward-mode level
    eager, a gradient is needed       a Function with one forward(ctx, ...), which costs a third of the other
    eager, no gradient                the values-only kernel: no argmax is computed
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from spp_ext._library import ops

_transforming = torch._C._are_functorch_transforms_active
_is_compiling, _is_exporting = torch.compiler.is_dynamo_compiling, torch.compiler.is_exporting


def _run(
    ops: Any, op: str, arguments: tuple[Any, ...], input: Tensor, rois: Tensor | None, with_argmax: bool
) -> tuple[Tensor, Tensor | None]:
    """Calls a pooling op with or without its argmax, of the kernels or of the registered ops."""
    function = getattr(ops, op + "_with_argmax" if with_argmax else op)
    result = function(input, *arguments) if rois is None else function(input, rois, *arguments)
    return result if with_argmax else (result, None)


def is_channels_last(input: Tensor) -> bool:
    """Whether the kernels read ``input`` as channels_last, in which case its gradient is channels_last too."""
    return not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)


def dtensor_rules(input: Tensor) -> ModuleType | None:
    """`spp_ext.distributed` if ``input`` is a DTensor. Whoever has one has imported its module, which takes long."""
    module = sys.modules.get("torch.distributed.tensor")
    if module is None or not isinstance(input, module.DTensor):
        return None
    from spp_ext import distributed

    return distributed


# ---- the three functions ----


def pool(
    input: Tensor,  # [N, C, H, W]
    rois: Tensor | None,  # [K, 5], or None when row n of the output belongs to image n
    op: str,  # op(input, [rois], *arguments) -> output, and op_with_argmax -> (output, argmax), all [rows, C * B]
    arguments: tuple[Any, ...],  # of both, after the tensors
    level_bins: Sequence[int],  # bins of each level: how the columns of a row are laid out
    with_argmax: bool,
) -> tuple[Tensor, Tensor | None]:
    """Pools, differentiably in ``input``; the argmax is None if neither the caller nor a derivative needs it."""
    if type(input) is not Tensor and (rules := dtensor_rules(input)) is not None and rois is not None:
        rois = rules.beside(rois, input)
    if _is_compiling() or _is_exporting():
        return _run(torch.ops.spp_ext, op, arguments, input, rois, with_argmax)
    # A forward-mode level is open while someone differentiates forward; whether `input` carries a tangent is for torch
    # to find out. Skipping the check would drop the tangent silently.
    if _transforming() or forward_ad._current_level >= 0:
        return Pool.apply(input, rois, op, arguments, level_bins)
    if input.requires_grad and torch.is_grad_enabled():
        return _EagerPool.apply(input, rois, op, arguments, level_bins)
    return _run(ops, op, arguments, input, rois, with_argmax)


def _linear(function: type[Function], kernel: Any, tensor: Tensor, *arguments: Any) -> Tensor:
    # Without an eager Function of its own: only second derivatives would need it.
    if _transforming() or forward_ad._current_level >= 0 or (tensor.requires_grad and torch.is_grad_enabled()):
        return function.apply(tensor, *arguments)
    return kernel(tensor, *arguments)


def gather(source: Tensor, argmax: Tensor, rois: Tensor | None, level_bins: Sequence[int]) -> Tensor:
    """Reads from ``source [N, C, H, W]`` the cell each element of ``argmax [R, C * B]`` names; 0 where it is -1."""
    return _linear(Gather, ops.gather, source, argmax, rois, level_bins)


def scatter(
    grad_output: Tensor,
    argmax: Tensor,
    rois: Tensor | None,
    level_bins: Sequence[int],
    input_size: Sequence[int],
    channels_last: bool,
) -> Tensor:
    """Adds each element of ``grad_output [R, C * B]`` to the cell its argmax names, in ``[N, C, H, W]`` of zeros.

    Sums are taken in float32 (float64 for float64) and in a fixed order, and rounded once.
    """
    arguments = (argmax, rois, level_bins, input_size, channels_last)
    return _linear(Scatter, ops.scatter, grad_output, *arguments)


# ---- batching: vmap's dimension is folded into the images and the rows ----


def _to_front(tensor: Tensor, dim: int | None, batch: int) -> Tensor:
    return tensor.expand(batch, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _fold(tensor: Tensor, dim: int | None, batch: int) -> Tensor:
    """Sample v's slice i becomes slice ``v * slices + i``."""
    return _to_front(tensor, dim, batch).flatten(0, 1)


def _fold_rois(rois: Tensor | None, dim: int | None, batch: int, images: int | None) -> Tensor | None:
    """The regions of every sample. Sample v's image i is image ``v * images + i``, unless they share the images."""
    if rois is None:
        return None
    rois = _to_front(rois, dim, batch)  # [V, K, 5]
    if images is not None:
        # Half precision cannot count past 2,048 images.
        rois = rois.float() if rois.dtype in (torch.float16, torch.bfloat16) else rois
        if batch * images > 2**24 and rois.dtype == torch.float32:
            raise ValueError(f"spp_ext.vmap: expected at most 2^24 images with float32 boxes, got {batch} x {images}")
        index = rois[..., :1].trunc()
        first = torch.arange(batch, device=rois.device)[:, None, None] * images
        # An index that is out of range must not come to mean another sample's image.
        first = torch.where(index < 0, 0, torch.where(index >= images, batch * images, first))
        rois = torch.cat([index + first, rois[..., 1:]], -1)
    return rois.flatten(0, 1)


def _unfold(tensor: Tensor, batch: int) -> Tensor:
    return tensor.unflatten(0, (batch, tensor.shape[0] // batch))


def vmap_pool(
    batch: int,
    dims: Sequence[int | None],
    input: Tensor,
    rois: Tensor | None,
    *forward: Any,
) -> tuple[Tensor, Tensor | None]:
    """`pool` of a batch of samples; ``dims`` says where the batch is in ``input`` and ``rois``, None for nowhere."""
    input_dim, rois_dim = dims
    if rois is None or input_dim is not None:
        images = None if rois is None else _to_front(input, input_dim, batch).shape[1]
        input = _fold(input, input_dim, batch)
    else:
        images = None
    output, argmax = pool(input, _fold_rois(rois, rois_dim, batch, images), *forward)
    return _unfold(output, batch), None if argmax is None else _unfold(argmax, batch)


def vmap_gather(
    batch: int,
    dims: Sequence[int | None],
    source: Tensor,
    argmax: Tensor,
    rois: Tensor | None,
    level_bins: Sequence[int],
) -> Tensor:
    """`gather` of a batch of samples."""
    source_dim, argmax_dim, rois_dim = dims
    images = None
    if rois is None or source_dim is not None:
        source = _fold(source, source_dim, batch)
        images = source.shape[0] // batch
    rois = _fold_rois(rois, rois_dim, batch, images)
    return _unfold(gather(source, _fold(argmax, argmax_dim, batch), rois, level_bins), batch)


def vmap_scatter(
    batch: int,
    dims: Sequence[int | None],
    grad_output: Tensor,
    argmax: Tensor,
    rois: Tensor | None,
    level_bins: Sequence[int],
    input_size: Sequence[int],
    channels_last: bool,
) -> Tensor:
    """`scatter` of a batch of samples."""
    grad_dim, argmax_dim, rois_dim = dims
    images, *plane = input_size
    grad_input = scatter(
        _fold(grad_output, grad_dim, batch),
        _fold(argmax, argmax_dim, batch),
        _fold_rois(rois, rois_dim, batch, images),
        level_bins,
        [batch * images, *plane],
        channels_last,
    )
    return _unfold(grad_input, batch)


# ---- what torch sees ----


class Pool(Function):
    """``apply(input, rois, op, arguments, level_bins) -> (output, argmax)``."""

    @staticmethod
    def forward(
        input: Tensor, rois: Tensor | None, op: str, arguments: tuple[Any, ...], level_bins: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        return _run(ops, op, arguments, input, rois, with_argmax=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        input, rois, _, _, ctx.level_bins = inputs
        ctx.save_for_backward(output[1], rois)
        ctx.save_for_forward(output[1], rois)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.input_size = input.shape
        ctx.channels_last = is_channels_last(input)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return None, None, None, None, None
        argmax, rois = ctx.saved_tensors
        grad = scatter(grad_output, argmax, rois, ctx.level_bins, ctx.input_size, ctx.channels_last)
        return grad, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, input: Tensor, rois: Tensor | None, *forward: Any) -> Any:
        return vmap_pool(info.batch_size, in_dims[:2], input, rois, *forward, True), (0, 0)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *_: Any) -> tuple[Tensor | None, None]:
        if tangent is None:
            return None, None
        argmax, rois = ctx.saved_tensors
        return gather(tangent, argmax, rois, ctx.level_bins), None


class _EagerPool(Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, rois: Tensor | None, op: str, arguments: tuple[Any, ...], level_bins: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        pooled = Pool.forward(input, rois, op, arguments, level_bins)
        Pool.setup_context(ctx, (input, rois, op, arguments, level_bins), pooled)
        return pooled

    backward = Pool.backward


class Gather(Function):
    """`gather`, differentiable everywhere."""

    @staticmethod
    def forward(source: Tensor, argmax: Tensor, rois: Tensor | None, level_bins: Sequence[int]) -> Tensor:
        return ops.gather(source, argmax, rois, level_bins)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        source, argmax, rois, ctx.level_bins = inputs
        ctx.save_for_backward(argmax, rois)
        ctx.save_for_forward(argmax, rois)
        ctx.input_size = source.shape
        ctx.channels_last = is_channels_last(source)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        argmax, rois = ctx.saved_tensors
        return (
            scatter(grad, argmax, rois, ctx.level_bins, ctx.input_size, ctx.channels_last),
            None,
            None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return vmap_gather(info.batch_size, in_dims[:3], *arguments), 0

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        argmax, rois = ctx.saved_tensors
        return gather(tangent, argmax, rois, ctx.level_bins)


class Scatter(Function):
    """`scatter`, differentiable everywhere."""

    @staticmethod
    def forward(
        grad_output: Tensor,
        argmax: Tensor,
        rois: Tensor | None,
        level_bins: Sequence[int],
        input_size: Sequence[int],
        channels_last: bool,
    ) -> Tensor:
        return ops.scatter(grad_output, argmax, rois, level_bins, input_size, channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, argmax, rois, ctx.level_bins, ctx.input_size, ctx.channels_last = inputs
        ctx.save_for_backward(argmax, rois)
        ctx.save_for_forward(argmax, rois)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        argmax, rois = ctx.saved_tensors
        return gather(grad, argmax, rois, ctx.level_bins), None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return vmap_scatter(info.batch_size, in_dims[:3], *arguments), 0

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        argmax, rois = ctx.saved_tensors
        return scatter(tangent, argmax, rois, ctx.level_bins, ctx.input_size, ctx.channels_last)
