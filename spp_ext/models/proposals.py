"""Boxes that may hold an object: Selective Search where OpenCV's contrib modules are installed, else a grid.

Selective Search (Uijlings et al. 2013), in its fast mode, is what the paper used; it comes with
``pip install opencv-contrib-python-headless``.

The grid needs nothing and knows nothing of the image: boxes of sizes from 1/8 of the image's shorter side to the whole
of it, in steps of the square root of 2, in five shapes from 1:2 to 2:1, each moved by a quarter of its own sides from
one to the next, or by as much more as it takes to stay below the number that is asked for. So some box overlaps any
such object well, at the price of many more boxes than objects.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from spp_ext._checks import shown

Method = Literal["auto", "selective_search", "grid"]

ASPECTS = (1 / 2, 1 / math.sqrt(2), 1.0, math.sqrt(2), 2.0)  # height / width


def _opencv() -> Any | None:
    try:
        import cv2
    except ImportError:
        return None
    return cv2 if hasattr(cv2, "ximgproc") else None


def has_selective_search() -> bool:
    """Whether OpenCV's contrib modules are installed."""
    return _opencv() is not None


def selective_search(image: Tensor, count: int = 2000) -> Tensor:
    """Boxes ``[K, 4]`` of (x1, y1, x2, y2) in pixels by Selective Search.

    The method ranks its boxes partly at random, so of an image with more than ``count`` it may keep others each time.

    Args:
        image: uint8 ``[3, H, W]``, red first.
        count: how many boxes at most.

    Raises:
        ImportError: OpenCV's contrib modules are not installed.
    """
    cv2 = _opencv()
    if cv2 is None:
        raise ImportError("Selective Search needs OpenCV's contrib modules: pip install opencv-contrib-python-headless")
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image.flip(0).permute(1, 2, 0).contiguous().cpu().numpy())
    search.switchToSelectiveSearchFast()
    rectangles = torch.from_numpy(search.process()[:count])  # x, y, width, height
    rectangles = torch.unique(rectangles, dim=0).float()  # in an order that is not random
    return torch.cat([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], 1)


def _places(length: float, extent: float, per_length: float) -> Tensor:
    """Where boxes of a length begin, so many on each length, evenly from edge to edge."""
    return torch.linspace(0, extent - length, 1 + math.ceil(per_length * (extent - length) / length))


def _grid(height: int, width: int, per_side: float, smallest: float) -> Tensor:
    boxes = [torch.tensor([[0.0, 0.0, width, height]])]
    side = smallest * min(height, width)
    while side <= max(height, width):
        for aspect in ASPECTS:
            tall, wide = side * math.sqrt(aspect), side / math.sqrt(aspect)
            if tall <= height and wide <= width:
                corners = torch.cartesian_prod(_places(wide, width, per_side), _places(tall, height, per_side))
                boxes.append(torch.cat([corners, corners + torch.tensor([wide, tall])], 1))
        side *= math.sqrt(2)
    return torch.cat(boxes)


def grid(height: int, width: int, count: int = 2000, smallest: float = 1 / 8) -> Tensor:
    """Boxes ``[K, 4]`` of (x1, y1, x2, y2) in pixels, of many sizes and shapes all over an image.

    Args:
        height: of the image.
        width: of the image.
        count: how many boxes at most.
        smallest: size of the smallest, the root of its area, as a share of the image's shorter side.
    """
    per_side = 4.0
    boxes = _grid(height, width, per_side, smallest)
    while len(boxes) > count and per_side > 0.1:
        per_side *= 0.95
        boxes = _grid(height, width, per_side, smallest)
    return boxes[:count]


def propose(image: Tensor, count: int = 2000, method: Method = "auto") -> Tensor:
    """Boxes ``[K, 4]`` of (x1, y1, x2, y2) in pixels that may hold an object, at most ``count``.

    Args:
        image: uint8 ``[3, H, W]``.
        count: how many boxes at most.
        method: ``"auto"`` is ``"selective_search"`` where it is installed, else ``"grid"``.
    """
    if method == "auto":
        method = "selective_search" if has_selective_search() else "grid"
    if method == "selective_search":
        return selective_search(image, count)
    if method == "grid":
        height, width = image.shape[1:]
        return grid(height, width, count)
    raise ValueError(f'spp_ext.models: expected method "auto", "selective_search" or "grid", got {shown(method)}')
