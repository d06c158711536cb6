"""Errors of the public functions, word for word."""

import json
from collections import OrderedDict
from enum import Enum

import numpy as np
import pytest
import torch
from error_cases import DTYPES, MAP, ROI, ROIS, ROWS, SCALE, X, roi
from support import CONVENTIONS, INF, NAN, assert_refuses

import spp_ext


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
    if isinstance(input, list):  # of maps
        message = message.replace("input", "input[0]")
    assert_refuses(error, f"{MAP}: {message}", lambda: spp_ext.spatial_pyramid_pool(input))
    assert_refuses(error, f"{MAP}: {message}", lambda: spp_ext.SpatialPyramidPool()(input))
    assert_refuses(error, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(input, ROIS))


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_dict_of_maps_is_refused(kind):
    got = f"expected input to be a Tensor or a list such as list(input.values()), got {kind.__name__}"
    maps = kind({"0": X, "1": X})
    assert_refuses(TypeError, f"{MAP}: {got}", lambda: spp_ext.spatial_pyramid_pool(maps))
    assert_refuses(TypeError, f"{ROI}: {got}", lambda: spp_ext.roi_spatial_pyramid_pool(maps, ROIS))


Y = torch.zeros(1, 3, 6, 7)


@pytest.mark.parametrize(
    ("input", "error", "message"),
    [
        ([], ValueError, "expected at least one map in input, got none"),
        ((), ValueError, "expected at least one map in input, got none"),
        ([X, None], TypeError, "expected input[1] to be a Tensor, got NoneType"),
        ([X, Y.int()], TypeError, f"expected input[1] {DTYPES}, got torch.int32"),
        ([X, Y[0, 0]], ValueError, "expected input[1] of shape [N, C, H, W] or [C, H, W], got [6, 7]"),
        ([X[None], Y], ValueError, "expected input[0] of shape [N, C, H, W] or [C, H, W], got [1, 2, 3, 4, 5]"),
        ([X, Y[0, :2]], ValueError, "expected maps of one number of channels, got 3 of input[0] and 2 of input[1]"),
        ([X, X, Y[:, 1:]], ValueError, "expected maps of one number of channels, got 3 of input[0] and 2 of input[2]"),
        (
            [X, Y.double()],
            ValueError,
            "expected maps of one dtype, got torch.float32 of input[0] and torch.float64 of input[1]",
        ),
        ([X, Y.to("meta")], ValueError, "expected maps of one device, got cpu of input[0] and meta of input[1]"),
        (
            [X, torch.zeros(2, 3, 0, 7)],
            ValueError,
            "expected input[1] with at least one row and one column, got [2, 3, 0, 7]",
        ),
    ],
)
def test_a_list_of_maps_that_do_not_fit_is_refused(input, error, message):
    assert_refuses(error, f"{MAP}: {message}", lambda: spp_ext.spatial_pyramid_pool(input))
    assert_refuses(error, f"{MAP}: {message}", lambda: spp_ext.SpatialPyramidPool(reuse_output=True)(input))


SHAPE = "expected sizes of shape [2, 2], the rows and columns of each image, got"
RANGE = "expected sizes from [1, 1] to [4, 5], got"


