"""Drop-ins: the signatures and the results of the ops they replace, computed by this package's kernels."""

from spp_ext.ops.adaptive import AdaptiveMaxPool2d, adaptive_max_pool2d
from spp_ext.ops.multi_scale import MultiScaleRoIPool
from spp_ext.ops.roi import RoIPool, roi_pool
from spp_ext.ops.yolo import SPP, SPPF, multi_kernel_max_pool2d

__all__ = [
    "SPP",
    "SPPF",
    "AdaptiveMaxPool2d",
    "MultiScaleRoIPool",
    "RoIPool",
    "adaptive_max_pool2d",
    "multi_kernel_max_pool2d",
    "roi_pool",
]
