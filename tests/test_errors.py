"""Errors: every message of the package word for word, and hostile calls, none of which may end the process."""

import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from support import INF, NAN, OUTER, assert_refuses, assert_well_written, run_python

import spp_ext
from spp_ext import _library

MAP = "spp_ext.spatial_pyramid_pool"
ROI = "spp_ext.roi_spatial_pyramid_pool"
X = torch.zeros(2, 3, 4, 5)
ROIS = torch.zeros(1, 5)


def roi(*numbers, before=0):
    """`before` sound rows, then one of these numbers."""
    return torch.tensor([[0.0, 0, 0, 1, 1]] * before + [numbers], dtype=torch.float64)


# ---- the public functions ----

DTYPES = "of dtype float32, float64, float16 or bfloat16"


@pytest.mark.parametrize(
    ("input", "error", "message"),
    [
        (None, TypeError, "expected input to be a Tensor, got NoneType"),
        (np.zeros((1, 1, 2, 2)), TypeError, "expected input to be a Tensor, got ndarray"),
        ([[1.0]], TypeError, "expected input to be a Tensor, got list"),
        (X.int(), TypeError, f"expected input {DTYPES}, got torch.int32"),
        (X.bool(), TypeError, f"expected input {DTYPES}, got torch.bool"),
        (X.to(torch.complex64), TypeError, f"expected input {DTYPES}, got torch.complex64"),
        (X.to(torch.float8_e5m2), TypeError, f"expected input {DTYPES}, got torch.float8_e5m2"),
    ],
)
def test_what_is_no_map_is_refused(input, error, message):
    assert_refuses(error, f"{MAP}: {message}", lambda: spp_ext.spatial_pyramid_pool(input))
    assert_refuses(error, f"{MAP}: {message}", lambda: spp_ext.SpatialPyramidPool()(input))
    assert_refuses(error, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(input, ROIS))


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (1, 2, 3, 4, 5)])
def test_another_rank_is_refused(shape):
    message = f"{MAP}: expected input of shape [N, C, H, W] or [C, H, W], got {list(shape)}"
    assert_refuses(ValueError, message, lambda: spp_ext.spatial_pyramid_pool(torch.zeros(shape)))
    message = f"{ROI}: expected input of shape [N, C, H, W], got {list(shape)}"
    assert_refuses(ValueError, message, lambda: spp_ext.roi_spatial_pyramid_pool(torch.zeros(shape), ROIS))


def test_regions_of_one_image_without_a_batch_dimension_are_refused():
    message = f"{ROI}: expected input of shape [N, C, H, W], got [3, 4, 5]"
    assert_refuses(ValueError, message, lambda: spp_ext.roi_spatial_pyramid_pool(X[0], ROIS))


@pytest.mark.parametrize("shape", [[2, 3, 0, 4], [2, 3, 4, 0], [0, 3, 0, 4], [2, 0, 4, 0]])
def test_a_map_without_cells_is_refused(shape):
    message = f"expected input with at least one row and one column, got {shape}"
    assert_refuses(ValueError, f"{MAP}: {message}", lambda: spp_ext.spatial_pyramid_pool(torch.zeros(shape)))
    assert_refuses(ValueError, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(torch.zeros(shape), ROIS))


@pytest.mark.parametrize("size", [[2**16, 2**15], [2**31, 1], [1, 2**31], [2**31 - 1, 2], [2**30, 2**30]])
def test_a_plane_that_int32_cannot_index_is_refused(size):
    huge = torch.zeros(1).as_strided([1, 1, *size], [0, 0, 0, 0])
    message = f"expected input with fewer than 2^31 cells in a plane, got {[1, 1, *size]}"
    assert_refuses(ValueError, f"{MAP}: {message}", lambda: spp_ext.spatial_pyramid_pool(huge))
    assert_refuses(ValueError, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(huge, ROIS))


