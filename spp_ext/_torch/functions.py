"""Derivatives: one linear pair serves every op, and one function per op chooses how torch is told about it.

Every op of this package is an argmax pooling, ``output[e] = input[plane(e), argmax[e]]``, so two functions are enough:
gather reads the cells an argmax names, and scatter, its transpose, adds to them.

    op        jvp                        vjp
    pool      gather(tangent, argmax)    scatter(grad, argmax)
    gather    gather                     scatter
    scatter   scatter                    gather

The table is closed, which is what makes every higher derivative work. Regions of several maps differ in that a row's
cells are those of the map that ``map_indices`` names: gather reads from all maps, scatter gives a gradient for each. So
maps come as a sequence here, of one map where there is no ``map_indices``; and last, because torch sees a tensor only
where it is an argument of its own. How torch is told of it depends on the caller:

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

from spp_ext._torch.library import ops

_transforming = torch._C._are_functorch_transforms_active
_is_compiling, _is_exporting = torch.compiler.is_dynamo_compiling, torch.compiler.is_exporting


def _run(
    ops: Any,
    op: str,
    arguments: tuple[Any, ...],
    input: Tensor | Sequence[Tensor],
    rois: Tensor | None,
    map_indices: Tensor | None,
    with_argmax: bool,
) -> tuple[Tensor, Tensor | None]:
    """Calls a pooling op with or without its argmax, of the kernels or of the registered ops."""
    function = getattr(ops, op + "_with_argmax" if with_argmax else op)
    if rois is None:
        result = function(input, *arguments)
    elif map_indices is None:
        result = function(input, rois, *arguments)
    else:
        result = function(list(input), rois, map_indices, *arguments)
    return result if with_argmax else (result, None)


# Of each map that a gradient is for, [N, C, H, W] and whether it is channels_last.
Shapes = Sequence[tuple[Sequence[int], bool]]


def _shapes_of(maps: Sequence[Tensor]) -> Shapes:
    return [(map.shape, is_channels_last(map)) for map in maps]


def is_channels_last(input: Tensor) -> bool:
    """Whether the kernels read ``input`` as channels_last, in which case its gradient is channels_last too."""
    return not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)


def dtensor_rules(input: Tensor) -> ModuleType | None:
    """`spp_ext.distributed` if ``input`` is a DTensor. Whoever has one has imported its module, which takes long."""
    module = sys.modules.get("torch.distributed.tensor")
    if module is None or not isinstance(input, module.DTensor):
        return None
    from spp_ext._torch import dtensor as distributed

    return distributed


# ---- the three functions ----


def _needs_gradient(tensors: Sequence[Tensor]) -> bool:
    for tensor in tensors:  # noqa: SIM110 - any() costs as much as the rest of this function
        if tensor.requires_grad:
            return torch.is_grad_enabled()
    return False


def pool(
    input: Tensor | Sequence[Tensor],  # [N, C, H, W], or several that differ in H and W, with map_indices
    rois: Tensor | None,  # [K, 5], or None when row n of the output belongs to image n
    op: str,  # op(input, [rois, [map_indices]], *arguments) -> [rows, C * B], and op_with_argmax -> (that, argmax)
    arguments: tuple[Any, ...],  # of both, after the tensors
    level_bins: Sequence[int],  # bins of each level: how the columns of a row are laid out
    with_argmax: bool,
    map_indices: Tensor | None = None,  # [K], int64
) -> tuple[Tensor, Tensor | None]:
    """Pools, differentiably in ``input``; the argmax is None if neither the caller nor a derivative needs it."""
    if type(input) is not Tensor and (rules := dtensor_rules(input)) is not None and rois is not None:
        rois = rules.beside(rois, input)
    if _is_compiling() or _is_exporting():
        return _run(torch.ops.spp_ext, op, arguments, input, rois, map_indices, with_argmax)
    # A forward-mode level is open while someone differentiates forward; whether `input` carries a tangent is for torch
    # to find out. Skipping the check would drop the tangent silently.
    if _transforming() or forward_ad._current_level >= 0:
        maps = (input,) if map_indices is None else input
        return Pool.apply(rois, map_indices, op, arguments, level_bins, *maps)
    if map_indices is not None:
        if _needs_gradient(input):
            return _EagerPool.apply(rois, map_indices, op, arguments, level_bins, *input)
    elif input.requires_grad and torch.is_grad_enabled():
        return _EagerPool.apply(rois, None, op, arguments, level_bins, input)
    return _run(ops, op, arguments, input, rois, map_indices, with_argmax)


# The linear pair has no eager Functions of its own: only second derivatives would need them.


def gather(
    argmax: Tensor, rois: Tensor | None, map_indices: Tensor | None, level_bins: Sequence[int], *sources: Tensor
) -> Tensor:
    """Reads from the maps the cell each element of ``argmax [R, C * B]`` names; 0 where it is -1."""
    if _transforming() or forward_ad._current_level >= 0 or _needs_gradient(sources):
        return Gather.apply(argmax, rois, map_indices, level_bins, *sources)
    return Gather.forward(argmax, rois, map_indices, level_bins, *sources)


def scatter(
    grad_output: Tensor,
    argmax: Tensor,
    rois: Tensor | None,
    map_indices: Tensor | None,
    level_bins: Sequence[int],
    shapes: Shapes,
) -> tuple[Tensor, ...]:
    """Adds each element of ``grad_output [R, C * B]`` to the cell its argmax names, in zeros of the shape of each map.

    Sums are taken in float32 (float64 for float64) and in a fixed order, and rounded once.
    """
    if _transforming() or forward_ad._current_level >= 0 or (grad_output.requires_grad and torch.is_grad_enabled()):
        return Scatter.apply(grad_output, argmax, rois, map_indices, level_bins, shapes)
    return Scatter.forward(grad_output, argmax, rois, map_indices, level_bins, shapes)


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


def _fold_rows(
    rois: Tensor | None,
    map_indices: Tensor | None,
    dims: Sequence[int | None],
    batch: int,
    images: int | None,
) -> tuple[Tensor | None, Tensor | None]:
    rois = _fold_rois(rois, dims[0], batch, images)
    return rois, None if map_indices is None else _fold(map_indices, dims[1], batch)


def _fold_maps(
    maps: Sequence[Tensor], dims: Sequence[int | None], batch: int, rois: Tensor | None
) -> tuple[Sequence[Tensor], int | None]:
    """The maps of every sample, and the images of one; None where samples have only regions of their own."""
    if rois is not None and all(dim is None for dim in dims):
        return maps, None
    maps = [_fold(map, dim, batch) for map, dim in zip(maps, dims, strict=True)]
    return maps, maps[0].shape[0] // batch


# ---- what torch sees ----


def _filled_in(tangents: Sequence[Tensor | None], shapes: Shapes) -> list[Tensor] | None:
    """Zeros for the maps that have no tangent; None if none has."""
    given = next((tangent for tangent in tangents if tangent is not None), None)
    if given is None:
        return None
    pairs = zip(tangents, shapes, strict=True)
    return [given.new_zeros(size) if tangent is None else tangent for tangent, (size, _) in pairs]


class Pool(Function):
    """``apply(rois, map_indices, op, arguments, level_bins, *maps) -> (output, argmax)``."""

    @staticmethod
    def forward(
        rois: Tensor | None,
        map_indices: Tensor | None,
        op: str,
        arguments: tuple[Any, ...],
        level_bins: Sequence[int],
        *maps: Tensor,
    ) -> tuple[Tensor, Tensor]:
        input = maps[0] if map_indices is None else maps
        return _run(ops, op, arguments, input, rois, map_indices, with_argmax=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        Pool.prepare_backward(ctx, inputs, output[1])
        ctx.save_for_forward(output[1], *inputs[:2])

    @staticmethod
    def prepare_backward(ctx: Any, inputs: tuple[Any, ...], argmax: Tensor) -> None:
        rois, map_indices, _, _, ctx.level_bins, *maps = inputs
        ctx.save_for_backward(argmax, rois, map_indices)
        ctx.mark_non_differentiable(argmax)
        ctx.set_materialize_grads(False)
        ctx.shapes = _shapes_of(maps)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return (None,) * (5 + len(ctx.shapes))
        grads = scatter(grad_output, *ctx.saved_tensors, ctx.level_bins, ctx.shapes)
        return None, None, None, None, None, *grads

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        rois: Tensor | None,
        map_indices: Tensor | None,
        op: str,
        arguments: tuple[Any, ...],
        level_bins: Sequence[int],
        *maps: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
        batch = info.batch_size
        maps, images = _fold_maps(maps, in_dims[5:], batch, rois)
        rois, map_indices = _fold_rows(rois, map_indices, in_dims[:2], batch, images)
        input = maps[0] if map_indices is None else maps
        pooled = pool(input, rois, op, arguments, level_bins, True, map_indices)
        return tuple(_unfold(part, batch) for part in pooled), (0, 0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, None]:
        sources = _filled_in(tangents[5:], ctx.shapes)
        return None if sources is None else gather(*ctx.saved_tensors, ctx.level_bins, *sources), None


class _EagerPool(Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        pooled = Pool.forward(*inputs)
        Pool.prepare_backward(ctx, inputs, pooled[1])
        return pooled

    backward = Pool.backward


class Gather(Function):
    """`gather`, differentiable everywhere."""

    @staticmethod
    def forward(
        argmax: Tensor, rois: Tensor | None, map_indices: Tensor | None, level_bins: Sequence[int], *sources: Tensor
    ) -> Tensor:
        if map_indices is not None:
            return ops.gather_of_maps(list(sources), argmax, rois, map_indices, level_bins)
        return ops.gather(sources[0], argmax, rois, level_bins)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        argmax, rois, map_indices, ctx.level_bins, *sources = inputs
        ctx.save_for_backward(argmax, rois, map_indices)
        ctx.save_for_forward(argmax, rois, map_indices)
        ctx.shapes = _shapes_of(sources)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, *scatter(grad, *ctx.saved_tensors, ctx.level_bins, ctx.shapes)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        argmax: Tensor,
        rois: Tensor | None,
        map_indices: Tensor | None,
        level_bins: Sequence[int],
        *sources: Tensor,
    ) -> tuple[Tensor, int]:
        batch = info.batch_size
        sources, images = _fold_maps(sources, in_dims[4:], batch, rois)
        rows = _fold_rows(rois, map_indices, in_dims[1:3], batch, images)
        return _unfold(gather(_fold(argmax, in_dims[0], batch), *rows, level_bins, *sources), batch), 0

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
        sources = _filled_in(tangents[4:], ctx.shapes)
        return None if sources is None else gather(*ctx.saved_tensors, ctx.level_bins, *sources)


class Scatter(Function):
    """`scatter`, differentiable everywhere."""

    @staticmethod
    def forward(
        grad_output: Tensor,
        argmax: Tensor,
        rois: Tensor | None,
        map_indices: Tensor | None,
        level_bins: Sequence[int],
        shapes: Shapes,
    ) -> tuple[Tensor, ...]:
        if map_indices is None:
            return (ops.scatter(grad_output, argmax, rois, level_bins, *shapes[0]),)
        sizes = [number for size, _ in shapes for number in size]
        layouts = [channels_last for _, channels_last in shapes]
        return tuple(ops.scatter_of_maps(grad_output, argmax, rois, map_indices, level_bins, sizes, layouts))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, argmax, rois, map_indices, ctx.level_bins, ctx.shapes = inputs
        ctx.save_for_backward(argmax, rois, map_indices)
        ctx.save_for_forward(argmax, rois, map_indices)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return gather(*ctx.saved_tensors, ctx.level_bins, *grads), None, None, None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        grad_output: Tensor,
        argmax: Tensor,
        rois: Tensor | None,
        map_indices: Tensor | None,
        level_bins: Sequence[int],
        shapes: Shapes,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        batch, images = info.batch_size, shapes[0][0][0]
        grad_output, argmax = _fold(grad_output, in_dims[0], batch), _fold(argmax, in_dims[1], batch)
        rows = _fold_rows(rois, map_indices, in_dims[2:4], batch, images)
        folded = [((batch * images, *plane), channels_last) for (_, *plane), channels_last in shapes]
        grads = scatter(grad_output, argmax, *rows, level_bins, folded)
        return tuple(_unfold(grad, batch) for grad in grads), (0,) * len(grads)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> tuple[Tensor, ...]:
        return scatter(tangent, *ctx.saved_tensors, ctx.level_bins, ctx.shapes)
