"""Derivatives: checked numerically, against torch's autograd of the composition, and against the reference's sums."""

import copy
import io
import pickle

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from support import (
    CONVENTIONS,
    INF,
    NAN,
    assert_same,
    gaussian,
    generator,
    images_of,
    integers,
    lay_out,
    make_map,
    random_rois,
    run_python,
    torch_pyramid,
)
from torch.autograd import gradcheck, gradgradcheck

import spp_ext
from spp_ext import Bins, autograd, reference
from spp_ext._library import ops

BINS = Bins([(0, 0, 1, 4), (1, 1, 3, 3), (0, 2, 4, 4), (0, 0, 4, 4)], 4)
PYRAMIDS = [(1, 2, 3, 6), (4, (1, 3)), (BINS,), (BINS, 4, 2)]
ROIS = torch.tensor(
    [
        [1, 0, 0, 5, 4],
        [0, 1, 1, 3, 3],  # inside the next
        [0, 0, 0, 4, 4],
        [1, -3, -2, 2, 9],  # partly outside
        [0, 4, 3, 2, 1],  # inverted
        [1, 20, 20, 30, 30],  # outside
    ],
    dtype=torch.float64,
)


def distinct(*shape):
    """A map whose cells are far apart, so that no small step changes which one is the maximum."""
    numbers = torch.randperm(torch.Size(shape).numel(), generator=generator(0)).reshape(shape)
    return (numbers.double() / 7).requires_grad_()


def gradient(function, x, grad_output):
    """The gradient of `function` at a leaf that is laid out in memory as `x`."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x, grad_output)[0]


# ---- numerically ----


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("levels", PYRAMIDS, ids=str)
def test_gradcheck_of_maps(levels, layout):
    def pool(x):
        return spp_ext.spatial_pyramid_pool(lay_out(x, layout), levels)

    for x in (distinct(2, 3, 5, 4), distinct(1, 1, 2, 7)):
        assert gradcheck(pool, (x,), check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(pool, (x,), check_fwd_over_rev=True, check_rev_over_rev=True)
    assert gradcheck(lambda x: spp_ext.spatial_pyramid_pool(x, levels), (distinct(3, 5, 4),), check_forward_ad=True)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("levels", PYRAMIDS, ids=str)
def test_gradcheck_of_regions(levels, convention):
    def pool(x):
        return spp_ext.roi_spatial_pyramid_pool(x, ROIS, levels, 0.8, convention=convention)

    x = distinct(2, 3, 5, 4)
    assert gradcheck(pool, (x,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(pool, (x,), check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rois", [None, ROIS])
def test_gradcheck_of_gather_and_scatter(rois, channels_last):
    rows = 2 if rois is None else len(rois)
    argmax = torch.randint(-1, 20, (rows, 3 * 5), generator=generator(1), dtype=torch.int32)
    x = distinct(2, 3, 5, 4)
    if channels_last:
        x = lay_out(x.detach(), "channels_last").requires_grad_()
    grad = distinct(rows, 3 * 5)

    def gather(x):
        return autograd.gather(x, argmax, rois, [1, 4])

    def scatter(grad):
        return autograd.scatter(grad, argmax, rois, [1, 4], [2, 3, 5, 4], channels_last)

    for function, argument in ((gather, x), (scatter, grad)):
        assert gradcheck(function, (argument,), check_forward_ad=True)
        assert gradgradcheck(function, (argument,), check_fwd_over_rev=True, check_rev_over_rev=True)
    # Transposes: <gather(x), g> = <x, scatter(g)>, and each is the other's derivative.
    assert torch.equal(torch.autograd.grad(gather(x), x, grad)[0], scatter(grad))
    assert torch.equal(torch.autograd.grad(scatter(grad), grad, x)[0], gather(x))


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
        got = ops.scatter(grad, argmax, None, [2**16] * 3, [1, 1, 256, 256], channels_last)
        assert_same(got, expected)


def test_sums_of_half_precision_are_taken_in_float32():
    for dtype, big in ((torch.float16, 2048), (torch.bfloat16, 256)):
        x = torch.zeros(1, 1, 1, 1, dtype=dtype)
        grad = torch.tensor([[big, 1, 1]], dtype=dtype)  # big + 1 == big in dtype
        assert gradient(lambda x: spp_ext.spatial_pyramid_pool(x, [(1, 3)]), x, grad).item() == big + 2


def test_sums_of_float64_are_taken_in_float64():
    x, grad = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.tensor([[1e8, 1]], dtype=torch.float64)
    assert gradient(lambda x: spp_ext.spatial_pyramid_pool(x, [(1, 2)]), x, grad).item() == 1e8 + 1


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


# ---- memory format and what is kept ----


def test_gradients_keep_the_memory_format(dtype):
    x, rois = gaussian((2, 3, 4, 5), dtype), random_rois(4, 2, 4, 5)
    for function in (
        spp_ext.spatial_pyramid_pool,
        lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois),
    ):
        for layout, strides in (
            ("contiguous", (60, 20, 5, 1)),
            ("offset", (60, 20, 5, 1)),
            ("channels_last", (60, 1, 15, 3)),
            ("channels_last_offset", (60, 1, 15, 3)),
        ):
            placed = lay_out(x, layout).detach().requires_grad_()
            assert placed.stride() == strides
            (grad,) = torch.autograd.grad(function(placed).sum(), placed)
            assert grad.stride() == strides
            function(placed).sum().backward()
            assert placed.grad.stride() == strides


def saved_by(function, *arguments):
    saved = []

    def pack(tensor):
        saved.append((tensor.dtype, tuple(tensor.shape)))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(*arguments)
    return saved


def test_only_an_int32_argmax_and_the_boxes_are_kept_for_backward(dtype):
    x, rois = gaussian((2, 3, 4, 5), dtype).requires_grad_(), random_rois(7, 2, 4, 5)
    assert saved_by(spp_ext.spatial_pyramid_pool, x) == [(torch.int32, (2, 150))]
    saved = saved_by(spp_ext.roi_spatial_pyramid_pool, x, rois)
    assert sorted(saved, key=str) == [(torch.float32, (7, 5)), (torch.int32, (7, 150))]
    assert saved_by(spp_ext.spatial_pyramid_pool, x.detach()) == []


class Spy:
    """Counts the calls of every op and passes them on."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name in ("spatial_pyramid_pool", "roi_spatial_pyramid_pool"):
            for op in (name, f"{name}_with_argmax"):
                monkeypatch.setattr(ops, op, self.wrap(op, getattr(ops, op)))
        for op in ("gather", "scatter"):
            monkeypatch.setattr(ops, op, self.wrap(op, getattr(ops, op)))

    def wrap(self, name, op):
        def spied(*arguments):
            self.calls.append(name)
            return op(*arguments)

        return spied


