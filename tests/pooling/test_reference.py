"""The reference itself: literal tables to check by eye, and equality with torch's own adaptive pooling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import TABLE, torch_pyramid

from spp_ext import reference
from spp_ext.levels import Bins, parse_levels

pytestmark = pytest.mark.cpu_only  # no kernel runs

NAN, INF = math.nan, math.inf
MAP = TABLE.numpy()


def pool(rows, levels):
    """Values and argmax, as lists, of one plane given as nested lists."""
    plane = np.array(rows, np.float32)[np.newaxis]  # [1, H, W]
    values, argmax = reference.spatial_pyramid_pool(plane, levels, return_indices=True)
    return values.tolist(), argmax.tolist()


def pool_box(box, levels, **kwargs):
    """Values and argmax, as lists, of MAP pooled over one box (x1, y1, x2, y2)."""
    boxes = np.array([[0, *box]], np.float32)
    values, argmax = reference.roi_spatial_pyramid_pool(
        MAP[np.newaxis, np.newaxis], boxes, levels, return_indices=True, **kwargs
    )
    return values[0].tolist(), argmax[0].tolist()


# ---- bins ----


@pytest.mark.parametrize(
    ("length", "divisions", "spans"),
    [
        (4, 1, [(0, 4)]),
        (4, 2, [(0, 2), (2, 4)]),
        (4, 3, [(0, 2), (1, 3), (2, 4)]),
        (5, 2, [(0, 3), (2, 5)]),
        (2, 3, [(0, 1), (0, 2), (1, 2)]),
        (1, 3, [(0, 1), (0, 1), (0, 1)]),
        (10, 6, [(0, 2), (1, 4), (3, 5), (5, 7), (6, 9), (8, 10)]),
        (13, 6, [(0, 3), (2, 5), (4, 7), (6, 9), (8, 11), (10, 13)]),
    ],
)
def test_bins_are_floor_to_ceil(length, divisions, spans):
    assert [reference.bin_span(i, i + 1, divisions, length) for i in range(divisions)] == spans


def test_bin_edges_are_exact_for_huge_windows():
    length, divisions = 2**41 + 1, 2**20 - 1
    lo, hi = reference.bin_span(divisions - 1, divisions, divisions, length)
    assert lo * divisions <= (divisions - 1) * length < (lo + 1) * divisions
    assert hi == length


def test_a_grid_is_unit_squares_row_major():
    (level,) = parse_levels("test", [(2, 3)])
    rectangles, divisions = reference.level_rectangles(level)
    assert rectangles == [(0, 0, 1, 1), (0, 1, 1, 2), (0, 2, 1, 3), (1, 0, 2, 1), (1, 1, 2, 2), (1, 2, 2, 3)]
    assert divisions == (2, 3)


# ---- whole maps ----


def test_the_4x4_table():
    values, argmax = pool(MAP, [1, 2, 3])
    assert values == [9, *[9, 8, 7, 6], *[9, 9, 8, 7, 8, 8, 7, 6, 6]]
    assert argmax == [1, *[1, 6, 8, 10], *[1, 1, 6, 8, 6, 6, 8, 10, 10]]


def test_output_is_level_then_channel_then_bin():
    x = np.stack([MAP, 10 * MAP])  # [C=2, 4, 4]
    assert reference.spatial_pyramid_pool(x, [1, 2]).tolist() == [9, 90, *[9, 8, 7, 6], *[90, 80, 70, 60]]


def test_more_bins_than_cells_share_cells():
    assert pool([[1, 2]], [(1, 3)]) == ([1, 2, 2], [0, 1, 1])


def test_bins_of_arbitrary_rectangles():
    level = Bins([(0, 0, 1, 4), (1, 1, 3, 3), (0, 2, 4, 4), (0, 0, 4, 4)], divisions=4)
    assert pool(MAP, [level]) == ([9, 8, 8, 9], [1, 6, 6, 1])  # top row, centre, right half, everything
    thirds = Bins([(0, 0, 1, 3), (1, 0, 3, 2)], divisions=3)  # rows [0, 2); rows [1, 4) x columns [0, 3)
    assert pool(MAP, [thirds]) == ([9, 8], [1, 6])
    stripes = Bins([(1, 0, 2, 1)], divisions=(2, 1))  # the lower half
    assert pool(MAP, [stripes]) == ([7], [8])


def test_first_cell_wins_ties():
    assert pool([[5, 7], [7, 7]], [1, 2]) == ([7, 5, 7, 7, 7], [1, 0, 1, 2, 3])
    assert pool([[0.0, -0.0]], [1])[1] == [0]
    values, _ = pool([[-0.0, 0.0]], [1])
    assert math.copysign(1, values[0]) == -1


def test_last_nan_wins():
    values, argmax = pool([[1, NAN, INF], [NAN, 9, 2]], [1, (1, 3)])
    assert argmax == [3, 3, 1, 2]
    assert [math.isnan(v) for v in values] == [True, True, True, False]


def test_all_minus_infinity_gives_minus_infinity_and_the_first_cell():
    assert pool([[-INF, -INF], [-INF, -INF]], [1, 2]) == ([-INF] * 5, [0, 0, 1, 2, 3])
    assert pool([[-INF, -3]], [1]) == ([-3], [1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        ((2, 3, 13, 13), (1, 2, 3, 6)),
        ((1, 2, 7, 10), (4, 3, 2, 1)),
        ((2, 1, 4, 2), (6, (3, 5))),
        ((1, 2, 1, 9), ((1, 4), (2, 1))),
        ((0, 2, 3, 3), (1, 2)),
    ],
)
def test_whole_map_equals_torch(shape, levels, dtype):
    x = torch.randint(-9, 9, shape, generator=torch.Generator().manual_seed(0)).to(dtype)  # many ties
    values, argmax = reference.spatial_pyramid_pool(x, levels, return_indices=True)
    expected, expected_argmax = torch_pyramid(x, levels)
    assert values.dtype == dtype and argmax.dtype == torch.int64
    assert torch.equal(values, expected) and torch.equal(argmax, expected_argmax)
    assert torch.equal(reference.spatial_pyramid_pool(x, levels), expected)


@pytest.mark.parametrize("special", [NAN, INF, -INF])
def test_special_values_equal_torch(special):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 6, 7, generator=generator)
    x[torch.rand(x.shape, generator=generator) < 0.4] = special
    x[1, 3] = special
    values, argmax = reference.spatial_pyramid_pool(x, return_indices=True)
    expected, expected_argmax = torch_pyramid(x, (1, 2, 3, 6))
    assert torch.equal(values.nan_to_num(777), expected.nan_to_num(777))
    assert torch.equal(argmax, expected_argmax)


def test_one_image_without_a_batch_dimension():
    x = torch.randn(3, 5, 4)
    values, argmax = reference.spatial_pyramid_pool(x, [2, 1], return_indices=True)
    batched, batched_argmax = reference.spatial_pyramid_pool(x[None], [2, 1], return_indices=True)
    assert values.shape == (15,)
    assert torch.equal(values, batched[0]) and torch.equal(argmax, batched_argmax[0])


def test_numpy_in_numpy_out():
    x = np.arange(32, dtype=np.float16).reshape(1, 2, 4, 4)
    values, argmax = reference.spatial_pyramid_pool(x, [2], return_indices=True)
    assert isinstance(values, np.ndarray) and values.dtype == np.float16 and argmax.dtype == np.int64
    assert values.tolist() == [[5, 7, 13, 15, 21, 23, 29, 31]]


# ---- regions: one axis of each convention on a map of 4 cells ----

JUST_BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))


def axis_window(convention, first, last, extent=4, scale=1.0, dtype=np.float32):
    """The columns (x0, x1) of a box whose rows are another box's, to see that the axes do not mix."""
    y0, y1, x0, x1 = reference.roi_window((first, 0, last, 0), scale, convention, 7, extent, dtype)
    swapped = reference.roi_window((0, first, 0, last), scale, convention, extent, 7, dtype)
    assert swapped == (x0, x1, y0, y1)
    return x0, x1


