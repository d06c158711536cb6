"""Spatial pyramid max pooling for PyTorch: whole maps and thousands of regions, all levels in one pass."""

import importlib
from typing import TYPE_CHECKING, Any

import spp_ext._torch.registration  # noqa: F401 - registers the ops' derivatives
from spp_ext import ops, reference
from spp_ext._boxes import Convention
from spp_ext._version import __version__
from spp_ext.functional import roi_spatial_pyramid_pool, spatial_pyramid_pool
from spp_ext.levels import Bins, Level, num_bins, split_levels
from spp_ext.modules import RoISpatialPyramidPool, SpatialPyramidPool
from spp_ext.swap import replace_pooling, restore_pooling

__all__ = [
    "Bins",
    "Convention",
    "Level",
    "RoISpatialPyramidPool",
    "SpatialPyramidPool",
    "__version__",
    "num_bins",
    "ops",
    "reference",
    "replace_pooling",
    "restore_pooling",
    "roi_spatial_pyramid_pool",
    "spatial_pyramid_pool",
    "split_levels",
]


# Imported when they are first asked for.
_LAZY = ("models", "onnx", "testing")

if TYPE_CHECKING:
    from spp_ext import models as models
    from spp_ext import onnx as onnx
    from spp_ext import testing as testing
else:  # A type checker that saw this function would accept any name.

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            return importlib.import_module(f"spp_ext.{name}")
        raise AttributeError(f"module 'spp_ext' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_LAZY, "swap"]
