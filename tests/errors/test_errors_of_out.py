"""Errors of ``out=``, word for word, of every function that takes it."""

import pytest
import torch
from out_cases import CASES, MAP_INDICES, ROIS, SHAPE
from support import assert_refuses, gaussian
from torch.autograd import forward_ad

import spp_ext
from spp_ext import ops

X = gaussian(SHAPE, torch.float32)
DIFFERENTIATION = "out does not support automatic differentiation, but one of the arguments requires grad"
FORWARD = "out does not support forward-mode differentiation, but one of the arguments has a tangent"
TRANSFORMS = "out does not support the transforms of torch.func, but one is open"
OWN_PLACE = "expected every element of out in a place of its own, got some that share one"


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def apart(name):
    return f"expected out to share no memory with {name}, got tensors that overlap"


@pytest.mark.parametrize("out", [3, "out", [1.0], ()], ids=repr)
def test_what_is_no_tensor_is_refused(case, out):
    message = f"{case.op}: expected out to be a Tensor, got {type(out).__name__}"
    assert_refuses(TypeError, message, lambda: case.call(X, out=out))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32])
def test_another_dtype_is_refused(case, dtype):
    out = torch.empty_like(case.call(X), dtype=dtype)
    message = f"{case.op}: expected out of dtype torch.float32, got {dtype}"
    assert_refuses(ValueError, message, lambda: case.call(X, out=out))


@pytest.mark.cpu_only  # other kernels, put in the place of ours, know no tensors without data
def test_another_device_is_refused(case):
    out = torch.empty_like(case.call(X), device="meta")
    message = f"{case.op}: expected input and out on one device, got two"
    assert_refuses(ValueError, message, lambda: case.call(X, out=out))


def other_shapes(shape):
    yield (0,)  # which torch would resize
    yield ()
    yield (*shape, 1)
    yield shape[1:]
    yield (*shape[:-1], shape[-1] + 1)
    yield (shape[0] + 1, *shape[1:])
    yield shape[::-1]


def test_another_shape_is_refused_and_nothing_is_resized(case):
    expected = case.call(X)
    for shape in {*other_shapes(tuple(expected.shape))} - {tuple(expected.shape)}:
        out = torch.zeros(shape)
        message = f"{case.op}: expected out of shape {list(expected.shape)}, got {list(shape)}"
        assert_refuses(ValueError, message, lambda out=out: case.call(X, out=out))
        assert out.shape == shape and not out.any()


def test_a_tensor_that_overlaps_itself_is_refused(case):
    expected = case.call(X)
    for out in (
        torch.zeros(1).expand(expected.shape),
        torch.zeros_like(expected)[:1].expand(expected.shape),
        torch.zeros(expected.numel()).as_strided(expected.shape, [1] * expected.dim()),  # of 1-D no overlap
    )[: 1 + expected.dim()]:
        assert_refuses(ValueError, f"{case.op}: {OWN_PLACE}", lambda out=out: case.call(X, out=out))
        assert not out.any()