@pytest.mark.parametrize(
    ("first", "last", "window"),
    [
        (0, 3, (0, 4)),  # both ends belong to the window
        (0.5, 2.5, (1, 4)),  # a half goes away from zero
        (-0.5, 1.5, (-1, 3)),
        (JUST_BELOW_HALF, 2.49, (0, 3)),
        (1.4, 1.4, (1, 2)),  # a point
        (3, 1, (3, 4)),  # inverted: one cell at the first end
        (6, 8, (6, 9)),  # outside: not clipped here
        (-9, -7, (-9, -6)),
    ],
)
def test_roi_pool_rounds_both_ends(first, last, window):
    assert axis_window("roi_pool", first, last) == window


@pytest.mark.parametrize(
    ("first", "last", "window"),
    [
        (0, 4, (0, 3)),  # left 1, right 3, counted from 1
        (0.5, 2.5, (0, 2)),  # left 1, right 2
        (0, 100, (0, 4)),  # right 99, clamped to 4
        (1, 1, (0, 1)),  # left 2, right 0: both 1
        (1, 1.5, (0, 1)),  # left 2, right 1: both floor(1.5) = 1
        (3, 1, (1, 2)),  # left 4, right 0: both 2
        (6, 8, (3, 4)),  # left 7, right 7: clamped to the last cell
        (-9, -7, (0, 1)),  # left -8, right -8: clamped to the first
    ],
)
def test_spp_net_is_the_papers_window(first, last, window):
    assert axis_window("spp_net", first, last) == window