POOLS = {
    "spatial_pyramid_pool": lambda x: spp_ext.spatial_pyramid_pool(x),
    "roi_spatial_pyramid_pool": lambda x: spp_ext.roi_spatial_pyramid_pool(x, torch.zeros(2, 5)),
}


# The same in torch: both regions of the second are the one cell (0, 0).
COMPOSITIONS = {
    "spatial_pyramid_pool": lambda x: torch_pyramid(x)[0],
    "roi_spatial_pyramid_pool": lambda x: torch_pyramid(x[:, :, :1, :1])[0].repeat(2, 1),
}


@pytest.mark.parametrize("name", POOLS)
def test_no_argmax_is_computed_when_no_gradient_can_be_asked_for(name, monkeypatch):
    spy, pool = Spy(monkeypatch), POOLS[name]
    leaf = torch.randn(1, 2, 4, 4, requires_grad=True)
    pool(leaf.detach())
    with torch.no_grad():
        pool(leaf)
    with torch.inference_mode():
        pool(leaf)
        pool(torch.randn(1, 2, 4, 4))
    assert spy.calls == [name] * 4
    pool(leaf)
    assert spy.calls[4:] == [f"{name}_with_argmax"]


@pytest.mark.parametrize("name", POOLS)
def test_a_backward_pools_nothing_again(name, monkeypatch):
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    output = POOLS[name](x)
    spy = Spy(monkeypatch)
    output.sum().backward()
    assert spy.calls == ["scatter"]