BOXES = "expected boxes to be a Tensor[K, 5] or a list of Tensor[L, 4], got"
ROWS = "expected boxes of shape [K, 5] (batch_index, x1, y1, x2, y2), got"


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        (None, TypeError, f"{BOXES} NoneType"),
        (np.zeros((1, 5)), TypeError, f"{BOXES} ndarray"),
        ([[0, 0, 1, 1], None], TypeError, f"{BOXES} a list with ['NoneType', 'list']"),
        ((torch.zeros(1, 4), 3), TypeError, f"{BOXES} a tuple with ['Tensor', 'int']"),
        (iter([torch.zeros(1, 4)]), TypeError, f"{BOXES} list_iterator"),
        (torch.zeros(1, 5).long(), TypeError, "expected boxes of a floating-point dtype, got torch.int64"),
        (
            torch.zeros(1, 5).to(torch.complex64),
            TypeError,
            "expected boxes of a floating-point dtype, got torch.complex64",
        ),
        (
            [torch.zeros(1, 4), torch.zeros(1, 4).int()],
            TypeError,
            "expected boxes of a floating-point dtype, got torch.int32",
        ),
        (torch.zeros(1, 4), ValueError, f"{ROWS} [1, 4]"),
        (torch.zeros(5), ValueError, f"{ROWS} [5]"),
        (torch.tensor(0.0), ValueError, f"{ROWS} []"),
        (torch.zeros(2, 1, 5), ValueError, f"{ROWS} [2, 1, 5]"),
        (torch.zeros(0), ValueError, f"{ROWS} [0]"),
        ([], ValueError, "expected one tensor of boxes for each of 2 images, got 0"),
        ([torch.zeros(1, 4)], ValueError, "expected one tensor of boxes for each of 2 images, got 1"),
        ([torch.zeros(1, 4)] * 3, ValueError, "expected one tensor of boxes for each of 2 images, got 3"),
        (
            [torch.zeros(1, 4), torch.zeros(1, 5)],
            ValueError,
            "expected boxes of shape [L, 4] for every image, got [1, 5]",
        ),
        (
            [torch.zeros(4), torch.zeros(1, 4)],
            ValueError,
            "expected boxes of shape [L, 4] for every image, got [4]",
        ),
    ],
)
def test_what_are_no_boxes_is_refused(boxes, error, message):
    assert_refuses(error, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(X, boxes))
    assert_refuses(error, f"{ROI}: {message}", lambda: spp_ext.RoISpatialPyramidPool()(X, boxes))


@pytest.mark.parametrize(
    ("rois", "error", "message"),
    [
        (roi(2, 0, 0, 1, 1), IndexError, "expected batch indices of boxes from 0 to 1, got 2 in row 0"),
        (roi(-1, 0, 0, 1, 1), IndexError, "expected batch indices of boxes from 0 to 1, got -1 in row 0"),
        (roi(10, 0, 0, 1, 1, before=3), IndexError, "expected batch indices of boxes from 0 to 1, got 10 in row 3"),
        (roi(2.5, 0, 0, 1, 1), IndexError, "expected batch indices of boxes from 0 to 1, got 2.5 in row 0"),
        (roi(-1.25, 0, 0, 1, 1), IndexError, "expected batch indices of boxes from 0 to 1, got -1.25 in row 0"),
        (roi(1e9, 0, 0, 1, 1), IndexError, "expected batch indices of boxes from 0 to 1, got 1000000000 in row 0"),
        (
            roi(2.0**63, 0, 0, 1, 1),
            IndexError,
            "expected batch indices of boxes from 0 to 1, got 9223372036854775808 in row 0",
        ),
        (
            roi(-(2.0**64), 0, 0, 1, 1, before=1),
            IndexError,
            "expected batch indices of boxes from 0 to 1, got -18446744073709551616 in row 1",
        ),
        (roi(NAN, 0, 0, 1, 1), ValueError, "expected finite boxes, got batch index = nan in row 0"),
        (roi(INF, 0, 0, 1, 1), ValueError, "expected finite boxes, got batch index = inf in row 0"),
        (roi(0, NAN, 0, 1, 1), ValueError, "expected finite boxes, got x1 = nan in row 0"),
        (roi(0, 0, -INF, 1, 1), ValueError, "expected finite boxes, got y1 = -inf in row 0"),
        (roi(0, 0, 0, INF, 1, before=2), ValueError, "expected finite boxes, got x2 = inf in row 2"),
        (roi(0, 0, 0, 1, NAN, before=1), ValueError, "expected finite boxes, got y2 = nan in row 1"),
        (roi(7, 0, 0, 1, NAN), IndexError, "expected batch indices of boxes from 0 to 1, got 7 in row 0"),
    ],
)
def test_bad_rows_are_refused_and_named(rois, error, message):
    for boxes in (rois, rois.float(), rois[:, [0, 1, 1, 1, 1, 2, 3, 4]][:, [0, 1, 5, 6, 7]]):
        assert_refuses(error, f"{ROI}: {message}", lambda boxes=boxes: spp_ext.roi_spatial_pyramid_pool(X, boxes))
    leaf = X.clone().requires_grad_()
    assert_refuses(error, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(leaf, rois))
    for validate in (True, False):
        assert_refuses(
            error, f"{ROI}: {message}", lambda v=validate: spp_ext.roi_spatial_pyramid_pool(X, rois, validate=v)
        )


