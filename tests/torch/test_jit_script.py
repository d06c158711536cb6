"""torch.jit.script cannot compile this package, and says so in one sentence, the first time and any other."""

import pytest
import torch
from pooling_models import SPPF, Detector
from support import assert_refuses

import spp_ext
from spp_ext import ops, replace_pooling, restore_pooling

pytestmark = pytest.mark.cpu_only  # no kernel runs

OPS = {
    "spp_ext.spatial_pyramid_pool": spp_ext.spatial_pyramid_pool,
    "spp_ext.roi_spatial_pyramid_pool": spp_ext.roi_spatial_pyramid_pool,
    "spp_ext.ops.adaptive_max_pool2d": ops.adaptive_max_pool2d,
    "spp_ext.ops.roi_pool": ops.roi_pool,
    "spp_ext.ops.multi_kernel_max_pool2d": ops.multi_kernel_max_pool2d,
    "spp_ext.SpatialPyramidPool": spp_ext.SpatialPyramidPool(),
    "spp_ext.RoISpatialPyramidPool": spp_ext.RoISpatialPyramidPool(),
    "spp_ext.ops.AdaptiveMaxPool2d": ops.AdaptiveMaxPool2d(2),
    "spp_ext.ops.RoIPool": ops.RoIPool(2, 1.0),
    "spp_ext.ops.SPP": ops.SPP(),
    "spp_ext.ops.SPPF": ops.SPPF(),
}


@pytest.mark.parametrize("name", OPS)
def test_what_cannot_be_compiled_says_so(name):
    message = f"{name}: expected torch.jit.trace, got torch.jit.script"
    for _ in range(2):
        assert_refuses(NotImplementedError, message, lambda: torch.jit.script(OPS[name]))


def calls_a_function(x):
    return spp_ext.spatial_pyramid_pool(x)


def test_a_function_within_what_is_compiled_says_so():
    for _ in range(2):
        with pytest.raises(Exception, match="spp_ext.spatial_pyramid_pool: expected torch.jit.trace, got"):
            torch.jit.script(calls_a_function)


def test_a_swapped_model_is_compiled_as_it_was_before():
    model, x = Detector(SPPF(8, 8)).eval(), torch.randn(1, 3, 32, 40)
    replace_pooling(model)
    classes = [type(module) for module in model.modules()]
    message = (
        "spp_ext.replace_pooling: expected torch.jit.trace, or restore_pooling before torch.jit.script, got "
        "torch.jit.script"
    )
    for _ in range(2):
        assert_refuses(NotImplementedError, message, lambda: torch.jit.script(model))
    assert [type(module) for module in model.modules()] == classes
    expected = model(x)
    compiled = torch.jit.script(restore_pooling(model, inplace=False).model)
    torch.testing.assert_close(compiled(x), expected)
