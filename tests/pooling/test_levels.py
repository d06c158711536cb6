"""Levels: what may be written, how it is encoded, which levels are merged from others, how an output is split."""

import copy
import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import OUTER, assert_refuses, assert_same, integers, make_map, random_rois

import spp_ext
from spp_ext import Bins, _core, reference
from spp_ext._requests import request_of_maps
from spp_ext.levels import Grid, decode_levels, encode_levels, parse_levels, pyramid

HALVES = Bins([(0, 0, 1, 2), (1, 0, 2, 2)], 2)
CENTRE = Bins([(1, 1, 3, 3)], 4)


def encoded(*levels):
    return encode_levels(parse_levels("spp_ext.test", levels))


# ---- what may be written ----


def test_a_level_is_an_int_a_pair_or_bins():
    assert parse_levels("spp_ext.test", [3, (2, 5), [4, 1], HALVES]) == (
        Grid(3, 3),
        Grid(2, 5),
        Grid(4, 1),
        HALVES,
    )
    assert [level.bins for level in parse_levels("spp_ext.test", (3, (2, 5), CENTRE))] == [9, 10, 1]


def test_anything_with_a_whole_number_inside_is_an_int():
    assert parse_levels("spp_ext.test", [np.int64(3), (np.uint8(2), torch.tensor(5))]) == (
        Grid(3, 3),
        Grid(2, 5),
    )


def test_bins_are_values():
    assert Bins([(0, 0, 1, 2), (1, 0, 2, 2)], 2) == Bins(([0, 0, 1, 2], [1, 0, 2, 2]), (2, 2)) == HALVES
    assert hash(Bins(iter([(0, 0, 1, 2), (1, 0, 2, 2)]), [2, 2])) == hash(HALVES)
    assert HALVES != CENTRE
    assert (HALVES.rectangles, HALVES.divisions) == (((0, 0, 1, 2), (1, 0, 2, 2)), (2, 2))
    for same in (copy.deepcopy(HALVES), pickle.loads(pickle.dumps(HALVES))):
        assert same == HALVES
    with pytest.raises(AttributeError):
        HALVES.divisions = (3, 3)


WHAT = "spp_ext.test: expected every level to be an int, a (rows, cols) pair (each from 1 to 1048576) or spp_ext.Bins"
SEQUENCE = "spp_ext.test: expected levels, a sequence of ints, (rows, cols) pairs or spp_ext.Bins"


@pytest.mark.parametrize(
    ("levels", "error", "message"),
    [
        ((), ValueError, "spp_ext.test: expected at least one level, got none"),
        ([], ValueError, "spp_ext.test: expected at least one level, got none"),
        (3, TypeError, f"{SEQUENCE}, got 3"),
        (None, TypeError, f"{SEQUENCE}, got None"),
        ("123", TypeError, f"{SEQUENCE}, got '123'"),
        ({1, 2}, TypeError, f"{SEQUENCE}, got {{1, 2}}"),
        ([0], ValueError, f"{WHAT}, got 0"),
        ([2, -1], ValueError, f"{WHAT}, got -1"),
        ([(1, 0)], ValueError, f"{WHAT}, got (1, 0)"),
        ([(-(2**70), 1)], ValueError, f"{WHAT}, got (-1180591620717411303424, 1)"),
        ([2**20 + 1], ValueError, f"{WHAT}, got 1048577"),
        ([()], ValueError, f"{WHAT}, got ()"),
        ([(1,)], ValueError, f"{WHAT}, got (1,)"),
        ([[1, 2, 3]], ValueError, f"{WHAT}, got [1, 2, 3]"),
        ([1.0], TypeError, f"{WHAT}, got 1.0"),
        ([True], TypeError, f"{WHAT}, got True"),
        ([(1, False)], TypeError, f"{WHAT}, got False"),
        ([None], TypeError, f"{WHAT}, got None"),
        (["2"], TypeError, f"{WHAT}, got '2'"),
        ([(2, "2")], TypeError, f"{WHAT}, got '2'"),
        ([(2, (2, 2))], TypeError, f"{WHAT}, got (2, 2)"),
        (
            [2**16],
            ValueError,
            "spp_ext.test: expected at most 2147483647 bins over all levels, got 4294967296",
        ),
        (
            [2**15] * 2,
            ValueError,
            "spp_ext.test: expected at most 2147483647 bins over all levels, got 2147483648",
        ),
    ],
)
def test_levels_that_are_none_are_refused(levels, error, message):
    assert_refuses(error, message, lambda: parse_levels("spp_ext.test", levels))
    # request_of_maps() remembers what it parsed; errors must come back no less.
    for _ in range(2):
        assert_refuses(error, message, lambda: request_of_maps("spp_ext.test", levels))


