"""Spatial pyramid max pooling for PyTorch: whole maps and thousands of regions, all levels in one pass."""

from spp_ext import reference
from spp_ext._version import __version__
from spp_ext.functional import roi_spatial_pyramid_pool, spatial_pyramid_pool
from spp_ext.levels import Bins, split_levels
from spp_ext.modules import RoISpatialPyramidPool, SpatialPyramidPool

__all__ = [
    "Bins",
    "RoISpatialPyramidPool",
    "SpatialPyramidPool",
    "__version__",
    "reference",
    "roi_spatial_pyramid_pool",
    "spatial_pyramid_pool",
    "split_levels",
]