def test_the_first_bad_row_is_named():
    rois = torch.zeros(1000, 5)
    rois[700, 3], rois[301, 0], rois[300, 2] = NAN, 9, INF
    message = f"{ROI}: expected finite boxes, got y1 = inf in row 300"
    assert_refuses(ValueError, message, lambda: spp_ext.roi_spatial_pyramid_pool(X, rois))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bad_rows_of_half_precision_are_refused(dtype):
    rois = torch.tensor([[0, 0, 0, INF, 1]], dtype=dtype)
    message = f"{ROI}: expected finite boxes, got x2 = inf in row 0"
    assert_refuses(ValueError, message, lambda: spp_ext.roi_spatial_pyramid_pool(X, rois))
    rois = torch.tensor([[2, 0, 0, 1, 1]], dtype=dtype)
    message = f"{ROI}: expected batch indices of boxes from 0 to 1, got 2 in row 0"
    assert_refuses(IndexError, message, lambda: spp_ext.roi_spatial_pyramid_pool(X, rois))


def test_a_list_may_hold_no_bad_numbers_either():
    boxes = [torch.zeros(2, 4), torch.tensor([[0, 0, 1, 1], [0, NAN, 1, 1]])]
    message = f"{ROI}: expected finite boxes, got y1 = nan in row 3"
    assert_refuses(ValueError, message, lambda: spp_ext.roi_spatial_pyramid_pool(X, boxes))


def test_a_box_of_no_image_is_refused():
    for none in (torch.zeros(0, 3, 4, 4), torch.zeros(0, 0, 4, 4)):
        with pytest.raises(IndexError) as caught:
            spp_ext.roi_spatial_pyramid_pool(none, ROIS)
        assert_well_written(str(caught.value))


def test_boxes_of_a_map_without_channels_are_checked_too():
    for rois in (roi(2, 0, 0, 1, 1), roi(0, 0, 0, 1, NAN)):
        with pytest.raises((IndexError, ValueError)):
            spp_ext.roi_spatial_pyramid_pool(torch.zeros(2, 0, 4, 4), rois)


SCALE = "expected spatial_scale to be a positive finite number, got"


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (None, TypeError, "expected spatial_scale to be a number, got None"),
        ("1", TypeError, "expected spatial_scale to be a number, got '1'"),
        (True, TypeError, "expected spatial_scale to be a number, got True"),
        (1j, TypeError, "expected spatial_scale to be a number, got 1j"),
        ((1.0, 1.0), TypeError, "expected spatial_scale to be a number, got (1.0, 1.0)"),
        (0, ValueError, f"{SCALE} 0.000000"),
        (-0.5, ValueError, f"{SCALE} -0.500000"),
        (NAN, ValueError, f"{SCALE} nan"),
        (INF, ValueError, f"{SCALE} inf"),
        (-INF, ValueError, f"{SCALE} -inf"),
    ],
)
def test_what_is_no_scale_is_refused(scale, error, message):
    assert_refuses(error, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), scale))


def test_a_scale_beyond_float_is_refused_by_name():
    with pytest.raises(ValueError, match=f"^{ROI}: expected spatial_scale"):
        spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), 10**400)


def test_a_scale_of_many_lines_is_refused_on_one():
    with pytest.raises(TypeError) as caught:
        spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), torch.eye(2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("convention", "error", "message"),
    [
        ("align", ValueError, 'expected convention "roi_pool", "spp_net" or "outer", got "align"'),
        ("", ValueError, 'expected convention "roi_pool", "spp_net" or "outer", got ""'),
        ("ROI_POOL", ValueError, 'expected convention "roi_pool", "spp_net" or "outer", got "ROI_POOL"'),
        ("torchvision", ValueError, 'expected convention "roi_pool", "spp_net" or "outer", got "torchvision"'),
        ("a\n\0\ud800", ValueError, 'expected convention "roi_pool", "spp_net" or "outer", got "a\\n\\u0000\\ud800"'),
        (None, TypeError, "expected convention to be a str, got NoneType"),
        (0, TypeError, "expected convention to be a str, got int"),
    ],
)
def test_what_is_no_convention_is_refused(convention, error, message):
    assert_refuses(error, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS, convention=convention))


