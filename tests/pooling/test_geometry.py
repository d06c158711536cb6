"""Where bins and windows lie: the C++ geometry against the reference, and against tables to check by eye."""

import itertools

import numpy as np
import pytest
from support import CONVENTIONS

from spp_ext import _core, reference

pytestmark = pytest.mark.cpu_only  # no kernel runs

FLOAT32_MAX = float(np.finfo(np.float32).max)


def below(x, dtype=np.float32):
    return float(np.nextafter(dtype(x), dtype(-np.inf)))


def above(x, dtype=np.float32):
    return float(np.nextafter(dtype(x), dtype(np.inf)))


# ---- bins ----


@pytest.mark.parametrize(
    ("length", "divisions", "spans"),
    [
        (4, 1, [(0, 4)]),
        (4, 2, [(0, 2), (2, 4)]),
        (4, 3, [(0, 2), (1, 3), (2, 4)]),
        (4, 4, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        (5, 2, [(0, 3), (2, 5)]),
        (2, 3, [(0, 1), (0, 2), (1, 2)]),
        (1, 2, [(0, 1), (0, 1)]),
        (10, 6, [(0, 2), (1, 4), (3, 5), (5, 7), (6, 9), (8, 10)]),
        (13, 6, [(0, 3), (2, 5), (4, 7), (6, 9), (8, 11), (10, 13)]),
    ],
)
def test_bins_of_short_extents(length, divisions, spans):
    assert [_core.bin_span(i, i + 1, divisions, length) for i in range(divisions)] == spans


def test_bins_equal_the_reference_for_every_small_extent():
    for length, divisions in itertools.product(range(65), range(1, 17)):
        for begin, end in itertools.combinations(range(divisions + 1), 2):
            got = _core.bin_span(begin, end, divisions, length)
            assert got == reference.bin_span(begin, end, divisions, length), (begin, end, divisions, length)


@pytest.mark.parametrize("divisions", [1, 2, 3, 6, 7, 14, 1000, 65537, 2**20 - 3, 2**20 - 1, 2**20])
@pytest.mark.parametrize("around", [2**24, 2**31, 2**32, 2**40, 2**41 - 3])
def test_bins_equal_the_reference_for_huge_extents(around, divisions):
    starts = {0, 1, divisions // 3, divisions // 2, divisions - 2, divisions - 1}
    starts = [begin for begin in starts if 0 <= begin < divisions]
    for length in range(around - 3, around + 4):
        for begin in starts:
            for end in {begin + 1, (begin + divisions + 1) // 2, divisions} - {begin}:
                got = _core.bin_span(begin, end, divisions, length)
                assert got == reference.bin_span(begin, end, divisions, length), (begin, end, length)


def test_bins_cover_an_extent_without_gaps():
    for length, divisions in itertools.product(range(1, 65), range(1, 17)):
        spans = [_core.bin_span(i, i + 1, divisions, length) for i in range(divisions)]
        assert spans[0][0] == 0 and spans[-1][1] == length
        for (_, end), (begin, _) in itertools.pairwise(spans):
            assert end - 1 <= begin <= end
        assert all(begin < end for begin, end in spans)


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 1, 0, 5),
        (0, 1, -1, 5),
        (0, 1, 2**20 + 1, 5),
        (-1, 1, 2, 5),
        (1, 1, 2, 5),
        (2, 1, 2, 5),
        (0, 3, 2, 5),
        (0, 1, 2, -1),
        (0, 1, 2, 2**41 + 1),
        (0, 1, 2, 2**63 - 1),
    ],
)
def test_bins_beyond_what_64_bits_hold_are_refused(arguments):
    with pytest.raises(ValueError) as caught:
        _core.bin_span(*arguments)
    assert str(caught.value) == "expected 0 <= begin < end <= divisions <= 2^20 and 0 <= length <= 2^41"


# ---- regions ----


def window(convention, x1, x2, size=4, scale=1.0, float64=False):
    """Columns (x0, x1) of a box, and the rows of the same box turned by a quarter, which must agree."""
    y0, y1, x0, x1_ = _core.roi_window(convention, x1, 0, x2, 0, scale, 7, size, float64)
    assert _core.roi_window(convention, 0, x1, 0, x2, scale, size, 7, float64) == (x0, x1_, y0, y1)
    return x0, x1_