def test_an_equal_number_of_another_type_is_still_refused():
    assert request_of_maps("spp_ext.test", (1, 2)) is request_of_maps("spp_ext.test", (1, 2))
    request_of_maps("spp_ext.test", ((1, 1), 2))
    for impostor in (True, 1.0):
        with pytest.raises(TypeError):
            request_of_maps("spp_ext.test", (impostor, 2))
        with pytest.raises(TypeError):
            request_of_maps("spp_ext.test", ((1, impostor), 2))


def test_a_level_that_changes_is_read_anew():
    level = torch.tensor(3)
    assert spp_ext.spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), (level,)).shape == (1, 9)
    level.fill_(2)
    assert spp_ext.spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), (level,)).shape == (1, 4)


def test_errors_stay_on_one_line_whatever_came():
    table = torch.tensor([[1, 2], [3, 4]])
    for levels in (table, table.numpy(), [table], [table.numpy()]):
        with pytest.raises((TypeError, ValueError)) as caught:
            spp_ext.spatial_pyramid_pool(torch.zeros(1, 1, 4, 4), levels)
        assert str(caught.value).startswith("spp_ext.spatial_pyramid_pool: expected")
        assert "\n" not in str(caught.value)


DIVISIONS = "spp_ext.Bins: expected divisions, an int or a pair, between 1 and 1048576"
RECTANGLES = (
    "spp_ext.Bins: expected rectangles (top, left, bottom, right) of whole numbers with "
    "0 <= top < bottom <= 2 and 0 <= left < right <= 3"
)


@pytest.mark.parametrize(
    ("rectangles", "divisions", "error", "message"),
    [
        ([], (2, 3), ValueError, "spp_ext.Bins: expected at least one rectangle, got none"),
        ([(0, 0, 1, 1)], 0, ValueError, f"{DIVISIONS}, got 0"),
        ([(0, 0, 1, 1)], (1, -1), ValueError, f"{DIVISIONS}, got (1, -1)"),
        ([(0, 0, 1, 1)], 2**20 + 1, ValueError, f"{DIVISIONS}, got 1048577"),
        ([(0, 0, 1, 1)], (1, 2, 3), ValueError, f"{DIVISIONS}, got (1, 2, 3)"),
        ([(0, 0, 1, 1)], 1.5, TypeError, f"{DIVISIONS}, got 1.5"),
        ([(0, 0, 1, 1)], True, TypeError, f"{DIVISIONS}, got True"),
        ([(0, 0, 1, 1)], None, TypeError, f"{DIVISIONS}, got None"),
        ([(0, 0, 1)], (2, 3), ValueError, f"{RECTANGLES}, got (0, 0, 1)"),
        ([(0, 0, 1, 1), 5], (2, 3), TypeError, f"{RECTANGLES}, got 5"),
        (["0011"], (2, 3), TypeError, f"{RECTANGLES}, got '0011'"),
        ([(0, 0, 1, 1.0)], (2, 3), TypeError, f"{RECTANGLES}, got (0, 0, 1, 1.0)"),
        ([(0, 0, True, 1)], (2, 3), TypeError, f"{RECTANGLES}, got (0, 0, True, 1)"),
        ([(0, 0, 3, 1)], (2, 3), ValueError, f"{RECTANGLES}, got (0, 0, 3, 1)"),
        ([(0, 0, 1, 4)], (2, 3), ValueError, f"{RECTANGLES}, got (0, 0, 1, 4)"),
        ([(-1, 0, 1, 1)], (2, 3), ValueError, f"{RECTANGLES}, got (-1, 0, 1, 1)"),
        ([(0, -1, 1, 1)], (2, 3), ValueError, f"{RECTANGLES}, got (0, -1, 1, 1)"),
        ([(1, 0, 1, 1)], (2, 3), ValueError, f"{RECTANGLES}, got (1, 0, 1, 1)"),
        ([(0, 2, 1, 1)], (2, 3), ValueError, f"{RECTANGLES}, got (0, 2, 1, 1)"),
        ([(0, 0, 2**70, 1)], (2, 3), ValueError, f"{RECTANGLES}, got (0, 0, 1180591620717411303424, 1)"),
    ],
)
def test_bins_that_are_none_are_refused(rectangles, divisions, error, message):
    assert_refuses(error, message, lambda: Bins(rectangles, divisions))


