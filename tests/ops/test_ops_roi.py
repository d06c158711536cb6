"""`ops.roi_pool` is `reference.roi_pool`, torchvision's but for NaN and -inf; and torchvision's own where that is."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import (
    DTYPES,
    INF,
    KINDS,
    NAN,
    assert_same,
    assert_well_written,
    generator,
    integers,
    lay_out,
    make_map,
    random_rois,
)

import spp_ext
from spp_ext import reference
from spp_ext.ops import RoIPool, roi_pool


@pytest.mark.parametrize("rois_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 0.5, 1 / 3, 1 / 16])
def test_values_equal_the_reference(kind, rois_dtype, scale):
    x = make_map(kind, [2, 3, 11, 13])
    rois = random_rois(12, 2, 11, 13, scale=scale, dtype=rois_dtype)
    for size in (1, 2, 3, 7, (2, 5), [6, 1]):
        assert_same(roi_pool(x, rois, size, scale), reference.roi_pool(x, rois, size, scale))


@pytest.mark.parametrize("n", [7, 9, 11, 13, 14])
@pytest.mark.parametrize("rois_dtype", [torch.float32, torch.float64])
def test_bin_edges_are_the_rounded_ones_at_every_extent(n, rois_dtype):
    extents = torch.arange(1, 260)
    ramp = torch.arange(300.0)
    x = torch.stack([ramp, -ramp]).view(1, 2, 1, 300)  # the maxima are the last cell of a bin and the first
    rois = torch.zeros(len(extents), 5, dtype=rois_dtype)
    rois[:, 1], rois[:, 3] = 3, 3 + extents - 1
    got = roi_pool(x, rois, (1, n))
    assert_same(got, reference.roi_pool(x, rois, (1, n)))
    # Only with 9 bins are these the integer edges at all these extents.
    integer_edges = spp_ext.roi_spatial_pyramid_pool(x, rois, [(1, n)]).view(got.shape)
    assert torch.equal(got, integer_edges) == (n == 9)


@pytest.mark.parametrize("n", [7, (14, 2), (1, 14)])
@pytest.mark.parametrize("rois_dtype", [torch.float32, torch.float64])
def test_gradients_are_the_references_where_edges_are_not_integer_ones(layout, dtype, rois_dtype, n):
    x = lay_out(integers([1, 3, 60, 124], dtype), layout)
    # Windows of 57, 114, 121 columns and 57, 58, 29 rows: float32 moves edges of the first, float64 of the others.
    rois = torch.tensor([[0, 0, 0, 56, 56], [0, 5, 1, 118, 58], [0, 2, 30, 122, 58]], dtype=rois_dtype)
    values, argmax = reference.roi_pool(x, rois, n, return_indices=True)
    x = x.detach().requires_grad_()
    output = roi_pool(x, rois, n)
    assert_same(output.detach(), values)
    grad = integers(output.shape, dtype, seed=1)
    expected = reference.scatter(grad, argmax, [n], x.shape, [0, 0, 0])
    assert_same(torch.autograd.grad(output, x, grad)[0], expected)


@pytest.mark.parametrize("scale", [1.0, 1e30])
@pytest.mark.parametrize("rois_dtype", [torch.float32, torch.float64])
def test_huge_coordinates_saturate_as_in_the_reference(rois_dtype, scale):
    x = integers([1, 2, 3, 90], torch.float32)
    huge = torch.finfo(rois_dtype).max
    ends = [-huge, -(2.0**40), -50.0, 0.0, 30.0, 2.0**40, huge]
    rois = torch.tensor([[0, first, 0, last, 2] for first in ends for last in ends], dtype=rois_dtype)
    assert_same(roi_pool(x, rois, (1, 14), scale), reference.roi_pool(x, rois, (1, 14), scale))


def test_the_first_extent_whose_edges_differ_is_57_for_7_bins():
    x = torch.zeros(1, 1, 1, 60)
    x[..., 57] = 1  # the first cell after the region
    edges = []
    for extent in range(1, 58):
        roi = torch.tensor([[0.0, 57 - extent, 0, 56, 0]])
        edges.append(roi_pool(x, roi, (1, 7)).max().item())
    assert edges == [0.0] * 56 + [1.0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rois_dtype", DTYPES, ids=str)
def test_dtypes_of_map_and_boxes_are_independent(dtype, rois_dtype):
    x = integers([2, 3, 9, 11], dtype)
    rois = random_rois(20, 2, 9, 11).to(rois_dtype)
    assert_same(roi_pool(x, rois, 3, 0.5), reference.roi_pool(x, rois, 3, 0.5))


def test_half_precision_boxes_reach_every_column():
    x = torch.zeros(1, 1, 1, 2100, dtype=torch.float16)
    x[..., 2050] = 1
    boxes = [torch.tensor([[2050.0, 0, 2050, 0]], dtype=torch.float16)]  # exact in float16
    assert roi_pool(x, boxes, 1).item() == 1
    x = x.float()
    assert roi_pool(x, boxes, 1).item() == 1


def test_a_list_of_boxes_is_the_tensor_of_them(layout):
    x = lay_out(integers([3, 4, 9, 11], torch.float32), layout)
    rois = random_rois(20, 3, 9, 11)
    rois = rois[rois[:, 0].argsort(stable=True)]
    boxes = [rois[rois[:, 0] == image, 1:] for image in range(3)]
    got = roi_pool(x, boxes, (2, 3), 0.5)
    assert_same(got, roi_pool(x, rois, (2, 3), 0.5))
    assert_same(got, reference.roi_pool(x, boxes, (2, 3), 0.5))
    assert got.shape == (20, 4, 2, 3) and got.is_contiguous()


@pytest.mark.parametrize("boxes", [torch.zeros(0, 5), [torch.zeros(0, 4), torch.zeros(0, 4)]], ids=["tensor", "list"])
def test_no_boxes_give_an_empty_result(boxes):
    x = torch.zeros(2, 3, 5, 6, requires_grad=True)
    output = roi_pool(x, boxes, (2, 7))
    assert output.shape == (0, 3, 2, 7)
    output.sum().backward()
    assert_same(x.grad, torch.zeros(2, 3, 5, 6))


def test_no_images_and_an_empty_list_give_an_empty_result():
    assert roi_pool(torch.zeros(0, 3, 5, 6), [], 2).shape == (0, 3, 2, 2)


def test_a_bin_outside_the_map_is_zero_and_passes_no_gradient():
    x = torch.full([1, 2, 4, 4], -1.0, requires_grad=True)
    output = roi_pool(x, torch.tensor([[0.0, 2, 0, 5, 3]]), 2)  # its right half lies outside
    assert_same(output.detach(), torch.tensor([-1.0, 0.0]).expand(1, 2, 2, 2))
    output.sum().backward()
    assert x.grad.sum() == 4 and (x.grad[..., 2:] != 0).sum() == 4


def test_nan_wins_and_minus_infinity_is_a_value():
    x = torch.full([1, 1, 2, 4], -INF, dtype=torch.float64)
    x[0, 0, 0, 2] = NAN
    x.requires_grad_()
    output = roi_pool(x, torch.tensor([[0.0, 0, 0, 3, 1]]), (1, 2))
    assert_same(output.detach(), torch.tensor([[[[-INF, NAN]]]], dtype=torch.float64))
    output.backward(torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64))
    assert_same(x.grad, torch.tensor([[[[1.0, 0, 2, 0], [0, 0, 0, 0]]]], dtype=torch.float64))


def test_the_first_of_equal_cells_gets_the_gradient():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    roi_pool(x, torch.tensor([[0.0, 0, 0, 3, 3]]), 2).sum().backward()
    expected = torch.zeros(4, 4)
    expected[::2, ::2] = 1
    assert_same(x.grad[0, 0], expected)


def test_derivatives_of_every_order_and_mode():
    x = torch.randn(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = random_rois(5, 2, 6, 7, dtype=torch.float64)
    for y in (x, x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()):

        def pool(input):
            return roi_pool(input, rois, 3, 0.9)

        assert torch.autograd.gradcheck(pool, y, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(pool, y)


def test_a_gradient_has_the_layout_of_its_input():
    x = integers([2, 3, 6, 8], torch.float32).contiguous(memory_format=torch.channels_last).requires_grad_()
    roi_pool(x, random_rois(9, 2, 6, 8), 2).sum().backward()
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("index", [-1.0, 2.0, 1e9, -1e9])
def test_a_batch_index_without_an_image_is_an_error_that_names_it(index):
    rois = torch.tensor([[0.0, 0, 0, 1, 1], [index, 0, 0, 1, 1]])
    with pytest.raises(IndexError) as caught:
        roi_pool(torch.zeros(2, 3, 5, 6), rois, 2)
    assert_well_written(str(caught.value))
    assert str(caught.value).startswith("spp_ext.ops.roi_pool: ")
    assert re.search(r"\b1\b", str(caught.value))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_coordinate_that_is_not_finite_is_an_error(bad):
    rois = torch.tensor([[0.0, 0, bad, 1, 1]])
    with pytest.raises(ValueError) as caught:
        roi_pool(torch.zeros(2, 3, 5, 6), rois, 2)
    assert_well_written(str(caught.value))
    assert str(caught.value).startswith("spp_ext.ops.roi_pool: ")


MAP, ROIS = torch.zeros(2, 3, 5, 6), torch.zeros(1, 5)


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (TypeError, ([1.0], ROIS, 2)),
        (TypeError, (MAP.long(), ROIS, 2)),
        (TypeError, (MAP, ROIS.long(), 2)),
        (TypeError, (MAP, "boxes", 2)),
        (TypeError, (MAP, ROIS, 2.0)),
        (TypeError, (MAP, ROIS, True)),
        (TypeError, (MAP, ROIS, None)),
        (TypeError, (MAP, ROIS, 2, "1")),
        (ValueError, (MAP[0], ROIS, 2)),
        (ValueError, (MAP[:, :, :0], ROIS, 2)),
        (ValueError, (MAP, ROIS[:, :4], 2)),
        (ValueError, (MAP, ROIS[0], 2)),
        (ValueError, (MAP, [torch.zeros(1, 4)], 2)),
        (ValueError, (MAP, [], 2)),
        (ValueError, (MAP, [torch.zeros(1, 5), torch.zeros(1, 5)], 2)),
        (ValueError, (MAP, ROIS, -1)),
        (ValueError, (MAP, ROIS, 0)),
        (ValueError, (MAP, ROIS, (2, 2, 2))),
        (ValueError, (MAP, ROIS, 10**9)),
        (ValueError, (MAP, ROIS, 2, 0.0)),
        (ValueError, (MAP, ROIS, 2, NAN)),
    ],
)
def test_bad_arguments_are_refused_in_the_name_of_the_op(error, arguments):
    with pytest.raises(error) as caught:
        roi_pool(*arguments)
    assert type(caught.value) is error
    assert str(caught.value).startswith("spp_ext.ops.roi_pool: ")
    assert_well_written(str(caught.value))


@given(
    plane=st.tuples(st.integers(1, 140), st.integers(1, 20)),
    size=st.tuples(st.integers(1, 14), st.integers(1, 9)),
    scale=st.sampled_from([1.0, 0.5, 1 / 3, 0.0625, 2.0]),
    kind=st.sampled_from(KINDS),
    rois_dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 999),
)
def test_any_case_equals_the_reference(plane, size, scale, kind, rois_dtype, seed):
    x = make_map(kind, [2, 2, *plane], torch.float32, seed)
    rois = random_rois(4, 2, *plane, seed=seed, dtype=rois_dtype, scale=scale)
    assert_same(roi_pool(x, rois, size, scale), reference.roi_pool(x, rois, size, scale))


def test_the_module_is_the_function():
    module = RoIPool((2, 3), 0.5)
    x, rois = integers([2, 3, 9, 11], torch.float32), random_rois(5, 2, 9, 11)
    assert_same(module(x, rois), roi_pool(x, rois, (2, 3), 0.5))
    assert repr(module) == "RoIPool(output_size=(2, 3), spatial_scale=0.5)"


# ---- the real torchvision ----


@pytest.mark.peers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_against_torchvision_itself(dtype):
    from torchvision.ops import roi_pool as theirs

    for seed in range(40):
        g = generator(seed)
        height, width, n = (int(torch.randint(1, limit, (), generator=g)) for limit in (140, 140, 15))
        scale = [1.0, 0.5, 1 / 3][seed % 3]
        x = integers([2, 2, height, width], dtype, seed).requires_grad_()
        rois = random_rois(12, 2, height, width, seed=seed, dtype=dtype, scale=scale)
        output, expected = roi_pool(x, rois, n, scale), theirs(x, rois, n, scale)
        assert_same(output, expected)
        assert_same(reference.roi_pool(x, rois, n, scale), expected)
        grad = integers(output.shape, dtype, seed + 1)
        assert_same(torch.autograd.grad(output, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])
        boxes = [rois[rois[:, 0] == image, 1:] for image in range(2)]
        assert_same(roi_pool(x, boxes, n, scale), theirs(x, boxes, n, scale))
