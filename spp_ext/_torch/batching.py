"""vmap: its dimension is folded into the images and the rows, so that one call of a kernel serves all samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spp_ext._boxes import widened
from spp_ext._torch.op_table import Rows


def _to_front(tensor: Tensor, dim: int | None, batch: int) -> Tensor:
    return tensor.expand(batch, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def fold(tensor: Tensor, dim: int | None, batch: int) -> Tensor:
    """Sample v's slice i becomes slice ``v * slices + i``."""
    return _to_front(tensor, dim, batch).flatten(0, 1)


def unfold(tensor: Tensor, batch: int, slices: int) -> Tensor:
    """The way back from `fold`, with as many slices of each sample; the samples come first."""
    return tensor.unflatten(0, (batch, slices))


def slices_of(tensor: Tensor, dim: int | None) -> int:
    """The first size of one sample."""
    return tensor.shape[1 if dim == 0 else 0]


def fold_rois(rois: Tensor, dim: int | None, batch: int, images: int | None) -> Tensor:
    """The regions of every sample. Sample v's image i is image ``v * images + i``, unless they share the images."""
    rois = _to_front(rois, dim, batch)  # [V, K, 5]
    if images is not None:
        rois = widened(rois)
        if batch * images > 2**24 and rois.dtype == torch.float32:
            raise ValueError(f"spp_ext.vmap: expected at most 2^24 images with float32 boxes, got {batch} x {images}")
        index = rois[..., :1].trunc()
        first = torch.arange(batch, device=rois.device)[:, None, None] * images
        # An index that is out of range must not come to mean another sample's image.
        first = torch.where(index < 0, 0, torch.where(index >= images, batch * images, first))
        rois = torch.cat([index + first, rois[..., 1:]], -1)
    return rois.flatten(0, 1)


def fold_rows(rows: Rows, dims: Rows, batch: int, images: int | None) -> Rows:
    """The rows of every sample; ``dims`` are where vmap's dimension is in them."""
    rois, map_indices = rows
    return Rows(
        None if rois is None else fold_rois(rois, dims.rois, batch, images),  # type: ignore[arg-type]
        None if map_indices is None else fold(map_indices, dims.map_indices, batch),  # type: ignore[arg-type]
    )


def fold_maps(
    maps: Sequence[Tensor], dims: Sequence[int | None], batch: int, rows: Rows
) -> tuple[Sequence[Tensor], int | None]:
    """The maps of every sample, and the images of one; None where samples have only regions of their own."""
    if rows.rois is not None and all(dim is None for dim in dims):
        return maps, None
    images = slices_of(maps[0], dims[0])
    return [fold(map, dim, batch) for map, dim in zip(maps, dims, strict=True)], images