@pytest.mark.parametrize("rectangles", [5, None])
def test_bins_of_no_list_are_refused_by_name(rectangles):
    with pytest.raises(TypeError, match=r"^spp_ext\.Bins: expected .*rectangles"):
        Bins(rectangles, 2)


# ---- the flat form that the ops take ----


def test_encoding():
    assert encoded(3) == [3, 3]
    assert encoded(1, (2, 5), 1) == [1, 1, 2, 5, 1, 1]
    assert encoded(HALVES, 4) == [-2, 2, 2, 0, 0, 1, 2, 1, 0, 2, 2, 4, 4]
    assert pyramid("spp_ext.test", (3, CENTRE)) == ([3, 3, -1, 4, 4, 1, 1, 3, 3], [9, 1])


@pytest.mark.parametrize("levels", [(3,), (1, (2, 5), 1), (HALVES, 4), (CENTRE, HALVES, (1, 7))])
def test_decoding_is_the_way_back(levels):
    parsed = parse_levels("spp_ext.test", levels)
    assert tuple(decode_levels("spp_ext.test", encode_levels(parsed))) == parsed


def test_the_header_for_cpp_users_shows_these_encodings():
    header = Path(__file__).parents[2] / "csrc" / "core" / "pyramid.h"
    text = re.sub(r"\s*//\s*", " ", header.read_text())
    for what, levels in (("the whole and its quarters", (1, 2)), ("the upper and the lower half", (HALVES,))):
        numbers = ", ".join(map(str, encoded(*levels)))
        assert re.search(rf"{{{numbers}}}( is)? {what}", text)