def test_the_input_may_change_before_backward():
    leaf = gaussian((1, 2, 5, 5), torch.float32).requires_grad_()
    x = leaf * 1
    output = spp_ext.spatial_pyramid_pool(x)
    x.zero_()
    (grad,) = torch.autograd.grad(output.sum(), leaf)
    assert_same(grad, gradient(spp_ext.spatial_pyramid_pool, leaf, torch.ones(1, 100)))


def test_boxes_that_change_before_backward_are_noticed():
    x, rois = torch.randn(2, 2, 5, 5, requires_grad=True), random_rois(3, 2, 5, 5)
    output = spp_ext.roi_spatial_pyramid_pool(x, rois)
    rois[:, 0] = 1 - rois[:, 0]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_returned_indices_may_be_changed():
    x = gaussian((1, 2, 5, 5), torch.float32).requires_grad_()
    output, indices = spp_ext.spatial_pyramid_pool(x, return_indices=True)
    indices.fill_(-7)
    (grad,) = torch.autograd.grad(output.sum(), x)
    assert_same(grad, gradient(spp_ext.spatial_pyramid_pool, x, torch.ones(1, 100)))


# ---- modes and contexts ----


def test_indices_are_no_function_of_the_input():
    x, rois = torch.randn(2, 2, 5, 5, requires_grad=True), random_rois(3, 2, 5, 5)
    for output, indices in (
        spp_ext.spatial_pyramid_pool(x, return_indices=True),
        spp_ext.roi_spatial_pyramid_pool(x, rois, return_indices=True),
    ):
        assert output.requires_grad and not indices.requires_grad
        assert indices.dtype == torch.int64
        with pytest.raises(RuntimeError):
            indices.sum().backward()


def test_values_and_indices_are_the_same_with_and_without_a_gradient(dtype, layout):
    x, rois = lay_out(make_map("nan", (2, 5, 7, 6), dtype), layout), random_rois(9, 2, 7, 6)
    for pool in (
        lambda x: spp_ext.spatial_pyramid_pool(x, return_indices=True),
        lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, return_indices=True),
    ):
        assert_same([part.detach() for part in pool(x.detach().requires_grad_())], pool(x.detach()))


def test_no_grad_and_inference_mode_give_no_graph():
    x = torch.randn(1, 2, 5, 5, requires_grad=True)
    with torch.no_grad():
        assert not spp_ext.spatial_pyramid_pool(x).requires_grad
        with torch.enable_grad():
            assert spp_ext.spatial_pyramid_pool(x).requires_grad
    with torch.inference_mode():
        assert spp_ext.spatial_pyramid_pool(x).is_inference()


def test_boxes_that_require_a_gradient_get_none():
    x = gaussian((2, 2, 5, 5), torch.float32).requires_grad_()
    rois = random_rois(3, 2, 5, 5).requires_grad_()
    for boxes in (rois, [rois[:2, 1:], rois[2:, 1:]]):
        output = spp_ext.roi_spatial_pyramid_pool(x, boxes)
        expected = spp_ext.roi_spatial_pyramid_pool(
            x, rois.detach() if boxes is rois else [part.detach() for part in boxes]
        )
        assert_same(output, expected)
        got = torch.autograd.grad(output.sum(), [x, rois], allow_unused=True)
        assert_same(got[0], torch.autograd.grad(expected.sum(), x)[0])
        assert got[1] is None


def test_boxes_that_require_a_gradient_start_no_graph():
    x, rois = gaussian((2, 2, 5, 5), torch.float32), random_rois(3, 2, 5, 5).requires_grad_()
    assert not spp_ext.roi_spatial_pyramid_pool(x, rois).requires_grad
    assert not spp_ext.roi_spatial_pyramid_pool(x, [rois[:2, 1:], rois[2:, 1:]]).requires_grad
    assert not spp_ext.roi_spatial_pyramid_pool(x, rois, return_indices=True)[0].requires_grad