def test_spp_net_maps_the_papers_image_to_all_13_cells():
    assert axis_window("spp_net", 0, 224, extent=13, scale=1 / 16) == (0, 13)


@pytest.mark.parametrize(
    ("first", "last", "window"),
    [
        (0, 3, (0, 3)),
        (0.5, 2.5, (0, 3)),
        (-0.5, 0.5, (-1, 1)),
        (1, 1, (1, 2)),  # a point on an edge
        (3, 1, (3, 4)),  # inverted
        (6, 8, (6, 8)),  # outside
    ],
)
def test_outer_covers_the_box(first, last, window):
    assert axis_window("outer", first, last) == window


def test_coordinates_are_one_product_in_the_type_of_the_boxes():
    # 33 / 16.5: the exact product with the float32 scale is 2.00000006, its float32 rounding 2.
    assert axis_window("outer", 0, 33, scale=1 / 16.5) == (0, 2)
    # 21 / 7: a float32 product of float32 factors is 3.0000002, the float64 one 3.
    assert axis_window("outer", 0, 21, scale=1 / 7) == (0, 4)
    assert axis_window("outer", 0, 21, scale=1 / 7, dtype=np.float64) == (0, 3)


def test_huge_coordinates_saturate():
    limit = 2**40
    assert axis_window("roi_pool", -3e38, 3e38, scale=1e9) == (-limit, limit + 1)
    assert axis_window("outer", -1e300, 1e300, dtype=np.float64) == (-limit, limit)
    assert axis_window("spp_net", -3e38, 3e38) == (0, 4)


# ---- regions: pooling ----


def test_a_region_is_pooled_like_a_map_of_its_own():
    # roi_pool: columns 1..3, rows 0..2;  9 2 0 / 4 8 5 / 0 6 1
    assert pool_box((1, 0, 3, 2), [1, 3]) == (
        [9, *[9, 2, 0, 4, 8, 5, 0, 6, 1]],
        [1, *[1, 2, 3, 5, 6, 7, 9, 10, 11]],
    )
    # spp_net, the same box: columns [1, 2), rows [0, 1)
    assert pool_box((1, 0, 3, 2), [1], convention="spp_net") == ([9], [1])
    # outer, the same box: columns [1, 3), rows [0, 2)
    assert pool_box((1, 0, 3, 2), [1, 2], convention="outer") == ([9, *[9, 2, 4, 8]], [1, *[1, 2, 5, 6]])