def sizes(*rows, dtype=torch.int64):
    return torch.tensor(rows, dtype=dtype)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ([(4, 5), (4, 5)], TypeError, "expected sizes to be a Tensor[N, 2], got list"),
        (4, TypeError, "expected sizes to be a Tensor[N, 2], got int"),
        (torch.ones(2, 2), TypeError, "expected sizes of an integer dtype, got torch.float32"),
        (torch.ones(2, 2).bool(), TypeError, "expected sizes of an integer dtype, got torch.bool"),
        (torch.ones(2, 2).cfloat(), TypeError, "expected sizes of an integer dtype, got torch.complex64"),
        (sizes(1, 1), ValueError, f"{SHAPE} [2]"),
        (sizes([1, 1]), ValueError, f"{SHAPE} [1, 2]"),
        (sizes([1, 1, 1], [1, 1, 1]), ValueError, f"{SHAPE} [2, 3]"),
        (sizes([1, 1], [1, 1]).to("meta"), ValueError, "expected input and sizes on one device, got two"),
        (sizes([0, 1], [1, 1]), ValueError, f"{RANGE} [0, 1] in row 0"),
        (sizes([4, 5], [4, 0]), ValueError, f"{RANGE} [4, 0] in row 1"),
        (sizes([4, 5], [5, 5]), ValueError, f"{RANGE} [5, 5] in row 1"),
        (sizes([4, 6], [0, 0]), ValueError, f"{RANGE} [4, 6] in row 0"),
        (sizes([4, 5], [-1, 5]), ValueError, f"{RANGE} [-1, 5] in row 1"),
        (sizes([2**63 - 1, 1], [1, 1]), ValueError, f"{RANGE} [{2**63 - 1}, 1] in row 0"),
        (sizes([1, 2**64 - 1], [1, 1], dtype=torch.uint64), ValueError, f"{RANGE} [1, {2**64 - 1}] in row 0"),
    ],
)
def test_what_are_no_sizes_is_refused(sizes, error, message):
    assert_refuses(error, f"{MAP}: {message}", lambda: spp_ext.spatial_pyramid_pool(X, sizes=sizes))
    assert_refuses(error, f"{MAP}: {message}", lambda: spp_ext.SpatialPyramidPool()(X, sizes))


def test_sizes_are_for_one_batch():
    message = f"{MAP}: expected sizes only with one batch [N, C, H, W], got them with a list of maps"
    assert_refuses(ValueError, message, lambda: spp_ext.spatial_pyramid_pool([X], sizes=sizes([1, 1], [1, 1])))
    message = f"{MAP}: expected input of shape [N, C, H, W] where sizes are given, got [3, 4, 5]"
    assert_refuses(ValueError, message, lambda: spp_ext.spatial_pyramid_pool(X[0], sizes=sizes([1, 1])))


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


@pytest.mark.cpu_only  # an expanded map would be copied to the GPU whole
@pytest.mark.parametrize("size", [[2**16, 2**15], [2**31, 1], [1, 2**31], [2**31 - 1, 2], [2**30, 2**30]])
def test_a_plane_that_int32_cannot_index_is_refused(size):
    huge = torch.zeros(1).as_strided([1, 1, *size], [0, 0, 0, 0])
    message = f"expected input with fewer than 2^31 cells in a plane, got {[1, 1, *size]}"
    assert_refuses(ValueError, f"{MAP}: {message}", lambda: spp_ext.spatial_pyramid_pool(huge))
    assert_refuses(ValueError, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(huge, ROIS))