def test_boxes_that_require_a_gradient_start_no_graph_in_backward():
    x = gaussian((2, 2, 5, 5), torch.float32).requires_grad_()
    rois = random_rois(3, 2, 5, 5).requires_grad_()
    output = spp_ext.roi_spatial_pyramid_pool(x, rois)
    (grad,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    assert not grad.requires_grad


def test_backward_twice_gives_the_same():
    x = torch.randn(2, 3, 7, 6, requires_grad=True)
    output = spp_ext.spatial_pyramid_pool(x)
    first = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
    second = torch.autograd.grad(output.square().sum(), x)
    assert_same(first, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        output.sum().backward()


def test_double_backward_values():
    x = distinct(1, 2, 5, 4)
    rois = ROIS[[1, 2, 4]]
    for pool in (
        lambda x: spp_ext.spatial_pyramid_pool(x, (1, 2)),
        lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, (1, 2)),
    ):
        output = pool(x)
        (grad,) = torch.autograd.grad(output.pow(3).sum(), x, create_graph=True)
        (got,) = torch.autograd.grad(grad.sum(), x)
        # d/dx of sum 3 p^2 is 6 p where p was read, for every time it was read.
        expected = torch.autograd.grad((6 * output.detach() * pool(x)).sum(), x)[0]
        assert_same(got, expected)


def test_a_hessian_is_diagonal_where_bins_do_not_overlap():
    x = distinct(1, 1, 2, 2).detach()
    hessian = torch.autograd.functional.hessian(lambda x: spp_ext.spatial_pyramid_pool(x, [2]).pow(2).sum(), x)
    assert torch.equal(hessian.reshape(4, 4), 2 * torch.eye(4, dtype=torch.float64))


def test_forward_over_a_leaf_that_needs_no_gradient_keeps_its_tangent():
    x, tangent = gaussian((2, 2, 5, 5), torch.float64), gaussian((2, 2, 5, 5), torch.float64, 1)
    with forward_ad.dual_level(), torch.no_grad():
        output = spp_ext.spatial_pyramid_pool(forward_ad.make_dual(x, tangent), [2])
        got = forward_ad.unpack_dual(output).tangent
    _, argmax = spp_ext.spatial_pyramid_pool(x, [2], return_indices=True)
    assert_same(got, reference.gather(tangent, argmax, [2]))


def test_no_tangent_in_no_tangent_out():
    with forward_ad.dual_level():
        assert forward_ad.unpack_dual(spp_ext.spatial_pyramid_pool(torch.randn(1, 2, 5, 5))).tangent is None


def test_deterministic_mode_raises_and_warns_nothing(deterministic, layout):
    rois = random_rois(9, 2, 7, 6)
    x = lay_out(gaussian((2, 5, 7, 6), torch.float32), layout)
    for pool in (spp_ext.spatial_pyramid_pool, lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois)):
        grad = gaussian(pool(x).shape, torch.float32)
        got = gradient(pool, x, grad)
        torch.use_deterministic_algorithms(False)
        assert_same(got, gradient(pool, x, grad))
        torch.use_deterministic_algorithms(True)


def test_saved_tensors_may_be_moved_elsewhere():
    x, rois = gaussian((2, 2, 5, 5), torch.float32), random_rois(5, 2, 5, 5)
    for pool in (spp_ext.spatial_pyramid_pool, lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois)):
        leaf = x.clone().requires_grad_()
        with torch.autograd.graph.save_on_cpu():
            output = pool(leaf)
        output.sum().backward()
        assert_same(leaf.grad, gradient(pool, x, torch.ones_like(output.detach())))
        again = torch.utils.checkpoint.checkpoint(pool, leaf, use_reentrant=False)
        assert_same(torch.autograd.grad(again.sum(), leaf)[0], leaf.grad)


def test_gradients_batched_by_vmap():
    x = gaussian((2, 3, 5, 5), torch.float64).requires_grad_()
    output, grads = spp_ext.spatial_pyramid_pool(x, (1, 2)), gaussian((4, 2, 15), torch.float64, 1)
    (got,) = torch.autograd.grad(output, x, grads, is_grads_batched=True, retain_graph=True)
    assert_same(got, torch.stack([torch.autograd.grad(output, x, grad, retain_graph=True)[0] for grad in grads]))