@pytest.mark.parametrize(
    ("make", "op"),
    [
        (lambda levels: spp_ext.spatial_pyramid_pool(X, levels), MAP),
        (lambda levels: spp_ext.roi_spatial_pyramid_pool(X, ROIS, levels), ROI),
        (lambda levels: spp_ext.split_levels(torch.zeros(1, 5), levels), "spp_ext.split_levels"),
        (spp_ext.SpatialPyramidPool, "spp_ext.SpatialPyramidPool"),
        (spp_ext.RoISpatialPyramidPool, "spp_ext.RoISpatialPyramidPool"),
    ],
)
def test_levels_are_refused_by_the_function_that_was_called(make, op):
    assert_refuses(ValueError, f"{op}: expected at least one level, got none", lambda: make([]))
    message = f"{op}: expected every level to be an int, a (rows, cols) pair (each from 1 to 1048576) or spp_ext.Bins"
    assert_refuses(ValueError, f"{message}, got 0", lambda: make((1, 0)))
    assert_refuses(TypeError, f"{message}, got 1.5", lambda: make((1, 1.5)))


# ---- the registered ops, called past the Python layer ----

ops = torch.ops.spp_ext
ARGMAX = torch.zeros(2, 3, dtype=torch.int32)
GRAD = torch.zeros(2, 3)
SIZE = [2, 3, 4, 5]
LEVEL_BINS = "expected level_bins of at least 1 that sum to less than 2^31"
INPUT_SIZE = "expected input_size with N, C >= 0 and H, W >= 1 and H * W < 2^31"