BOXES = "expected boxes to be a Tensor[K, 5] or a list of Tensor[L, 4], got"


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        (None, TypeError, f"{BOXES} NoneType"),
        (np.zeros((1, 5)), TypeError, f"{BOXES} ndarray"),
        ([[0, 0, 1, 1], None], TypeError, f"{BOXES} a list with ['NoneType', 'list']"),
        ((torch.zeros(1, 4), 3), TypeError, f"{BOXES} a tuple with ['Tensor', 'int']"),
        (iter([torch.zeros(1, 4)]), TypeError, f"{BOXES} list_iterator"),
        (
            torch.zeros(1, 5).long(),
            TypeError,
            f"expected boxes {DTYPES}, got torch.int64",
        ),
        (
            torch.zeros(1, 5).to(torch.complex64),
            TypeError,
            f"expected boxes {DTYPES}, got torch.complex64",
        ),
        (torch.zeros(1, 5).to(torch.float8_e5m2), TypeError, f"expected boxes {DTYPES}, got torch.float8_e5m2"),
        (
            [torch.zeros(1, 4), torch.zeros(1, 4).int()],
            TypeError,
            f"expected boxes {DTYPES}, got torch.int32",
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


class Format(Enum):
    XYXY = "XYXY"
    XYWH = "XYWH"
    CXCYWHR = "CXCYWHR"


class BoundingBoxes(torch.Tensor):
    """What torchvision.tv_tensors.BoundingBoxes are to this package: tensors that know their format."""

    def __new__(cls, boxes, format):
        made = boxes.as_subclass(cls)
        made.format = format
        return made


@pytest.mark.parametrize("format", [Format.XYWH, "XYWH"])
def test_boxes_in_another_format_are_refused(format):
    message = f"{ROI}: expected boxes in the format XYXY, got XYWH"
    boxes = [BoundingBoxes(ROIS[:, 1:].clone(), format), ROIS[:, 1:]]
    assert_refuses(ValueError, message, lambda: spp_ext.roi_spatial_pyramid_pool(X, boxes))
    boxes[0].format = Format.XYXY
    assert spp_ext.roi_spatial_pyramid_pool(X, boxes).shape == (2, 150)
    rotated = BoundingBoxes(ROIS.clone(), Format.CXCYWHR)  # five numbers that are no rows of rois
    message = f"{ROI}: expected boxes in the format XYXY, got CXCYWHR"
    assert_refuses(ValueError, message, lambda: spp_ext.roi_spatial_pyramid_pool(X, rotated))


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
        message = f"{ROI}: expected no boxes where there are no images, got 1"
        assert_refuses(IndexError, message, lambda none=none: spp_ext.roi_spatial_pyramid_pool(none, ROIS))


def test_boxes_of_a_map_without_channels_are_checked_too():
    for rois in (roi(2, 0, 0, 1, 1), roi(0, 0, 0, 1, NAN)):
        with pytest.raises((IndexError, ValueError)):
            spp_ext.roi_spatial_pyramid_pool(torch.zeros(2, 0, 4, 4), rois)


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (None, TypeError, "expected spatial_scale to be a number, got None"),
        ("1", TypeError, "expected spatial_scale to be a number, got '1'"),
        (True, TypeError, "expected spatial_scale to be a number, got True"),
        (1j, TypeError, "expected spatial_scale to be a number, got 1j"),
        (np.bool_(True), TypeError, "expected spatial_scale to be a number, got np.True_"),
        (torch.tensor(True), TypeError, "expected spatial_scale to be a number, got tensor(True)"),
        (torch.tensor([0.5]), TypeError, "expected spatial_scale to be a number, got tensor([0.5000])"),
        (np.float32(-2), ValueError, f"{SCALE} np.float32(-2.0)"),
        ((1.0, 1.0), TypeError, "expected spatial_scale to be a number, got (1.0, 1.0)"),
        (0, ValueError, f"{SCALE} 0"),
        (-0.5, ValueError, f"{SCALE} -0.5"),
        (1.7e308, ValueError, f"{SCALE} 1.7e+308"),
        (NAN, ValueError, f"{SCALE} nan"),
        (INF, ValueError, f"{SCALE} inf"),
        (-INF, ValueError, f"{SCALE} -inf"),
    ],
)
def test_what_is_no_scale_is_refused(scale, error, message):
    assert_refuses(error, f"{ROI}: {message}", lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), scale))


@pytest.mark.parametrize("scale", [10**400, 1e39])  # beyond float, and beyond float32
def test_a_scale_beyond_float_is_refused_by_name(scale):
    with pytest.raises(ValueError, match=f"^{ROI}: expected spatial_scale to be a positive finite number"):
        spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), scale)


def test_a_scale_of_many_lines_is_refused_on_one():
    with pytest.raises(TypeError) as caught:
        spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), torch.eye(2))
    assert "\n" not in str(caught.value)


CONVENTION = f"expected convention {', '.join(map(json.dumps, CONVENTIONS[:-1]))} or {json.dumps(CONVENTIONS[-1])}, got"


@pytest.mark.parametrize(
    ("convention", "error", "message"),
    [
        ("align", ValueError, f'{CONVENTION} "align"'),
        ("", ValueError, f'{CONVENTION} ""'),
        ("ROI_POOL", ValueError, f'{CONVENTION} "ROI_POOL"'),
        ("torchvision", ValueError, f'{CONVENTION} "torchvision"'),
        ("a\n\0\ud800", ValueError, f'{CONVENTION} "a\\n\\u0000\\ud800"'),
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