@pytest.mark.parametrize("float64", [False, True])
@pytest.mark.parametrize(
    ("x1", "x2", "roi_pool", "spp_net", "outer"),
    [
        # A map of 4 cells.
        (0, 3, (0, 4), (0, 2), (0, 3)),
        (0, 4, (0, 5), (0, 3), (0, 4)),
        (0.5, 2.5, (1, 4), (0, 2), (0, 3)),
        (-0.5, 1.5, (-1, 3), (0, 1), (-1, 2)),
        (1.25, 2.75, (1, 4), (1, 2), (1, 3)),
        (1, 1, (1, 2), (0, 1), (1, 2)),
        (1.5, 1.5, (2, 3), (0, 1), (1, 2)),
        (3, 1, (3, 4), (1, 2), (3, 4)),
        (6, 8, (6, 9), (3, 4), (6, 8)),
        (-9, -7, (-9, -6), (0, 1), (-9, -7)),
        (-100, 100, (-100, 101), (0, 4), (-100, 100)),
        (-0.0, 0.0, (0, 1), (0, 1), (0, 1)),
        (below(0.5), 2.25, (0, 3), (0, 2), (0, 3)),
        (above(0.5), below(2.5), (1, 3), (0, 2), (0, 3)),
        (below(-0.5), above(-0.5), (-1, 1), (0, 1), (-1, 0)),
        (1e30, 1e30, (2**40, 2**40 + 1), (3, 4), (2**40, 2**40 + 1)),
        (-1e30, 1e30, (-(2**40), 2**40 + 1), (0, 4), (-(2**40), 2**40)),
    ],
)
def test_windows_of_each_convention(x1, x2, roi_pool, spp_net, outer, float64):
    assert window("roi_pool", x1, x2, float64=float64) == roi_pool
    assert window("spp_net", x1, x2, float64=float64) == spp_net
    assert window("outer", x1, x2, float64=float64) == outer


def test_spp_net_maps_the_papers_image_to_all_13_cells():
    assert window("spp_net", 0, 224, size=13, scale=1 / 16) == (0, 13)


def test_scale_turns_pixels_into_cells():
    assert window("roi_pool", 32, 96, size=50, scale=1 / 16) == (2, 7)
    assert window("outer", 32, 97, size=50, scale=1 / 16) == (2, 7)


def test_coordinates_are_one_product_in_the_type_of_the_boxes():
    assert window("outer", 0, 33, scale=1 / 16.5) == (0, 2)
    assert window("outer", 0, 21, scale=1 / 7) == (0, 4)  # the float32 product is 3.0000002
    assert window("outer", 0, 21, scale=1 / 7, float64=True) == (0, 3)


DTYPES = {"float32": np.float32, "float64": np.float64}
SCALES = [1.0, 1 / 16, 0.5, 1 / 3]


def assert_windows_equal(convention, boxes, scale, sizes, dtype):
    for x1, y1, x2, y2 in boxes:
        for size in sizes:
            height, width = size
            got = _core.roi_window(convention, x1, y1, x2, y2, scale, height, width, dtype == "float64")
            expected = reference.roi_window((x1, y1, x2, y2), scale, convention, height, width, DTYPES[dtype])
            assert got == expected, (convention, (x1, y1, x2, y2), scale, size, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_windows_equal_the_reference_on_a_dense_grid(convention, scale, dtype):
    grid = [quarter / 4 for quarter in range(-160, 321)]
    deltas = [-13.75, -1, -0.5, 0, 0.25, 0.5, 0.75, 1, 1.5, 2.25, 7, 16, 33.5, 90]
    boxes = [(x, -x, x + delta, delta - x) for x in grid for delta in deltas]
    assert_windows_equal(convention, boxes, scale, [(13, 37)], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [*SCALES, 1e-40, 1e-7, 1e10, 3e38])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_windows_equal_the_reference_at_hostile_coordinates(convention, scale, dtype):
    number = DTYPES[dtype]
    halves = [n + 0.5 for n in (-3, -2, -1, 0, 1, 2, 12)]
    at_cells = [x / scale for x in (*halves, 0, 1, 12, 13, 2**24, 2**31, 2**40)]
    at_cells = [x for x in at_cells if abs(x) <= float(np.finfo(number).max)]
    near = [step(x, number) for x in (*halves, *at_cells) for step in (below, above)]
    huge = [
        1e10,
        1e30,
        FLOAT32_MAX,
        float(np.finfo(number).max),
        2.0**23 + 0.5,
        2.0**40,
        2.0**52 + 1,
        2.0**63,
    ]
    tiny = [0.0, -0.0, 1e-45, 1e-30, float(np.finfo(number).tiny), float(np.finfo(number).smallest_subnormal)]
    values = (*halves, *near, *huge, *tiny, *(-x for x in huge), *(-x for x in tiny))
    values = sorted({float(number(x)) for x in values}) + [-0.0]
    boxes = [(x1, x2, x2, x1) for x1, x2 in itertools.product(values, repeat=2)]
    assert_windows_equal(convention, boxes, scale, [(1, 4), (2**31 - 1, 13)], dtype)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError) as caught:
        _core.roi_window("align", 0, 0, 1, 1, 1.0, 4, 4)
    assert str(caught.value) == 'expected convention "roi_pool", "spp_net" or "outer", got "align"'
