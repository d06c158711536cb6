"""A gradient has its input's memory format, and for it nothing but the argmax is computed and kept."""

import pytest
import torch
from support import (
    POOLS,
    assert_same,
    gaussian,
    gradient,
    lay_out,
    random_rois,
)

import spp_ext
from spp_ext._torch.kernels import kernels


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
                monkeypatch.setattr(kernels, op, self.wrap(op, getattr(kernels, op)))
        for op in ("gather", "scatter"):
            monkeypatch.setattr(kernels, op, self.wrap(op, getattr(kernels, op)))

    def wrap(self, name, op):
        def spied(*arguments):
            self.calls.append(name)
            return op(*arguments)

        return spied


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
