"""The SPP-net detector (paper, section 4): one pass over an image, thousands of its regions pooled in one call.

image     resized so that its shorter side is each of the scales; conv5 of each
regions   each takes the scale at which its area is closest to 224 x 224, and the cells of that map that it covers;
regions that cover the same cells of the same map are pooled once
features  the spatial pyramid of each, over all maps in one call, then fc6 and fc7
scores    a linear SVM for each class; non-maximum suppression within a class
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spp_ext
from spp_ext._boxes import widened
from spp_ext._checks import shown
from spp_ext.models.boxes import Detections, nms
from spp_ext.models.sppnet import SMALLEST, Layer, SPPNet, check_layer
from spp_ext.models.windows import (
    CONVENTIONS,
    Mapping,
    check_mapping,
    pooling_boxes,
    pooling_scale,
    windows,
)

ONE_SCALE = (688,)
FIVE_SCALES = (480, 576, 688, 864, 1200)


class Maps(NamedTuple):
    """The conv5 maps of one image at several scales."""

    maps: list[Tensor]  # [1, C, h, w] each
    factors: list[float]  # pixels of the resized image per pixel of the original


class SPPDetector(nn.Module):
    """Finds objects among proposed boxes.

    Args:
        network: a `SPPNet`; it is put into evaluation mode and not changed.
        num_classes: classes of objects. Their SVMs are ``svms``, a ``Linear`` that `fit_svms` fills.
        scales: lengths of the image's shorter side, in pixels; the paper's are `ONE_SCALE` and `FIVE_SCALES`.
        region_size: a region takes the scale at which its area is closest to the square of this, in pixels: the size
            that the network was trained with.
        layer: whose output describes a region.
        mapping: which cells a box covers, see `spp_ext.models.windows`.
        nms_threshold: a detection suppresses less certain ones of its class that overlap it by more.
        score_threshold: detections with a lower score are left out. The SVM's boundary is 0.
        max_detections: of an image, the most certain.

    Raises:
        ValueError: there is no such layer or mapping, no scale, or one of less than 64 pixels.
    """

    def __init__(
        self,
        network: SPPNet,
        num_classes: int,
        scales: Sequence[int] = ONE_SCALE,
        *,
        region_size: int = 224,
        layer: Layer = "fc7",
        mapping: Mapping = "appendix_a",
        nms_threshold: float = 0.3,
        score_threshold: float = -1.0,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        check_mapping(mapping)
        check_layer(layer)
        if not scales or min(scales) < SMALLEST:
            expected = f"at least one scale, of {SMALLEST} pixels or more"
            raise ValueError(f"spp_ext.models: expected {expected}, got {shown(list(scales))}")
        self.network, self.scales, self.region_size = network.eval(), tuple(scales), region_size
        self.layer, self.mapping, self.nms_threshold = layer, mapping, nms_threshold
        self.score_threshold, self.max_detections = score_threshold, max_detections
        features = {"pool5": network.fc6.in_features, "fc6": network.fc6.out_features, "fc7": network.fc7.out_features}
        self.svms = nn.Linear(features[layer], num_classes)

    def train(self, mode: bool = True) -> SPPDetector:
        """Sets the mode of the SVMs; the network stays in evaluation mode, without dropout."""
        super().train(mode)
        self.network.eval()
        return self

    def image_maps(self, image: Tensor) -> Maps:
        """The maps of an image ``[3, H, W]``, normalised as the network takes it, at every scale.

        Raises:
            ValueError: the image has another shape, or an integer type.
        """
        if image.dim() != 3 or len(image) != 3 or not image.numel() or not image.is_floating_point():
            expected = "an image of shape [3, H, W] and a floating-point dtype"
            raise ValueError(f"spp_ext.models: expected {expected}, got {list(image.shape)}, {image.dtype}")
        maps, factors = [], []
        for scale in self.scales:
            factor = scale / min(image.shape[1:])
            size = [round(side * factor) for side in image.shape[1:]]
            resized = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)
            maps.append(self.network.features(resized))
            factors.append(factor)
        return Maps(maps, factors)

    def choose_maps(self, boxes: Tensor, factors: Sequence[float]) -> Tensor:
        """For each box ``[K, 4]`` the map, int64 ``[K]``, on whose scale its area is closest to region_size squared."""
        sides = (boxes[:, 2:] - boxes[:, :2]).double().clamp(min=0)
        squares = torch.tensor(factors, dtype=torch.float64, device=boxes.device) ** 2
        return (sides.prod(1)[:, None] * squares - self.region_size**2).abs().argmin(1)

    def pool_regions(self, found: Maps, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The pyramids of the different windows ``[U, C * B]``, and which of them is each box's, int64 ``[K]``.

        Args:
            found: of `image_maps`.
            boxes: ``[K, 4]`` of (x1, y1, x2, y2) in pixels of the image, on the device of the maps.

        Raises:
            ValueError: the boxes have another shape, an integer type, or a coordinate that is not finite.
        """
        if boxes.dim() != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
            expected = "boxes of shape [K, 4] and a floating-point dtype"
            raise ValueError(f"spp_ext.models: expected {expected}, got {list(boxes.shape)}, {boxes.dtype}")
        if not boxes.isfinite().all():
            row = int((~boxes.isfinite()).any(1).nonzero()[0])
            raise ValueError(f"spp_ext.models: expected finite boxes, got {boxes[row].tolist()} in row {row}")
        boxes = widened(boxes)
        maps, factors = found
        chosen = self.choose_maps(boxes, factors)
        factor = torch.tensor(factors, dtype=torch.float64, device=boxes.device)[chosen]
        sizes = torch.tensor([each.shape[2:] for each in maps], device=boxes.device)[chosen]
        cells = torch.cat([chosen[:, None], windows(boxes, factor, sizes, self.mapping)], 1)
        unique, inverse = torch.unique(cells, dim=0, return_inverse=True)
        # Any of the boxes of a window stands for all of them.
        rows = torch.empty(len(unique), dtype=torch.int64, device=boxes.device)
        rows[inverse] = torch.arange(len(boxes), device=boxes.device)
        rois = F.pad(pooling_boxes(boxes[rows], factor[rows], sizes[rows], self.mapping), (1, 0))
        scales = [pooling_scale(each, self.mapping) for each in factors]
        levels, convention = self.network.levels, CONVENTIONS[self.mapping]
        pooled = spp_ext.roi_spatial_pyramid_pool(
            maps, rois, levels, scales, convention=convention, map_indices=chosen[rows]
        )
        return pooled, inverse

    @torch.no_grad()
    def features(self, image: Tensor, boxes: Tensor) -> Tensor:
        """The representation of regions ``[K, D]``.

        Args:
            image: ``[3, H, W]``, normalised as the network takes it.
            boxes: ``[K, 4]`` of (x1, y1, x2, y2) in pixels of the image, on its device.
        """
        pooled, inverse = self.pool_regions(self.image_maps(image), boxes)
        return self.network.head(pooled, self.layer)[inverse]

    @torch.no_grad()
    def detect(self, boxes: Tensor, features: Tensor) -> Detections:
        """What the SVMs make of boxes ``[K, 4]`` with features ``[K, D]``, suppressed within each class."""
        boxes = widened(boxes)  # of float16 an area would overflow
        scores = self.svms(features)
        parts = []
        for label, column in enumerate(scores.unbind(1)):
            certain = (column > self.score_threshold).nonzero().flatten()
            kept = certain[nms(boxes[certain], column[certain], self.nms_threshold)]
            parts.append(Detections(boxes[kept], column[kept], torch.full_like(kept, label)))
        every = Detections(*(torch.cat(column) for column in zip(*parts, strict=True)))
        order = every.scores.argsort(descending=True, stable=True)[: self.max_detections]
        return Detections(*(column[order] for column in every))

    def forward(self, image: Tensor, boxes: Tensor) -> Detections:
        """The objects among proposed ``boxes [K, 4]`` of an ``image [3, H, W]``."""
        return self.detect(boxes, self.features(image, boxes))
