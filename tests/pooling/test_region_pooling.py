"""Pooling of regions: tables to check by eye, then equality with the reference under every convention."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support import (
    CONVENTIONS,
    INF,
    NAN,
    TABLE,
    TABLE_BINS,
    assert_same,
    assert_same_bits,
    gaussian,
    generator,
    integers,
    lay_out,
    make_map,
    random_rois,
    torch_pyramid,
)

import spp_ext
from spp_ext import _checks, reference


def pool_box(box, levels, **options):
    """Values and argmax, as lists, of TABLE pooled over one box (x1, y1, x2, y2)."""
    boxes = [torch.tensor([box], dtype=torch.float32)]
    x = TABLE[None, None]
    values, argmax = spp_ext.roi_spatial_pyramid_pool(x, boxes, levels, return_indices=True, **options)
    assert_same(spp_ext.roi_spatial_pyramid_pool(x, boxes, levels, **options), values)
    return values[0].tolist(), argmax[0].tolist()


def check(x, boxes, levels=(1, 2, 3, 6), scale=1.0, conventions=CONVENTIONS):
    """Equality with the reference: values, argmax, and values alone."""
    for convention in conventions:
        values, argmax = spp_ext.roi_spatial_pyramid_pool(
            x, boxes, levels, scale, convention=convention, return_indices=True
        )
        expected = reference.roi_spatial_pyramid_pool(
            x, boxes, levels, scale, convention=convention, return_indices=True
        )
        assert_same([values, argmax], expected)
        assert_same(spp_ext.roi_spatial_pyramid_pool(x, boxes, levels, scale, convention=convention), values)


def rois_of(*boxes, dtype=torch.float32):
    """Boxes (x1, y1, x2, y2) of image 0, as rows."""
    return torch.tensor([[0, *box] for box in boxes], dtype=dtype)


# ---- tables ----


@pytest.mark.parametrize(
    ("box", "roi_pool", "spp_net", "outer"),
    [
        # values of level 1 and of level 2, then their cells
        (
            (1, 0, 3, 2),  # columns [1, 4) rows [0, 3); columns [1, 2) rows [0, 1); columns [1, 3) rows [0, 2)
            ([9, *[9, 8, 8, 8]], [1, *[1, 6, 6, 6]]),
            ([9, *[9] * 4], [1] * 5),
            ([9, *[9, 2, 4, 8]], [1, *[1, 2, 5, 6]]),
        ),
        (
            (0, 0, 3, 3),
            ([9, *[9, 8, 7, 6]], [1, *[1, 6, 8, 10]]),
            ([9, *[1, 9, 3, 4]], [1, *[0, 1, 4, 5]]),
            ([9, *[9, 9, 7, 8]], [1, *[1, 1, 8, 6]]),
        ),
        (
            (2, 1, 0, 0),  # inverted: row 1 column 2; the midpoints, row 0 column 0; row 1 column 2
            ([8] * 5, [6] * 5),
            ([1] * 5, [0] * 5),
            ([8] * 5, [6] * 5),
        ),
        (
            (6, 6, 8, 8),  # outside
            ([0] * 5, [-1] * 5),
            ([4] * 5, [15] * 5),
            ([0] * 5, [-1] * 5),
        ),
        (
            (-2, 2, 1, 3),  # columns [-2, 2) rows [2, 4); column 0 row 1; columns [-2, 1) row 2
            ([7, *[0, 7, 0, 3]], [8, *[-1, 8, -1, 13]]),
            ([3] * 5, [4] * 5),
            ([7, *[0, 7, 0, 7]], [8, *[-1, 8, -1, 8]]),
        ),
    ],
)
def test_regions_of_the_4x4_table(box, roi_pool, spp_net, outer):
    assert pool_box(box, [1, 2], convention="roi_pool") == roi_pool
    assert pool_box(box, [1, 2], convention="spp_net") == spp_net
    assert pool_box(box, [1, 2], convention="outer") == outer


def test_scale_maps_pixels_to_cells():
    assert pool_box((16, 0, 48, 32), [1, (3, 1)], spatial_scale=1 / 16) == ([9, 9, 8, 6], [1, 1, 6, 10])
    assert pool_box((1, 0, 2, 1), [1], spatial_scale=2) == ([8], [6])


def test_halves_go_away_from_zero():
    assert pool_box((0.5, 0.5, 0.5, 0.5), [1]) == ([4], [5])
    assert pool_box((0.49999997, 0.49999997, 1.4999999, 1.4999999), [1]) == ([9], [1])
    assert pool_box((-0.5, -0.5, -0.5, -0.5), [1]) == ([0], [-1])


def test_default_convention_is_roi_pool():
    box = (0.5, 1, 2.5, 3)
    assert pool_box(box, [1, 2]) == pool_box(box, [1, 2], convention="roi_pool")
    assert pool_box(box, [1, 2]) != pool_box(box, [1, 2], convention="spp_net")


def test_empty_bins_are_zero_even_where_all_is_negative(dtype):
    x = torch.full((1, 3, 4, 4), -5, dtype=dtype)
    values, argmax = spp_ext.roi_spatial_pyramid_pool(x, rois_of((2, 2, 5, 5)), [2, 1], return_indices=True)
    assert values.tolist() == [[-5, 0, 0, 0] * 3 + [-5] * 3]
    assert argmax.tolist() == [[10, -1, -1, -1] * 3 + [10] * 3]
    for special in (NAN, -INF):
        x = torch.full((1, 1, 4, 4), special, dtype=dtype)
        for levels in ([2, 1], [1]):
            outside = spp_ext.roi_spatial_pyramid_pool(x, rois_of((9, 9, 11, 11)), levels, return_indices=True)
            assert not outside[0].any() and (outside[1] == -1).all()


# ---- equality with the reference ----

HOSTILE = [
    (0.5, 0.5, 4.5, 3.5),
    (-0.5, -0.5, 0.5, 0.5),
    (1.5, 2.5, 1.5, 2.5),
    (0.49999997, 2.4999998, 3.5000002, 6.5),
    (0, 0, 7, 6),
    (0, 0, 8, 7),
    (3, 3, 3, 3),
    (5, 5, 2, 1),
    (5, 1, 2, 4),
    (100, 100, -100, -100),
    (-7, -9, -1, -2),
    (20, 2, 30, 4),
    (2, 20, 4, 30),
    (-3, -4, 2, 3),
    (6, 5, 15, 19),
    (-30, -40, 50, 60),
    (-1000, 2, 1000, 3),
    (-3.4e38, -3.4e38, 3.4e38, 3.4e38),
    (3.4e38, 3.4e38, -3.4e38, -3.4e38),
    (1e10, 1e10, 1e10, 1e10),
    (-1e10, -1e10, -1e10, -1e10),
    (-1e30, 0, 1e30, 3),
    (2**31, 0, 2**31 + 1000, 3),
    (-(2**31), -(2**33), 2**31, 2**33),
    (1e-45, -1e-45, 1e-38, 1e-30),
    (-0.0, 0.0, -0.0, 0.0),
]
MIXED = (1, 2, 3, 6, (3, 1), TABLE_BINS)


@pytest.mark.parametrize("dtype_of_boxes", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 0.5, 1 / 16, 1 / 3, 1.75, 1e-30, 3e38])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_hostile_boxes(convention, scale, dtype_of_boxes):
    rois = rois_of(*HOSTILE, dtype=dtype_of_boxes)
    check(make_map("ties", (1, 3, 7, 8)), rois, MIXED, scale, [convention])
    rois[:, 1:] /= scale  # so that the corners fall where they are written
    rois = rois[rois.isfinite().all(1)]
    check(make_map("ties", (1, 3, 7, 8)), rois, MIXED, scale, [convention])


def test_float64_boxes_beyond_float32():
    rois = rois_of((-1e300, 2, 1e300, 4), (1e200, 1e200, 1e201, 1e201), (0, 0, 1e-320, 5), dtype=torch.float64)
    check(make_map("ties", (1, 2, 7, 8)), rois)


@pytest.mark.parametrize("dtype_of_boxes", [torch.float32, torch.float64])
def test_windows_far_beyond_the_map_keep_their_length(dtype_of_boxes):
    """The middle of a window from -2^31 to 2^33 is at 3 * 2^30, so the map is in its first half."""
    x = make_map("ties", (1, 2, 7, 8))
    rois = rois_of((-(2**31), 0, 2**33, 6), (0, -(2**31), 7, 2**33), (-(2**39), 0, 2**38, 6), dtype=dtype_of_boxes)
    check(x, rois, (1, 2))
    pooled = spp_ext.split_levels(spp_ext.roi_spatial_pyramid_pool(x, rois, ((1, 2), (2, 1))), ((1, 2), (2, 1)))
    most = x.amax((2, 3))[0]
    assert torch.equal(pooled[0][0, :, 0].T, torch.stack([most, torch.zeros(2)]))
    assert torch.equal(pooled[1][1, :, :, 0].T, torch.stack([most, torch.zeros(2)]))


def test_every_dtype_layout_and_kind_of_data(dtype, layout, kind):
    x = lay_out(make_map(kind, (2, 5, 7, 9), dtype), layout)
    check(x, random_rois(9, 2, 7, 9, seed=len(layout)))


@pytest.mark.parametrize("levels", [(1,), (7,), (TABLE_BINS,), (4, TABLE_BINS, 2), ((1, 9), (9, 1)), (20,)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 1, 9), (2, 3, 9, 1), (2, 2, 2, 3), (1, 3, 13, 17)])
def test_every_shape_and_pyramid(shape, levels):
    rois = random_rois(15, shape[0], *shape[2:], seed=2)
    for layout in ("contiguous", "channels_last"):
        for kind in ("ties", "nan"):
            check(lay_out(make_map(kind, shape), layout), rois, levels)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "some_channels_last"])
@pytest.mark.parametrize("data", ["nan", "ties"])  # pooled by the whole rule, and by that for numbers alone
@pytest.mark.parametrize("channels", [1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 64, 65, 128])
def test_channels_of_any_number(channels, data, dtype, layout):
    x = lay_out(make_map(data, (2, channels, 6, 7), dtype), layout)
    check(x, random_rois(7, 2, 6, 7, seed=channels), (1, 2, 3), 1.0, ["roi_pool"])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [3, 20])
def test_many_regions(channels, layout, two_threads):
    x = lay_out(make_map("ties", (3, channels, 12, 14)), layout)
    check(x, random_rois(400, 3, 12, 14, seed=8, scale=1 / 16), (1, 3), 1 / 16, ["roi_pool"])


@pytest.mark.parametrize("channels", [3, 40])
def test_bins_of_every_size_of_many_regions(channels, dtype, layout):
    """Many regions are pooled from squares of cells, and with indices cell by cell, as the tests above check."""
    x = lay_out(make_map("ties", (1, channels, 26, 27), dtype), layout)
    boxes = [(w % 3, h % 2, w % 3 + w, h % 2 + h) for w in range(25) for h in range(24)]
    for levels in ((1,), (2, 1), (1, 2, 3, 6)):
        values, _ = spp_ext.roi_spatial_pyramid_pool(x, rois_of(*boxes), levels, return_indices=True)
        assert_same(spp_ext.roi_spatial_pyramid_pool(x, rois_of(*boxes), levels), values)


@pytest.mark.parametrize("channels", [3, 70])
def test_images_of_one_region_beside_an_image_of_many(channels, layout, two_threads):
    """One region is pooled from its map, or if it has empty bins as many are: from a copy of what they touch."""
    x = lay_out(make_map("one nan", (4, channels, 12, 14)), layout)
    alone = torch.tensor([[0.0, 2, 3, 9, 11], [2, -8, -4, 5, 6], [3, 0, 0, 13, 11]])
    many = random_rois(20, 1, 12, 14, seed=2) + torch.tensor([1.0, 0, 0, 0, 0])
    check(x, torch.cat([alone[:2], many, alone[2:]]), (1, 2, 3), 1.0, ["roi_pool"])


def test_regions_that_touch_a_few_rows_each(dtype, layout):
    boxes = [(0, y, 8, y + h) for y in range(0, 30, 7) for h in (0, 1, 5)]
    check(lay_out(make_map("one nan", (1, 3, 31, 9), dtype), layout), rois_of(*boxes), (2, 1), 1.0, ["roi_pool"])


def test_one_large_region_on_a_large_map(layout, two_threads):
    x = lay_out(gaussian((1, 3, 120, 130), torch.float32), layout)
    check(x, rois_of((3, 5, 120, 111)), (1, 2, 3, 6), 1.0, ["roi_pool"])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_regions_of_a_map_whose_rows_no_thread_may_copy(layout, two_threads):
    """Regions far apart are pooled in bands of rows, and large ones from the map itself: all as if alone."""
    levels, (height, width) = (1, 3, (1, 5), TABLE_BINS), (600, 610)
    x = integers((2, 3, height, width), torch.float32, low=-100, high=100)
    x[1, 2, 40, 50] = NAN
    rois = random_rois(120, 2, height, width, seed=4)
    rois[:, 1:3].clamp_(0, 590)
    rois[::2, 3:] = rois[::2, 1:3] + torch.randint(0, 30, (60, 2), generator=generator(5))
    rois[:, 3:].clamp_(0, 599)
    rois = torch.cat([rois_of((0, 0, 609, 599), (-300, 20, 900, 599), (900, 900, 950, 950), (3, 500, 700, 640)), rois])
    rois[:2, 0] = 1
    x = lay_out(x, layout)
    values, argmax = spp_ext.roi_spatial_pyramid_pool(x, rois, levels, convention="outer", return_indices=True)
    assert_same(spp_ext.roi_spatial_pyramid_pool(x, rois, levels, convention="outer"), values)
    expected = reference.roi_spatial_pyramid_pool(x, rois[1:4], levels, convention="outer", return_indices=True)
    assert_same([values[1:4], argmax[1:4]], expected)  # these leave the map
    for row, (image, *box) in enumerate(rois.tolist()):
        if row in (1, 2, 3):
            continue
        x0, y0 = (math.floor(corner) for corner in box[:2])
        x1, y1 = (max(math.ceil(end), begin + 1) for end, begin in zip(box[2:], (x0, y0), strict=True))
        cut_out = x[int(image), :, y0:y1, x0:x1]
        alone, cells = spp_ext.spatial_pyramid_pool(cut_out, levels, return_indices=True)
        assert_same(values[row], alone)
        assert torch.equal(argmax[row], (cells // (x1 - x0) + y0) * width + cells % (x1 - x0) + x0)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("channels", [64, 130])  # runs that start on cache lines, and runs that do not
def test_an_output_too_large_for_the_caches(channels, dtype, layout, two_threads):
    x = lay_out(gaussian((2, channels, 9, 11), dtype), layout)
    count = 10_000_000 // (channels * 50 * x.element_size())
    rois = random_rois(count, 2, 9, 11)
    values, argmax = spp_ext.roi_spatial_pyramid_pool(x, rois, return_indices=True)
    assert_same(spp_ext.roi_spatial_pyramid_pool(x, rois), values)
    for part in range(0, count, 100):  # small enough to stay in them
        some = slice(part, part + 100)
        expected, cells = spp_ext.roi_spatial_pyramid_pool(x, rois[some], return_indices=True)
        assert_same(values[some], expected)
        assert torch.equal(argmax[some], cells)


def test_the_last_image_of_more_than_float32_counts():
    x = torch.zeros(2**24 + 1, 1, 1, 1)
    x[2**24] = 5
    for boxes in (rois_of((0, 0, 0, 0)), rois_of((0, 0, 0, 0)).double()):
        boxes[0, 0] = 2**24
        values, argmax = spp_ext.roi_spatial_pyramid_pool(x, boxes, (1,), return_indices=True)
        assert (values.item(), argmax.item()) == (5, 0)


def test_a_region_is_pooled_like_the_map_cut_out(dtype):
    x = make_map("nan", (2, 5, 20, 23), dtype)
    for roi in random_rois(40, 2, 20, 23, seed=4).tolist():
        y0, y1, x0, x1 = reference.roi_window(roi[1:], 1.0, "spp_net", 20, 23, np.float32)
        cut = x[int(roi[0]), :, y0:y1, x0:x1]
        got = spp_ext.roi_spatial_pyramid_pool(x, torch.tensor([roi]), (1, 2, 5), convention="spp_net")
        assert_same(got[0], spp_ext.spatial_pyramid_pool(cut, (1, 2, 5)))


@pytest.mark.parametrize("kind", ["ties", "nan", "all minus inf", "extremes"])
def test_the_region_of_everything_is_the_map(kind, dtype, layout):
    x = lay_out(make_map(kind, (3, 4, 7, 10), dtype), layout)
    corners = {"roi_pool": (9, 6), "spp_net": (11, 8), "outer": (10, 7)}
    for convention, (right, bottom) in corners.items():
        rois = torch.tensor([[n, 0, 0, right, bottom] for n in range(3)], dtype=torch.float32)
        for levels in ((1, 2, 3, 6), (4, 3), (11,)):
            got = spp_ext.roi_spatial_pyramid_pool(x, rois, levels, convention=convention, return_indices=True)
            assert_same(got, torch_pyramid(x, levels))


def test_16_bit_numbers_come_through():
    for dtype in (torch.float16, torch.bfloat16):
        numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        x = numbers.reshape(1, 16, 64, 64)
        for layout in ("contiguous", "channels_last"):
            got = spp_ext.roi_spatial_pyramid_pool(lay_out(x, layout), rois_of((0, 0, 63, 63)), [64])
            assert_same_bits(got.flatten(), numbers)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("levels", [(1,), (2, 1), (1, 2, 3, 6)], ids=str)
def test_a_zero_keeps_the_sign_of_the_first(levels, layout):
    x = lay_out(make_map("zeros", (2, 5, 7, 9)), layout)
    rois = random_rois(20, 2, 7, 9)
    expected = reference.roi_spatial_pyramid_pool(x, rois, levels)
    values, _ = spp_ext.roi_spatial_pyramid_pool(x, rois, levels, return_indices=True)
    assert_same_bits(values, expected)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_zeros_of_either_sign_are_one_maximum_without_argmax(dtype, layout):
    """Which of them comes out is not specified there: +0 and -0 are equal."""
    x, rois = lay_out(make_map("zeros", (2, 5, 7, 9), dtype), layout), random_rois(20, 2, 7, 9)
    assert_same(spp_ext.roi_spatial_pyramid_pool(x, rois), reference.roi_spatial_pyramid_pool(x, rois))


# ---- boxes as users hold them ----


def test_a_list_of_boxes_equals_rows_with_a_batch_index(dtype):
    x = make_map("ties", (3, 2, 8, 9), dtype)
    rois = random_rois(12, 3, 8, 9, seed=6)
    for per_image in (list, tuple):
        listed = per_image(rois[rois[:, 0] == n, 1:] for n in range(3))
        rows = torch.cat([rois[rois[:, 0] == n] for n in range(3)])
        assert_same(
            spp_ext.roi_spatial_pyramid_pool(x, listed, return_indices=True),
            spp_ext.roi_spatial_pyramid_pool(x, rows, return_indices=True),
        )
        check(x, list(listed), (1, 2))


def test_images_without_boxes(dtype):
    x = make_map("ties", (4, 2, 8, 9), dtype)
    none, boxes = torch.zeros(0, 4), torch.tensor([[1.0, 1, 5, 6], [0, 3, 2, 8]])
    for listed in (
        [none, boxes, none, none],
        [none, none, none, boxes[:1]],
        [boxes, none, boxes[1:], none],
        [none] * 4,
    ):
        check(x, listed)


@pytest.mark.parametrize("empty", [torch.zeros(0, 5), [torch.zeros(0, 4)] * 2])
def test_no_regions_give_no_rows(empty, dtype):
    x = torch.zeros(2, 3, 4, 5, dtype=dtype)
    values, argmax = spp_ext.roi_spatial_pyramid_pool(x, empty, return_indices=True)
    assert values.shape == argmax.shape == (0, 150)
    assert values.dtype == dtype and argmax.dtype == torch.int64
    assert spp_ext.roi_spatial_pyramid_pool(x, empty).shape == (0, 150)


def test_nothing_to_pool_gives_the_right_shape():
    none = torch.zeros(0, 3, 4, 5)
    for boxes in ([], (), torch.zeros(0, 5)):
        assert spp_ext.roi_spatial_pyramid_pool(none, boxes, [2, 1]).shape == (0, 15)
    no_channels = torch.zeros(2, 0, 4, 5)
    values, argmax = spp_ext.roi_spatial_pyramid_pool(no_channels, torch.zeros(7, 5), return_indices=True)
    assert values.shape == argmax.shape == (7, 0)


@pytest.mark.parametrize("dtype_of_boxes", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_boxes_of_any_dtype_on_maps_of_any_dtype(dtype_of_boxes, dtype):
    x = make_map("ties", (2, 3, 9, 11), dtype)
    rois = random_rois(15, 2, 9, 11, seed=7, dtype=dtype_of_boxes, scale=1 / 3)
    check(x, rois, (1, 3), 1 / 3)
    check(x, [rois[:8, 1:], rois[8:, 1:]], (1, 3), 1 / 3)


def test_half_boxes_are_computed_in_float32():
    x = torch.arange(400.0).reshape(1, 1, 1, 400)
    for dtype in (torch.float16, torch.bfloat16):
        rois = rois_of((1008, 0, 1008, 0), dtype=dtype)
        # 1008 * 0.3 = 302.4; rounded to half it would be 302.5, so cell 303.
        assert spp_ext.roi_spatial_pyramid_pool(x, rois, [1], 0.3).item() == 302
        assert spp_ext.roi_spatial_pyramid_pool(x, [rois[:, 1:]], [1], 0.3).item() == 302


def test_half_boxes_in_a_list_do_not_limit_the_number_of_images():
    x = torch.arange(2051.0).reshape(2051, 1, 1, 1)
    for dtype in (torch.float16, torch.bfloat16):
        listed = [torch.zeros(1, 4, dtype=dtype) for _ in range(2051)]
        assert spp_ext.roi_spatial_pyramid_pool(x, listed, [1]).flatten().tolist() == list(range(2051))


def test_a_list_of_boxes_of_several_dtypes():
    x = make_map("ties", (2, 2, 8, 9))
    boxes = torch.tensor([[1.0, 1, 5, 6], [0, 3, 2, 8]])
    for first, second in ((torch.float16, torch.float64), (torch.float32, torch.bfloat16)):
        got = spp_ext.roi_spatial_pyramid_pool(x, [boxes.to(first), boxes.to(second)], (1, 2))
        assert_same(got, spp_ext.roi_spatial_pyramid_pool(x, [boxes, boxes], (1, 2)))


@pytest.mark.parametrize(
    "place",
    [
        lambda rois: torch.cat([rois, rois], 1)[:, :5],
        lambda rois: rois.repeat_interleave(2, 0)[::2],
        lambda rois: rois.t().contiguous().t(),
        lambda rois: torch.cat([torch.full((3,), NAN), rois.flatten()])[3:].view(-1, 5),
        lambda rois: rois.requires_grad_(),
    ],
    ids=["columns", "rows", "transposed", "offset", "requires_grad"],
)
def test_boxes_of_any_strides(place):
    x, rois = make_map("ties", (2, 3, 9, 11)), random_rois(15, 2, 9, 11, seed=7)
    expected = spp_ext.roi_spatial_pyramid_pool(x, rois.clone())
    placed = place(rois)
    assert_same(spp_ext.roi_spatial_pyramid_pool(x, placed).detach(), expected)
    assert_same(spp_ext.roi_spatial_pyramid_pool(x, rois[:1].expand(4, 5)).detach(), expected[:1].expand(4, -1))


def test_batch_indices_are_truncated_toward_zero():
    x = torch.arange(3.0).reshape(3, 1, 1, 1)
    for index, image in ((0.9, 0), (-0.5, 0), (-0.999, 0), (-0.0, 0), (1.0, 1), (1.999, 1), (2.9999, 2)):
        for dtype in (torch.float32, torch.float64):
            rois = torch.tensor([[index, 0, 0, 0, 0]], dtype=dtype)
            assert spp_ext.roi_spatial_pyramid_pool(x, rois, [1]).item() == image
        check(x, rois, (1,))


# ---- a region does not care about the others ----


def test_regions_in_any_order(dtype, layout):
    x = lay_out(make_map("nan", (3, 18, 9, 11), dtype), layout)
    rois = random_rois(60, 3, 9, 11, seed=9)
    pooled = spp_ext.roi_spatial_pyramid_pool(x, rois, return_indices=True)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    shuffled = spp_ext.roi_spatial_pyramid_pool(x, rois[order], return_indices=True)
    assert_same(shuffled, [part[order] for part in pooled])


def test_regions_alone_and_together(dtype, layout):
    x = lay_out(make_map("nan", (2, 7, 9, 11), dtype), layout)
    rois = random_rois(25, 2, 9, 11, seed=10)
    values, argmax = spp_ext.roi_spatial_pyramid_pool(x, rois, return_indices=True)
    for k in range(25):
        alone = spp_ext.roi_spatial_pyramid_pool(x, rois[k : k + 1], return_indices=True)
        assert_same(alone, [values[k : k + 1], argmax[k : k + 1]])


def test_equal_regions_give_equal_rows():
    x = make_map("nan", (1, 7, 9, 11))
    roi = random_rois(1, 1, 9, 11)
    values, argmax = spp_ext.roi_spatial_pyramid_pool(x, roi.repeat(33, 1), return_indices=True)
    assert_same([values, argmax], [values[:1].expand_as(values), argmax[:1].expand_as(argmax)])


# ---- memory ----


def test_the_input_and_the_boxes_are_not_touched(layout):
    x, rois = lay_out(make_map("nan", (2, 17, 7, 9)), layout), random_rois(9, 2, 7, 9)
    copies = x.clone(), rois.clone()
    versions = x._version, rois._version
    spp_ext.roi_spatial_pyramid_pool(x, rois, return_indices=True)
    spp_ext.roi_spatial_pyramid_pool(x, rois)
    spp_ext.roi_spatial_pyramid_pool(x, [rois[:, 1:], rois[:, 1:]])
    assert (x._version, rois._version) == versions
    assert_same((x, rois), copies)


@pytest.mark.parametrize("channels", [1, 3, 17, 35])
def test_every_element_is_written(channels, dtype, layout, deterministic):
    assert torch.empty(3).isnan().all()  # what torch does here, and what makes this test say something
    x = lay_out(integers((2, channels, 7, 5), dtype), layout)
    check(x, random_rois(9, 2, 7, 5, seed=3), (1, 2, 3, 6, (3, 9), TABLE_BINS), 1.0, ["roi_pool"])


def test_validate_changes_nothing_on_the_cpu(monkeypatch):
    x, rois = make_map("ties", (2, 3, 9, 11)), random_rois(15, 2, 9, 11)
    expected = spp_ext.roi_spatial_pyramid_pool(x, rois)
    for validate in (True, False, None):
        assert_same(spp_ext.roi_spatial_pyramid_pool(x, rois, validate=validate), expected)
    monkeypatch.setattr(_checks, "VALIDATES", True)
    assert_same(spp_ext.roi_spatial_pyramid_pool(x, rois), expected)


def test_the_module_is_the_function():
    x, rois = make_map("ties", (2, 3, 9, 11)), random_rois(15, 2, 9, 11, scale=0.5)
    for convention in CONVENTIONS:
        module = spp_ext.RoISpatialPyramidPool([3, [1, 2]], 0.5, convention)
        assert module.bins == 11
        for boxes in (rois, [rois[:3, 1:], rois[3:, 1:]]):
            got = module(x, boxes)
            expected = spp_ext.roi_spatial_pyramid_pool(x, boxes, (3, (1, 2)), 0.5, convention=convention)
            assert_same(got, expected)


def test_the_readmes_example_runs():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    names = {}
    exec(readme.split("```python\n")[1].split("```")[0], names)
    assert names["vector"].shape == names["regions"].shape == (2, 12800)
    assert names["six"].shape == (2, 256, 6, 6)
    assert names["features"].grad.sum() == 4 * 12800


# ---- what a call before it leaves behind ----


@pytest.mark.parametrize("maps", [1, 2])
def test_a_call_is_not_taken_for_an_equal_one_of_other_types(maps):
    """Requests are kept for the next call; True equals 1, and 1.0 too."""
    x, rois = torch.zeros(1, 1, 4, 4), torch.zeros(1, 5)

    def pool(levels=(1, 2), spatial_scale=1.0, convention="outer"):
        if maps == 1:
            return spp_ext.roi_spatial_pyramid_pool(x, rois, levels, spatial_scale, convention=convention)
        options = {"convention": convention, "map_indices": torch.tensor([1])}
        return spp_ext.roi_spatial_pyramid_pool([x, x], rois, levels, spatial_scale, **options)

    assert pool().shape == (1, 5)
    for impostor in (True, 1.0):
        with pytest.raises(TypeError, match="expected every level to be an int"):
            pool(levels=(impostor, 2))
    with pytest.raises(TypeError, match="expected spatial_scale to be a number, got True"):
        pool(spatial_scale=True)
    with pytest.raises(TypeError, match="expected convention to be a str, got list"):
        pool(convention=["outer"])
    level = torch.tensor(2)
    assert pool(levels=(1, level)).shape == (1, 5)
    level.fill_(3)
    assert pool(levels=(1, level)).shape == (1, 10)
