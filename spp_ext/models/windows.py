"""Which cells of a conv5 map a box covers: the paper's mapping (Appendix A), and that of the authors' released code.

Cell (0, 0) of ZF-5's conv5 sees the image around pixel (20, 20), for its layers pad less than half their kernels, and
neighbours lie 16 pixels apart. A box covers the cells whose centres are inside it:

    "appendix_a"  exactly those. The paper counts cells from 1, and the centre of cell x' is 16 x'; here 16 x' + 4,
                  so boxes are moved by 4 pixels and then mapped as in the paper, from floor(x1 / 16) + 1 to
                  ceil(x2 / 16) - 1, which is the op's convention "spp_net".
    "released"    those within a margin: in pixels and cells that count from 1, floor((x1 - 21 + 6.5) / 16 + 0.5) + 1 to
                  ceil((x2 - 21 - 6.5) / 16 - 0.5) + 1.

Ends that cross become their midpoint, and windows are clamped into the map, so none is empty.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spp_ext._boxes import Convention
from spp_ext._checks import shown

Mapping = Literal["appendix_a", "released"]

STRIDE = 16  # pixels between the centres of neighbouring cells
FIRST_CENTRE = 20  # pixels from the image's edge to the centre of the first cell
SHIFT = FIRST_CENTRE - STRIDE  # from the paper's centres 16 x' to ours
RELEASED_FIRST, RELEASED_MARGIN = 21, 6.5  # the released code's offset0 and offset
FARTHEST = 2.0**40  # cells, where the op saturates too, so that every box has whole numbers

CONVENTIONS: dict[str, Convention] = {"appendix_a": "spp_net", "released": "roi_pool"}


def check_mapping(mapping: str) -> None:
    """Raises ValueError if there is no such mapping."""
    if mapping not in CONVENTIONS:
        raise ValueError(f'spp_ext.models: expected mapping "appendix_a" or "released", got {shown(mapping)}')


def pooling_scale(factor: float, mapping: Mapping) -> float:
    """The op's ``spatial_scale`` for `pooling_boxes` of an image that was resized by a factor."""
    return factor / STRIDE if mapping == "appendix_a" else 1.0


def pooling_boxes(boxes: Tensor, factors: Tensor, sizes: Tensor, mapping: Mapping) -> Tensor:
    """Boxes ``[K, 4]`` that the op, under the mapping's convention and scale, pools as `windows` says.

    The arguments are those of `windows`. For ``"appendix_a"`` they are boxes in pixels of the original image, moved;
    for ``"released"``, which is no convention of the op, they are the windows themselves. What is not finite stays so,
    for the op to refuse.
    """
    if mapping == "appendix_a":
        return boxes - (SHIFT / factors).to(boxes)[:, None]
    return torch.where(boxes.isfinite(), windows(boxes, factors, sizes, mapping).to(boxes), boxes)


def windows(boxes: Tensor, factors: Tensor, sizes: Tensor, mapping: Mapping = "appendix_a") -> Tensor:
    """The first and last cells of boxes, int64 ``[K, 4]`` of (x1, y1, x2, y2), both inside, counted from 0.

    Args:
        boxes: finite ``[K, 4]`` of (x1, y1, x2, y2), in pixels of the original image; float32 or float64.
        factors: float64 ``[K]``, pixels of the resized image, whose map it is, per pixel of the original.
        sizes: ``[K, 2]``, height and width of the map in cells.
        mapping: ``"appendix_a"`` or ``"released"``.

    Raises:
        ValueError: there is no such mapping.
    """
    check_mapping(mapping)
    if mapping == "appendix_a":
        # The op's own arithmetic, product and rounding: else a box that ends on a cell's border could differ.
        scaled = pooling_boxes(boxes, factors, sizes, mapping) * (factors / STRIDE).to(boxes)[:, None]
        first, last = scaled[:, :2].floor(), scaled[:, 2:].ceil() - 2
    else:
        scaled = boxes * factors.to(boxes)[:, None] + 1  # pixels that count from 1
        first = ((scaled[:, :2] - RELEASED_FIRST + RELEASED_MARGIN) / STRIDE + 0.5).floor()
        last = ((scaled[:, 2:] - RELEASED_FIRST - RELEASED_MARGIN) / STRIDE - 0.5).ceil()
    first, last = (cells.clamp(-FARTHEST, FARTHEST).long() for cells in (first, last))
    # The midpoint is taken of cells that count from 1, and rounded down.
    middle = (first + last + 2).div(2, rounding_mode="floor") - 1
    crossed = first > last
    first, last = torch.where(crossed, middle, first), torch.where(crossed, middle, last)
    limits = sizes.long().flip(1) - 1
    return torch.cat([first, last], 1).clamp(min=0).minimum(torch.cat([limits, limits], 1))
