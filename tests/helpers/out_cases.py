"""Every function that takes ``out=``, on one map: what the tests of ``out=`` go through."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from support import BINS, gaussian, random_rois

import spp_ext
from spp_ext import ops

SHAPE = (2, 3, 7, 6)
OTHER = gaussian((2, 3, 5, 9), torch.float64, seed=1)
ROIS = random_rois(5, 2, *SHAPE[2:])
SIZES = torch.tensor([[7, 4], [3, 6]])
MAP_INDICES = torch.tensor([0, 1, 1, 0, 1])
LEVELS = (2, (1, 3), BINS)


class Case(NamedTuple):
    op: str  # the name that errors bear
    call: Callable[..., torch.Tensor]  # call(x [N, C, H, W], out=...)


def _several(x, **out):
    maps = [x, OTHER.to(x.dtype)[:, : x.shape[1]]]
    return spp_ext.roi_spatial_pyramid_pool(maps, ROIS, LEVELS, (1.0, 0.5), map_indices=MAP_INDICES, **out)


def _listed(x, **out):
    return spp_ext.spatial_pyramid_pool([x, OTHER.to(x.dtype)[0, : x.shape[1]]], LEVELS, **out)


CASES = {
    "map": Case("spp_ext.spatial_pyramid_pool", lambda x, **out: spp_ext.spatial_pyramid_pool(x, LEVELS, **out)),
    "list of maps": Case("spp_ext.spatial_pyramid_pool", _listed),
    "valid sizes": Case(
        "spp_ext.spatial_pyramid_pool",
        lambda x, **out: spp_ext.spatial_pyramid_pool(x, LEVELS, sizes=SIZES, **out),
    ),
    "one level": Case("spp_ext.spatial_pyramid_pool", lambda x, **out: spp_ext.spatial_pyramid_pool(x, (3,), **out)),
    "map of one image": Case(
        "spp_ext.spatial_pyramid_pool", lambda x, **out: spp_ext.spatial_pyramid_pool(x[0], LEVELS, **out)
    ),
    "regions": Case(
        "spp_ext.roi_spatial_pyramid_pool",
        lambda x, **out: spp_ext.roi_spatial_pyramid_pool(x, ROIS, LEVELS, 0.5, convention="outer", **out),
    ),
    "regions of several maps": Case("spp_ext.roi_spatial_pyramid_pool", _several),
    "adaptive_max_pool2d": Case(
        "spp_ext.ops.adaptive_max_pool2d", lambda x, **out: ops.adaptive_max_pool2d(x, (2, 3), **out)
    ),
    "adaptive_max_pool2d of one image": Case(
        "spp_ext.ops.adaptive_max_pool2d", lambda x, **out: ops.adaptive_max_pool2d(x[0], (None, 3), **out)
    ),
    "roi_pool": Case("spp_ext.ops.roi_pool", lambda x, **out: ops.roi_pool(x, ROIS, (3, 2), 0.5, **out)),
    "pools": Case("spp_ext.ops.multi_kernel_max_pool2d", lambda x, **out: ops.multi_kernel_max_pool2d(x, **out)),
    "pools in cascade": Case(
        "spp_ext.ops.multi_kernel_max_pool2d",
        lambda x, **out: ops.multi_kernel_max_pool2d(x, (3, 5), cascade=True, **out),
    ),
    "pools out of order": Case(
        "spp_ext.ops.multi_kernel_max_pool2d",
        lambda x, **out: ops.multi_kernel_max_pool2d(x, (9, 3, 5, 3), **out),
    ),
    "pools of one image": Case(
        "spp_ext.ops.multi_kernel_max_pool2d", lambda x, **out: ops.multi_kernel_max_pool2d(x[0], (3, 5), **out)
    ),
}
