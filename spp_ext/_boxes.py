"""Boxes and conventions as users write them, turned into the one form the registered ops take."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from spp_ext._checks import DTYPES, can_look_into, check_tensor, cut_short, shape_shown, shown
from spp_ext._torch.errors import raise_for_memory

# How a box becomes a window. Their numbers, in this order, are those of RoiConvention in csrc/core/geometry.h; a test
# compares them. TORCHVISION is for ops.roi_pool alone: it is roi_pool with bin edges in floating point.
Convention: TypeAlias = Literal["roi_pool", "spp_net", "outer"]
CONVENTIONS: dict[str, int] = {name: number for number, name in enumerate(get_args(Convention))}
TORCHVISION = len(CONVENTIONS)


_HALF = (torch.float16, torch.bfloat16)


def widened(boxes: Tensor) -> Tensor:
    """Half-precision boxes as float32: float16 cannot represent image 2049, and rounds coordinates to whole pixels."""
    return boxes.float() if boxes.dtype in _HALF else boxes


def convention_number(op: str, convention: object) -> int:
    """The number of a convention, which the registered ops take."""
    try:
        return CONVENTIONS[convention]  # type: ignore[index]
    except (KeyError, TypeError):
        if not isinstance(convention, str):
            raise TypeError(f"{op}: expected convention to be a str, got {type(convention).__name__}") from None
        *names, last = map(json.dumps, CONVENTIONS)
        expected = f"{op}: expected convention {', '.join(names)} or {last}"
        raise ValueError(f"{expected}, got {cut_short(json.dumps(convention))}") from None


def as_rois(op: str, boxes: Tensor | Sequence[Tensor], input: Tensor) -> Tensor:
    """Boxes as ``rois [K, 5]``: batch_index, x1, y1, x2, y2 in image coordinates.

    Args:
        op: the public op on whose behalf errors speak.
        boxes: ``rois`` already, or a list of ``[L, 4]`` boxes (x1, y1, x2, y2), one tensor per image.
        input: the map ``[N, C, H, W]`` that is pooled.
    """
    if isinstance(boxes, Tensor):
        if type(boxes) is not Tensor or boxes.dtype not in DTYPES:  # spares most calls a function
            _check_boxes(op, boxes)
        return boxes
    if not isinstance(boxes, (list, tuple)) or not all(isinstance(image, Tensor) for image in boxes):
        raise TypeError(f"{op}: expected boxes to be a Tensor[K, 5] or a list of Tensor[L, 4], got {_describe(boxes)}")
    if not torch.jit.is_tracing():  # type: ignore[attr-defined]  # where sizes are tensors, and comparing them warns
        _check_lists(op, boxes, input)
    if not boxes:
        return torch.zeros((0, 5), dtype=torch.float32, device=input.device)
    try:
        return torch.cat([pad(widened(image), (1, 0), value=float(index)) for index, image in enumerate(boxes)])
    except RuntimeError as error:
        raise_for_memory(op, "its boxes", error)


def _check_lists(op: str, boxes: Sequence[Tensor], input: Tensor) -> None:
    if len(boxes) != input.shape[0]:
        raise ValueError(f"{op}: expected one tensor of boxes for each of {input.shape[0]} images, got {len(boxes)}")
    for image in boxes:
        _check_boxes(op, image)
        if image.dim() != 2 or image.shape[1] != 4:
            raise ValueError(f"{op}: expected boxes of shape [L, 4] for every image, got {shape_shown(image.shape)}")
        if image.device != input.device:
            raise ValueError(f"{op}: expected input and boxes on one device, got two")


def _check_boxes(op: str, boxes: Tensor) -> None:
    check_tensor(op, boxes, "boxes")
    if type(boxes) is not Tensor and (format := getattr(boxes, "format", None)) is not None:
        # Of torchvision.tv_tensors.BoundingBoxes, an enum whose members have these names.
        name = getattr(format, "name", format)
        if name != "XYXY":
            raise ValueError(f"{op}: expected boxes in the format XYXY, got {name}")


def as_map_indices(
    op: str, map_indices: Tensor | Sequence[Tensor] | None, boxes: Tensor | Sequence[Tensor], rois: Tensor
) -> Tensor:
    """The number of the map of each of the ``rois``, int64 ``[K]``; for a list of ``boxes`` from a list like it."""
    expected = f"{op}: expected map_indices, as boxes, to be a"
    parts: Sequence[Tensor]
    if isinstance(boxes, Tensor):
        if not isinstance(map_indices, Tensor):
            raise TypeError(f"{expected} Tensor[K], got {_describe(map_indices)}")
        parts = [map_indices]
    else:
        if not isinstance(map_indices, (list, tuple)) or not all(isinstance(image, Tensor) for image in map_indices):
            raise TypeError(f"{expected} list of Tensor[L], got {_describe(map_indices)}")
        parts = map_indices
        lengths, got = [[image.shape[0]] for image in boxes], [list(image.shape) for image in parts]
        if got != lengths:
            what = f"{op}: expected map_indices of shapes {shown(lengths)}, one for each of the boxes"
            raise ValueError(f"{what}, got {shown(got)}")
    for image in parts:
        if image.is_floating_point() or image.is_complex() or image.dtype == torch.bool:
            raise TypeError(f"{op}: expected map_indices of an integer dtype, got {image.dtype}")
        if image.device != rois.device:
            raise ValueError(f"{op}: expected map_indices and boxes on one device, got two")
    # Copied, so that indices may change before the backward pass.
    if not parts:
        return torch.zeros(0, dtype=torch.int64, device=rois.device)
    try:
        return torch.cat(parts).long()
    except RuntimeError as error:
        raise_for_memory(op, "its map_indices", error)


def warn_if_all_miss(
    op: str,
    maps: Sequence[Tensor],  # [N, C, H, W]
    rois: Tensor,  # [K, 5]
    map_indices: Tensor | None,  # [K]; None: there is one map
    scales: Sequence[float],  # of each map
) -> None:
    """Warns if no box reaches its map, as where ``spatial_scale`` was forgotten. Boxes have been checked before."""
    if not can_look_into(rois) or len(rois) == 0:
        return
    for m, (map, scale) in enumerate(zip(maps, scales, strict=True)):
        x1, y1, x2, y2 = (widened(rois[:, 1:]) * scale).unbind(1)
        reach = (x1 < map.shape[3]) & (y1 < map.shape[2]) & (x2 > -1) & (y2 > -1)
        if (reach if map_indices is None else reach & (map_indices == m)).any():
            return
    at = ", ".join([f"{scale:g}" for scale in scales])
    warnings.warn(
        f"{op}: expected boxes that reach the map at spatial_scale {at}, got {len(rois)} outside", stacklevel=3
    )


def _describe(boxes: object) -> str:
    if isinstance(boxes, (list, tuple)):
        return f"a {type(boxes).__name__} with {shown(sorted({type(image).__name__ for image in boxes}))}"
    return type(boxes).__name__