@pytest.mark.parametrize(
    "transform",
    [
        lambda pool, x: torch.func.grad(lambda x: pool(x).sum())(x),
        lambda pool, x: torch.func.jvp(pool, (x,), (torch.ones_like(x),))[1],
        lambda pool, x: torch.func.vjp(pool, x)[1](torch.ones_like(pool(x)))[0],
        lambda pool, x: torch.func.jacfwd(pool)(x),
        lambda pool, x: torch.func.jacrev(pool)(x),
    ],
    ids=["grad", "jvp", "vjp", "jacfwd", "jacrev"],
)
@pytest.mark.parametrize("name", POOLS)
def test_function_transforms_equal_torch(name, transform):
    x = gaussian((1, 2, 4, 4), torch.float64)
    pool, composition = POOLS[name], COMPOSITIONS[name]
    assert_same(pool(x), composition(x))
    assert_same(transform(pool, x), transform(composition, x))


def test_a_network_trains_through_it(dtype):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), spp_ext.SpatialPyramidPool((2, 1)), torch.nn.Linear(20, 2))
    model = model.to(dtype)
    x = torch.randn(2, 3, 8, 9, dtype=dtype)
    model(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


COMPILED = """
import torch, spp_ext
x, rois = torch.randn(2, 3, 7, 6), torch.tensor([[1.0, 0, 0, 4, 3], [0, 2, 1, 9, 9]])
for pool in (
    lambda x: 2 * spp_ext.spatial_pyramid_pool(x, (1, 2)),
    lambda x: 2 * spp_ext.roi_spatial_pyramid_pool(x, rois, (1, spp_ext.Bins([(0, 0, 1, 2)], 2))),
):
    compiled = torch.compile(pool, backend="eager")
    assert torch.equal(compiled(x), pool(x))
    x.requires_grad_()
    got, expected = compiled(x), pool(x)
    grad = torch.randn_like(got)
    assert torch.equal(*(torch.autograd.grad(output, x, grad)[0] for output in (got, expected)))
    x.requires_grad_(False)
"""


def test_a_compiled_function_gives_the_same():
    # In a process of its own: having compiled once, torch is slower ever after.
    result = run_python("-W", "ignore", "-c", COMPILED)
    assert result.returncode == 0, result.stderr


def test_autocast_passes_through():
    x, rois = torch.randn(2, 3, 7, 6, dtype=torch.bfloat16, requires_grad=True), random_rois(5, 2, 7, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for pool in (spp_ext.spatial_pyramid_pool, lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois)):
            output = pool(x)
            assert output.dtype == torch.bfloat16
            assert torch.autograd.grad(output.sum(), x)[0].dtype == torch.bfloat16


def test_gradients_in_several_threads(two_threads):
    from concurrent.futures import ThreadPoolExecutor

    x, rois = gaussian((2, 33, 20, 21), torch.float32), random_rois(60, 2, 20, 21)
    grad = gaussian((60, 33 * 50), torch.float32)

    def work(_):
        return gradient(lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois), x, grad)

    expected = work(0)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(work, range(12)):
            assert_same(got, expected)


# ---- modules ----


@pytest.mark.parametrize(
    "module",
    [
        spp_ext.SpatialPyramidPool((1, [2, 3], BINS)),
        spp_ext.RoISpatialPyramidPool([2, (1, 3), BINS], 1 / 16, "outer"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_survive_copying_and_pickling(module):
    x = gaussian((2, 3, 7, 6), torch.float32)
    arguments = (x,) if isinstance(module, spp_ext.SpatialPyramidPool) else (x, random_rois(5, 2, 7, 6))
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    for other in (
        copy.copy(module),
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(stream, weights_only=False),
    ):
        assert repr(other) == repr(module) and other.bins == module.bins
        assert_same(other(*arguments), module(*arguments))
    assert list(module.parameters()) == [] and module.state_dict() == {}


def test_modules_show_what_they_do():
    assert repr(spp_ext.SpatialPyramidPool([1, [2, 3]])) == "SpatialPyramidPool(levels=(1, (2, 3)))"
    assert repr(spp_ext.RoISpatialPyramidPool((1, 2), 0.5, "outer")) == (
        "RoISpatialPyramidPool(levels=(1, 2), spatial_scale=0.5, convention='outer')"
    )
    assert spp_ext.SpatialPyramidPool().bins == spp_ext.RoISpatialPyramidPool().bins == 50
