"""The choice of path: a pooling is a kernel, an autograd Function or a registered op, depending on who calls.

    torch.compile, torch.export,      the registered op, which the graph keeps; `registration` gives it its derivatives
    torch.jit.trace
    export to ONNX                    torch's own ops, or nodes of ONNX: `onnx.written`
    torch.fx                          the public function, which its graph calls again: `captures.recorded_call`
    a torch.func transform, or        `functions.Pool`, which they can take apart
    a forward-mode level
    eager, a gradient is needed       `functions.EagerPool`, which is leaner
    eager, no gradient                the values-only kernel: no argmax is computed

The drop-ins differ in one thing. torch.jit.trace has them as the ops of torch that they stand for: those who read
TorchScript, such as OpenVINO and Core ML, know no others, and such a file loads without this package.

A DTensor is prepared by `dtensor` first. With ``out`` there is no derivative, so there are two paths: the kernel, and
in a graph the registered op and a copy, as torch has for its own.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from spp_ext._checks import check_strided
from spp_ext._torch.captures import is_compiling, is_exporting, is_traced, to_onnx
from spp_ext._torch.compositions import stride1_pools
from spp_ext._torch.functions import EagerPool, Pool
from spp_ext._torch.kernels import call_pooling, kernels
from spp_ext._torch.op_table import NAMESPACE, STRIDE1, Request, Rows
from spp_ext._torch.outs import check_pooled_into, refuse_derivatives, refuse_gradient
from spp_ext._torch.private import forward_level, transforms_are_open

# This function is on the way of every call, so what it asks is asked without a Python function where that is possible.
_requires_grad = operator.attrgetter("requires_grad")


def pool(
    maps: tuple[Tensor, ...],  # each [N, C, H, W]; of one N, C and dtype
    rows: tuple[Tensor | None, Tensor | None],  # the fields of Rows; making one takes time, and few paths need it
    request: Request,
    with_argmax: bool,
) -> tuple[Tensor, Tensor | None]:
    """Pools, differentiably in the maps; the argmax is None if neither the caller nor a derivative needs it."""
    plain = len(maps) == 1 and type(maps[0]) is Tensor
    if not plain and (rules := _sharding(maps)) is not None:
        rows, requests = rules.prepare(maps, Rows(*rows), request)
        if len(requests) > 1:
            return _side_by_side([pool(maps, rows, one, with_argmax) for one in requests])
    if is_compiling() or is_traced() or (not plain and is_exporting()):  # torch.export has tensors of its own kind
        return _recorded(maps, rows, request, with_argmax)
    if transforms_are_open() or forward_level() >= 0:
        return Pool.apply(Rows(*rows), request, *maps)
    if (maps[0].requires_grad or (len(maps) > 1 and True in map(_requires_grad, maps))) and torch.is_grad_enabled():
        return EagerPool.apply(rows, request, *maps)
    return call_pooling(kernels, request, maps, rows, with_argmax)


def pool_into(
    out: Tensor,  # of the result's shape, or [rows, C, y, x] where there is one level
    maps: tuple[Tensor, ...],
    rows: tuple[Tensor | None, Tensor | None],
    request: Request,
) -> Tensor:
    """`pool` without argmax or derivative, into ``out``, which it returns."""
    op = request.op
    plain = len(maps) == 1 and type(maps[0]) is Tensor and type(out) is Tensor
    if not plain:
        if not isinstance(out, Tensor):
            raise TypeError(f"spp_ext.{op.spoken}: expected out to be a Tensor, got {type(out).__name__}")
        check_strided(f"spp_ext.{op.spoken}", out)
        if _sharding((*maps, out)) is not None:
            raise NotImplementedError(f"spp_ext.{op.spoken}: expected no DTensor where out is given, got one")
    if is_compiling() or is_traced() or (not plain and is_exporting()):
        refuse_gradient(op, maps, out)
        pooled, _ = _recorded(maps, rows, request, False)
        out.copy_(pooled.view(check_pooled_into(op, out, pooled, request.level_bins).shape))
        return out
    if transforms_are_open() or forward_level() >= 0 or out.requires_grad or maps[0].requires_grad or len(maps) > 1:
        refuse_derivatives(op, maps, out)
    return getattr(kernels, op.into)(*op.join(maps, rows, request.arguments), out=out)


def _recorded(
    maps: tuple[Tensor, ...], rows: tuple[Tensor | None, Tensor | None], request: Request, with_argmax: bool
) -> tuple[Tensor, Tensor | None]:
    """What a graph keeps of a pooling."""
    if not is_compiling():  # which cannot ask the following, and need not
        if to_onnx():
            from spp_ext._torch import onnx

            if (written := onnx.written(maps, rows, request, with_argmax)) is not None:
                return written, None
        elif request.op is STRIDE1 and is_traced():
            return torch.cat(stride1_pools(maps[0], *request.arguments), 1), None
    return call_pooling(getattr(torch.ops, NAMESPACE), request, maps, rows, with_argmax)


def composes(input: Tensor) -> bool:
    """Whether a drop-in is to run as torch's own ops on ``input``."""
    return not is_compiling() and (is_traced() or (type(input) is not Tensor and is_exporting() and to_onnx()))


def _sharding(maps: Sequence[Tensor]) -> ModuleType | None:
    """`spp_ext._torch.dtensor` if one of the maps is a DTensor.

    Importing DTensor is slow; a map can be one only if its module is imported already.
    """
    module = sys.modules.get("torch.distributed.tensor")
    if module is None or not any(isinstance(map, module.DTensor) for map in maps):
        return None
    from spp_ext._torch import dtensor

    return dtensor


def _side_by_side(parts: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    outputs, argmaxes = zip(*parts, strict=True)
    return torch.cat(outputs, 1), None if argmaxes[0] is None else torch.cat(argmaxes, 1)
