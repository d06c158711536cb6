"""Errors of the registered ops, called past the Python layer, word for word."""

import pytest
import torch
from error_cases import DTYPES, MAP, ROI, ROIS, ROWS, SCALE, X, roi
from support import CONVENTIONS, NAN, OUTER, assert_refuses

import spp_ext

pytestmark = pytest.mark.cpu_only  # calls the CPU's ops themselves

ops = torch.ops.spp_ext
ARGMAX = torch.zeros(2, 3, dtype=torch.int32)
GRAD = torch.zeros(2, 3)
SIZE = [2, 3, 4, 5]
CONVENTION = f"expected convention from 0 to {len(CONVENTIONS)}, got"  # the last is ops.roi_pool's own
LEVEL_BINS = "expected level_bins of at least 1 that sum to less than 2^31"
INPUT_SIZE = "expected input_size with N, C >= 0 and H, W >= 1 and H * W < 2^31"


@pytest.mark.parametrize(
    ("input", "message"),
    [
        (X[0], "expected input of shape [N, C, H, W], got [3, 4, 5]"),
        (X[:, :, :0], "expected input with at least one row and one column, got [2, 3, 0, 5]"),
        (X.int(), f"expected input {DTYPES}, got torch.int32"),
        (X.to(torch.complex64), f"expected input {DTYPES}, got torch.complex64"),
        (X.to(torch.float8_e4m3fn), f"expected input {DTYPES}, got torch.float8_e4m3fn"),
    ],
)
def test_the_pooling_ops_check_their_input(input, message):
    for op in (ops.spatial_pyramid_pool, ops.spatial_pyramid_pool_with_argmax):
        assert_refuses(ValueError, f"{MAP}: {message}", lambda op=op: op(input, [1, 1]))
    for op in (ops.roi_spatial_pyramid_pool, ops.roi_spatial_pyramid_pool_with_argmax):
        assert_refuses(ValueError, f"{ROI}: {message}", lambda op=op: op(input, ROIS, [1, 1], 1.0, OUTER, True))


@pytest.mark.parametrize(
    ("rois", "scale", "convention", "error", "message"),
    [
        (ROIS.int(), 1.0, OUTER, ValueError, f"expected boxes {DTYPES}, got torch.int32"),
        (ROIS[0], 1.0, OUTER, ValueError, f"{ROWS} [5]"),
        (torch.zeros(0, 4), 1.0, OUTER, ValueError, f"{ROWS} [0, 4]"),
        (ROIS, 0.0, OUTER, ValueError, f"{SCALE} 0.000000"),
        (ROIS, NAN, OUTER, ValueError, f"{SCALE} nan"),
        (ROIS, 1.0, -1, ValueError, f"{CONVENTION} -1"),
        (ROIS, 1.0, len(CONVENTIONS) + 1, ValueError, f"{CONVENTION} {len(CONVENTIONS) + 1}"),
        (roi(0, 0, 0, 1, NAN), 1.0, OUTER, ValueError, "expected finite boxes, got y2 = nan in row 0"),
        (
            roi(5, 0, 0, 1, 1),
            1.0,
            OUTER,
            IndexError,
            "expected batch indices of boxes from 0 to 1, got 5 in row 0",
        ),
    ],
)
def test_the_region_ops_check_their_boxes(rois, scale, convention, error, message):
    for op in (ops.roi_spatial_pyramid_pool, ops.roi_spatial_pyramid_pool_with_argmax):
        for validate in (True, False):
            assert_refuses(
                error,
                f"{ROI}: {message}",
                lambda op=op, validate=validate: op(X, rois, [1, 1], scale, convention, validate),
            )


def argmax_of(expected, got):
    return f"expected argmax of shape {expected}, or [N, L * C, H, W] for L levels of H * W bins, got {got}"


