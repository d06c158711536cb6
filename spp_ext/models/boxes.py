"""Boxes among themselves: overlap, non-maximum suppression, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Detections(NamedTuple):
    """What a detector found in one image, the most certain first."""

    boxes: Tensor  # [D, 4], x1, y1, x2, y2 in pixels of the image
    scores: Tensor  # [D]
    labels: Tensor  # [D], int64, counted from 0


class Truth(NamedTuple):
    """What is in one image."""

    boxes: Tensor  # [T, 4]
    labels: Tensor  # [T], int64


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of every box ``[A, 4]`` with every box ``[B, 4]``: ``[A, B]``."""
    first = torch.maximum(one[:, None, :2], other[None, :, :2])
    last = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    both = (last - first).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    either = areas[0][:, None] + areas[1][None] - both
    return torch.where(either > 0, both / either, 0.0)


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    order = scores.argsort(descending=True, stable=True)
    overlaps = (box_iou(boxes[order], boxes[order]) > threshold).cpu()
    kept, suppressed = [], torch.zeros(len(order), dtype=torch.bool)
    for index in range(len(order)):
        if not suppressed[index]:
            kept.append(index)
            suppressed |= overlaps[index]
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes to keep, the highest score first: each suppresses those that overlap it by more.

    torchvision's where it is installed.

    Args:
        boxes: ``[K, 4]`` of (x1, y1, x2, y2).
        scores: ``[K]``.
        threshold: intersection over union.
    """
    try:
        from torchvision.ops import nms as torchvisions
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return _nms(boxes, scores, threshold)
    return torchvisions(boxes, scores.to(boxes), threshold)  # which takes them of one type only


def average_precision(found: Sequence[Detections], truths: Sequence[Truth], label: int, iou: float = 0.5) -> float:
    """Area under the precision-recall curve of one class over all images, as in PASCAL VOC since 2010.

    A detection is right if the object of its class that it overlaps most, by ``iou`` or more, is claimed by no more
    certain one. NaN where no image has the class.

    Args:
        found: an item for each image.
        truths: an item for each image.
        label: the class.
        iou: least intersection over union.
    """
    total = sum(int((truth.labels == label).sum()) for truth in truths)
    if not total:
        return float("nan")
    scores, right = [], []
    for detections, truth in zip(found, truths, strict=True):
        detections = Detections(*(column.cpu() for column in detections))
        truth = Truth(*(column.cpu() for column in truth))
        chosen = detections.labels == label
        order = detections.scores[chosen].argsort(descending=True, stable=True)
        overlaps = box_iou(detections.boxes[chosen][order], truth.boxes[truth.labels == label])
        claimed = torch.zeros(overlaps.shape[1], dtype=torch.bool)
        for row in overlaps:
            best = int(row.argmax()) if len(row) else -1
            hit = best >= 0 and bool(row[best] >= iou) and not claimed[best]
            if hit:
                claimed[best] = True
            right.append(hit)
        scores.append(detections.scores[chosen][order])
    order = torch.cat(scores).argsort(descending=True, stable=True)
    hits = torch.tensor(right, dtype=torch.float64)[order].cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    recall = torch.cat([torch.zeros(1), hits / total])
    # At each recall the best precision that is reached at that recall or a higher one.
    precision = precision.flip(0).cummax(0).values.flip(0) if len(precision) else precision
    return float((recall.diff() * precision).sum())


def mean_average_precision(
    found: Sequence[Detections], truths: Sequence[Truth], num_classes: int, iou: float = 0.5
) -> float:
    """The mean of `average_precision` over the classes that occur; NaN if none does."""
    each = torch.tensor([average_precision(found, truths, label, iou) for label in range(num_classes)])
    return float(each[~each.isnan()].mean())
