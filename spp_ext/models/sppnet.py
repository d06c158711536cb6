"""ZF-5 with a spatial pyramid pooling layer, the network of He et al. 2014 (arXiv:1406.4729), and ZF-5 without one.

The layers are those of the network that the authors released:

    conv1  96 @ 7x7, stride 2, padding 1    ReLU, LRN, max pool 3x3 stride 2
    conv2  256 @ 5x5, stride 2              ReLU, LRN, max pool 3x3 stride 2
    conv3  384 @ 3x3, padding 1             ReLU
    conv4  384 @ 3x3, padding 1             ReLU
    conv5  256 @ 3x3, padding 1             ReLU
    pool5  the spatial pyramid; without one max pool 3x3 stride 2
    fc6, fc7  4096                          ReLU, dropout 0.5
    fc8    num_classes

LRN is local response normalisation over 3 x 3 neighbours of the same channel, and pools round their sizes up, as in
Caffe: 224 pixels become 110, 55, 26 and 13 cells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spp_ext._boxes import as_rois, widened
from spp_ext._checks import shown
from spp_ext.functional import roi_spatial_pyramid_pool
from spp_ext.levels import Level
from spp_ext.models.windows import CONVENTIONS, Mapping, check_mapping, pooling_boxes, pooling_scale
from spp_ext.modules import SpatialPyramidPool

Layer = Literal["pool5", "fc6", "fc7"]

LAYERS = ("pool5", "fc6", "fc7")
SMALLEST = 64  # pixels; conv5 has 3 x 3 cells then


def check_layer(layer: str) -> None:
    """Raises ValueError if no layer of that name describes an image."""
    if layer not in LAYERS:
        raise ValueError(f"spp_ext.models: expected layer to be one of {LAYERS}, got {shown(layer)}")


class WithinChannelNorm(nn.Module):
    """Local response normalisation over ``size x size`` neighbours of the same channel, Caffe's WITHIN_CHANNEL.

    ``x * (1 + alpha * mean(x^2)) ** -beta``, the mean over the neighbours, zeros outside the map included.
    ``torch.nn.LocalResponseNorm`` has neighbours in other channels. Half precision is computed in float32.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, input: Tensor) -> Tensor:
        """Normalises ``[N, C, H, W]``."""
        # Of float16 the squares would pass 65,504 where the map passes 256, and all there become 0.
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        energy = F.avg_pool2d(x * x, self.size, stride=1, padding=self.size // 2)
        return (x * (1 + self.alpha * energy) ** -self.beta).to(input.dtype)

    def extra_repr(self) -> str:  # noqa: D102
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}"


def map_size(pixels: int) -> int:
    """How many cells conv5 has along a side of so many pixels: 13 for 224, 10 for 180."""
    conv1 = (pixels + 2 - 7) // 2 + 1
    pool1 = -(-(conv1 - 3) // 2) + 1
    conv2 = (pool1 - 5) // 2 + 1
    return -(-(conv2 - 3) // 2) + 1


def _convolutions(channels: Sequence[int]) -> nn.Sequential:
    one, two, three, four, five = channels
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, one, 7, stride=2, padding=1),
            relu1=nn.ReLU(),
            norm1=WithinChannelNorm(),
            pool1=nn.MaxPool2d(3, stride=2, ceil_mode=True),
            conv2=nn.Conv2d(one, two, 5, stride=2),
            relu2=nn.ReLU(),
            norm2=WithinChannelNorm(),
            pool2=nn.MaxPool2d(3, stride=2, ceil_mode=True),
            conv3=nn.Conv2d(two, three, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(three, four, 3, padding=1),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(four, five, 3, padding=1),
            relu5=nn.ReLU(),
        )
    )


