"""The public functions: checks that need Python, and the choice between values alone and values with derivatives."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from spp_ext._boxes import CONVENTIONS, as_map_indices, as_rois
from spp_ext._torch import functions as autograd
from spp_ext._torch.functions import pool
from spp_ext.levels import Level, pyramid, shown

Convention = Literal["roi_pool", "spp_net", "outer"]

_DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})


def _check_input(op: str, input: object, name: str = "input") -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"{op}: expected {name} to be a Tensor, got {type(input).__name__}")
    if input.dtype not in _DTYPES:
        raise TypeError(f"{op}: expected {name} of dtype float32, float64, float16 or bfloat16, got {input.dtype}")


def _check_maps(op: str, maps: Sequence[Tensor]) -> None:
    if not maps:
        raise ValueError(f"{op}: expected at least one map in input, got none")
    for m, map in enumerate(maps):
        _check_input(op, map, f"input[{m}]")
        if map.dim() != 4:
            raise ValueError(f"{op}: expected input[{m}] of shape [N, C, H, W], got {list(map.shape)}")
        if autograd.dtensor_rules(map) is not None:
            raise NotImplementedError(f"{op}: expected a DTensor to be the only map, got one of {len(maps)}")


def _as_scale(op: str, spatial_scale: object) -> float:
    if isinstance(spatial_scale, bool) or not isinstance(spatial_scale, (int, float)):
        raise TypeError(f"{op}: expected spatial_scale to be a number, got {shown(spatial_scale)}")
    if isinstance(spatial_scale, int) and spatial_scale > 2**127:
        raise ValueError(f"{op}: expected spatial_scale to be a positive finite number, got {shown(spatial_scale)}")
    return float(spatial_scale)


def _as_scales(op: str, spatial_scale: float | Sequence[float], maps: int) -> list[float]:
    """The scale of each map."""
    scales = spatial_scale if isinstance(spatial_scale, (list, tuple)) else [spatial_scale] * maps
    if len(scales) != maps:
        raise ValueError(f"{op}: expected a spatial_scale for each of {maps} maps, got {len(scales)}")
    return [_as_scale(op, scale) for scale in scales]


def _shards_channels(input: Tensor) -> bool:
    sharding = autograd.dtensor_rules(input)
    return sharding is not None and sharding.shards_channels(input)


def _level_by_level(
    pool_levels: Callable[..., Any], levels: Sequence[Level], return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]:
    parts = [pool_levels(levels=(level,), return_indices=return_indices) for level in levels]
    return tuple(torch.cat(column, 1) for column in zip(*parts, strict=True)) if return_indices else torch.cat(parts, 1)


def spatial_pyramid_pool(
    input: Tensor, levels: Sequence[Level] = (1, 2, 3, 6), *, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Max-pools a feature map over a spatial pyramid of bins: a vector of one length for a map of any size.

    The spatial pyramid pooling layer of He et al. 2014 (arXiv:1406.4729), and exactly
    ``torch.cat([F.adaptive_max_pool2d(input, level).flatten(1) for level in levels], 1)``, in one pass.

    Args:
        input: feature map ``[N, C, H, W]`` or ``[C, H, W]``, contiguous or channels_last (other strides are copied);
            float32, float64, float16 or bfloat16.
        levels: one item per level, ``n`` for n x n bins, ``(rows, cols)``, or a `Bins` of arbitrary rectangles.
        return_indices: also return where each maximum lies.

    Returns:
        ``[N, C * B]`` (``[C * B]`` for a 3-D input), where B is the number of bins over all levels: level after level,
        within a level channel by channel, within a channel the bins row by row. `split_levels` takes it apart. With
        ``return_indices`` also an int64 tensor of the same shape, ``row * W + column`` of each maximum in its plane.

        Of equal values the first in row-major order is the maximum. A NaN in a bin is its maximum, as in torch.

    Raises:
        TypeError: ``input`` is not a floating-point tensor, or ``levels`` not a sequence of levels.
        ValueError: ``input`` has another rank or no rows or columns, or a level is not positive.

    Example::

        >>> spp_ext.spatial_pyramid_pool(torch.randn(2, 256, 13, 17)).shape      # 50 bins
        torch.Size([2, 12800])
    """
    op = "spp_ext.spatial_pyramid_pool"
    _check_input(op, input)
    if input.dim() != 4:
        if input.dim() != 3:
            raise ValueError(f"{op}: expected input of shape [N, C, H, W] or [C, H, W], got {list(input.shape)}")
        pooled = spatial_pyramid_pool(input.unsqueeze(0), levels, return_indices=return_indices)
        return (pooled[0].squeeze(0), pooled[1].squeeze(0)) if return_indices else pooled.squeeze(0)
    encoded, level_bins = pyramid(op, levels)
    if type(input) is not Tensor and len(levels) > 1 and _shards_channels(input):
        call = functools.partial(spatial_pyramid_pool, input)
        return _level_by_level(call, levels, return_indices)

    output, argmax = pool(input, None, "spatial_pyramid_pool", (encoded,), level_bins, return_indices)
    return (output, argmax.long()) if return_indices else output