@pytest.mark.cpu_only  # tensors on their way to the GPU are copied, and so apart
def test_memory_of_the_map_is_refused(case):
    expected, elements = case.call(X), X.numel()
    size = expected.numel()
    room = torch.zeros(elements + 2 * size)
    x = room[size : size + elements].view(SHAPE).copy_(X)
    several = case in (CASES["regions of several maps"], CASES["list of maps"])
    name = "one of the maps" if several else "input"
    for begin in (1, size, elements // 2 + size - 1):  # the first cell, all, the last of the first image
        out = room[begin : begin + size].view(expected.shape)
        assert_refuses(ValueError, f"{case.op}: {apart(name)}", lambda out=out: case.call(x, out=out))
    assert torch.equal(x, X)
    for begin in (0, elements + size):  # just before and just after
        assert torch.equal(case.call(x, out=room[begin : begin + size].view(expected.shape)), expected)


@pytest.mark.cpu_only  # as above
def test_memory_of_boxes_and_of_map_indices_is_refused():
    pyramid, roi_pool = spp_ext.roi_spatial_pyramid_pool, ops.roi_pool
    op, drop_in = "spp_ext.roi_spatial_pyramid_pool", "spp_ext.ops.roi_pool"
    room = torch.zeros(5 * 5 + 5 * 3 - 1)
    rois, out = room[:25].view(5, 5).copy_(ROIS), room[24:].view(5, 3)
    four = out.view(5, 3, 1, 1)
    listed = [rois[:2, 1:], rois[2:, 1:]]
    numbers = torch.zeros(5 + 15 - 1, dtype=torch.float64)
    map_indices, wide = numbers[:5].view(torch.int64).copy_(MAP_INDICES), numbers[4:].view(5, 3)
    for message, call in (
        (f"{op}: {apart('boxes')}", lambda: pyramid(X, rois, (1,), out=out)),
        (f"{op}: {apart('boxes')}", lambda: pyramid(X, listed, (1,), out=out)),
        (f"{op}: {apart('boxes')}", lambda: pyramid([X, X], rois, (1,), map_indices=MAP_INDICES, out=out)),
        (f"{drop_in}: {apart('boxes')}", lambda: roi_pool(X, rois, 1, out=four)),
        (f"{drop_in}: {apart('boxes')}", lambda: roi_pool(X, listed, 1, out=four)),
        (
            f"{op}: {apart('map_indices')}",
            lambda: pyramid([X.double()] * 2, ROIS, (1,), map_indices=map_indices, out=wide),
        ),
    ):
        assert_refuses(ValueError, message, call)
    assert torch.equal(rois, ROIS) and torch.equal(map_indices, MAP_INDICES)


def test_a_gradient_is_refused(case):
    out = torch.zeros_like(case.call(X))
    for x, where in ((X.clone().requires_grad_(), out), (X, out.clone().requires_grad_())):
        assert_refuses(RuntimeError, f"{case.op}: {DIFFERENTIATION}", lambda x=x, where=where: case.call(x, out=where))
    assert not out.any()


def test_a_gradient_is_refused_though_there_are_no_bins():
    out = torch.zeros(2, 3, 0, 4)
    name = "spp_ext.ops.adaptive_max_pool2d"
    for x, where in ((X.clone().requires_grad_(), out), (X, out.clone().requires_grad_())):
        message = f"{name}: {DIFFERENTIATION}"
        assert_refuses(RuntimeError, message, lambda x=x, where=where: ops.adaptive_max_pool2d(x, (0, 4), out=where))
    assert ops.adaptive_max_pool2d(X, (0, 4), out=out) is out


def test_a_gradient_of_a_map_among_several_is_refused():
    maps, out = [X, X.clone().requires_grad_()], torch.zeros(5, 3)
    assert_refuses(
        RuntimeError,
        f"spp_ext.roi_spatial_pyramid_pool: {DIFFERENTIATION}",
        lambda: spp_ext.roi_spatial_pyramid_pool(maps, ROIS, (1,), map_indices=MAP_INDICES, out=out),
    )


def test_a_tangent_is_refused(case):
    out = torch.zeros_like(case.call(X))
    with forward_ad.dual_level():
        assert case.call(X, out=out.clone()).shape == out.shape  # nothing has a tangent
        for x, where in ((forward_ad.make_dual(X, X), out), (X, forward_ad.make_dual(out, out))):
            assert_refuses(RuntimeError, f"{case.op}: {FORWARD}", lambda x=x, where=where: case.call(x, out=where))


def test_transforms_are_refused(case):
    out = torch.zeros_like(case.call(X))
    for call in (
        lambda: torch.vmap(lambda x: case.call(x, out=out))(X[None]),
        lambda: torch.func.grad(lambda x: case.call(x, out=out).sum())(X),
        lambda: torch.func.jvp(lambda x: case.call(x, out=out), (X,), (X,)),
    ):
        assert_refuses(RuntimeError, f"{case.op}: {TRANSFORMS}", call)


def test_indices_are_refused():
    out = torch.zeros(2, 3)
    message = "expected out without return_indices, got both"
    for op, call in (
        ("spatial_pyramid_pool", lambda: spp_ext.spatial_pyramid_pool(X, (1,), return_indices=True, out=out)),
        ("spatial_pyramid_pool", lambda: spp_ext.spatial_pyramid_pool(X[0], (1,), return_indices=True, out=out[0])),
        (
            "roi_spatial_pyramid_pool",
            lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), return_indices=True, out=out),
        ),
        ("ops.adaptive_max_pool2d", lambda: ops.adaptive_max_pool2d(X, 1, True, out=out[..., None, None])),
    ):
        assert_refuses(ValueError, f"spp_ext.{op}: {message}", call)


def test_bad_boxes_leave_out_as_it_was():
    out, bad = torch.zeros(5, 15), ROIS.clone()
    bad[-1, 0] = 7
    with pytest.raises(IndexError, match="got 7 in row 4"):
        spp_ext.roi_spatial_pyramid_pool(X, bad, (1, 2), out=out)
    assert not out.any()


@pytest.mark.cpu_only  # calls the CPU's ops themselves
def test_the_registered_ops_refuse_the_same():
    op, name = torch.ops.spp_ext.spatial_pyramid_pool.out, "spp_ext.spatial_pyramid_pool"
    levels, out = [1, 1], torch.zeros(2, 3)
    leaf, more = X.clone().requires_grad_(), torch.zeros(3, 3)
    for error, message, call in (
        (ValueError, "expected out of shape [2, 3], got [3, 3]", lambda: op(X, levels, out=more)),
        (
            ValueError,
            "expected out of shape [2, 3], got [2, 3, 2, 1]",
            lambda: op(X, levels, out=torch.ones(2, 3, 2, 1)),
        ),
        (ValueError, "expected out of shape [2, 3], got [3, 3]", lambda: op(X.to("meta"), levels, out=more.to("meta"))),
        (ValueError, apart("input"), lambda: op(X, levels, out=X.view(-1)[:6].view(2, 3))),
        (RuntimeError, DIFFERENTIATION, lambda: op(leaf, levels, out=out)),
        (RuntimeError, TRANSFORMS, lambda: torch.vmap(lambda x: op(x, levels, out=out))(X[None])),
    ):
        assert_refuses(error, f"{name}: {message}", call)
    assert op(X, levels, out=out[..., None, None]).shape == (2, 3, 1, 1)  # one level as a grid
    assert out.any()
    refused = torch.zeros(2, 15, 1, 1)  # of several levels there is no grid
    assert_refuses(
        ValueError,
        f"{name}: expected out of shape [2, 15], got [2, 15, 1, 1]",
        lambda: op(X, [1, 1, 2, 2], out=refused),
    )