def test_spatial_scale_maps_pixels_to_cells():
    assert pool_box((16, 0, 48, 32), [1, (3, 1)], spatial_scale=1 / 16) == ([9, 9, 8, 6], [1, 1, 6, 10])


def test_clipped_away_bins_are_zero_without_an_argmax():
    # columns [-2, 2), rows [2, 4): the left bin lies outside, the right one holds 7 0 / 2 3
    assert pool_box((-2, 2, 1, 3), [(1, 2)]) == ([0, 7], [-1, 8])
    assert pool_box((6, 6, 8, 8), [1, 2]) == ([0] * 5, [-1] * 5)
    assert pool_box((6, 6, 8, 8), [1, 2], convention="outer") == ([0] * 5, [-1] * 5)
    assert pool_box((6, 6, 8, 8), [1], convention="spp_net") == ([4], [15])


def test_degenerate_boxes_pool_one_cell():
    assert pool_box((2, 1, 2, 1), [1, 2]) == ([8] * 5, [6] * 5)
    assert pool_box((2, 1, 0, 0), [1]) == ([8], [6])
    assert pool_box((2, 1, 2, 1), [1], convention="outer") == ([8], [6])
    assert pool_box((2, 2, 2, 2), [1], convention="spp_net") == ([4], [5])  # left 3, right 1: both 2


def test_bins_divide_a_region():
    halves = Bins([(0, 0, 2, 1), (0, 1, 2, 2)], divisions=2)
    assert pool_box((0, 2, 3, 3), [halves]) == ([7, 6], [8, 10])


@pytest.mark.parametrize("convention", ["roi_pool", "spp_net", "outer"])
def test_the_whole_map_is_the_region_of_everything(convention):
    x = torch.randn(2, 3, 5, 8)
    right, bottom = {"roi_pool": (7, 4), "spp_net": (9, 6), "outer": (8, 5)}[convention]
    boxes = torch.tensor([[n, 0, 0, right, bottom] for n in range(2)], dtype=torch.float32)
    levels = (3, (2, 1), Bins([(0, 1, 2, 3)], 3))
    for got, expected in zip(
        reference.roi_spatial_pyramid_pool(x, boxes, levels, convention=convention, return_indices=True),
        reference.spatial_pyramid_pool(x, levels, return_indices=True),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_a_list_of_boxes_equals_rows_with_a_batch_index():
    x = torch.randn(2, 2, 6, 6)
    listed = [torch.tensor([[0.0, 1, 4, 3], [2, 2, 5, 5]]), torch.tensor([[1.0, 0, 2, 5]])]
    rows = torch.tensor([[0, 0.0, 1, 4, 3], [0, 2, 2, 5, 5], [1, 1, 0, 2, 5]])
    expected = reference.roi_spatial_pyramid_pool(x, rows, [2])
    assert expected.shape == (3, 8)
    assert torch.equal(reference.roi_spatial_pyramid_pool(x, listed, [2]), expected)


def test_half_boxes_are_computed_in_float32():
    x = torch.arange(400.0).reshape(1, 1, 1, 400)
    boxes = torch.tensor([[0.0, 1008, 0, 1008, 0]])  # 1008 * 0.3 = 302.4; in half it would be 302.5, so cell 303
    for dtype in (torch.float16, torch.bfloat16):
        assert reference.roi_spatial_pyramid_pool(x, boxes.to(dtype), [1], 0.3).item() == 302
    assert reference.split_boxes("test", boxes.half(), 1)[1].dtype == np.float32
    assert reference.split_boxes("test", boxes.double(), 1)[1].dtype == np.float64


def test_batch_index_is_truncated_toward_zero():
    boxes = np.array([[-0.9, 0, 0, 0, 0], [1.9, 0, 0, 0, 0]], np.float32)
    assert reference.split_boxes("test", boxes, 2)[0] == [0, 1]


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ([2, 0, 0, 1, 1], IndexError, r"batch index in \[0, 2\), got 2.0 in row 1"),
        ([-1, 0, 0, 1, 1], IndexError, "got -1.0 in row 1"),
        ([1e30, 0, 0, 1, 1], IndexError, "in row 1"),
        ([0, NAN, 0, 1, 1], ValueError, "finite boxes, got .* in row 1"),
        ([0, 0, 0, INF, 1], ValueError, "in row 1"),
        ([NAN, 0, 0, 1, 1], ValueError, "in row 1"),
    ],
)
def test_bad_regions_name_the_row(row, error, message):
    boxes = torch.tensor([[0, 0, 0, 1, 1], row], dtype=torch.float32)
    with pytest.raises(error, match=f"spp_ext.reference.roi_spatial_pyramid_pool: .*{message}"):
        reference.roi_spatial_pyramid_pool(torch.zeros(2, 1, 3, 3), boxes)
    with pytest.raises(error, match=f"spp_ext.reference.roi_pool: .*{message}"):
        reference.roi_pool(torch.zeros(2, 1, 3, 3), boxes, 1)


