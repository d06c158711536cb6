"""Gradients and tangents have the values of torch's composition and the bits of the reference's sums; where they go."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from support import (
    BINS,
    CONVENTIONS,
    INF,
    NAN,
    PYRAMIDS,
    assert_same,
    distinct,
    gaussian,
    generator,
    gradient,
    images_of,
    integers,
    lay_out,
    make_map,
    random_rois,
    torch_pyramid,
)

import spp_ext
from spp_ext import reference
from spp_ext._torch.kernels import kernels

# ---- against torch's composition ----


@pytest.mark.parametrize("kind", ["ties", "nan", "one nan", "all minus inf", "inf and nan", "gaussian", "zeros"])
def test_gradient_of_maps_equals_torch(kind, dtype, layout):
    levels = (1, 2, 3, 6)
    x = lay_out(make_map(kind, (2, 5, 7, 9), dtype), layout)
    grad = integers((2, 250), dtype, low=-2, high=2)  # sums of these are exact, in whatever order
    got = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, levels), x, grad)
    expected = gradient(lambda x: torch_pyramid(x, levels)[0], x.contiguous(), grad)
    assert_same(got, expected)


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 33, 65])
def test_gradient_of_channels_that_fill_no_vector(channels, dtype):
    for layout in ("contiguous", "channels_last"):
        x = lay_out(make_map("ties", (2, channels, 5, 6), dtype), layout)
        grad = integers((2, channels * 14), dtype, low=-2, high=2)
        got = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, (1, 2, 3)), x, grad)
        assert_same(got, gradient(lambda x: torch_pyramid(x, (1, 2, 3))[0], x, grad))


def test_gradient_of_a_large_batch_equals_torch(two_threads):
    x = gaussian((4, 64, 40, 41), torch.float32)
    grad = integers((4, 64 * 50), torch.float32)
    for layout in ("contiguous", "channels_last"):
        placed = lay_out(x, layout)
        got = gradient(spp_ext.spatial_pyramid_pool, placed, grad)
        assert_same(got, gradient(lambda x: torch_pyramid(x)[0], x, grad))


def test_tangents_equal_torch(dtype):
    x, tangent = make_map("ties", (2, 3, 7, 9), dtype), gaussian((2, 3, 7, 9), dtype, 1)
    for layout in ("contiguous", "channels_last", "transposed"):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(lay_out(x, layout), lay_out(tangent, layout))
            got = forward_ad.unpack_dual(spp_ext.spatial_pyramid_pool(dual))
            expected = forward_ad.unpack_dual(torch_pyramid(dual)[0])
        assert_same(got, expected)


# ---- against the reference: the same sums in the same order, so the same bits ----


@pytest.mark.parametrize("levels", PYRAMIDS, ids=str)
def test_gradient_of_maps_equals_the_reference(levels, dtype, layout):
    x = lay_out(make_map("ties", (2, 5, 7, 6), dtype), layout)
    values, argmax = reference.spatial_pyramid_pool(x, levels, return_indices=True)
    grad = gaussian(values.shape, dtype, 3)
    got = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, levels), x, grad)
    assert_same(got, reference.scatter(grad, argmax, levels, x.shape))


@pytest.mark.cpu_only  # CUDA adds a region's parts in another fixed order
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("levels", PYRAMIDS, ids=str)
def test_gradient_of_regions_equals_the_reference(levels, convention, dtype):
    rois = random_rois(40, 3, 7, 6, seed=2)
    for layout in ("contiguous", "channels_last", "every_second_cell"):
        x = lay_out(make_map("ties", (3, 5, 7, 6), dtype), layout)

        def pool(x, module=spp_ext, **options):
            return module.roi_spatial_pyramid_pool(x, rois, levels, convention=convention, **options)

        values, argmax = pool(x, reference, return_indices=True)
        grad = gaussian(values.shape, dtype, 3)
        expected = reference.scatter(grad, argmax, levels, x.shape, images_of(rois))
        assert_same(gradient(pool, x, grad), expected)


@pytest.mark.cpu_only  # CUDA adds a region's parts in another fixed order
def test_gradient_of_many_overlapping_regions_equals_the_reference(dtype, two_threads):
    rois = random_rois(300, 2, 12, 14, seed=5, dtype=torch.float32)
    for layout in ("contiguous", "channels_last"):
        x = lay_out(make_map("ties", (2, 19, 12, 14), dtype), layout)
        _, argmax = spp_ext.roi_spatial_pyramid_pool(x, rois, (1, 3), return_indices=True)
        grad = gaussian(argmax.shape, dtype, 4)
        got = gradient(lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, (1, 3)), x, grad)
        assert_same(got, reference.scatter(grad, argmax, (1, 3), x.shape, images_of(rois)))


def test_tangents_of_regions_equal_the_reference(dtype):
    x, tangent = make_map("nan", (3, 5, 7, 6), dtype), gaussian((3, 5, 7, 6), dtype, 1)
    rois = random_rois(40, 3, 7, 6, seed=2)
    _, argmax = reference.roi_spatial_pyramid_pool(x, rois, (1, BINS), return_indices=True)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, lay_out(tangent, "channels_last"))
        got = forward_ad.unpack_dual(spp_ext.roi_spatial_pyramid_pool(dual, rois, (1, BINS))).tangent
    assert_same(got, reference.gather(tangent, argmax, (1, BINS), images_of(rois)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_rounded_once_to_the_nearest_even(dtype):
    """Every 16-bit number plus a random other one: ties, subnormals, overflow to infinity, and NaN."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(1, -1)
    order = torch.randperm(2**16, generator=generator(0))
    others, thirds = numbers[:, order], numbers[:, order.flip(0)].clone()
    thirds[:, ::2] = 0
    grad = torch.cat([numbers, others, thirds], 1)
    argmax = torch.arange(2**16, dtype=torch.int32).repeat(3)[None]
    expected = (numbers.float() + others.float() + thirds.float()).to(dtype).reshape(1, 1, 256, 256)
    for channels_last in (False, True):
        got = kernels.scatter(grad, argmax, None, [2**16] * 3, [1, 1, 256, 256], channels_last)
        assert_same(got, expected)


