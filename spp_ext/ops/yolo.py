"""The pooling of YOLO's SPP and SPPF blocks: stride-1 max pools of several sizes, concatenated after their input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from spp_ext._calls import pool_as
from spp_ext._checks import DTYPES, MAX_DIVISIONS, check_tensor, items_of, shape_shown, shown, whole_number
from spp_ext._requests import request_of_kernels
from spp_ext._reuse import ReusesOutput
from spp_ext._torch.captures import recorded_call, refuses_script, stands_in
from spp_ext._torch.errors import raise_for_memory
from spp_ext._torch.op_table import IMAGES
from spp_ext._torch.outs import check_out

_OP = "spp_ext.ops.multi_kernel_max_pool2d"


@refuses_script(_OP)
def multi_kernel_max_pool2d(
    input: Tensor, kernel_sizes: Sequence[int] = (5, 9, 13), *, cascade: bool = False, out: Tensor | None = None
) -> Tensor:
    """Max-pools a map with windows of several sizes around every cell, and puts the results behind the map.

    The values of ``torch.cat([x] + [F.max_pool2d(x, k, 1, k // 2) for k in kernel_sizes], 1)``, each written straight
    into its place. With ``cascade``, of SPPF's chain, where each pool reads the result of the one before; values are
    the same, but where cells tie the gradient goes to the cell that the chain picks. NaN wins, as in torch.

    Args:
        input: ``[N, C, H, W]`` or ``[C, H, W]``, contiguous or channels_last (other strides are copied); float32,
            float64, float16 or bfloat16.
        kernel_sizes: odd sizes of the windows, in any order; with ``cascade`` ascending. A window may be larger than
            the map.
        cascade: whether gradients are those of a cascade. ``kernel_sizes`` are total sizes all the same: three 5-pools
            in cascade are ``(5, 9, 13)``.
        out: the tensor to write into and return, as in `spp_ext.spatial_pyramid_pool`; written directly if it is laid
            out as the input and ``kernel_sizes`` are ascending.

    Returns:
        ``[N, (1 + L) * C, H, W]`` for L sizes (``[(1 + L) * C, H, W]`` for a 3-D input), in the input's layout: the
        input, then a block of C channels for each size in the order given.

    Raises:
        TypeError: ``input`` is not a floating-point tensor, or ``kernel_sizes`` not a sequence of ints.
        ValueError: ``input`` has another rank or no rows or columns, there are no sizes, or one is not odd and
            positive, or out of order in a cascade; or ``out`` does not fit, or overlaps ``input`` or itself in memory.
        RuntimeError: a derivative is asked for beside ``out``.
        NotImplementedError: ``input`` is nested, sparse or mkldnn.

    Example::

        >>> multi_kernel_max_pool2d(torch.randn(1, 256, 20, 20)).shape
        torch.Size([1, 1024, 20, 20])
    """
    if type(input) is not Tensor or input.dtype not in DTYPES or input.is_nested:  # spares most calls a function
        if stands_in(input):
            return recorded_call(multi_kernel_max_pool2d, input, kernel_sizes, cascade=cascade, out=out)
        check_tensor(_OP, input)
    sizes = _kernel_sizes(_OP, kernel_sizes, cascade)
    if input.dim() not in (3, 4):
        raise ValueError(f"{_OP}: expected input of shape [N, C, H, W] or [C, H, W], got {shape_shown(input.shape)}")
    if input.dim() == 4:
        return _pool(input, sizes, cascade, out)
    if out is None:
        return _pool(input.unsqueeze(0), sizes, cascade, None).squeeze(0)
    channels, height, width = input.shape
    check_out(_OP, out, input, ((1 + len(sizes)) * channels, height, width))
    _pool(input.unsqueeze(0), sizes, cascade, out.unsqueeze(0))
    return out


def _pool(input: Tensor, sizes: tuple[int, ...], cascade: bool, out: Tensor | None) -> Tensor:
    """The pooled ``[N, (1 + L) * C, H, W]``. The kernels take ascending sizes, so other orders are arranged here."""
    ascending = sizes if cascade else tuple(sorted(sizes))
    request = request_of_kernels(ascending, bool(cascade), input.shape[2] * input.shape[3])
    output, _ = pool_as(_OP, (input,), IMAGES, request, out=out)
    if sizes == ascending:
        return output
    block_of = {size: block for block, size in enumerate(ascending, 1)}
    blocks = [0, *(block_of[size] for size in sizes)]
    try:
        arranged = reorder_blocks(output, blocks, input.shape[1])
    except RuntimeError as error:
        raise_for_memory(_OP, "its result", error)
    return arranged if out is None else out.copy_(arranged)


def reorder_blocks(output: Tensor, blocks: Sequence[int], channels: int) -> Tensor:
    """The chosen blocks of ``channels`` channels of ``output [N, C, H, W]``, in the order chosen."""
    return torch.cat([output.narrow(1, block * channels, channels) for block in blocks], 1)


def _kernel_sizes(op: str, kernel_sizes: object, cascade: bool) -> tuple[int, ...]:
    what = f"{op}: expected kernel_sizes, a sequence of odd ints from 1 to {MAX_DIVISIONS - 1}"
    items = items_of(kernel_sizes)
    if items is None:
        raise TypeError(f"{what}, got {shown(kernel_sizes)}")
    sizes = tuple([whole_number(size, what) for size in items])
    if not sizes or min(sizes) < 1 or max(sizes) >= MAX_DIVISIONS or not all([size % 2 for size in sizes]):
        raise ValueError(f"{what}, got {shown(kernel_sizes)}")
    if cascade and any(after < before for before, after in pairwise(sizes)):
        raise ValueError(f"{op}: expected kernel_sizes of a cascade to be ascending, got {shown(kernel_sizes)}")
    return sizes


class _Block(ReusesOutput, nn.Module):
    def _pool(self, input: Tensor, sizes: tuple[int, ...], cascade: bool) -> Tensor:
        pool = partial(multi_kernel_max_pool2d, input, sizes, cascade=cascade)
        return self._reuse(pool, input, lambda map: (map.shape, map.stride(), sizes)) if self.reuse_output else pool()


class SPP(_Block):
    """The pools and the concatenation of YOLO's SPP block: ``[N, C, H, W]`` to ``[N, (1 + L) * C, H, W]``.

    Stands for ``torch.cat([x] + [pool(x) for pool in pools], 1)`` with stride-1 ``nn.MaxPool2d`` that keep the size.

    Args:
        kernel_sizes: odd sizes of the pools, in any order.
        reuse_output: as in `AdaptiveMaxPool2d`.
    """

    def __init__(self, kernel_sizes: Sequence[int] = (5, 9, 13), *, reuse_output: bool = False) -> None:
        super().__init__()
        self.kernel_sizes = _kernel_sizes("spp_ext.ops.SPP", kernel_sizes, cascade=False)
        self.reuse_output = reuse_output

    def forward(self, input: Tensor) -> Tensor:
        """Pools ``[N, C, H, W]`` or ``[C, H, W]``."""
        return self._pool(input, self.kernel_sizes, cascade=False)

    def extra_repr(self) -> str:  # noqa: D102
        return f"kernel_sizes={self.kernel_sizes}{self._shown()}"


class SPPF(_Block):
    """The pools and the concatenation of YOLO's SPPF block: ``[N, C, H, W]`` to ``[N, (1 + repeats) * C, H, W]``.

    Stands for ``y = [x]``, ``repeats`` times ``y.append(pool(y[-1]))``, and ``torch.cat(y, 1)`` with one stride-1
    ``nn.MaxPool2d`` that keeps the size, gradients at ties included.

    Args:
        kernel_size: odd size of the pool.
        repeats: how often it is applied.
        reuse_output: as in `AdaptiveMaxPool2d`.
    """

    def __init__(self, kernel_size: int = 5, repeats: int = 3, *, reuse_output: bool = False) -> None:
        super().__init__()
        self.reuse_output = reuse_output
        op = "spp_ext.ops.SPPF"
        (self.kernel_size,) = _kernel_sizes(op, (kernel_size,), cascade=False)
        self.repeats = whole_number(repeats, f"{op}: expected repeats, an int")
        if not 1 <= self.repeats < MAX_DIVISIONS:
            raise ValueError(f"{op}: expected repeats from 1 to {MAX_DIVISIONS - 1}, got {shown(repeats)}")
        self._kernel_sizes = _kernel_sizes(
            op, tuple(1 + i * (self.kernel_size - 1) for i in range(1, self.repeats + 1)), cascade=True
        )

    def forward(self, input: Tensor) -> Tensor:
        """Pools ``[N, C, H, W]`` or ``[C, H, W]``."""
        return self._pool(input, self._kernel_sizes, cascade=True)

    def extra_repr(self) -> str:  # noqa: D102
        return f"kernel_size={self.kernel_size}, repeats={self.repeats}{self._shown()}"
