"""Autocast: features in half precision with float32 boxes just work, and no coordinate is ever rounded to half."""

import pytest
import torch
from support import assert_same, gaussian

import spp_ext

# In half precision 2049 is 2048 and 257 may be 256: another cell.
BOXES = torch.tensor([[0.0, 2049, 0, 2049, 0], [0, 257, 0, 257, 0], [1, 1025, 0, 3001, 0]])


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_features_with_float32_boxes(half):
    x = gaussian((2, 3, 1, 3002), half).requires_grad_()
    with torch.autocast("cpu", dtype=half):
        pooled = spp_ext.roi_spatial_pyramid_pool(x, BOXES, (1, 2))
        listed = spp_ext.roi_spatial_pyramid_pool(x, [BOXES[:2, 1:], BOXES[2:, 1:]], (1, 2))
    expected = spp_ext.reference.roi_spatial_pyramid_pool(x.detach(), BOXES, (1, 2))
    assert_same(pooled.detach(), expected)
    assert_same(listed.detach(), expected)
    assert_same(pooled[0, :3].detach(), x[0, :, 0, 2049].detach())
    pooled.sum().backward()
    assert x.grad.dtype == half and x.grad[0, :, 0, 2049].ne(0).all() and not x.grad[0, :, 0, 2048].any()


def test_a_network_under_autocast_pools_what_the_convolution_gives():
    convolution = torch.nn.Conv2d(3, 4, 3)
    head = torch.nn.Linear(4 * 14, 2)
    x = torch.randn(2, 3, 9, 8)
    rois = torch.tensor([[0.0, 0, 0, 5, 5], [1, 1, 2, 6, 4]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = convolution(x)
        assert features.dtype == torch.bfloat16
        for pooled in (
            spp_ext.spatial_pyramid_pool(features, (1, 2, 3)),
            spp_ext.roi_spatial_pyramid_pool(features, rois, (1, 2, 3)),
        ):
            assert pooled.dtype == torch.bfloat16
            head(pooled).sum().backward(retain_graph=True)
    assert convolution.weight.grad.dtype == torch.float32 and convolution.weight.grad.abs().sum() > 0


def test_autocast_changes_nothing_but_what_it_is_given():
    x = gaussian((2, 3, 5, 6), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(spp_ext.spatial_pyramid_pool(x), spp_ext.spatial_pyramid_pool(x))
        assert spp_ext.spatial_pyramid_pool(x).dtype == torch.float32
        assert_same(spp_ext.spatial_pyramid_pool(x), spp_ext.reference.spatial_pyramid_pool(x))
