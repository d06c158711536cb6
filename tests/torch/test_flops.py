"""FlopCounterMode counts a pooling's comparisons, which are counted here on maps that hold each cell's number."""

import pytest
import torch
from pooling_models import SPPNet
from support import CONVENTIONS, TABLE_BINS, random_rois
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import spp_ext
from spp_ext import ops, replace_pooling

pytestmark = pytest.mark.cpu_only  # the dispatcher sees the CPU's ops

LEVELS = (1, 3, TABLE_BINS, (2, 9))


def counted(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def comparisons(pool, shape):
    """Each cell by itself: it is in a bin if it is the maximum of a map that is zero elsewhere. Of one channel."""
    cells = torch.eye(shape[0] * shape[1]).view(-1, 1, *shape) + 0.0
    seen = sum(pool(cell[None]) > 0 for cell in cells)
    return int((seen - 1).clamp(min=0).sum())


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (4, 4)])
def test_maps(shape):
    x = torch.zeros(2, 3, *shape)
    expected = 6 * comparisons(lambda x: spp_ext.spatial_pyramid_pool(x, LEVELS), shape)
    assert counted(lambda: spp_ext.spatial_pyramid_pool(x, LEVELS)) == expected
    leaf = x.clone().requires_grad_()
    bins = spp_ext.SpatialPyramidPool(LEVELS).bins
    assert counted(lambda: spp_ext.spatial_pyramid_pool(leaf, LEVELS).sum().backward()) == expected + 6 * bins


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_regions(convention):
    shape, rois = (7, 5), random_rois(9, 1, 7, 5)
    options = {"convention": convention}
    expected = comparisons(lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS, 0.5, **options), shape)
    x = torch.zeros(1, 3, *shape)
    assert expected > 0
    assert counted(lambda: spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS, 0.5, **options)) == 3 * expected
    indices = torch.zeros(9, dtype=torch.long)
    several = counted(
        lambda: spp_ext.roi_spatial_pyramid_pool([x, x], rois, LEVELS, 0.5, map_indices=indices, **options)
    )
    assert several == 3 * expected


def test_stride_1_pools():
    expected = comparisons(lambda x: ops.multi_kernel_max_pool2d(x, (3, 5))[:, 1:], (7, 5))
    assert counted(lambda: ops.multi_kernel_max_pool2d(torch.zeros(2, 3, 7, 5), (3, 5))) == 6 * expected


def test_modules_and_swapped_models():
    x, model = torch.zeros(2, 3, 24, 20), SPPNet()
    before = counted(lambda: model(x))
    report = replace_pooling(model)
    shape = model.features(x).shape
    pools = counted(lambda: spp_ext.spatial_pyramid_pool(torch.zeros(shape), (6, 3, 2, 1)))
    assert len(report.swapped) == 1 and pools > 0
    assert counted(lambda: model(x)) == before + pools  # torch counts nothing for its own


def test_boxes_without_data_count_nothing():
    with FakeTensorMode():
        x, rois = torch.zeros(1, 3, 7, 5), torch.zeros(2, 5)
        assert counted(lambda: spp_ext.roi_spatial_pyramid_pool(x, rois)) == 0
        assert counted(lambda: spp_ext.spatial_pyramid_pool(x)) > 0