def test_sums_of_half_precision_are_taken_in_float32():
    for dtype, big in ((torch.float16, 2048), (torch.bfloat16, 256)):
        x = torch.zeros(1, 1, 1, 1, dtype=dtype)
        grad = torch.tensor([[big, 1, 1]], dtype=dtype)  # big + 1 == big in dtype
        assert gradient(lambda x: spp_ext.spatial_pyramid_pool(x, [(1, 3)]), x, grad).item() == big + 2


def test_sums_of_float64_are_taken_in_float64():
    x, grad = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.tensor([[1e8, 1]], dtype=torch.float64)
    assert gradient(lambda x: spp_ext.spatial_pyramid_pool(x, [(1, 2)]), x, grad).item() == 1e8 + 1


@pytest.mark.cpu_only  # CUDA adds a region's parts in another fixed order
def test_sums_go_row_by_row_then_level_by_level():
    big = 1e8  # big + 1 == big in float32, so another order gives another sum
    x, rois = torch.zeros(1, 1, 1, 1), torch.zeros(2, 5)
    for rows, total in (([[big, -big], [1, 0]], 1), ([[big, 1], [-big, 0]], 0), ([[1, big], [-big, 1]], 1)):
        got = gradient(lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, [1, 1]), x, torch.tensor(rows))
        assert got.item() == total


# ---- where the gradient goes ----


def test_gradient_of_a_tie_goes_to_the_first_cell(dtype):
    x = torch.full((1, 1, 2, 2), 5, dtype=dtype)
    got = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, [1, (2, 1)]), x, torch.tensor([[1, 10, 100]]).to(dtype))
    assert got.tolist() == [[[[11, 0], [100, 0]]]]


def test_gradient_of_minus_infinity_goes_to_the_first_cell(dtype):
    x = torch.full((1, 1, 2, 2), -INF, dtype=dtype)
    got = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, [1]), x, torch.ones(1, 1, dtype=dtype))
    assert got.tolist() == [[[[1, 0], [0, 0]]]]


def test_gradient_of_nan_goes_where_torch_sends_it(dtype):
    x = torch.tensor([[[[NAN, 1], [2, NAN]]]], dtype=dtype)
    grad = torch.tensor([[1, 10, 100]], dtype=dtype)
    got = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, [1, (1, 2)]), x, grad)
    assert_same(got, gradient(lambda x: torch_pyramid(x, [1, (1, 2)])[0], x, grad))