TRUNCATED = "expected levels encoded as whole levels, got a truncated list"
INSIDE = "expected bins with 0 <= top < bottom and 0 <= left < right inside their divisions"


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "expected at least one level, got none"),
        ([1], TRUNCATED),
        ([2, 2, 3], TRUNCATED),
        ([-1], TRUNCATED),
        ([-1, 2, 2], TRUNCATED),
        ([-2, 2, 2, 0, 0, 1, 1], TRUNCATED),
        ([-(2**31) + 1, 2, 2, 0, 0, 1, 1], TRUNCATED),
        ([-1, 2, 2, 0, 0, 1], TRUNCATED),
        ([0, 1], "expected level divisions from 1 to 1048576, got 0"),
        ([1, 0], "expected level divisions from 1 to 1048576, got 0"),
        ([1, -3], "expected level divisions from 1 to 1048576, got -3"),
        ([2**20 + 1, 1], "expected level divisions from 1 to 1048576, got 1048577"),
        ([1, 2**63 - 1], "expected level divisions from 1 to 1048576, got 9223372036854775807"),
        ([-1, 0, 2, 0, 0, 1, 1], "expected level divisions from 1 to 1048576, got 0"),
        ([-1, 2, 2**40, 0, 0, 1, 1], "expected level divisions from 1 to 1048576, got 1099511627776"),
        ([-1, 2, 2, 0, 0, 3, 1], INSIDE),
        ([-1, 2, 2, 1, 0, 1, 1], INSIDE),
        ([-1, 2, 2, 0, 1, 1, 1], INSIDE),
        ([-1, 2, 2, -1, 0, 1, 1], INSIDE),
        ([-1, 2, 2, 0, 0, 1, 2**33 + 1], INSIDE),
        ([2**20, 2**20], "expected at most 2147483647 bins over all levels"),
        ([2**15, 2**15, 2**15, 2**15], "expected at most 2147483647 bins over all levels"),
        ([-(2**63), 1, 1], "expected at most 2147483647 bins over all levels"),
        ([-(2**31), 1, 1], "expected at most 2147483647 bins over all levels"),
    ],
)
def test_a_forged_encoding_is_refused(levels, message):
    with pytest.raises(ValueError) as caught:
        _core.plan(levels)
    assert str(caught.value) == message
    assert_refuses(ValueError, f"spp_ext.test: {message}", lambda: decode_levels("spp_ext.test", levels))
    x, rois = torch.zeros(1, 1, 3, 3), torch.zeros(1, 5)
    ops = torch.ops.spp_ext
    for op in (ops.spatial_pyramid_pool, ops.spatial_pyramid_pool_with_argmax):
        assert_refuses(ValueError, f"spp_ext.spatial_pyramid_pool: {message}", lambda op=op: op(x, levels))
    for op in (ops.roi_spatial_pyramid_pool, ops.roi_spatial_pyramid_pool_with_argmax):
        assert_refuses(
            ValueError,
            f"spp_ext.roi_spatial_pyramid_pool: {message}",
            lambda op=op: op(x, rois, levels, 1.0, OUTER, True),
        )


# ---- the plan: -1 for a level read from the map, else the level it is merged from ----


@pytest.mark.parametrize(
    ("levels", "sources"),
    [
        ((6,), [-1]),
        ((1, 2, 3, 6), [1, 3, 3, -1]),
        ((6, 3, 2, 1), [-1, 0, 0, 2]),
        ((4, 3, 2, 1), [-1, -1, 0, 2]),
        ((2, 3), [-1, -1]),
        ((5, 7, 1), [-1, -1, 0]),
        ((1, 2, 4, 8), [1, 2, 3, -1]),
        ((3, 3), [-1, 0]),
        ((1, 1, 2), [2, 0, -1]),
        (((2, 4), (4, 2), 2), [-1, -1, 1]),
        (((1, 4), (2, 4), (1, 2)), [1, -1, 0]),
        (((1, 3), (3, 1)), [-1, -1]),
        ((HALVES,), [-1]),
        ((HALVES, 2), [1, -1]),
        ((HALVES, 4, 2), [2, -1, 1]),
        ((HALVES, 3), [-1, -1]),
        ((CENTRE, 2), [-1, -1]),  # quarters are finer than halves
        ((CENTRE, (4, 8)), [1, -1]),
        ((HALVES, CENTRE), [-1, -1]),  # listed bins are never merged from listed bins
        ((1, HALVES), [-1, -1]),
    ],
)
def test_plan(levels, sources):
    assert _core.plan(encoded(*levels)) == sources


def test_the_plan_of_very_many_levels_is_sound():
    """And found at once: comparing each with all the others would take minutes."""
    assert _core.plan([1, 1] * 100_000) == [-1, *range(99_999)]
    sources = _core.plan([number for cols in range(1, 3001) for number in (1, cols)])
    derived = [(level, source) for level, source in enumerate(sources) if source >= 0]
    assert derived and all(source > level and (source + 1) % (level + 1) == 0 for level, source in derived)


