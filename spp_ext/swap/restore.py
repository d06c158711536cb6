"""What the swapped modules were: their own classes, and how each gets its class back."""

from __future__ import annotations

import importlib

from torch import nn

from spp_ext.ops.adaptive import AdaptiveMaxPool2d
from spp_ext.ops.roi import RoIPool
from spp_ext.swap.fuse import Fused


def own_class(module: nn.Module) -> type[nn.Module] | None:
    """The class whose place that of ``module`` takes, or None if it takes no place.

    Raises:
        ImportError: it is torchvision's, and there is no torchvision.
    """
    if "unfused" in vars(type(module)):
        assert isinstance(module, Fused)
        return module.unfused
    if type(module) is AdaptiveMaxPool2d:
        return nn.AdaptiveMaxPool2d
    return importlib.import_module("torchvision.ops").RoIPool if type(module) is RoIPool else None


def give_class(module: nn.Module, own: type[nn.Module]) -> None:
    """Makes a swapped module one of its own class again."""
    module.__class__ = own
    for ours in ("reuse_output", "_last"):
        vars(module).pop(ours, None)
