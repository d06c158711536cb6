"""Spatial pyramid max pooling for PyTorch: whole maps and thousands of regions, all levels in one pass."""

from spp_ext import ops, reference
from spp_ext._torch import registration as _registration
from spp_ext._version import __version__
from spp_ext.functional import roi_spatial_pyramid_pool, spatial_pyramid_pool
from spp_ext.levels import Bins, split_levels
from spp_ext.modules import RoISpatialPyramidPool, SpatialPyramidPool
from spp_ext.ops import replace_pooling

__all__ = [
    "Bins",
    "RoISpatialPyramidPool",
    "SpatialPyramidPool",
    "__version__",
    "ops",
    "reference",
    "replace_pooling",
    "roi_spatial_pyramid_pool",
    "spatial_pyramid_pool",
    "split_levels",
]