class _Network(nn.Module):
    """The layers that both networks share, around a pool of their own.

    Args:
        pool5: maps ``[N, C, h, w]`` to ``[N, C * bins]``.
        bins: of the pool.
        size: the one size of image, in pixels, that the pool can take; None for any.
        num_classes: outputs of fc8.
        width: multiplies the number of channels of every layer but the last.
    """

    def __init__(self, pool5: nn.Module, bins: int, size: int | None, num_classes: int, width: float) -> None:
        super().__init__()
        self.size = size
        channels = [max(1, round(width * channels)) for channels in (96, 256, 384, 384, 256)]
        hidden = max(1, round(width * 4096))
        self.convolutions = _convolutions(channels)
        self.pool5 = pool5
        self.fc6 = nn.Linear(channels[-1] * bins, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(0.5)
        for module in self.modules():
            # He et al. 2015 (arXiv:1502.01852) instead of the paper's Gaussian of deviation 0.01, with which a narrow
            # network does not begin to learn.
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None  # each has one
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc8.weight, std=0.01)

    def features(self, images: Tensor) -> Tensor:
        """The maps of conv5, ``[N, C, map_size(H), map_size(W)]``, of images ``[N, 3, H, W]``.

        Raises:
            ValueError: the images have another shape, or a side of less than 64 pixels.
        """
        if images.dim() != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST:
            expected = f"images of shape [N, 3, H, W], H and W at least {SMALLEST}"
            raise ValueError(f"spp_ext.models: expected {expected}, got {list(images.shape)}")
        return self.convolutions(images)

    def head(self, pooled: Tensor, layer: Layer = "fc7") -> Tensor:
        """What a layer says, after its ReLU and dropout, of ``pooled [K, C * B]``, which is pool5's own."""
        check_layer(layer)
        if layer == "pool5":
            return pooled
        hidden = self.dropout(F.relu(self.fc6(pooled)))
        return hidden if layer == "fc6" else self.dropout(F.relu(self.fc7(hidden)))

    def represent(self, images: Tensor, layer: Layer = "fc7") -> Tensor:
        """The representation of whole images (paper, section 3.3 and tables 6 to 8), ``[N, D]``.

        Args:
            images: ``[N, 3, H, W]``, of ``size`` where the network has one, else of any from 64 x 64 up.
            layer: whose, ``"pool5"``, ``"fc6"`` or ``"fc7"``.
        """
        if self.size is not None and tuple(images.shape[2:]) != (self.size, self.size):
            expected = f"images of {self.size} x {self.size} pixels, the only size without a pyramid"
            raise ValueError(f"spp_ext.models: expected {expected}, got {list(images.shape)}")
        return self.head(self.pool5(self.features(images)), layer)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores before the softmax, ``[N, num_classes]``."""
        return self.fc8(self.represent(images))


class ZF5(_Network):
    """ZF-5 without a pyramid: fully-connected layers on a map of one fixed size.

    Args:
        num_classes: outputs of fc8.
        size: the one size of image it takes, in pixels.
        width: multiplies the number of channels of every layer but the last.
    """

    def __init__(self, num_classes: int, size: int = 224, width: float = 1.0) -> None:
        if size < SMALLEST:
            raise ValueError(f"spp_ext.models: expected a size of at least {SMALLEST} pixels, got {size}")
        pool5 = nn.Sequential(nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.Flatten())
        cells = -(-(map_size(size) - 3) // 2) + 1
        super().__init__(pool5, cells * cells, size, num_classes, width)


class SPPNet(_Network):
    """ZF-5 with a spatial pyramid pooling layer between conv5 and fc6: images of any size, and regions of them.

    Args:
        num_classes: outputs of fc8.
        levels: the pyramid, as in `spp_ext.spatial_pyramid_pool`.
        width: multiplies the number of channels of every layer but the last.
    """

    pool5: SpatialPyramidPool

    def __init__(self, num_classes: int, levels: Sequence[Level] = (6, 3, 2, 1), width: float = 1.0) -> None:
        pool5 = SpatialPyramidPool(levels)
        super().__init__(pool5, pool5.bins, None, num_classes, width)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid."""
        return self.pool5.levels

    def region_features(
        self,
        images: Tensor,
        boxes: Tensor | Sequence[Tensor],
        layer: Layer = "fc7",
        *,
        mapping: Mapping = "appendix_a",
    ) -> Tensor:
        """The representation of regions, ``[K, D]``: one pass over the images, then pooling and fully-connected layers.

        Args:
            images: ``[N, 3, H, W]``.
            boxes: ``[K, 5]`` of (batch_index, x1, y1, x2, y2), or a list of ``[L, 4]``, in pixels of the images.
            layer: whose, ``"pool5"``, ``"fc6"`` or ``"fc7"``.
            mapping: which cells a box covers, see `spp_ext.models.windows`.

        Raises:
            TypeError: the boxes are not floating-point tensors.
            ValueError: a shape does not fit, there is no such layer or mapping, or a coordinate is not finite.
            IndexError: a batch index lies outside ``[0, N)``.
        """
        check_mapping(mapping)
        maps = self.features(images)
        rois = widened(as_rois("spp_ext.models", boxes, maps))
        if rois.dim() != 2 or rois.shape[1] != 5:
            raise ValueError(f"spp_ext.models: expected boxes of shape [K, 5], got {list(rois.shape)}")
        factors = rois.new_ones(len(rois), dtype=torch.float64)
        sizes = rois.new_tensor(maps.shape[2:]).expand(len(rois), 2)
        rois = torch.cat([rois[:, :1], pooling_boxes(rois[:, 1:], factors, sizes, mapping)], 1)
        scale, convention = pooling_scale(1.0, mapping), CONVENTIONS[mapping]
        pooled = roi_spatial_pyramid_pool(maps, rois, self.levels, scale, convention=convention)
        return self.head(pooled, layer)


def sppnet_zf5(num_classes: int, levels: Sequence[Level] = (6, 3, 2, 1), width: float = 1.0) -> SPPNet:
    """ZF-5 with a spatial pyramid pooling layer, for images of any size from 64 x 64 up.

    Args:
        num_classes: outputs of the last layer.
        levels: the pyramid; (6, 3, 2, 1) and (4, 3, 2, 1) are the paper's two.
        width: multiplies the number of channels of every layer but the last; 1/8 trains on a laptop.

    Example::

        >>> network = sppnet_zf5(1000)
        >>> network(torch.randn(1, 3, 224, 224)).shape, network(torch.randn(1, 3, 180, 300)).shape
        (torch.Size([1, 1000]), torch.Size([1, 1000]))
    """
    return SPPNet(num_classes, levels, width)


def zf5(num_classes: int, size: int = 224, width: float = 1.0) -> ZF5:
    """ZF-5 without a pyramid, for images of ``size x size`` pixels only: what the paper compares with."""
    return ZF5(num_classes, size, width)