def assert_pair_refuses(error, message, argmax, rois, level_bins):
    """gather and scatter check what they share in the same words."""
    rows = argmax.shape[0] if argmax.dim() else 0
    grad = torch.zeros(argmax.shape) if argmax.dim() == 2 else torch.zeros(rows, 3)
    assert_refuses(error, f"spp_ext.gather: {message}", lambda: ops.gather(X, argmax, rois, level_bins))
    assert_refuses(
        error, f"spp_ext.scatter: {message}", lambda: ops.scatter(grad, argmax, rois, level_bins, SIZE, False)
    )


@pytest.mark.parametrize(
    ("argmax", "rois", "level_bins", "message"),
    [
        (ARGMAX.long(), None, [1], "expected argmax of dtype torch.int32, got torch.int64"),
        (ARGMAX.float(), None, [1], "expected argmax of dtype torch.int32, got torch.float32"),
        (ARGMAX[:1], None, [1], argmax_of("[2, 3]", "[1, 3]")),
        (ARGMAX[:, :2], None, [1], argmax_of("[2, 3]", "[2, 2]")),
        (ARGMAX[0], None, [1], argmax_of("[2, 3]", "[3]")),
        (ARGMAX[None], None, [1], argmax_of("[2, 3]", "[1, 2, 3]")),
        (ARGMAX, None, [1, 1], argmax_of("[2, 6]", "[2, 3]")),
        (ARGMAX, None, [], argmax_of("[2, 0]", "[2, 3]")),
        (ARGMAX, ROIS, [1], argmax_of("[1, 3]", "[2, 3]")),
        (ARGMAX, None, [0], LEVEL_BINS),
        (ARGMAX, None, [2, -1], LEVEL_BINS),
        (ARGMAX, None, [-(2**63)], LEVEL_BINS),
        (ARGMAX, None, [2**31 - 1, 1], LEVEL_BINS),
        (ARGMAX, None, [2**63 - 1, 2**63 - 1], LEVEL_BINS),
        (ARGMAX, None, [2**31 - 1], argmax_of("[2, 6442450941]", "[2, 3]")),
        (ARGMAX, ROIS[0], [1], f"{ROWS} [5]"),
        (ARGMAX, torch.tensor(0.0), [1], f"{ROWS} []"),
        (ARGMAX, ROIS.long(), [1], f"expected boxes {DTYPES}, got torch.int64"),
    ],
)
def test_gather_and_scatter_check_the_argmax(argmax, rois, level_bins, message):
    assert_pair_refuses(ValueError, message, argmax, rois, level_bins)


