"""What is asked of a tensor that is given as ``out``, where Python is the first to see it.

The kernels ask the same, and also that the memory of ``out`` is its own; csrc/torch/results.h has the sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_or_false

from spp_ext._checks import check_strided, shape_shown
from spp_ext._torch.op_table import Pooling
from spp_ext._torch.private import transforms_are_open, unpack_dual


def check_out(op: str, out: object, like: Tensor, shape: Sequence[Any]) -> Tensor:
    """``out``, a tensor of this shape, and of the dtype and on the device of ``like``; errors begin with ``op``."""
    if not isinstance(out, Tensor):
        raise TypeError(f"{op}: expected out to be a Tensor, got {type(out).__name__}")
    check_strided(op, out)
    if out.dtype != like.dtype:
        raise ValueError(f"{op}: expected out of dtype {like.dtype}, got {out.dtype}")
    if out.device != like.device:
        raise ValueError(f"{op}: expected input and out on one device, got two")
    if out.shape != shape:
        raise ValueError(f"{op}: expected out of shape {shape_shown(shape)}, got {shape_shown(out.shape)}")
    return out


def check_apart(op: str, out: Tensor, name: str, given: Tensor | Sequence[Tensor]) -> None:
    """Raises ValueError if ``out`` lies among tensors of which the kernels see only a copy, where that can be told."""
    tensors = [given] if isinstance(given, Tensor) else given
    if torch.compiler.is_compiling() or any(type(tensor) is not Tensor or tensor.is_meta for tensor in (out, *tensors)):
        return
    begin, end = _bytes_of(out)
    for tensor in tensors:
        first, last = _bytes_of(tensor)
        if max(begin, first) < min(end, last):
            raise ValueError(f"{op}: expected out to share no memory with {name}, got tensors that overlap")


def _bytes_of(tensor: Tensor) -> tuple[int, int]:
    begin = tensor.data_ptr()
    if tensor.numel() == 0:
        return begin, begin
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (steps + 1) * tensor.element_size()


def indices_beside_out(op: str) -> ValueError:
    """The error where indices are asked for beside ``out``."""
    return ValueError(f"{op}: expected out without return_indices, got both")


def check_pooled_into(op: Pooling, out: object, pooled: Tensor, level_bins: Sequence[Any]) -> Tensor:
    """`check_out` against the result of a call without ``out``; one level of bins may also be [rows, C, y, x]."""
    shape: Sequence[Any] = pooled.shape
    if isinstance(out, Tensor):
        if not op.of_blocks and len(level_bins) == 1 and out.dim() == 4:
            bins, y = level_bins[0], out.shape[2]
            if y != 0 and bins % y == 0:
                shape = (pooled.shape[0], pooled.shape[1] // bins, y, bins // y)
        # Sizes that are not known until a program runs are for the kernel to compare.
        if out.dim() == len(shape) and not any([guard_or_false(a != b) for a, b in zip(out.shape, shape, strict=True)]):
            shape = out.shape
    return check_out(f"spp_ext.{op.spoken}", out, pooled, shape)


def refuse_derivatives(op: Pooling, maps: Sequence[Tensor], out: Tensor) -> None:
    """Raises RuntimeError, as torch does, where somebody asks for a derivative of what is written into ``out``."""
    if transforms_are_open():
        _refuse(op, "the transforms of torch.func, but one is open")
    refuse_gradient(op, maps, out)
    if any(unpack_dual(tensor, level=0).tangent is not None for tensor in (*maps, out)):
        _refuse(op, "forward-mode differentiation, but one of the arguments has a tangent")


def refuse_gradient(op: Pooling, maps: Sequence[Tensor], out: Tensor) -> None:
    """The part of `refuse_derivatives` that torch.compile can trace; the copy that it makes refuses the rest."""
    if torch.is_grad_enabled() and any([tensor.requires_grad for tensor in (*maps, out)]):
        _refuse(op, "automatic differentiation, but one of the arguments requires grad")


def _refuse(op: Pooling, reason: str) -> None:
    raise RuntimeError(f"spp_ext.{op.spoken}: out does not support {reason}")