def test_the_plan_is_sound_and_misses_nothing():
    grids = [(rows, cols) for rows in range(1, 7) for cols in (1, 2, 4, 6)]
    for levels in itertools.product(grids, repeat=2):
        for third in ((1, 1), (2, 3), (12, 12)):
            check_plan([*levels, third])


def check_plan(levels):
    """A level is merged from the coarsest grid that allows it; of equal grids only the first is read from the map."""

    def allows(source, level):
        (rows, cols), (source_rows, source_cols) = levels[level], levels[source]
        same_but_later = levels[level] == levels[source] and source >= level
        return source_rows % rows == 0 and source_cols % cols == 0 and not same_but_later

    sources = _core.plan(encoded(*levels))
    for i, source in enumerate(sources):
        bins = {j: levels[j][0] * levels[j][1] for j in range(len(levels)) if allows(j, i)}
        if source < 0:
            assert not bins, (levels, sources)
        else:
            assert bins[source] == min(bins.values()), (levels, sources)


PLANS = [
    (1, 2, 3, 6),
    (6, 3, 2, 1),
    (4, 3, 2, 1),
    (1, 2, 4, 8),
    (2, 2, 1, 1, 4, 4),
    ((2, 6), (1, 3), (4, 6), (2, 2)),
    (HALVES, 2, CENTRE, 4, (4, 8)),
    (Bins([(0, 0, 3, 3), (1, 0, 2, 3), (0, 1, 3, 2), (0, 0, 2, 2), (2, 2, 3, 3)], 3), 6, 12),
    (Bins([(0, 0, 1, 1), (0, 0, 1, 1)], 1), 5, 1),
    (Bins([(3, 1, 5, 2), (0, 0, 6, 3)], (6, 3)), 6),
]


@pytest.mark.parametrize("kind", ["ties", "nan", "all minus inf", "inf and nan", "gaussian"])
@pytest.mark.parametrize("levels", PLANS)
def test_a_level_is_the_same_alone_and_merged_from_others(levels, kind):
    for shape in ((2, 3, 13, 11), (1, 2, 4, 3), (1, 17, 1, 7)):
        x = make_map(kind, shape)
        rois = random_rois(12, shape[0], *shape[2:], seed=5)
        together = spp_ext.spatial_pyramid_pool(x, levels, return_indices=True)
        alone = [spp_ext.spatial_pyramid_pool(x, [level], return_indices=True) for level in levels]
        assert_same(together, [torch.cat(parts, 1) for parts in zip(*alone, strict=True)])
        for convention in ("roi_pool", "outer"):
            options = {"convention": convention, "return_indices": True}
            together = spp_ext.roi_spatial_pyramid_pool(x, rois, levels, **options)
            alone = [spp_ext.roi_spatial_pyramid_pool(x, rois, [level], **options) for level in levels]
            assert_same(together, [torch.cat(parts, 1) for parts in zip(*alone, strict=True)])
            assert_same(together[0], spp_ext.roi_spatial_pyramid_pool(x, rois, levels, convention=convention))


def test_bins_of_unit_cells_are_a_grid():
    x, rois = integers((2, 5, 9, 8), torch.float32), random_rois(9, 2, 9, 8)
    for rows, cols in ((1, 1), (3, 3), (4, 2), (11, 5)):
        cells = Bins([(i, j, i + 1, j + 1) for i in range(rows) for j in range(cols)], (rows, cols))
        assert_same(
            spp_ext.spatial_pyramid_pool(x, [cells], return_indices=True),
            spp_ext.spatial_pyramid_pool(x, [(rows, cols)], return_indices=True),
        )
        assert_same(
            spp_ext.roi_spatial_pyramid_pool(x, rois, [cells], return_indices=True),
            spp_ext.roi_spatial_pyramid_pool(x, rois, [(rows, cols)], return_indices=True),
        )


