"""``torch.nn.functional.adaptive_max_pool2d`` and ``torch.nn.AdaptiveMaxPool2d``: one level of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from spp_ext._calls import pool_as
from spp_ext._checks import DTYPE_NAMES, DTYPES, MAX_DIVISIONS, check_strided, shape_shown, shown, whole_number
from spp_ext._reuse import ReusesOutput
from spp_ext._torch import compositions
from spp_ext._torch.captures import is_compiling, recorded_call, refuses_script, stands_in
from spp_ext._torch.choose_path import composes
from spp_ext._torch.errors import as_indices, raise_for_memory
from spp_ext._torch.op_table import IMAGES, MAPS, Request
from spp_ext._torch.outs import check_out, indices_beside_out, refuse_derivatives, refuse_gradient
from spp_ext.levels import MAX_BINS, encoded_grid

_OP = "spp_ext.ops.adaptive_max_pool2d"
_SIZES = "expected output_size to be an int or a pair of ints and None"


@overload
def adaptive_max_pool2d(
    input: Tensor,
    output_size: int | Sequence[int | None],
    return_indices: Literal[False] = ...,
    *,
    out: Tensor | None = ...,
) -> Tensor: ...
@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: int | Sequence[int | None], return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@overload
def adaptive_max_pool2d(
    input: Tensor, output_size: int | Sequence[int | None], return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]: ...
@refuses_script(_OP)
def adaptive_max_pool2d(
    input: Tensor,
    output_size: int | Sequence[int | None],
    return_indices: bool = False,
    *,
    out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Max-pools a feature map into a grid of bins: `torch.nn.functional.adaptive_max_pool2d`, value for value.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``; float32, float64, float16 or bfloat16.
        output_size: ``n`` for n x n bins, or ``(rows, cols)``, where None keeps the input's size.
        return_indices: also return where each maximum lies.
        out: the tensor to write into and return, as in `spp_ext.spatial_pyramid_pool`. torch's function in Python has
            none.

    Returns:
        ``[N, C, rows, cols]`` or ``[C, rows, cols]``, channels_last if a 4-D input is. With ``return_indices`` also an
        int64 tensor of the same shape and layout, ``row * W + column`` of each maximum in its plane.

    Raises:
        RuntimeError: as in torch, a shape does not fit, a size is negative, or a dimension other than the batch is
            empty; its subclass NotImplementedError for a dtype or layout without a kernel. Or a size is larger than
            2^20, or there are 2^31 bins or more. Or a derivative is asked for beside ``out``.
        ValueError: as in torch, ``output_size`` has as many items as ``input`` has dimensions. Or ``out`` does not fit,
            overlaps ``input`` or itself in memory, or comes with ``return_indices``.
        TypeError: ``input`` is not a tensor, or ``output_size`` neither an int nor a sequence of ints and None.

    Example::

        >>> adaptive_max_pool2d(torch.randn(2, 256, 38, 50), (7, None)).shape
        torch.Size([2, 256, 7, 50])
    """
    if type(input) is not Tensor or input.is_nested:
        if stands_in(input):
            return recorded_call(adaptive_max_pool2d, input, output_size, return_indices, out=out)
        if not isinstance(input, Tensor):
            raise TypeError(f"{_OP}: expected input to be a Tensor, got {type(input).__name__}")
        check_strided(_OP, input)
    if composes(input) and out is None:  # a trace has sizes as tensors
        return compositions.adaptive_max_pool2d(input, output_size, return_indices)
    rows, cols = _output_size(_OP, output_size, input.shape)
    _check_input(input)
    if out is not None:
        if return_indices:
            raise indices_beside_out(_OP)
        check_out(_OP, out, input, (*input.shape[:-2], rows, cols))
        four = input.dim() == 4
        _pool_into(out if four else out.unsqueeze(0), input if four else input.unsqueeze(0), rows, cols)
        return out
    if input.dim() == 3:
        output, argmax = _pool(input.unsqueeze(0), rows, cols, return_indices)
        return (output.squeeze(0), argmax.squeeze(0)) if argmax is not None else output.squeeze(0)
    output, argmax = _pool(input, rows, cols, return_indices)
    if _has_strides_of_channels_last(input):
        try:
            output = _as_channels_last(output)
            argmax = None if argmax is None else _as_channels_last(argmax)
        except RuntimeError as error:
            raise_for_memory(_OP, "its result", error)
    return (output, argmax) if argmax is not None else output


def _pool(input: Tensor, rows: int, cols: int, return_indices: bool) -> tuple[Tensor, Tensor | None]:
    """The values ``[N, C, rows, cols]`` and the indices if they are asked for."""
    n, c = input.shape[:2]
    if rows == 0 or cols == 0:  # a grid without bins is no level, but torch allows it
        output = input.flatten(2)[..., :0].reshape(n, c, rows, cols)
        return output, output.long() if return_indices else None
    output, argmax = pool_as(_OP, (input,), IMAGES, _request(rows, cols), return_indices)
    output = output.view(n, c, rows, cols)
    if argmax is None or not return_indices:
        return output, None
    return output, as_indices(_OP, argmax).view(n, c, rows, cols)


def _pool_into(out: Tensor, input: Tensor, rows: int, cols: int) -> None:
    if rows == 0 or cols == 0:
        refuse = refuse_gradient if is_compiling() else refuse_derivatives
        return refuse(MAPS._replace(spoken="ops.adaptive_max_pool2d"), (input,), out)
    pool_as(_OP, (input,), IMAGES, _request(rows, cols), out=out)


