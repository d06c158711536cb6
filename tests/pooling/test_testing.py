"""`spp_ext.testing` accepts what is right, in every form, and finds what is planted."""

import pytest
import torch
import torch.nn.functional as F
from support import BINS, gaussian, random_rois, torch_pyramid
from torch.autograd.gradcheck import GradcheckError

import spp_ext
from spp_ext import ops, testing

X, BOXES = gaussian((2, 3, 7, 6), torch.float32), random_rois(6, 2, 7, 6)
check = testing.check_against_reference


def composition(x, levels=(1, 2, 3, 6), *, return_indices=False):
    pooled = torch_pyramid(x, levels)
    return pooled if return_indices else pooled[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_right_passes(dtype):
    x = X.to(dtype)
    check("spatial_pyramid_pool", x)
    check("spatial_pyramid_pool", x[0], (BINS, (2, 3)))
    check("spatial_pyramid_pool", x, levels=[4], function=spp_ext.spatial_pyramid_pool)
    check("roi_spatial_pyramid_pool", x, BOXES, (1, 2), 0.5, convention="spp_net")
    check("roi_spatial_pyramid_pool", [x, x[..., :4]], BOXES, map_indices=torch.tensor([0, 1, 1, 0, 1, 0]))
    check("roi_pool", x, [BOXES[:2, 1:], BOXES[2:, 1:]], 7)
    check("adaptive_max_pool2d", x, (None, 2))
    check("multi_kernel_max_pool2d", x[0], (3, 5), cascade=True)


def test_a_function_of_the_users_own_is_checked():
    check("spatial_pyramid_pool", X, function=composition)
    check("adaptive_max_pool2d", X, 4, function=lambda x, size: F.adaptive_max_pool2d(x, size))

    def one_more(x, levels=(1, 2, 3, 6)):
        return composition(x, levels) + 1

    def forgets_the_last_cell(x, levels=(1, 2, 3, 6)):
        return composition(x.index_fill(3, torch.tensor([5]), -9), levels)

    def gradient_of_a_mean(x, size):
        return F.adaptive_max_pool2d(x, size).detach() + F.adaptive_avg_pool2d(x, size) * 0

    def other_indices(x, levels=(1, 2, 3, 6), *, return_indices=False):
        values, indices = composition(x, levels, return_indices=True)
        return (values, indices.flip(0)) if return_indices else values

    for op, arguments, function, what in (
        ("spatial_pyramid_pool", (), one_more, "values: 300 of 300 elements differ, first at [0, 0]: expected "),
        ("spatial_pyramid_pool", (), forgets_the_last_cell, "values: "),
        ("adaptive_max_pool2d", (4,), gradient_of_a_mean, "gradient: "),
        ("spatial_pyramid_pool", (), other_indices, "indices: "),
        ("spatial_pyramid_pool", (), lambda x: x.flatten(1), r"values: expected [2, 150] torch.float32, got [2, 126]"),
    ):
        with pytest.raises(AssertionError) as caught:
            check(op, X, *arguments, function=function)
        assert str(caught.value).startswith(what)


def test_bad_calls_are_refused():
    for op in ("average_pool", "reference", "Bins", "split_levels"):
        message = f"spp_ext.testing.check_against_reference: expected the name of a pooling op, got {op!r}"
        with pytest.raises(ValueError) as caught:
            check(op, X)
        assert str(caught.value) == message
    with pytest.raises(ValueError, match="expected no return_indices, got it"):
        check("spatial_pyramid_pool", X, return_indices=True)
    with pytest.raises(ValueError, match=r"expected a shape \[N, C, H, W\] with boxes, got \[3, 5, 4\]"):
        testing.gradcheck(lambda x, boxes: x, (3, 5, 4), boxes=2)


def test_derivatives_are_checked_and_a_wrong_one_is_found():
    assert testing.gradcheck(spp_ext.RoISpatialPyramidPool((1, 2), 0.5), (2, 2, 4, 3), boxes=3, spatial_scale=0.5)
    assert testing.gradcheck(lambda x: F.max_pool2d(x, 2), (1, 1, 4, 4), forward_mode=False)
    with pytest.raises(GradcheckError):
        testing.gradcheck(lambda x: x * x.detach(), (1, 1, 2, 2), second_order=False)
    with pytest.raises(GradcheckError):  # the first derivative alone is right
        testing.gradcheck(lambda x: ops.adaptive_max_pool2d(OnlyOnce.apply(x), 1), (1, 1, 2, 2), forward_mode=False)


class OnlyOnce(torch.autograd.Function):
    """A square whose gradient is cut off from its input."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * grad


def test_a_drawn_map_has_no_ties_and_boxes_have_the_images_they_are_for():
    x = testing.tie_free_map(2, 3, 5, 4, seed=1)
    assert x.dtype == torch.float64 and x.flatten().sort().values.diff().min() > 0.1
    assert not torch.equal(x, testing.tie_free_map(2, 3, 5, 4, seed=2))
    boxes = testing.random_boxes(50, 3, 8, 9, scale=0.5)
    assert boxes.shape == (50, 5) and set(boxes[:, 0].tolist()) == {0, 1, 2}
    assert torch.equal(boxes, boxes.round()) and (boxes[:, 1] > boxes[:, 3]).any()
