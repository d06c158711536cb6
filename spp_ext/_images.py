"""Batches of images of any size, as regions: of each image the box that covers it, or the part of it that is valid.

Under the convention "spp_net" the box from (0, 0) to one cell beyond the last column and the last row is exactly those
cells, and since that convention moves windows into the map, a corner far outside stands for the last cell of any map:
whole maps need no numbers that depend on their sizes. Boxes are float64, which holds every size and every image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from spp_ext import _checks
from spp_ext._checks import can_look_into
from spp_ext._requests import request_of_regions
from spp_ext._torch.op_table import Request
from spp_ext.levels import Level


def request_of_images(op: str, levels: Sequence[Level], maps: int | None = None) -> Request:
    """The request of images of one map, or of so many ``maps``; errors speak for the public op called ``op``."""
    return request_of_regions(op, levels, 1.0, "spp_net", False, maps)


def images_of_maps(maps: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
    """Every image of ``maps``, in order: the maps to pool from, of one N, and the regions and map of each row."""
    images = maps[0].shape[0]
    if any([map.shape[0] != images for map in maps]):  # then every image is a map
        maps, images = tuple([image.unsqueeze(0) for map in maps for image in map.unbind(0)]), 1
    rows = torch.arange(len(maps) * images, device=maps[0].device)
    # Not by a name: torch.compile would take a global number for an input of the graph, and compile twice.
    near, far = torch.zeros_like(rows), torch.full_like(rows, 2**40)
    return maps, (torch.stack([rows % images, near, near, far, far], 1).double(), rows // images)


def parts_of_images(op: str, sizes: object, input: Tensor) -> Tensor:
    """The regions ``[N, 5]`` that are the first ``sizes[n]`` rows and columns of image n of ``input [N, C, H, W]``.

    Sizes that do not fit are refused where their contents may be looked at. Elsewhere they become boxes that are not
    finite, which the kernels treat as such.
    """
    if not isinstance(sizes, Tensor):
        raise TypeError(f"{op}: expected sizes to be a Tensor[N, 2], got {type(sizes).__name__}")
    if sizes.is_floating_point() or sizes.is_complex() or sizes.dtype == torch.bool:
        raise TypeError(f"{op}: expected sizes of an integer dtype, got {sizes.dtype}")
    images, _, height, width = input.shape
    if sizes.shape != (images, 2):
        raise ValueError(
            f"{op}: expected sizes of shape {[images, 2]}, the rows and columns of each image, got {list(sizes.shape)}"
        )
    if sizes.device != input.device:
        raise ValueError(f"{op}: expected input and sizes on one device, got two")
    rows, cols = sizes.long().unbind(1)
    fit = (rows >= 1) & (rows <= height) & (cols >= 1) & (cols <= width)
    if can_look_into(sizes) and (sizes.is_cpu or _checks.VALIDATES) and not fit.all():
        bad = int((~fit).nonzero()[0])
        raise ValueError(
            f"{op}: expected sizes from [1, 1] to {[height, width]}, got {sizes[bad].tolist()} in row {bad}"
        )
    corners = torch.where(fit.unsqueeze(1), torch.stack([cols, rows], 1).double() + 1, torch.nan)
    index = torch.arange(images, device=sizes.device).unsqueeze(1)
    return torch.cat([index, pad(corners, (2, 0))], 1)