def test_maps_of_regions_are_listed_as_boxes_are():
    maps = [torch.randn(2, 2, 3, 4), torch.randn(2, 2, 5, 2)]
    listed = [torch.tensor([[0.0, 1, 4, 3], [2, 2, 5, 5]]), torch.tensor([[1.0, 0, 2, 5]])]
    got = reference.roi_spatial_pyramid_pool(
        maps, listed, [2], [1.0, 0.5], map_indices=[torch.tensor([1, 0]), torch.tensor([1])]
    )
    expected = reference.roi_spatial_pyramid_pool(maps, listed, [2], [1.0, 0.5], map_indices=[1, 0, 1])
    assert torch.equal(got, expected)
    first, second = (reference.roi_spatial_pyramid_pool(x, listed, [2], s) for x, s in zip(maps, [1, 0.5], strict=True))
    assert torch.equal(got, torch.stack([second[0], first[1], second[2]]))


# ---- gradient ----


def test_gradient_of_a_tie_goes_to_the_first_cell():
    x = np.array([[[[5, 5], [5, 5]]]], np.float32)
    _, argmax = reference.spatial_pyramid_pool(x, [1, (2, 1)], return_indices=True)
    grad = np.array([[1, 10, 100]], np.float32)
    got = reference.scatter(grad, argmax, [1, (2, 1)], x.shape)
    assert got.tolist() == [[[[11, 0], [100, 0]]]]


def test_gradient_of_overlapping_bins_adds_up():
    _, argmax = reference.spatial_pyramid_pool(MAP[None, None], [3], return_indices=True)
    grad = np.array([[1, 2, 4, 8, 16, 32, 64, 128, 256]], np.float32)
    got = reference.scatter(grad, argmax, [3], (1, 1, 4, 4))
    assert got[0, 0].tolist() == [
        [0, 1 + 2, 0, 0],
        [0, 0, 4 + 16 + 32, 0],
        [8 + 64, 0, 128 + 256, 0],
        [0, 0, 0, 0],
    ]


def test_gradient_of_minus_infinity_flows_to_the_first_cell():
    argmax = pool([[-INF, -INF]], [1])[1]
    assert reference.scatter(np.ones([1, 1], np.float32), np.array([argmax]), [1], (1, 1, 1, 2)).tolist() == [
        [[[1, 0]]]
    ]


def test_empty_bins_have_no_gradient_and_gather_zero():
    argmax = np.array([[-1, 3]])
    grad = np.array([[5, 7]], np.float32)
    assert reference.scatter(grad, argmax, [(1, 2)], (1, 1, 2, 2)).tolist() == [[[[0, 0], [0, 7]]]]
    source = np.array([[[[1, 2], [3, 4]]]], np.float32)
    assert reference.gather(source, argmax, [(1, 2)]).tolist() == [[0, 4]]


def test_gradient_of_regions_goes_to_their_image():
    argmax = np.array([[0], [1], [1]])
    grad = np.array([[1], [2], [4]], np.float32)
    got = reference.scatter(grad, argmax, [1], (2, 1, 1, 2), batch_index=[1, 0, 1])
    assert got.tolist() == [[[[0, 2]]], [[[1, 4]]]]
    source = np.array([[[[10, 20]]], [[[30, 40]]]], np.float32)
    assert reference.gather(source, argmax, [1], batch_index=[1, 0, 1]).tolist() == [[30], [20], [40]]