@pytest.mark.parametrize("cell", [-2, 20, 21, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("at", [(0, 0), (1, 2)])
def test_a_forged_argmax_is_refused(cell, at, dtype):
    argmax = ARGMAX.clone()
    argmax[at] = cell
    message = f"expected argmax from -1 to 19, got {cell} at {list(at)}"
    for x in (X.to(dtype), X.to(dtype, memory_format=torch.channels_last)):
        assert_refuses(IndexError, f"spp_ext.gather: {message}", lambda x=x: ops.gather(x, argmax, None, [1]))
    for channels_last in (False, True):
        assert_refuses(
            IndexError,
            f"spp_ext.scatter: {message}",
            lambda last=channels_last: ops.scatter(GRAD.to(dtype), argmax, None, [1], SIZE, last),
        )
    assert_pair_refuses(IndexError, message, argmax, torch.zeros(2, 5), [1])


def test_the_first_forged_argmax_is_named(two_threads):
    x = torch.zeros(4, 64, 20, 20)
    argmax = torch.zeros(4, 64 * 50, dtype=torch.int32)
    argmax[1:, ::7], argmax[1, 14] = 400, -7
    argmax[1, :14] = 0
    message = "expected argmax from -1 to 399, got -7 at [1, 14]"
    level_bins = [1, 4, 9, 36]
    assert_refuses(IndexError, f"spp_ext.gather: {message}", lambda: ops.gather(x, argmax, None, level_bins))
    assert_refuses(
        IndexError,
        f"spp_ext.scatter: {message}",
        lambda: ops.scatter(torch.zeros(4, 3200), argmax, None, level_bins, list(x.shape), False),
    )


@pytest.mark.parametrize(
    ("rois", "error", "message"),
    [
        (roi(2, 0, 0, 1, 1, before=1), IndexError, "expected batch indices of boxes from 0 to 1, got 2 in row 1"),
        (roi(-1, 0, 0, 1, 1, before=1), IndexError, "expected batch indices of boxes from 0 to 1, got -1 in row 1"),
        (roi(NAN, 0, 0, 1, 1, before=1), ValueError, "expected finite boxes, got batch index = nan in row 1"),
    ],
)
def test_gather_and_scatter_check_the_boxes(rois, error, message):
    assert_pair_refuses(error, message, ARGMAX, rois, [1])


@pytest.mark.parametrize(
    ("grad", "size", "message"),
    [
        (GRAD.int(), SIZE, f"expected grad_output {DTYPES}, got torch.int32"),
        (GRAD[:1], SIZE, "expected grad_output of the shape of argmax, [2, 3], got [1, 3]"),
        (GRAD[:, :2], SIZE, "expected grad_output of the shape of argmax, [2, 3], got [2, 2]"),
        (GRAD[0], SIZE, "expected grad_output of the shape of argmax, [2, 3], got [3]"),
        (torch.tensor(0.0), SIZE, "expected grad_output of the shape of argmax, [2, 3], got []"),
        (GRAD, [], "expected input_size of 4 numbers, N, C, H and W"),
        (GRAD, [2, 3, 4], "expected input_size of 4 numbers, N, C, H and W"),
        (GRAD, [2, 3, 4, 5, 1], "expected input_size of 4 numbers, N, C, H and W"),
        (GRAD, [-2, 3, 4, 5], INPUT_SIZE),
        (GRAD, [2, -3, 4, 5], INPUT_SIZE),
        (GRAD, [2, 3, 0, 5], INPUT_SIZE),
        (GRAD, [2, 3, 4, 0], INPUT_SIZE),
        (GRAD, [2, 3, -4, -5], INPUT_SIZE),
        (GRAD, [2, 3, 2**16, 2**15], INPUT_SIZE),
        (GRAD, [2, 3, 2**62, 2**62], INPUT_SIZE),
        (GRAD, [2**30, 2**30, 2**15, 2**15], "expected a gradient of fewer than 2^60 elements, got more"),
        (GRAD, [2**62, 2**62, 1, 1], "expected a gradient of fewer than 2^60 elements, got more"),
        (GRAD, [1, 3, 4, 5], argmax_of("[1, 3]", "[2, 3]")),
        (GRAD, [2, 4, 4, 5], argmax_of("[2, 4]", "[2, 3]")),
    ],
)
def test_scatter_checks_the_gradient_and_its_size(grad, size, message):
    for channels_last in (False, True):
        assert_refuses(
            ValueError,
            f"spp_ext.scatter: {message}",
            lambda last=channels_last: ops.scatter(grad, ARGMAX, None, [1], size, last),
        )


def test_gather_checks_its_source():
    for source, message in (
        (X[0], "expected source of shape [N, C, H, W], got [3, 4, 5]"),
        (X.int(), f"expected source {DTYPES}, got torch.int32"),
        (X[..., :0], "expected source with at least one row and one column, got [2, 3, 4, 0]"),
    ):
        assert_refuses(
            ValueError, f"spp_ext.gather: {message}", lambda source=source: ops.gather(source, ARGMAX, None, [1])
        )


def test_shapes_of_nothing_that_64_bits_cannot_hold_are_refused():
    """No elements, so no memory is needed; but strides of the result would pass 2^63."""
    message = f"{MAP}: expected an output of fewer than 2^60 elements, got more"
    assert_refuses(ValueError, message, lambda: spp_ext.spatial_pyramid_pool(torch.empty(0, 2**62, 1, 1)))
    grad, argmax = torch.zeros(0, 2**59), torch.zeros(0, 2**59, dtype=torch.int32)
    for channels_last in (False, True):
        assert_refuses(
            ValueError,
            "spp_ext.scatter: expected a gradient of fewer than 2^60 elements, got more",
            lambda last=channels_last: ops.scatter(grad, argmax, None, [1], [0, 2**59, 2**15, 2**15], last),
        )
