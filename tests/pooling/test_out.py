"""``out=``: the values of the call without it, written into the tensor that is given and nowhere else."""

import pytest
import torch
from out_cases import CASES, ROIS, SHAPE
from support import NAN, assert_same, gaussian, lay_out, make_map

import spp_ext
from spp_ext import ops

# How a tensor of some shape lies in a larger one: the larger shape, and the way to the part.
PLACES = {
    "whole": (lambda shape: shape, lambda room: room),
    "some columns": (lambda shape: (*shape[:-1], shape[-1] + 5), lambda room: room[..., 2:-3]),
    "every second column": (lambda shape: (*shape[:-1], 2 * shape[-1]), lambda room: room[..., ::2]),
    "some rows": (lambda shape: (shape[0] + 2, *shape[1:]), lambda room: room[1:-1]),
    "axes reversed": (lambda shape: shape[::-1], lambda room: room.permute(*range(room.dim())[::-1])),
    "second axis last": (
        lambda shape: (shape[0], *shape[2:], *shape[1:2]),
        lambda room: room.movedim(-1, 1 % room.dim()),
    ),
}


def room_and_part(place, expected):
    """A tensor full of a number that no map here holds, and the part of it that looks like ``expected``."""
    wider, part = PLACES[place]
    room = torch.full(wider(tuple(expected.shape)), 77.0, dtype=expected.dtype)
    return room, part(room)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.mark.parametrize("kind", ["gaussian", "nan"])
def test_out_holds_the_result_and_is_returned(case, dtype, kind):
    x = make_map(kind, SHAPE, dtype)
    expected = case.call(x)
    out = torch.full_like(expected, 77)
    assert case.call(x, out=out) is out
    assert_same(out, expected)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "every_second_cell"])
@pytest.mark.parametrize("place", PLACES)
def test_out_may_lie_anywhere_and_its_neighbours_stay(case, place, layout):
    x = lay_out(gaussian(SHAPE, torch.float32), layout)
    expected = case.call(x)
    (room, out), (expected_room, part) = (room_and_part(place, expected) for _ in range(2))
    part.copy_(expected)
    assert case.call(x, out=out) is out
    assert_same(room, expected_room)


@pytest.mark.parametrize("shape", [(0, 3, 7, 6), (2, 0, 7, 6)], ids=str)
@pytest.mark.parametrize("name", ["map", "one level", "pools", "pools out of order"])
def test_an_empty_result_is_written_too(name, shape):
    case, x = CASES[name], torch.zeros(shape)
    out = torch.empty_like(case.call(x))
    assert case.call(x, out=out) is out and out.numel() == 0


def test_no_regions_and_no_bins_are_written_too():
    x, none = gaussian(SHAPE, torch.float32), ROIS[:0]
    out = torch.empty(0, 3)
    assert spp_ext.roi_spatial_pyramid_pool(x, none, (1,), out=out) is out
    out = torch.empty(0, 3, 2, 2)
    assert ops.roi_pool(x, none, 2, out=out) is out
    out = torch.empty(2, 3, 2, 0)
    assert ops.adaptive_max_pool2d(x, (2, 0), out=out) is out


def test_columns_of_one_matrix_save_a_cat():
    """The results of two calls side by side; and a map and its result in channels of one tensor."""
    x, y = gaussian(SHAPE, torch.float32), gaussian(SHAPE, torch.float32, seed=1)
    both = torch.full((2, 30), NAN)
    spp_ext.spatial_pyramid_pool(x, (1, 2), out=both[:, :15])
    spp_ext.spatial_pyramid_pool(y, (1, 2), out=both[:, 15:])
    assert_same(both, torch.cat([spp_ext.spatial_pyramid_pool(each, (1, 2)) for each in (x, y)], 1))
    for before, after in ((0, 3), (9, 0)):  # the map first, or last
        channels = torch.full((2, 12, 7, 6), NAN)
        input = channels[:, before : before + 3].copy_(x)
        out = channels[:, after : after + 9]
        assert_same(ops.multi_kernel_max_pool2d(input, (3, 5), out=out), ops.multi_kernel_max_pool2d(x, (3, 5)))
        assert_same(input, x)


def test_boxes_and_result_may_be_columns_of_one_matrix():
    x = gaussian(SHAPE, torch.float32)
    matrix = torch.cat([ROIS, torch.full((5, 15), NAN)], 1)
    expected = spp_ext.roi_spatial_pyramid_pool(x, ROIS, (1, 2))
    assert_same(spp_ext.roi_spatial_pyramid_pool(x, matrix[:, :5], (1, 2), out=matrix[:, 5:]), expected)
    assert_same(matrix[:, :5], ROIS)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_nobody_records_a_gradient_tensors_may_require_one(case, mode):
    x = gaussian(SHAPE, torch.float32).requires_grad_()
    expected = case.call(x.detach())
    out = torch.zeros_like(expected).requires_grad_()
    with mode():
        assert case.call(x, out=out) is out
    assert_same(out.detach(), expected)


def test_boxes_that_require_a_gradient_have_none_here_either():
    x, rois = gaussian(SHAPE, torch.float32), ROIS.clone().requires_grad_()
    out = torch.empty(5, 15)
    assert spp_ext.roi_spatial_pyramid_pool(x, rois, (1, 2), out=out) is out and not out.requires_grad


@pytest.mark.cpu_only  # other kernels, put in the place of ours, count nothing
def test_a_graph_notices_that_out_was_overwritten(case):
    x = gaussian(SHAPE, torch.float32)
    out = case.call(x)
    weight = torch.ones_like(out).requires_grad_()
    loss = (weight * out).sum()
    case.call(x, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