def test_gradient_is_summed_row_by_row_then_level_by_level():
    big = 1e8  # big + 1 == big in float32, so another order gives another sum
    argmax = np.zeros([2, 2], np.int64)
    grad = np.array([[big, -big], [1, 0]], np.float32)
    assert reference.scatter(grad, argmax, [1, 1], (1, 1, 1, 1), [0, 0]).item() == 1
    grad = np.array([[big, 1], [-big, 0]], np.float32)
    assert reference.scatter(grad, argmax, [1, 1], (1, 1, 1, 1), [0, 0]).item() == 0
    grad = np.array([[big, 1, -big]], np.float32)
    assert reference.scatter(grad, np.zeros([1, 3], np.int64), [1, (1, 2)], (1, 1, 1, 1)).item() == 0


@pytest.mark.parametrize(("dtype", "big"), [(torch.float16, 2048), (torch.bfloat16, 256)])
def test_half_gradients_are_summed_in_float32_and_rounded_once(dtype, big):
    grad = torch.tensor([[big, 1, 1]], dtype=dtype)  # big + 1 == big in dtype
    got = reference.scatter(grad, torch.zeros(1, 3, dtype=torch.int64), [(1, 3)], (1, 1, 1, 1))
    assert got.dtype == dtype and got.item() == big + 2


def test_float64_gradients_are_summed_in_float64():
    grad = np.array([[1e8, 1]], np.float64)
    assert reference.scatter(grad, np.zeros([1, 2], np.int64), [(1, 2)], (1, 1, 1, 1)).item() == 1e8 + 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 13, 13), (1, 2, 4, 5), (2, 1, 2, 3)])
def test_gradient_and_tangent_equal_torch_autograd(shape, dtype):
    levels = (1, 2, 3, 6)
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(-9, 9, shape, generator=generator).to(dtype).requires_grad_()  # many ties
    output, argmax = torch_pyramid(x, levels)
    grad = torch.randint(-2, 3, output.shape, generator=generator).to(dtype)  # integers: sums are exact
    (expected,) = torch.autograd.grad(output, x, grad)
    assert torch.equal(reference.scatter(grad, argmax, levels, shape), expected)
    assert torch.equal(reference.gather(x, argmax, levels), output)


def test_gather_and_scatter_are_transposes():
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    boxes = torch.tensor([[0, 0, 0, 4, 5], [1, -3, 2, 2, 9], [1, 1, 1, 1, 1], [0, 9, 9, 9, 9]]).double()
    levels = (3, Bins([(0, 0, 2, 1), (0, 0, 1, 2)], 2))
    values, argmax = reference.roi_spatial_pyramid_pool(x, boxes, levels, return_indices=True)
    batch_index, _ = reference.split_boxes("test", boxes, 2)
    tangent = torch.randint(-9, 9, x.shape).double()
    grad = torch.randint(-9, 9, values.shape).double()
    left = (reference.gather(tangent, argmax, levels, batch_index) * grad).sum()
    right = (tangent * reference.scatter(grad, argmax, levels, x.shape, batch_index)).sum()
    assert left == right
    assert torch.equal(reference.gather(x, argmax, levels, batch_index), values)


# ---- empty inputs and refused ones ----


