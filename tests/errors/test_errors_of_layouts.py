"""Nested, sparse and mkldnn tensors are refused in one sentence, whichever argument they are."""

import pytest
import torch
from error_cases import MAP, ROI, ROIS, X
from support import assert_well_written

import spp_ext
from spp_ext import ops

pytestmark = pytest.mark.cpu_only  # refused by the dispatcher or before

LAYOUTS = {
    "sparse": lambda x: x.to_sparse(),
    "csr": lambda x: x.flatten(1).to_sparse_csr(),
    "mkldnn": lambda x: x.to_mkldnn(),
    "nested": lambda x: torch.nested.nested_tensor(list(x)),
    "jagged": lambda x: torch.nested.nested_tensor([x[0, 0], x[0, 0]], layout=torch.jagged),
}
CALLS = {
    "map": (MAP, lambda t: spp_ext.spatial_pyramid_pool(t)),
    "indices": (MAP, lambda t: spp_ext.spatial_pyramid_pool(t, return_indices=True)),
    "module": (MAP, lambda t: spp_ext.SpatialPyramidPool(reuse_output=True)(t)),
    "map out": (MAP, lambda t: spp_ext.spatial_pyramid_pool(X, out=t)),
    "map of regions": (ROI, lambda t: spp_ext.roi_spatial_pyramid_pool(t, ROIS)),
    "one of several maps": (
        ROI,
        lambda t: spp_ext.roi_spatial_pyramid_pool([X, t], ROIS, map_indices=torch.zeros(1).long()),
    ),
    "boxes": (ROI, lambda t: spp_ext.roi_spatial_pyramid_pool(X, t)),
    "list of boxes": (ROI, lambda t: spp_ext.roi_spatial_pyramid_pool(X, [t, t])),
    "adaptive_max_pool2d": ("spp_ext.ops.adaptive_max_pool2d", lambda t: ops.adaptive_max_pool2d(t, 2)),
    "adaptive_max_pool2d out": ("spp_ext.ops.adaptive_max_pool2d", lambda t: ops.adaptive_max_pool2d(X, 2, out=t)),
    "roi_pool": ("spp_ext.ops.roi_pool", lambda t: ops.roi_pool(t, ROIS, 2)),
    "boxes of roi_pool": ("spp_ext.ops.roi_pool", lambda t: ops.roi_pool(X, t, 2)),
    "multi_kernel_max_pool2d": ("spp_ext.ops.multi_kernel_max_pool2d", lambda t: ops.multi_kernel_max_pool2d(t)),
    "SPPF": ("spp_ext.ops.multi_kernel_max_pool2d", lambda t: ops.SPPF()(t)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:.*prototype|.*beta:UserWarning")  # torch's own, of these layouts
def test_a_layout_without_kernels_is_refused(call, layout):
    op, function = CALLS[call]
    with pytest.raises((RuntimeError, ValueError)) as caught:
        function(LAYOUTS[layout](X))
    text = str(caught.value)
    assert_well_written(text)
    assert text.startswith(f"{op}: expected ")
    if "out" not in call and layout != "csr":  # which have another shape, too
        assert type(caught.value) is NotImplementedError
        assert text.startswith(f"{op}: expected strided tensors on a device with kernels, got one ")