def roi_spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = (1, 2, 3, 6),
    spatial_scale: float | Sequence[float] = 1.0,
    *,
    convention: Convention = "roi_pool",
    return_indices: bool = False,
    validate: bool | None = None,
    map_indices: Tensor | Sequence[Tensor] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Max-pools every region of interest over a spatial pyramid of bins, all regions of a batch in one call.

    The feature extraction of the SPP-net detector (He et al. 2014, section 4). With one level and the default
    convention it is ``torchvision.ops.roi_pool``, flattened.

    Args:
        input: feature map ``[N, C, H, W]``, contiguous or channels_last (other strides are copied); float32, float64,
            float16 or bfloat16. Or a sequence of M of them, alike but for height, width and memory format, such as the
            maps of one batch at several image scales.
        boxes: ``[K, 5]``, rows of (batch_index, x1, y1, x2, y2), or a list of N tensors ``[L, 4]``, the boxes of each
            image. In image coordinates, of any floating-point dtype whatever the input's: coordinates are computed in
            float32, or float64 if the boxes are float64.
        levels: as in `spatial_pyramid_pool`; a level divides the region's window.
        spatial_scale: feature cells per image pixel. With a network of stride 16 it is 1/16: a box from x = 32 to 96
            covers columns 2 to 6 of the map. For several maps one number for all, or a sequence of M: boxes are in
            the coordinates of one image, however large the images were that the maps were computed from.
        convention: how a box becomes a window of feature cells: ``"roi_pool"`` rounds both ends and includes them (Fast
            R-CNN, torchvision); ``"spp_net"`` is Appendix A of the paper; ``"outer"`` is the smallest window that
            covers the box. The README has a picture of the three.
        return_indices: also return where each maximum lies.
        validate: on CUDA, whether to check the contents of ``boxes``, which waits for the device; without it a bad row
            pools to NaN. Default: the environment variable SPP_EXT_VALIDATE. On the CPU boxes are always checked.
        map_indices: with several maps, which one each region is pooled from: integers ``[K]`` in ``[0, M)``, or where
            ``boxes`` is a list a list of N tensors ``[L]``. Checked as boxes are.

    Returns:
        ``[K, C * B]``, each row ordered as in `spatial_pyramid_pool`. With ``return_indices`` also an int64 tensor
        of the same shape, ``row * W + column`` of each maximum in its plane of the map. A bin that lies outside the
        map is 0, has index -1 and passes no gradient; ``"spp_net"`` has none, since it moves windows into the map.

    Raises:
        TypeError: an argument has the wrong type, or a tensor is not floating-point.
        ValueError: a shape does not fit, a coordinate is not finite, or the scale not positive and finite.
        IndexError: a batch index lies outside ``[0, N)``, or a map index outside ``[0, M)``; the row and the value are
            named.
        NotImplementedError: one of several maps is a DTensor.

    Example::

        >>> features = torch.randn(2, 256, 38, 50)
        >>> boxes = torch.tensor([[0.0, 32, 48, 200, 300], [1.0, 0, 0, 799, 599]])
        >>> spp_ext.roi_spatial_pyramid_pool(features, boxes, spatial_scale=1 / 16).shape
        torch.Size([2, 12800])
        >>> twice_as_large = torch.randn(2, 256, 75, 100)
        >>> maps, scales, map_indices = [features, twice_as_large], [1 / 16, 1 / 8], torch.tensor([1, 0])
        >>> spp_ext.roi_spatial_pyramid_pool(maps, boxes, spatial_scale=scales, map_indices=map_indices).shape
        torch.Size([2, 12800])
    """
    op = "spp_ext.roi_spatial_pyramid_pool"
    plain = type(input) is Tensor
    several = not plain and isinstance(input, (list, tuple))
    if several:
        _check_maps(op, input)
        scale: Any = _as_scales(op, spatial_scale, len(input))
        first = input[0]
    else:
        if not plain or input.dtype not in _DTYPES:  # spares most a call
            _check_input(op, input)
        if input.dim() != 4:
            raise ValueError(f"{op}: expected input of shape [N, C, H, W], got {list(input.shape)}")
        scale = spatial_scale if type(spatial_scale) is float else _as_scale(op, spatial_scale)
        first = input
    try:
        number = CONVENTIONS[convention]
    except (KeyError, TypeError):
        if not isinstance(convention, str):
            raise TypeError(f"{op}: expected convention to be a str, got {type(convention).__name__}") from None
        names = '"roi_pool", "spp_net" or "outer"'
        raise ValueError(f"{op}: expected convention {names}, got {json.dumps(convention)}") from None
    rois = as_rois(op, boxes, first)
    encoded, level_bins = pyramid(op, levels)
    if validate is None:
        validate = not first.is_cpu and os.environ.get("SPP_EXT_VALIDATE", "0") not in ("", "0")
    else:
        validate = bool(validate)
    if several:
        map_indices = as_map_indices(op, map_indices, boxes, rois)
    elif map_indices is not None:
        raise ValueError(f"{op}: expected map_indices only with a sequence of maps, got them with one map")
    elif not plain and len(levels) > 1 and _shards_channels(input):
        options = {"spatial_scale": scale, "convention": convention, "validate": validate}
        call = functools.partial(roi_spatial_pyramid_pool, input, rois, **options)
        return _level_by_level(call, levels, return_indices)

    name = "roi_spatial_pyramid_pool_of_maps" if several else "roi_spatial_pyramid_pool"
    arguments = (encoded, scale, number, validate)
    output, argmax = pool(input, rois, name, arguments, level_bins, return_indices, map_indices)
    return (output, argmax.long()) if return_indices else output