def test_empty_batches_channels_and_regions_give_empty_results():
    assert reference.spatial_pyramid_pool(torch.zeros(0, 2, 3, 3), [1, 2]).shape == (0, 10)
    assert reference.spatial_pyramid_pool(torch.zeros(2, 0, 3, 3), [1, 2]).shape == (2, 0)
    x = torch.zeros(2, 3, 4, 4)
    for boxes in (torch.zeros(0, 5), [torch.zeros(0, 4), torch.zeros(0, 4)], []):
        values, argmax = reference.roi_spatial_pyramid_pool(x, boxes, [1, 2], return_indices=True)
        assert values.shape == argmax.shape == (0, 15)
        assert torch.equal(reference.scatter(values, argmax, [1, 2], x.shape, []), x)
    assert reference.roi_spatial_pyramid_pool(torch.zeros(2, 0, 4, 4), torch.zeros(3, 5), [1]).shape == (3, 0)
    assert reference.roi_pool(x, torch.zeros(0, 5), (1, 2)).shape == (0, 3, 1, 2)
    assert reference.roi_pool(torch.zeros(2, 0, 4, 4), torch.zeros(3, 5), 2).shape == (3, 0, 2, 2)
    none = torch.zeros(0, 3, 4, 4)
    assert reference.gather(none, torch.zeros(0, 3, dtype=torch.int64), [1]).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: reference.spatial_pyramid_pool(torch.zeros(3, 4)), ValueError),
        (lambda: reference.spatial_pyramid_pool(torch.zeros(1, 1, 0, 4)), ValueError),
        (lambda: reference.spatial_pyramid_pool(torch.zeros(1, 1, 4, 0)), ValueError),
        (lambda: reference.spatial_pyramid_pool(torch.zeros(1, 1, 4, 4, dtype=torch.int64)), TypeError),
        (lambda: reference.spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), []), ValueError),
        (lambda: reference.spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), [0]), ValueError),
        (lambda: reference.roi_spatial_pyramid_pool(torch.zeros(1, 4, 4), torch.zeros(1, 5)), ValueError),
        (lambda: reference.roi_spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4)), ValueError),
        (
            lambda: reference.roi_spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), [torch.zeros(1, 5)]),
            ValueError,
        ),
        (
            lambda: reference.roi_spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), convention="align"),
            ValueError,
        ),
        (
            lambda: reference.roi_spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), spatial_scale=NAN),
            ValueError,
        ),
        (lambda: reference.roi_spatial_pyramid_pool([torch.zeros(1, 1, 4, 4)], torch.zeros(1, 5)), ValueError),
        (
            lambda: reference.roi_spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), map_indices=[0]),
            ValueError,
        ),
        (lambda: reference.adaptive_max_pool2d(torch.zeros(3, 4), 1), ValueError),
        (lambda: reference.adaptive_max_pool2d(torch.zeros(1, 3, 4), -1), ValueError),
        (lambda: reference.adaptive_max_pool2d(torch.zeros(1, 3, 4), (1, 2, 3)), ValueError),
        (lambda: reference.adaptive_max_pool2d(torch.zeros(1, 3, 4), 1.5), ValueError),
        (lambda: reference.roi_pool(torch.zeros(1, 4, 4), torch.zeros(1, 5), 1), ValueError),
        (lambda: reference.roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4), 1), ValueError),
        (lambda: reference.roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 0), ValueError),
        (lambda: reference.roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), (None, 1)), ValueError),
        (lambda: reference.roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 1, INF), ValueError),
        (lambda: reference.roi_pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 1, 1e39), ValueError),
        (lambda: reference.scatter(np.ones([1, 1]), np.array([[4]]), [1], (1, 1, 2, 2)), IndexError),
        (lambda: reference.scatter(np.ones([1, 1]), np.array([[-2]]), [1], (1, 1, 2, 2)), IndexError),
        (lambda: reference.scatter(np.ones([1, 1]), np.array([[0]]), [1], (1, 1, 2, 2), [1]), IndexError),
        (lambda: reference.scatter(np.ones([1, 2]), np.array([[0]]), [1], (1, 1, 2, 2)), ValueError),
        (lambda: reference.scatter(np.ones([1, 1]), np.array([[0]]), [2], (1, 1, 2, 2)), ValueError),
        (lambda: reference.gather(np.ones([1, 1, 2, 2]), np.array([[0]]), [2]), ValueError),
    ],
)
def test_nonsense_is_refused_by_name(call, error):
    with pytest.raises(error, match=r"^spp_ext\.reference\.\w+: "):
        call()
