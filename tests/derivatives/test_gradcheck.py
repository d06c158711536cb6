"""Derivatives of every op, checked numerically: first and second, forward and reverse, batched."""

import pytest
import torch
from support import (
    CONVENTIONS,
    PYRAMIDS,
    ROIS,
    distinct,
    generator,
    lay_out,
)
from torch.autograd import gradcheck, gradgradcheck

import spp_ext
from spp_ext import testing
from spp_ext._torch import functions
from spp_ext._torch.op_table import Rows


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("levels", PYRAMIDS, ids=str)
def test_gradcheck_of_maps(levels, layout):
    def pool(x):
        return spp_ext.spatial_pyramid_pool(lay_out(x, layout), levels)

    for shape in ((2, 3, 5, 4), (1, 1, 2, 7)):
        assert testing.gradcheck(pool, shape)
    assert testing.gradcheck(lambda x: spp_ext.spatial_pyramid_pool(x, levels), (3, 5, 4), second_order=False)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("levels", PYRAMIDS, ids=str)
def test_gradcheck_of_regions(levels, convention):
    def pool(x):
        return spp_ext.roi_spatial_pyramid_pool(x, ROIS, levels, 0.8, convention=convention)

    assert testing.gradcheck(pool)


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
        return functions.gather(argmax, Rows(rois), [1, 4], x)

    def scatter(grad):
        return functions.scatter(grad, argmax, Rows(rois), [1, 4], [([2, 3, 5, 4], channels_last)])[0]

    for function, argument in ((gather, x), (scatter, grad)):
        assert gradcheck(function, (argument,), check_forward_ad=True)
        assert gradgradcheck(function, (argument,), check_fwd_over_rev=True, check_rev_over_rev=True)
    # Transposes: <gather(x), g> = <x, scatter(g)>, and each is the other's derivative.
    assert torch.equal(torch.autograd.grad(gather(x), x, grad)[0], scatter(grad))
    assert torch.equal(torch.autograd.grad(scatter(grad), grad, x)[0], gather(x))
