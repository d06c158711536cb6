"""``torchvision.ops.roi_pool`` and ``torchvision.ops.RoIPool``: one level, with torchvision's bin edges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import SupportsFloat

from torch import Tensor, nn

from spp_ext import _checks
from spp_ext._boxes import TORCHVISION, as_rois, warn_if_all_miss
from spp_ext._calls import pool_as
from spp_ext._reuse import ReusesOutput, shapes_of
from spp_ext._torch.captures import recorded_call, refuses_script, stands_in
from spp_ext._torch.op_table import REGIONS, Request
from spp_ext._torch.outs import check_apart, check_out
from spp_ext.levels import encoded_grid

_OP = "spp_ext.ops.roi_pool"
_SIZE = f"expected output_size, an int or a pair, between 1 and {_checks.MAX_DIVISIONS}"


@refuses_script(_OP)
def roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: SupportsFloat = 1.0,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Max-pools regions of interest into a grid of bins each: `torchvision.ops.roi_pool`.

    Bin edges are torchvision's floating-point ones, bit for bit: in float32, or float64 if the boxes are float64. They
    differ from the integer edges of `roi_spatial_pyramid_pool` only where a rounded quotient crosses an integer, for
    7 x 7 bins first at a window of 57 cells.

    Args:
        input: feature map ``[N, C, H, W]``, contiguous or channels_last (other strides are copied); float32, float64,
            float16 or bfloat16.
        boxes: ``[K, 5]``, rows of (batch_index, x1, y1, x2, y2), or a list of N tensors ``[L, 4]``, the boxes of each
            image. In image coordinates, of any floating-point dtype whatever the input's.
        output_size: ``n`` for n x n bins, or ``(rows, cols)``.
        spatial_scale: feature cells per image pixel, 1/16 for a network of stride 16; a number, as in
            `spp_ext.roi_spatial_pyramid_pool`.
        out: the tensor to write into and return, as in `spp_ext.spatial_pyramid_pool`. torchvision has none.

    Returns:
        ``[K, C, rows, cols]``, contiguous. A bin that lies outside the map is 0 and passes no gradient.

    Raises:
        TypeError: an argument has the wrong type, or a tensor is not floating-point.
        ValueError: a shape does not fit, a coordinate is not finite, a size or the scale is not positive, or ``out``
            does not fit or overlaps an argument or itself in memory.
        RuntimeError: a derivative is asked for beside ``out``.
        NotImplementedError: a tensor is nested, sparse or mkldnn.
        IndexError: a batch index lies outside ``[0, N)``; the row and the value are named. On CUDA the contents of
            boxes are checked only if the environment variable SPP_EXT_VALIDATE is 1; else a bad row pools to NaN.

    Warns:
        UserWarning: SPP_EXT_VALIDATE is 1, and no box reaches the map.

    Example::

        >>> features = torch.randn(2, 256, 38, 50)
        >>> boxes = [torch.tensor([[32.0, 48, 200, 300]]), torch.tensor([[0.0, 0, 799, 599]])]
        >>> roi_pool(features, boxes, 7, spatial_scale=1 / 16).shape
        torch.Size([2, 256, 7, 7])
    """
    if (type(input) is not Tensor or type(boxes) is not Tensor) and stands_in(input, boxes):
        return recorded_call(roi_pool, input, boxes, output_size, spatial_scale, out=out)
    if type(input) is not Tensor or input.dtype not in _checks.DTYPES:  # spares most calls a function
        _checks.check_tensor(_OP, input)
    if input.dim() != 4:
        raise ValueError(f"{_OP}: expected input of shape [N, C, H, W], got {_checks.shape_shown(input.shape)}")
    scale = _checks.scale(_OP, spatial_scale)
    rows, cols = _checks.divisions(output_size, f"{_OP}: {_SIZE}")
    rois = as_rois(_OP, boxes, input)
    validate = _checks.VALIDATES
    request = Request(REGIONS, (encoded_grid(rows, cols), scale, TORCHVISION, validate), [rows * cols])
    if out is not None:
        if rois is not boxes:
            check_apart(_OP, out, "boxes", boxes)
        check_out(_OP, out, input, (*rois.shape[:1], input.shape[1], rows, cols))
    output, _ = pool_as(_OP, (input,), (rois, None), request, out=out)
    if validate:
        warn_if_all_miss(_OP, [input], rois, None, [scale])
    return output if out is not None else output.view(output.shape[0], input.shape[1], rows, cols)


class RoIPool(ReusesOutput, nn.Module):
    """`roi_pool` as a module, with the arguments and attributes of `torchvision.ops.RoIPool`.

    Args:
        output_size: ``n`` for n x n bins, or ``(rows, cols)``.
        spatial_scale: feature cells per image pixel.
        reuse_output: as in `spp_ext.RoISpatialPyramidPool`; torchvision's module has none.
    """

    def __init__(
        self, output_size: int | Sequence[int], spatial_scale: SupportsFloat, *, reuse_output: bool = False
    ) -> None:
        super().__init__()
        rows, cols = _checks.divisions(output_size, f"spp_ext.ops.RoIPool: {_SIZE}")
        self.output_size = output_size if isinstance(output_size, int) else (rows, cols)
        self.spatial_scale = _checks.scale("spp_ext.ops.RoIPool", spatial_scale)
        self.reuse_output = reuse_output

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """Pools the ``rois`` (``[K, 5]``, or a list of ``[L, 4]``) of ``input [N, C, H, W]``."""
        pool = partial(roi_pool, input, rois, self.output_size, self.spatial_scale)
        if not self.reuse_output:
            return pool()
        return self._reuse(pool, input, lambda map: (map.shape[:2], shapes_of(rois), self.output_size))

    def __repr__(self) -> str:
        arguments = f"output_size={self.output_size}, spatial_scale={self.spatial_scale}{self._shown()}"
        return f"{type(self).__name__}({arguments})"