def test_random_bins_equal_the_reference():
    g = torch.Generator().manual_seed(3)
    for trial in range(40):
        rows, cols = (int(n) for n in torch.randint(1, 10, (2,), generator=g))
        tops, lefts = (torch.randint(n, (6,), generator=g).tolist() for n in (rows, cols))
        level = Bins(
            [
                (top, left, top + 1 + (trial * 7 + k) % (rows - top), left + 1 + (trial + k) % (cols - left))
                for k, (top, left) in enumerate(zip(tops, lefts, strict=True))
            ],
            (rows, cols),
        )
        x = integers((1, 3, *(int(n) for n in torch.randint(1, 12, (2,), generator=g))), torch.float32, trial)
        levels = (level, (rows, cols)) if trial % 2 else (level,)
        assert_same(
            spp_ext.spatial_pyramid_pool(x, levels, return_indices=True),
            reference.spatial_pyramid_pool(x, levels, return_indices=True),
        )


# ---- taking an output apart ----


def test_split_levels_views_are_torchs_levels():
    x = integers((2, 3, 7, 9), torch.float32)
    levels = (1, (2, 3), HALVES, 4)
    output, indices = spp_ext.spatial_pyramid_pool(x, levels, return_indices=True)
    parts = spp_ext.split_levels(output, levels)
    assert [list(part.shape) for part in parts] == [[2, 3, 1, 1], [2, 3, 2, 3], [2, 3, 1, 2], [2, 3, 4, 4]]
    for part, size in ((parts[0], 1), (parts[1], (2, 3)), (parts[3], 4)):
        assert_same(part, F.adaptive_max_pool2d(x, size))
    assert_same(spp_ext.split_levels(indices, levels)[3], F.adaptive_max_pool2d(x, 4, return_indices=True)[1])


def test_split_levels_copies_nothing():
    output = torch.zeros(2, 3 * 14)
    for part in spp_ext.split_levels(output, (1, 2, 3)):
        assert part.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
        part.fill_(part.shape[-1])
    assert sorted(output[1].tolist()) == [1] * 3 + [2] * 12 + [3] * 27
    assert all(part.is_contiguous() for part in spp_ext.split_levels(output[0], (1, 2, 3)))


def test_split_levels_of_any_number_of_dimensions():
    for shape in ((10,), (4, 10), (2, 4, 10), (0, 10), (4, 0)):
        parts = spp_ext.split_levels(torch.zeros(shape), (1, 2))
        channels = shape[-1] // 5
        assert [part.shape for part in parts] == [
            (*shape[:-1], channels, 1, 1),
            (*shape[:-1], channels, 2, 2),
        ]


def test_split_levels_passes_gradients_on():
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: spp_ext.split_levels(spp_ext.spatial_pyramid_pool(x, (1, 3)), (1, 3))[1], (x,)
    )


@pytest.mark.parametrize(
    ("output", "levels", "error", "message"),
    [
        (
            torch.zeros(2, 11),
            (1, 2),
            ValueError,
            "spp_ext.split_levels: expected output of shape [*, C * 5] for 5 bins, got [2, 11]",
        ),
        (
            torch.tensor(1.0),
            (1,),
            ValueError,
            "spp_ext.split_levels: expected output of shape [*, C * 1] for 1 bins, got []",
        ),
        (
            [1.0],
            (1,),
            TypeError,
            "spp_ext.split_levels: expected output to be a Tensor, got list",
        ),
        (torch.zeros(1), (), ValueError, "spp_ext.split_levels: expected at least one level, got none"),
    ],
)
def test_split_levels_refuses(output, levels, error, message):
    assert_refuses(error, message, lambda: spp_ext.split_levels(output, levels))