def _request(rows: int, cols: int) -> Request:
    return Request(MAPS, (encoded_grid(rows, cols),), [rows * cols])


def _output_size(op: str, output_size: object, shape: Sequence[int] | None = None) -> tuple[Any, Any]:
    """``output_size`` as rows and columns, under torch's rules and with the types of its errors.

    None is what ``shape``, that of a map, has in its place; without a shape it stays.
    """
    if type(output_size) is int:  # which spares most calls the rest
        items: Sequence[Any] = (output_size, output_size)
    else:
        items = _items(op, output_size, shape)
    rows, cols = items
    if not ((rows is None or 0 <= rows <= MAX_DIVISIONS) and (cols is None or 0 <= cols <= MAX_DIVISIONS)):
        raise RuntimeError(f"{op}: {_SIZES}, each from 0 to {MAX_DIVISIONS}, got {shown(output_size)}")
    if rows is not None and cols is not None and rows * cols > MAX_BINS:
        raise RuntimeError(f"{op}: expected output_size of at most {MAX_BINS} bins, got {shown(output_size)}")
    return rows, cols


def _items(op: str, output_size: Any, shape: Sequence[int] | None) -> Sequence[Any]:
    what = f"{op}: {_SIZES}"
    try:
        items = list(output_size)
    except TypeError:  # of one number, or of none
        number = output_size if isinstance(output_size, torch.SymInt) else whole_number(output_size, what)
        return number, number
    if shape is not None:
        if len(items) >= len(shape):
            _check_rank(shape, ValueError)
            raise ValueError(f"{what} for an input of shape {list(shape)}, got {shown(output_size)}")
        # As many of the last dimensions as there are items.
        items = [size if item is None else item for item, size in zip(items, shape[-len(items) :], strict=False)]
    items = [item if item is None or isinstance(item, torch.SymInt) else whole_number(item, what) for item in items]
    if len(items) != 2:
        raise RuntimeError(f"{what}, got {shown(output_size)}")
    return items


def _check_rank(shape: Sequence[int], error: type[Exception]) -> None:
    if len(shape) not in (3, 4):
        raise error(f"{_OP}: expected input of shape [N, C, H, W] or [C, H, W], got {shape_shown(shape)}")


def _check_input(input: Tensor) -> None:
    if input.dim() != 4:
        _check_rank(input.shape, RuntimeError)
    if 0 in input.shape[1:]:
        raise RuntimeError(
            f"{_OP}: expected input without empty dimensions other than the first, got {list(input.shape)}"
        )
    if input.dtype not in DTYPES:
        raise NotImplementedError(f"{_OP}: expected input of dtype {DTYPE_NAMES}, got {input.dtype}")


def _has_strides_of_channels_last(input: Tensor) -> bool:
    """Whether torch takes ``input [N, C, H, W]`` to be channels_last, gaps allowed, and lays its results out alike."""
    sizes, strides = input.shape, input.stride()
    if strides[1] == 0:
        return False
    least = 0
    for dim in (1, 3, 2, 0):
        # [N, 1, 1, 1] could be either, and is taken to be contiguous.
        if sizes[dim] == 0 or strides[dim] < least or (dim == 0 and least == strides[1]):
            return False
        least = strides[dim] * max(sizes[dim], 1)
    return True


def _as_channels_last(output: Tensor) -> Tensor:
    # Not contiguous(memory_format=channels_last), which vmap does not have and which keeps the strides of 1 x 1 bins.
    n, c, rows, cols = output.shape
    return output.permute(0, 2, 3, 1).reshape(-1).view(n, rows, cols, c).permute(0, 3, 1, 2)


class AdaptiveMaxPool2d(ReusesOutput, nn.AdaptiveMaxPool2d):
    """`adaptive_max_pool2d` as a module, with the arguments and attributes of `torch.nn.AdaptiveMaxPool2d`.

    Args:
        output_size: ``n`` for n x n bins, or ``(rows, cols)``, where None keeps the input's size.
        return_indices: also return where each maximum lies.
        reuse_output: in inference, where nothing requires grad, and without ``return_indices``: write each result into
            the memory of the last, as long as shape and layout of the input stay. The next call then overwrites this
            result. torch's module has none.
    """

    output_size: int | tuple[int | None, int | None]  # torch types it as possibly None, which no call takes

    def __init__(
        self,
        output_size: int | tuple[int | None, int | None],
        return_indices: bool = False,
        *,
        reuse_output: bool = False,
    ) -> None:
        rows, cols = _output_size("spp_ext.ops.AdaptiveMaxPool2d", output_size)
        super().__init__(output_size if isinstance(output_size, int) else (rows, cols), return_indices)
        self.reuse_output = reuse_output

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Pools ``[N, C, H, W]`` or ``[C, H, W]``."""
        if self.return_indices or not self.reuse_output:
            return adaptive_max_pool2d(input, self.output_size, self.return_indices)
        pool = partial(adaptive_max_pool2d, input, self.output_size)
        return self._reuse(pool, input, lambda map: (map.shape, map.stride(), self.output_size))

    def extra_repr(self) -> str:  # noqa: D102
        return f"{super().extra_repr()}{self._shown()}"
