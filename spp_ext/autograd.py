"""Derivatives: one linear pair serves every op.

Every op of this package is an argmax pooling, ``output[e] = input[plane(e), argmax[e]]``, so two functions are enough:
gather reads the cells an argmax names, and scatter, its transpose, adds to them.

    op        jvp                        vjp
    pool      gather(tangent, argmax)    scatter(grad, argmax)
    gather    gather                     scatter
    scatter   scatter                    gather

The table is closed, which is what makes every higher derivative work. Where nobody can ask for a derivative, callers
use the values-only op and no argmax is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.autograd.function import FunctionCtx

from spp_ext._library import ops


def needs_derivative(input: Tensor) -> bool:
    """Whether a derivative of what is computed from ``input`` can be asked for."""
    # A forward-mode level is open while someone differentiates forward; whether `input` carries a tangent is for
    # torch to find out. Skipping the check would drop the tangent silently.
    return (torch.is_grad_enabled() and input.requires_grad) or forward_ad._current_level >= 0


def is_channels_last(input: Tensor) -> bool:
    """Whether the kernels read ``input`` as channels_last, in which case its gradient is channels_last too."""
    return not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)


class _Pool(Function):
    """``run(input) -> (output, argmax)`` with the derivatives of an argmax pooling."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,  # [N, C, H, W]
        rois: Tensor | None,  # [K, 5], or None when row n of the output belongs to image n
        level_bins: Sequence[int],
        run: Callable[[Tensor], tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, Tensor]:
        output, argmax = run(input)
        ctx.save_for_backward(argmax, rois)
        ctx.save_for_forward(argmax, rois)
        ctx.mark_non_differentiable(argmax)
        ctx.set_materialize_grads(False)
        ctx.level_bins = level_bins
        ctx.input_size = input.shape
        ctx.channels_last = is_channels_last(input)
        return output, argmax

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return None, None, None, None
        argmax, rois = ctx.saved_tensors
        grad = scatter(grad_output, argmax, rois, ctx.level_bins, ctx.input_size, ctx.channels_last)
        return grad, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *_: Any) -> tuple[Tensor | None, None]:
        if tangent is None:
            return None, None
        argmax, rois = ctx.saved_tensors
        return gather(tangent, argmax, rois, ctx.level_bins), None


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, argmax: Tensor, rois: Tensor | None, level_bins: Sequence[int]) -> Tensor:
        _save(ctx, argmax, rois, level_bins)
        ctx.input_size = source.shape
        ctx.channels_last = is_channels_last(source)
        return ops.gather(source, argmax, rois, level_bins)

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
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        argmax, rois = ctx.saved_tensors
        return gather(tangent, argmax, rois, ctx.level_bins)


class _Scatter(Function):
    @staticmethod
    def forward(
        ctx: Any,
        grad_output: Tensor,
        argmax: Tensor,
        rois: Tensor | None,
        level_bins: Sequence[int],
        input_size: Sequence[int],
        channels_last: bool,
    ) -> Tensor:
        _save(ctx, argmax, rois, level_bins)
        ctx.input_size = input_size
        ctx.channels_last = channels_last
        return ops.scatter(grad_output, argmax, rois, level_bins, input_size, channels_last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        argmax, rois = ctx.saved_tensors
        return gather(grad, argmax, rois, ctx.level_bins), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        argmax, rois = ctx.saved_tensors
        return scatter(tangent, argmax, rois, ctx.level_bins, ctx.input_size, ctx.channels_last)


def _save(ctx: FunctionCtx, argmax: Tensor, rois: Tensor | None, level_bins: Sequence[int]) -> None:
    ctx.save_for_backward(argmax, rois)
    ctx.save_for_forward(argmax, rois)
    ctx.level_bins = level_bins  # type: ignore[attr-defined]


def pool(
    input: Tensor,
    rois: Tensor | None,
    level_bins: Sequence[int],
    run: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """``run(input)``, which returns pooled values and their int32 argmax, made differentiable in ``input``."""
    return _Pool.apply(input, rois, level_bins, run)


def gather(source: Tensor, argmax: Tensor, rois: Tensor | None, level_bins: Sequence[int]) -> Tensor:
    """Reads from ``source [N, C, H, W]`` the cell each element of ``argmax [R, C * B]`` names; 0 where it is -1."""
    if needs_derivative(source):
        return _Gather.apply(source, argmax, rois, level_bins)
    return ops.gather(source, argmax, rois, level_bins)


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
    if needs_derivative(grad_output):
        return _Scatter.apply(grad_output, argmax, rois, level_bins, input_size, channels_last)
    return ops.scatter(grad_output, argmax, rois, level_bins, input_size, channels_last)
