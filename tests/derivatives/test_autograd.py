"""Derivatives in every mode and context of torch's autograd."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from support import (
    COMPOSITIONS,
    POOLS,
    ROIS,
    assert_same,
    distinct,
    gaussian,
    gradient,
    lay_out,
    make_map,
    random_rois,
    run_python,
)

import spp_ext
from spp_ext import reference


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