def test_empty_bins_pass_no_gradient(dtype):
    x, rois = torch.ones(1, 2, 3, 3, dtype=dtype), torch.tensor([[0.0, 2, 2, 3, 3], [0, 8, 8, 9, 9]])
    grad = torch.arange(1, 17, dtype=dtype).reshape(2, 8)
    got = gradient(lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, [2]), x, grad)
    expected = torch.zeros(1, 2, 3, 3, dtype=dtype)
    expected[0, :, 2, 2] = torch.tensor([1, 5])
    assert_same(got, expected)


def test_even_infinite_gradients_of_empty_bins_vanish():
    x, rois = torch.ones(1, 2, 3, 3), torch.tensor([[0.0, 8, 8, 9, 9]])
    for value in (NAN, INF):
        got = gradient(lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, [2]), x, torch.full((1, 8), value))
        assert_same(got, torch.zeros(1, 2, 3, 3))


def test_nan_and_infinite_gradients_stay_in_their_cells(dtype):
    x = make_map("gaussian", (1, 2, 6, 6), dtype)
    _, argmax = spp_ext.spatial_pyramid_pool(x, (2, 3), return_indices=True)
    grad = gaussian((1, 26), dtype)
    grad[0, ::5], grad[0, 1::7] = NAN, INF
    got = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, (2, 3)), x, grad)
    assert_same(got, reference.scatter(grad, argmax, (2, 3), x.shape))


def test_gradient_of_no_regions_is_zero(dtype):
    x = gaussian((2, 3, 4, 5), dtype)
    for boxes in (torch.zeros(0, 5), [torch.zeros(0, 4)] * 2):
        for layout in ("contiguous", "channels_last"):
            got = gradient(
                lambda x, boxes=boxes: spp_ext.roi_spatial_pyramid_pool(x, boxes, [2]),
                lay_out(x, layout),
                torch.zeros(0, 12, dtype=dtype),
            )
            assert_same(got, torch.zeros_like(x))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5)])
def test_gradient_of_nothing_is_nothing(shape, dtype):
    x = torch.zeros(shape, dtype=dtype)
    pooled = spp_ext.spatial_pyramid_pool(x)
    assert gradient(spp_ext.spatial_pyramid_pool, x, pooled).shape == shape


def test_gradient_of_one_image_without_a_batch_dimension(dtype):
    x, grad = make_map("ties", (3, 6, 5), dtype), integers((42,), dtype)
    got = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, (1, 2, 3)), x, grad)
    expected = gradient(lambda x: spp_ext.spatial_pyramid_pool(x, (1, 2, 3)), x[None], grad[None])
    assert_same(got, expected[0])


def test_two_uses_add_up():
    x = distinct(1, 2, 5, 5)
    (spp_ext.spatial_pyramid_pool(x, [1]).sum() + 2 * spp_ext.spatial_pyramid_pool(x, [1]).sum()).backward()
    assert sorted(x.grad.flatten().tolist())[-3:] == [0, 3, 3]


# ---- grad_output of any form ----


@pytest.mark.parametrize(
    "form",
    [
        lambda grad: grad.t().contiguous().t(),
        lambda grad: torch.cat([grad, grad], 1)[:, : grad.shape[1]],
        lambda grad: grad.repeat_interleave(2, 1)[:, ::2],
        lambda grad: torch.cat([grad.new_full((3,), NAN), grad.flatten()])[3:].view(grad.shape),
        lambda grad: torch._neg_view(-grad),
    ],
    ids=["transposed", "columns", "every_second", "offset", "negated_view"],
)
def test_grad_output_of_any_strides(form, dtype):
    rois, grad = random_rois(9, 2, 7, 6), gaussian((9, 3 * 14), dtype)
    x = make_map("ties", (2, 3, 7, 6), dtype)

    def pool(x):
        return spp_ext.roi_spatial_pyramid_pool(x, rois, (1, 2, 3))

    assert_same(form(grad), grad)
    assert_same(gradient(pool, x, form(grad)), gradient(pool, x, grad))


def test_an_expanded_grad_output(dtype):
    x = make_map("ties", (2, 3, 7, 6), dtype)
    one = torch.tensor(1.0, dtype=dtype)
    got = gradient(spp_ext.spatial_pyramid_pool, x, one.expand(2, 150))
    assert_same(got, gradient(spp_ext.spatial_pyramid_pool, x, torch.ones(2, 150, dtype=dtype)))
    row = gaussian((1, 150), dtype)
    got = gradient(spp_ext.spatial_pyramid_pool, x, row.expand(2, 150))
    assert_same(got, gradient(spp_ext.spatial_pyramid_pool, x, row.repeat(2, 1)))
