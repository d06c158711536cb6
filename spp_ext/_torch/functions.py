"""Derivatives: autograd Functions for pooling, and for the linear pair that serves every derivative.

Every op of this package is an argmax pooling, ``output[e] = input[plane(e), argmax[e]]``, so two functions are enough:
gather reads the cells an argmax names, and scatter, its transpose, adds to them.

    op        jvp                        vjp
    pool      gather(tangent, argmax)    scatter(grad, argmax)
    gather    gather                     scatter
    scatter   scatter                    gather

The table is closed, which is what makes every higher derivative work. Maps come last everywhere, because torch sees a
tensor only where it is an argument of its own; boxes and map indices, which have no derivative, travel together, in a
`Rows` where torch.func may have to look into it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from spp_ext._torch.batching import fold, fold_maps, fold_rows, slices_of, unfold
from spp_ext._torch.captures import is_compiling
from spp_ext._torch.kernels import call_pooling, kernels
from spp_ext._torch.layouts import is_channels_last
from spp_ext._torch.op_table import NAMESPACE, Request, Rows, Shapes
from spp_ext._torch.private import forward_level, transforms_are_open


def _needs_function(tensors: Sequence[Tensor]) -> bool:
    """Whether someone may differentiate, or batches, what is computed from ``tensors``."""
    if transforms_are_open() or forward_level() >= 0:
        return True
    for tensor in tensors:  # noqa: SIM110 - any() costs as much as the rest of this function
        if tensor.requires_grad:
            return torch.is_grad_enabled()
    return False


def _shapes_of(maps: Sequence[Tensor]) -> Shapes:
    return [(map.shape, is_channels_last(map)) for map in maps]


def _with_zeros(tangents: Sequence[Tensor | None], shapes: Shapes) -> list[Tensor] | None:
    """Zeros for the maps that have no tangent; None if none has."""
    given = next((tangent for tangent in tangents if tangent is not None), None)
    if given is None:
        return None
    pairs = zip(tangents, shapes, strict=True)
    return [given.new_zeros(size) if tangent is None else tangent for tangent, (size, _) in pairs]


# ---- the linear pair ----

# It has no lean Function for eager mode, as `pool` has: only second derivatives would need one.


def gather(argmax: Tensor, rows: Sequence[Tensor | None], level_bins: Sequence[int], *sources: Tensor) -> Tensor:
    """Reads from the maps the cell that each element of ``argmax [R, C * B]`` names; 0 where it is -1."""
    if is_compiling():  # compiled autograd: the registered ops have derivatives of their own
        return _gather_by(getattr(torch.ops, NAMESPACE), argmax, rows, level_bins, *sources)
    if _needs_function(sources):
        return Gather.apply(argmax, Rows(*rows), level_bins, *sources)
    return Gather.forward(argmax, rows, level_bins, *sources)


def scatter(
    grad_output: Tensor, argmax: Tensor, rows: Sequence[Tensor | None], level_bins: Sequence[int], shapes: Shapes
) -> tuple[Tensor, ...]:
    """Adds each element of ``grad_output [R, C * B]`` to the cell its argmax names, in zeros of the shape of each map.

    Sums are taken in float32 (float64 for float64) and in a fixed order, and rounded once.
    """
    if is_compiling():
        return _scatter_by(getattr(torch.ops, NAMESPACE), grad_output, argmax, rows, level_bins, shapes)
    if _needs_function((grad_output,)):
        return Scatter.apply(grad_output, argmax, Rows(*rows), level_bins, shapes)
    return Scatter.forward(grad_output, argmax, rows, level_bins, shapes)


def _gather_by(
    ops: Any, argmax: Tensor, rows: Sequence[Tensor | None], level_bins: Sequence[int], *sources: Tensor
) -> Tensor:
    rois, map_indices = rows
    if map_indices is None:
        return ops.gather(sources[0], argmax, rois, level_bins)
    return ops.gather_of_maps(list(sources), argmax, rois, map_indices, level_bins)


def _scatter_by(
    ops: Any,
    grad_output: Tensor,
    argmax: Tensor,
    rows: Sequence[Tensor | None],
    level_bins: Sequence[int],
    shapes: Shapes,
) -> tuple[Tensor, ...]:
    rois, map_indices = rows
    if map_indices is None:
        return (ops.scatter(grad_output, argmax, rois, level_bins, *shapes[0]),)
    sizes, layouts = zip(*shapes, strict=True)
    numbers = list(itertools.chain.from_iterable(sizes))
    return tuple(ops.scatter_of_maps(grad_output, argmax, rois, map_indices, level_bins, numbers, list(layouts)))


# ---- what torch sees ----


class Pool(Function):
    """``apply(rows, request, *maps) -> (output, argmax)``."""

    @staticmethod
    def forward(rows: Rows, request: Request, *maps: Tensor) -> tuple[Tensor, Tensor]:
        output, argmax = call_pooling(kernels, request, maps, rows, with_argmax=True)
        assert argmax is not None
        return output, argmax

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        prepare_backward(ctx, inputs, output[1])
        ctx.save_for_forward(output[1], *inputs[0])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return (None,) * (2 + len(ctx.shapes))
        argmax, *rows = ctx.saved_tensors
        return None, None, *scatter(grad_output, argmax, rows, ctx.level_bins, ctx.shapes)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, rows: Rows, request: Request, *maps: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
        batch = info.batch_size
        folded, images = fold_maps(maps, in_dims[2:], batch, rows)
        pooled = Pool.apply(fold_rows(rows, in_dims[0], batch, images), request, *folded)
        of_sample = slices_of(maps[0], in_dims[2]) if rows.rois is None else slices_of(rows.rois, in_dims[0].rois)
        return tuple(unfold(part, batch, of_sample) for part in pooled), (0, 0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, None]:
        sources = _with_zeros(tangents[2:], ctx.shapes)
        if sources is None:
            return None, None
        argmax, *rows = ctx.saved_tensors
        return gather(argmax, rows, ctx.level_bins, *sources), None


def prepare_backward(ctx: Any, inputs: tuple[Any, ...], argmax: Tensor | None) -> None:
    """Keeps for `Pool.backward` what it needs: the argmax, the rows, and of the maps only their shapes."""
    rows, request, *maps = inputs
    ctx.save_for_backward(argmax, *rows)
    ctx.mark_non_differentiable(argmax)
    ctx.set_materialize_grads(False)
    ctx.level_bins, ctx.shapes = request.level_bins, _shapes_of(maps)


class EagerPool(Function):
    """`Pool` with one ``forward(ctx, ...)``, which costs a third of the other; unknown to torch.func."""

    @staticmethod
    def forward(ctx: Any, rows: Any, request: Request, *maps: Tensor) -> tuple[Tensor, Tensor | None]:
        pooled = call_pooling(kernels, request, maps, rows, True)
        prepare_backward(ctx, (rows, request, *maps), pooled[1])
        return pooled

    backward = Pool.backward


def _prepare_linear(ctx: Any, argmax: Tensor, rows: Rows, level_bins: Sequence[int], shapes: Shapes) -> None:
    ctx.save_for_backward(argmax, *rows)
    ctx.save_for_forward(argmax, *rows)
    ctx.level_bins, ctx.shapes = level_bins, shapes


class Gather(Function):
    """`gather`, differentiable everywhere."""

    @staticmethod
    def forward(argmax: Tensor, rows: Sequence[Tensor | None], level_bins: Sequence[int], *sources: Tensor) -> Tensor:
        return _gather_by(kernels, argmax, rows, level_bins, *sources)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        argmax, rows, level_bins, *sources = inputs
        _prepare_linear(ctx, argmax, rows, level_bins, _shapes_of(sources))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        argmax, *rows = ctx.saved_tensors
        return None, None, None, *scatter(grad, argmax, rows, ctx.level_bins, ctx.shapes)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, argmax: Tensor, rows: Rows, level_bins: Sequence[int], *sources: Tensor
    ) -> tuple[Tensor, int]:
        batch = info.batch_size
        folded, images = fold_maps(sources, in_dims[3:], batch, rows)
        rows = fold_rows(rows, in_dims[1], batch, images)
        gathered = gather(fold(argmax, in_dims[0], batch), rows, level_bins, *folded)
        return unfold(gathered, batch, slices_of(argmax, in_dims[0])), 0

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
        sources = _with_zeros(tangents[3:], ctx.shapes)
        if sources is None:
            return None
        argmax, *rows = ctx.saved_tensors
        return gather(argmax, rows, ctx.level_bins, *sources)


class Scatter(Function):
    """`scatter`, differentiable everywhere."""

    @staticmethod
    def forward(
        grad_output: Tensor, argmax: Tensor, rows: Sequence[Tensor | None], level_bins: Sequence[int], shapes: Shapes
    ) -> tuple[Tensor, ...]:
        return _scatter_by(kernels, grad_output, argmax, rows, level_bins, shapes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _prepare_linear(ctx, *inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        argmax, *rows = ctx.saved_tensors
        return gather(argmax, rows, ctx.level_bins, *grads), None, None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        grad_output: Tensor,
        argmax: Tensor,
        rows: Rows,
        level_bins: Sequence[int],
        shapes: Shapes,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        batch, images = info.batch_size, shapes[0][0][0]
        grad_output, argmax = fold(grad_output, in_dims[0], batch), fold(argmax, in_dims[1], batch)
        rows = fold_rows(rows, in_dims[2], batch, images)
        folded = [((batch * images, *plane), channels_last) for (_, *plane), channels_last in shapes]
        grads = scatter(grad_output, argmax, rows, level_bins, folded)
        return tuple(unfold(grad, batch, images) for grad in grads), (0,) * len(grads)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> tuple[Tensor, ...]:
        argmax, *rows = ctx.saved_tensors
        return scatter(tangent, argmax, rows, ctx.level_bins, ctx.shapes)
