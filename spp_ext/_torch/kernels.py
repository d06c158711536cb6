"""The registered ops without their derivatives, as Python callables: what finally runs in eager mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spp_ext._torch import library
from spp_ext._torch.errors import raise_as_documented
from spp_ext._torch.op_table import NAMES, NAMESPACE, OUT_NAMES, Request, overload
from spp_ext._torch.private import below_autograd, below_versions, bound_op, increment_versions


def _kernel(op: Callable[..., Any]) -> Callable[..., Any]:
    call_op = bound_op(op)

    @functools.wraps(op)
    def kernel(*arguments: Any) -> Any:
        try:
            with below_autograd():
                return call_op(*arguments)
        except RuntimeError as error:
            raise_as_documented(error)

    return kernel


def _writing_kernel(op: Callable[..., Any]) -> Callable[..., Any]:
    call_op = bound_op(op)

    @functools.wraps(op)
    def kernel(*arguments: Any, out: Tensor) -> Tensor:
        try:
            with below_versions():
                call_op(*arguments, out=out)
        except RuntimeError as error:
            raise_as_documented(error)
        increment_versions((out,))
        return out

    return kernel


class _Kernels:
    """A callable for each op of the table, of the op's name."""

    def __init__(self) -> None:
        # Naming the overload spares a search through the overloads at every call.
        ops = getattr(torch.ops, NAMESPACE)
        for name in NAMES:
            setattr(self, name, _kernel(overload(ops, name)))
        for name in OUT_NAMES:
            setattr(self, name, _writing_kernel(overload(ops, name)))


class _Missing:
    """Stands in for the kernels when the library did not load, and says why at the first use."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(
            f"spp_ext: the op library {library.library_path().name} did not load: {library.load_error()}; "
            "`python -m spp_ext info` says more"
        )


kernels: Any = _Kernels() if library.load_error() is None else _Missing()


def call_pooling(
    ops: Any,
    request: Request,
    maps: Sequence[Tensor],
    rows: tuple[Tensor | None, Tensor | None],
    with_argmax: bool,
) -> tuple[Tensor, Tensor | None]:
    """Calls a pooling op, of the kernels or of those registered, with its argmax or without; undoes `Pooling.split`."""
    op, arguments, _ = request
    rois, map_indices = rows
    inputs: tuple[Any, ...]
    if rois is None:
        inputs = (maps[0], *arguments)
    elif map_indices is None:
        inputs = (maps[0], rois, *arguments)
    else:
        inputs = (list(maps), rois, map_indices, *arguments)
    return getattr(ops, op.with_argmax)(*inputs) if with_argmax else (getattr(ops, op.name)(*inputs), None)