@pytest.mark.parametrize(
    ("input", "message"),
    [
        (X[0], "expected input of shape [N, C, H, W], got [3, 4, 5]"),
        (X[:, :, :0], "expected input with at least one row and one column, got [2, 3, 0, 5]"),
        (X.int(), f"expected input {DTYPES}, got Int"),
        (X.to(torch.complex64), f"expected input {DTYPES}, got ComplexFloat"),
        (X.to(torch.float8_e4m3fn), f"expected input {DTYPES}, got Float8_e4m3fn"),
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
        (ROIS.int(), 1.0, OUTER, ValueError, f"expected boxes {DTYPES}, got Int"),
        (ROIS[0], 1.0, OUTER, ValueError, f"{ROWS} [5]"),
        (torch.zeros(0, 4), 1.0, OUTER, ValueError, f"{ROWS} [0, 4]"),
        (ROIS, 0.0, OUTER, ValueError, f"{SCALE} 0.000000"),
        (ROIS, NAN, OUTER, ValueError, f"{SCALE} nan"),
        (ROIS, 1.0, -1, ValueError, "expected convention from 0 to 3, got -1"),
        (ROIS, 1.0, 4, ValueError, "expected convention from 0 to 3, got 4"),
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
        (ARGMAX.long(), None, [1], "expected argmax of dtype int32, got Long"),
        (ARGMAX.float(), None, [1], "expected argmax of dtype int32, got Float"),
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
        (ARGMAX, ROIS.long(), [1], f"expected boxes {DTYPES}, got Long"),
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
        (GRAD.int(), SIZE, f"expected grad_output {DTYPES}, got Int"),
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
        (X.int(), f"expected source {DTYPES}, got Int"),
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


# ---- nothing ends the process ----

PREAMBLE = """
import os, resource, sys
import torch
import spp_ext
ops = torch.ops.spp_ext
spp_ext.spatial_pyramid_pool(torch.zeros(4, 64, 40, 40))
if "asan" not in os.environ.get("LD_PRELOAD", ""):  # which reserves more than any limit
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

def attempt(call):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, str(error).replace("\\n", "\\\\n"))
    else:
        print("returned")
"""


def attempts(*calls):
    """The outcome of each call, made in a new process that must survive them all."""
    script = textwrap.dedent(PREAMBLE) + "\n".join(f"attempt(lambda: {call})" for call in calls) + "\n"
    result = run_python("-c", script)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}{result.stderr}"
    outcomes = result.stdout.splitlines()
    assert len(outcomes) == len(calls)
    return outcomes


def test_running_out_of_memory_is_an_error_like_any_other():
    cell = "torch.zeros(1, 1, 1, 1)"
    outcomes = attempts(
        f"spp_ext.spatial_pyramid_pool({cell}, ((2**20, 2**11 - 1),))",  # the result
        f"spp_ext.spatial_pyramid_pool({cell}, ((2**20, 2**9),))",  # what the kernel works in
        f"spp_ext.spatial_pyramid_pool({cell}, ((2**20, 2**9),), return_indices=True)",
        f"spp_ext.roi_spatial_pyramid_pool({cell}, torch.zeros(1000, 5), ((2**20, 1),))",
        f"spp_ext.spatial_pyramid_pool({cell}.expand(64, 64, 2**10, 2**10), (1,))",  # the contiguous copy
        f"spp_ext.spatial_pyramid_pool({cell}.expand(2**20, 2**20, 2**15, 2**4), (1,))",
        f"spp_ext.roi_spatial_pyramid_pool({cell}, torch.zeros(1, 1).expand(2**30, 5), (1,))",
        "spp_ext._library.ops.scatter(torch.zeros(2**10, 1), torch.zeros(2**10, 1, dtype=torch.int32), None, [1], "
        "[2**10, 1, 2**15, 2**15], False)",
    )
    for outcome in outcomes:
        kind, _, message = outcome.partition(" ")
        assert kind in ("MemoryError", "OutOfMemoryError"), outcome
        assert ".h" not in message and "/" not in message and "\\n" not in message, outcome
    # and the process still works
    assert attempts("spp_ext.spatial_pyramid_pool(torch.zeros(1, 1, 2, 2))") == ["returned"]


def test_hostile_calls_end_in_python_exceptions():
    x, argmax, rois = "torch.zeros(2, 3, 4, 5)", "torch.zeros(2, 3, dtype=torch.int32)", "torch.zeros(2, 5)"
    grad, size = "torch.zeros(2, 3)", "[2, 3, 4, 5]"
    outcomes = attempts(
        # encoded levels
        *(
            f"ops.spatial_pyramid_pool_with_argmax({x}, {levels})"
            for levels in (
                [],
                [1],
                [-1],
                [-1, 1, 1],
                [-(2**63), 2**63 - 1],
                [-(2**31) + 1, 1, 1, 0, 0, 1, 1],
                [2**63 - 1, 2**63 - 1],
                [2**20, 2**20] * 40,
                [0, 0],
                [-1, 2**20, 2**20, 0, 0, 2**20 + 1, 1],
            )
        ),
        # forged argmax
        *(
            f"ops.{op}, {argmax}.fill_({cell}), {rois}, [1]{rest})"
            for cell in (-(2**31), -2, 20, 2**31 - 1)
            for op, rest in ((f"gather({x}", ""), (f"scatter({grad}", f", {size}, False"))
        ),
        f"ops.gather({x}, {argmax}.as_strided([2, 3 * (2**31 - 1)], [0, 0]), None, [2**31 - 2, 1, 1])",
        f"ops.scatter({grad}, {argmax}, None, [2**31 - 1, 2**31 - 1], {size}, False)",
        f"ops.scatter({grad}, {argmax}, None, [1], [2**62, 2**62, 2**62, 2**62], False)",
        f"ops.scatter({grad}, {argmax}, None, [1], [-1, -1, -1, -1], True)",
        f"ops.scatter({grad}, {argmax}, torch.full((2, 5), -1e30), [1], {size}, False)",
        f"ops.scatter({grad}, {argmax}, torch.full((2, 5), float('inf')), [1], {size}, False)",
        # boxes
        *(
            f"ops.roi_spatial_pyramid_pool_with_argmax({x}, torch.full((2, 5), {number}), [1, 1], 1.0, {n}, False)"
            for number in ("float('nan')", "float('inf')", "-float('inf')", "1e30", "-1e30", "2.0", "-1.0")
            for n in range(4)
        ),
        f"ops.roi_spatial_pyramid_pool({x}, torch.zeros(2, 5, dtype=torch.int64), [1, 1], 1.0, 2, False)",
        f"ops.roi_spatial_pyramid_pool({x}, torch.zeros(()), [1, 1], 1.0, 2, False)",
        f"ops.roi_spatial_pyramid_pool({x}, torch.zeros(5, 2**31), [1, 1], 1.0, 2, False)",
        *(f"ops.roi_spatial_pyramid_pool({x}, {rois}, [1, 1], 1.0, {n}, False)" for n in (-1, 4, 2**62, "'outer'")),
        # tensors of other kinds
        f"ops.spatial_pyramid_pool({x}.to_sparse(), [1, 1])",
        f"ops.spatial_pyramid_pool({x}.to_mkldnn(), [1, 1])",
        "ops.spatial_pyramid_pool(None, [1, 1])",
        f"ops.gather({x}, None, None, [1])",
        f"ops.spatial_pyramid_pool({x}, None)",
        f"ops.spatial_pyramid_pool({x}, [1.5, 1])",
    )
    assert [n for n, outcome in enumerate(outcomes) if outcome == "returned"] == []
    assert not [outcome for outcome in outcomes if "INTERNAL ASSERT" in outcome or "bad_alloc" in outcome]


def test_boxes_of_any_size_are_pooled_or_refused_without_a_crash():
    numbers = ["0.0", "-0.0", "0.5", "1e-45", "2.0**31", "-2.0**31", "2.0**63", "3.4e38", "-3.4e38"]
    calls = [
        f"spp_ext.roi_spatial_pyramid_pool(torch.zeros(1, 3, 4, 5), torch.tensor([[0, {a}, {b}, {b}, {a}]]), "
        f"(1, 7, (2**20, 1)), {scale}, convention='{name}', return_indices=True)"
        for a, b in zip(numbers, numbers[3:] + numbers[:3], strict=True)
        for scale in ("1e-30", "1.0", "3e38")
        for name in ("roi_pool", "spp_net", "outer")
    ]
    assert set(attempts(*calls[::4])) == {"returned"}


def test_tensors_without_data_are_survived():
    x, argmax, rois = "torch.zeros(2, 3, 4, 5)", "torch.zeros(2, 3, dtype=torch.int32)", "torch.zeros(2, 5)"
    attempts(
        f"spp_ext.spatial_pyramid_pool({x}.to('meta'))",
        f"spp_ext.roi_spatial_pyramid_pool({x}, {rois}.to('meta'))",
        f"ops.spatial_pyramid_pool({x}.to('meta'), [1, 1])",
        f"ops.gather({x}, {argmax}.to('meta'), None, [1])",
        f"ops.gather({x}.to('meta'), {argmax}, {rois}, [1])",
        f"ops.scatter({argmax}.to('meta').float(), {argmax}, None, [1], [2, 3, 4, 5], False)",
        f"ops.roi_spatial_pyramid_pool({x}, {rois}.to('meta'), [1, 1], 1.0, 2, False)",
    )


def test_gather_survives_boxes_of_no_image():
    attempts(
        *(
            f"ops.gather(torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, dtype=torch.int32), torch.full((2, 5), {n}), [1])"
            for n in ("2.0", "-1.0", "1e30", "-1e30", "float('nan')", "float('inf')")
        )
    )


# ---- a broken installation ----


def broken_package(folder, damage):
    """Makes a copy of the package whose op library is damaged."""
    source = Path(spp_ext.__file__).parent
    shutil.copytree(source, folder / "spp_ext", ignore=shutil.ignore_patterns("__pycache__", "libspp_ext_*"))
    damage(folder / "spp_ext" / "libspp_ext_cpu.so")


@pytest.mark.parametrize(
    "damage",
    [lambda library: None, lambda library: library.write_text("no library"), lambda library: library.mkdir()],
    ids=["missing", "no library", "a folder"],
)
def test_a_broken_installation_is_reported_at_the_first_use(damage, tmp_path):
    broken_package(tmp_path, damage)
    script = """
        import torch, spp_ext
        assert spp_ext.Bins([(0, 0, 1, 1)], 1).bins == 1
        spp_ext.reference.spatial_pyramid_pool(torch.zeros(1, 1, 2, 2))
        for _ in range(2):
            try:
                spp_ext.spatial_pyramid_pool(torch.zeros(1, 1, 2, 2))
            except RuntimeError as error:
                print(error)
    """
    result = run_python("-c", textwrap.dedent(script), PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1]
    assert lines[0].startswith("spp_ext: the op library libspp_ext_cpu.so did not load (")
    assert lines[0].endswith(
        f"); reinstall spp_ext for this torch, {torch.__version__}, or see `python -m spp_ext info`"
    )
    result = run_python("-m", "spp_ext", "info", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "libspp_ext_cpu.so" in result.stdout


def test_this_installation_is_whole():
    assert _library.load_error() is None
    assert _library.library_path().exists()
