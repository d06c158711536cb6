"""The CUDA kernels' own source, run on the CPU, equals the CPU kernels: values, argmax, gather, scatter.

Gradients are whole numbers, so that their sums are exact and the order of additions does not show. Each case runs
with the threads of a block in several orders, which a missing barrier does not survive, and on shared memory that was
filled with different bytes, which reading an uninitialised cell does not.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import backend
import pytest
import torch
from support import DTYPES, ROI_POOL, assert_same, integers, make_map, random_rois

import spp_ext
from spp_ext._boxes import CONVENTIONS
from spp_ext.levels import pyramid

CPU = torch.ops.spp_ext

SCHEDULES = [("forward", "0"), ("reversed", "255"), ("shuffled:1", "127")]

LEVELS = {
    "spp": (1, 2, 3, 6),
    "two bases": (4, (3, 1), 6, 2),
    "bins": (spp_ext.Bins([(0, 0, 1, 2), (1, 1, 3, 2)], (3, 2)), 6),
    "single": (5,),
    "more than a launch holds": tuple(range(1, 19)),
    "more rectangles than a launch holds": (spp_ext.Bins([(0, 0, i % 7 + 1, 7) for i in range(130)], 7), 2),
    "more bins than regions in shared memory": (40, 2),
    "more bins than shared memory": (128, 2),
}

# [N, C, H, W]: planes of one cell up to more than shared memory, channels around a warp and its parts.
SHAPES = [
    (2, 3, 1, 1),
    (1, 1, 1, 9),
    (3, 2, 5, 4),
    (2, 7, 13, 13),
    (1, 17, 6, 20),
    (1, 33, 10, 7),
    (2, 40, 8, 8),
    (1, 2, 70, 90),
    (1, 1, 150, 151),
    (0, 3, 4, 4),
    (2, 0, 4, 4),
]


@pytest.fixture(scope="module")
def simt():
    return backend.load_simt()


@pytest.fixture(params=SCHEDULES, ids=lambda schedule: "-".join(schedule))
def schedule(request, monkeypatch):
    order, poison = request.param
    monkeypatch.setenv("SPP_SIMT_ORDER", order)
    monkeypatch.setenv("SPP_SIMT_POISON", poison)


def compare_linear(simt, x, argmax, rois, level_bins, channels_last, forged=None):
    """gather and scatter along an argmax or, on the emulation alone, along what must be as good."""
    own = argmax if forged is None else forged
    grad = integers(argmax.shape, x.dtype, seed=5)
    rows, size = (rois, level_bins), list(x.shape)
    expected = CPU.scatter(grad, argmax, *rows, size, channels_last)
    got = simt.scatter(grad, own, *rows, size, channels_last)
    assert_same(got, expected)
    assert got.stride() == expected.stride()
    assert_same(simt.gather(x, own, *rows), CPU.gather(x, argmax, *rows))


def compare_pools(simt, x, encoded):
    expected = CPU.spatial_pyramid_pool_with_argmax(x, encoded)
    assert_same(simt.spatial_pyramid_pool(x, encoded), expected[0])
    assert_same(simt.spatial_pyramid_pool_with_argmax(x, encoded), expected)
    return expected[1]


def compare_map(simt, x, levels, channels_last):
    encoded, level_bins = pyramid("test", levels)
    compare_linear(simt, x, compare_pools(simt, x, encoded), None, level_bins, channels_last)


def compare_pools_of_regions(simt, x, rois, encoded, scale, convention):
    arguments = (x, rois, encoded, scale, CONVENTIONS[convention], False)
    expected = CPU.roi_spatial_pyramid_pool_with_argmax(*arguments)
    assert_same(simt.roi_spatial_pyramid_pool(*arguments), expected[0])
    assert_same(simt.roi_spatial_pyramid_pool_with_argmax(*arguments), expected)
    return expected[1]


def compare_regions(simt, x, rois, levels, scale, convention, channels_last):
    encoded, level_bins = pyramid("test", levels)
    argmax = compare_pools_of_regions(simt, x, rois, encoded, scale, convention)
    compare_linear(simt, x, argmax, rois, level_bins, channels_last)


def make(shape, dtype, kind, channels_last):
    x = make_map(kind, shape, dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def is_channels_last(x):
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_maps_equal_the_cpu(simt, shape, dtype, channels_last):
    x = make(shape, dtype, "ties", channels_last)
    compare_map(simt, x, LEVELS["spp"], is_channels_last(x))


# [N, C, H, W] and levels that whole maps treat specially.
MAPS = {
    "several planes a warp, the last ones missing": ((3, 99, 7, 5), (1, 2, 3, 6)),
    "a plane a block, its rows in parts": ((1, 2, 70, 20), (2, 1)),
    "rows wider than a warp's packs": ((1, 2, 3, 300), ((2, 5), 1)),
    "rows of single numbers wider than a warp": ((1, 2, 9, 77), (3, 1)),
    "pairs of 16-bit numbers": ((1, 3, 4, 22), (1, 2, 4)),
    "a single row": ((2, 5, 1, 33), (1, 2, 3, 6)),
    "a single column": ((2, 5, 33, 1), (1, 2, 3, 6)),
    "many bins in a row": ((1, 2, 5, 40), ((1, 70), (1, 35))),
    "a listed level merged from a grid": ((1, 9, 8, 8), (spp_ext.Bins([(0, 0, 2, 2), (1, 0, 2, 1)], 2), 4)),
    "merged from what was merged, in a launch of its own": ((1, 24, 70, 90), (6, 3, 1, (2, 1))),
    "a part of a chunk of channels": ((2, 44, 6, 5), (1, 2, 3, 6)),
}


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("case", MAPS)
def test_whole_maps_of_every_plan_equal_the_cpu(simt, case, channels_last):
    shape, levels = MAPS[case]
    encoded = pyramid("test", levels).encoded
    for dtype, kind in ((torch.float32, "nan"), (torch.float32, "gaussian"), (torch.bfloat16, "ties")):
        compare_pools(simt, make(shape, dtype, kind, channels_last), encoded)


@pytest.mark.parametrize("offset", [1, 2, 4])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_whole_maps_anywhere_in_memory_equal_the_cpu(simt, channels_last, offset):
    shape = (2, 8, 9, 16)
    memory = integers((math.prod(shape) + offset,), torch.float16, seed=1)[offset:]
    x = memory.view(2, 9, 16, 8).permute(0, 3, 1, 2) if channels_last else memory.view(shape)
    compare_pools(simt, x, pyramid("test", LEVELS["spp"]).encoded)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_whole_maps_of_one_value_equal_the_cpu(simt, value, channels_last):
    """All cells tie, wherever the lanes and the warps that share a bin begin: the first wins, or the last NaN."""
    encoded = pyramid("test", (2, 1)).encoded
    for dtype in (torch.float32, torch.float16):
        for shape in ((1, 2, 70, 20), (1, 24, 70, 90)):
            x = torch.full(shape, value, dtype=dtype)
            compare_pools(simt, x.contiguous(memory_format=torch.channels_last) if channels_last else x, encoded)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_regions_equal_the_cpu(simt, shape, dtype, channels_last):
    x = make(shape, dtype, "ties", channels_last)
    rois = random_rois(20 if shape[0] else 0, max(shape[0], 1), shape[2], shape[3], scale=0.5)
    for convention in ("roi_pool", "spp_net"):
        compare_pools_of_regions(simt, x, rois, pyramid("test", LEVELS["spp"]).encoded, 0.5, convention)
    compare_regions(simt, x, rois, LEVELS["spp"], 0.5, "outer", is_channels_last(x))


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_any_pyramid_equals_the_cpu(simt, levels, channels_last):
    x = make((2, 9, 11, 14), torch.float32, "ties", channels_last)
    compare_map(simt, x, levels, channels_last)
    rois = random_rois(5, 2, 11, 14)
    compare_regions(simt, x, rois, levels, 1.0, "roi_pool", channels_last)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_derivatives_of_more_levels_than_a_launch_holds_equal_the_cpu(simt, channels_last):
    x = make((2, 3, 5, 6), torch.float32, "ties", channels_last)
    encoded, level_bins = pyramid("test", [i % 3 + 1 for i in range(300)])
    compare_linear(simt, x, CPU.spatial_pyramid_pool_with_argmax(x, encoded)[1], None, level_bins, channels_last)
    rois = random_rois(7, 2, 5, 6)
    argmax = CPU.roi_spatial_pyramid_pool_with_argmax(x, rois, encoded, 1.0, ROI_POOL, False)[1]
    compare_linear(simt, x, argmax, rois, level_bins, channels_last)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_special_values_equal_the_cpu(simt, kind, dtype, channels_last):
    compare_pools(simt, make((2, 5, 9, 12), dtype, kind, channels_last), pyramid("test", LEVELS["spp"]).encoded)


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("roi_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 300])
def test_many_regions_of_some_images_equal_the_cpu(simt, count, roi_dtype):
    """Images without regions, regions in no order, more of them than threads in a block."""
    x = make((4, 6, 12, 10), torch.float32, "ties", False)
    rois = random_rois(count, 2, 12, 10, dtype=roi_dtype)
    rois[:, 0] = 2 * rois[:, 0] + 1
    compare_regions(simt, x, rois, LEVELS["spp"], 1.0, "outer", False)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("levels", ["spp", "more bins than shared memory"])
def test_a_region_that_cannot_be_pooled_becomes_nan(simt, levels, channels_last):
    x = make((2, 3, 6, 6), torch.float32, "gaussian", channels_last)
    good = [0.0, 1, 1, 4, 4]
    bad = [
        [2.0, 0, 0, 3, 3],
        [-1.0, 0, 0, 3, 3],
        [0.0, math.nan, 0, 3, 3],
        [1.0, 0, 0, math.inf, 3],
        [1e30, 0, 0, 1, 1],
    ]
    rois = torch.tensor([good, *bad, good])
    encoded, level_bins = pyramid("test", LEVELS[levels])
    values, argmax = simt.roi_spatial_pyramid_pool_with_argmax(x, rois, encoded, 1.0, ROI_POOL, False)
    expected = CPU.roi_spatial_pyramid_pool_with_argmax(x, rois[[0, -1]], encoded, 1.0, ROI_POOL, False)
    assert_same((values[[0, -1]], argmax[[0, -1]]), expected)
    assert values[1:-1].isnan().all()
    assert (argmax[1:-1] == -1).all()
    # Its gradient is nothing, whatever comes in.
    grad = simt.scatter(torch.ones_like(values), argmax, rois, level_bins, list(x.shape), channels_last)
    assert grad.sum() == 2 * x.shape[1] * sum(level_bins)
    assert (simt.gather(x, argmax, rois, level_bins)[1:-1] == 0).all()
    with pytest.raises(IndexError, match="expected batch indices of boxes from 0 to 1, got 2 in row 1"):
        simt.roi_spatial_pyramid_pool(x, rois, encoded, 1.0, ROI_POOL, True)


SEVERAL = [(2, 9, 11, 14), (2, 9, 1, 3), (2, 9, 70, 60), (2, 9, 4, 4)]
SCALES = [0.5, 1.0, 2.0, 0.25]


def several(dtype, layouts):
    return [make(shape, dtype, "ties", last) for shape, last in zip(SEVERAL, layouts, strict=True)]


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("layouts", [[False] * 4, [True] * 4, [False, True, True, False]], ids=str)
@pytest.mark.parametrize(
    "levels", ["spp", "two bases", "more than a launch holds", "more bins than regions in shared memory"]
)
def test_regions_of_several_maps_equal_the_cpu(simt, levels, layouts):
    """Fresh memory is full of NaN, so that what no map's call writes shows."""
    encoded, level_bins = pyramid("test", LEVELS[levels])
    count = 4 if levels.startswith("more") else 70
    rois, map_indices = random_rois(count, 2, 12, 14), torch.arange(count).flip(0) * 7 % 5 % 3  # none on the last map
    for dtype in DTYPES if levels == "spp" else DTYPES[:1]:
        maps = several(dtype, layouts)
        arguments = (maps, rois, map_indices, encoded, SCALES, ROI_POOL, False)
        expected = CPU.roi_spatial_pyramid_pool_of_maps_with_argmax(*arguments)
        grad = integers(expected[1].shape, dtype, seed=5)
        rows = (expected[1], rois, map_indices, level_bins)
        sizes = [number for shape in SEVERAL for number in shape]
        torch.use_deterministic_algorithms(True)
        try:
            assert_same(simt.roi_spatial_pyramid_pool_of_maps(*arguments), expected[0])
            assert_same(simt.roi_spatial_pyramid_pool_of_maps_with_argmax(*arguments), expected)
            assert_same(simt.gather_of_maps(maps, *rows), CPU.gather_of_maps(maps, *rows))
            got = simt.scatter_of_maps(grad, *rows, sizes, layouts)
        finally:
            torch.use_deterministic_algorithms(False)
        assert_same(got, CPU.scatter_of_maps(grad, *rows, sizes, layouts))
        assert [g.stride() for g in got] == [x.stride() for x in maps]
        assert not got[3].any()


@pytest.mark.parametrize("layouts", [[False] * 4, [True] * 4, [True, False, False, True]], ids=str)
@pytest.mark.parametrize("levels", ["spp", "more bins than regions in shared memory"])
def test_a_region_without_a_map_becomes_nan(simt, levels, layouts):
    maps = several(torch.float32, layouts)
    rois = random_rois(9, 2, 11, 14)
    rois[5, 0], rois[6, 3] = 2, math.nan  # on sound maps, the first and another
    map_indices = torch.tensor([0, 4, -1, 2, 2**40, 0, 3, -(2**63), 1])
    bad = torch.tensor([1, 2, 4, 5, 6, 7])
    good = torch.tensor([0, 3, 8])
    encoded, level_bins = pyramid("test", LEVELS[levels])
    options = (encoded, SCALES, ROI_POOL)
    values, argmax = simt.roi_spatial_pyramid_pool_of_maps_with_argmax(maps, rois, map_indices, *options, False)
    expected = CPU.roi_spatial_pyramid_pool_of_maps_with_argmax(maps, rois[good], map_indices[good], *options, False)
    assert_same((values[good], argmax[good]), expected)
    assert values[bad].isnan().all()
    assert (argmax[bad] == -1).all()
    assert_same(simt.roi_spatial_pyramid_pool_of_maps(maps, rois, map_indices, *options, False), values)
    # Its gradient is nothing, whatever comes in and whatever argmax it has.
    forged = torch.where(argmax < 0, 0, argmax)
    sizes = [number for shape in SEVERAL for number in shape]
    rows = (rois, map_indices, level_bins)
    grads = simt.scatter_of_maps(torch.ones_like(values), forged, *rows, sizes, layouts)
    assert sum(g.sum() for g in grads) == len(good) * 9 * sum(level_bins)
    assert (simt.gather_of_maps([x + 5 for x in maps], forged, *rows)[bad] == 0).all()
    with pytest.raises(IndexError, match="expected map_indices from 0 to 3, got 4 in row 1"):
        simt.roi_spatial_pyramid_pool_of_maps(maps, rois, map_indices, *options, True)


# [N, C, H, W], regions, where the tables of the map go: shared memory with slabs of 1, 2 or 4 packs, global memory, or
# nowhere, because the output is small beside the map.
PLACES = {
    "shared, many channels": ((2, 70, 12, 10), 40),
    "shared, a few channels": ((1, 33, 26, 27), 40),
    "shared, one pack": ((2, 5, 40, 44), 40),
    "global": ((2, 8, 70, 45), 300),
    "global, channels that fill no pack": ((1, 5, 45, 70), 300),
    "none": ((2, 9, 70, 45), 3),
}


@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("place", PLACES)
def test_regions_equal_the_cpu_wherever_their_tables_are(simt, place, channels_last):
    shape, count = PLACES[place]
    for dtype in (torch.float32, torch.bfloat16):
        x = make(shape, dtype, "nan", channels_last)
        for levels in (LEVELS["spp"], LEVELS["bins"]):
            rois = random_rois(count, *shape[::2], shape[3], scale=0.5)
            compare_pools_of_regions(simt, x, rois, pyramid("test", levels).encoded, 0.5, "roi_pool")


@pytest.mark.parametrize("offset", [1, 4])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_regions_of_maps_anywhere_in_memory_equal_the_cpu(simt, channels_last, offset):
    shape = (2, 8, 9, 7)
    memory = integers((math.prod(shape) + offset,), torch.float16, seed=1)[offset:]
    x = memory.view(2, 9, 7, 8).permute(0, 3, 1, 2) if channels_last else memory.view(shape)
    compare_pools_of_regions(simt, x, random_rois(20, 2, 9, 7), pyramid("test", LEVELS["spp"]).encoded, 1.0, "roi_pool")


@pytest.mark.usefixtures("schedule")
def test_regions_of_more_maps_than_a_launch_holds_equal_the_cpu(simt):
    maps = [make((2, 5, 3 + m, 9 - m % 5), torch.float32, "ties", m % 3 == 0) for m in range(19)]
    rois, map_indices = random_rois(60, 2, 9, 9), torch.arange(60) * 7 % 20  # the last index names no map
    arguments = (pyramid("test", LEVELS["two bases"]).encoded, [1 / (m + 1) for m in range(19)], ROI_POOL, False)
    good = map_indices < 19
    expected = CPU.roi_spatial_pyramid_pool_of_maps_with_argmax(maps, rois[good], map_indices[good], *arguments)
    values, argmax = simt.roi_spatial_pyramid_pool_of_maps_with_argmax(maps, rois, map_indices, *arguments)
    assert_same((values[good], argmax[good]), expected)
    assert values[~good].isnan().all()
    assert (argmax[~good] == -1).all()
    assert_same(simt.roi_spatial_pyramid_pool_of_maps(maps, rois, map_indices, *arguments), values)


def compare_stride_one(simt, x, sizes, cascade):
    expected = CPU.multi_kernel_max_pool2d_with_argmax(x, sizes, cascade)
    got = simt.multi_kernel_max_pool2d_with_argmax(x, sizes, cascade)
    assert_same(got, expected)
    assert got[0].stride() == expected[0].stride()
    assert_same(simt.multi_kernel_max_pool2d(x, sizes, cascade), expected[0])
    return expected[1]


# Kernel sizes: YOLO's, one that needs steps on the way, and one with a halo that no tile has room for.
@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("cascade", [False, True], ids=["side by side", "cascade"])
@pytest.mark.parametrize("sizes", [(5, 9, 13), (3, 31), (5, 5), (75, 77)], ids=str)
@pytest.mark.parametrize("shape", [(2, 9, 11, 14), (1, 3, 70, 45), (1, 1, 80, 37)], ids=str)
def test_stride_one_pools_equal_the_cpu(simt, shape, sizes, cascade, channels_last):
    for dtype in DTYPES if shape[1] == 9 else DTYPES[:1]:
        x = make(shape, dtype, "nan", channels_last)
        argmax = compare_stride_one(simt, x, sizes, cascade)
        if cascade:  # a derivative is the same walk along any argmax
            level_bins = [shape[2] * shape[3]] * (len(sizes) + 1)
            compare_linear(simt, x, argmax, None, level_bins, is_channels_last(x))


# Planes of a quarter and all of a warp, tiles side by side, channels and widths that are written 16 bytes at once;
# single rows and columns; an odd channel, which has no other for its word; tiles on top of one another.
@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("cascade", [False, True], ids=["side by side", "cascade"])
@pytest.mark.parametrize(
    "shape",
    [(1, 32, 6, 8), (2, 40, 5, 20), (1, 8, 3, 100), (1, 5, 2, 40), (1, 2, 1, 61), (1, 9, 50, 1), (1, 1, 61, 20)],
    ids=str,
)
def test_stride_one_pools_of_any_map_equal_the_cpu(simt, shape, cascade, channels_last):
    for dtype in DTYPES:
        x = make(shape, dtype, "nan", channels_last)
        compare_stride_one(simt, x, (5, 9, 13), cascade)
        shifted = x.new_empty(x.numel() + 1)[1:].as_strided(x.shape, x.stride())  # not aligned to 16 bytes
        compare_stride_one(simt, shifted.copy_(x), (3, 7), cascade)


@pytest.mark.parametrize("cascade", [False, True], ids=["side by side", "cascade"])
def test_many_kernel_sizes_equal_the_cpu(simt, cascade):
    x = make((1, 2, 9, 7), torch.float32, "ties", False)
    sizes = list(range(1, 80, 2))
    expected = CPU.multi_kernel_max_pool2d_with_argmax(x, sizes, cascade)
    assert_same(simt.multi_kernel_max_pool2d_with_argmax(x, sizes, cascade), expected)
    with pytest.raises(ValueError, match="multi_kernel_max_pool2d: expected at most 256 kernel_sizes on CUDA, got"):
        simt.multi_kernel_max_pool2d(x, [3] * 257, cascade)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_regions_of_an_empty_batch_cannot_be_pooled(simt, channels_last):
    x = make((0, 3, 8, 8), torch.float32, "ties", channels_last)
    rois = torch.tensor([[0.0, 1, 1, 4, 4]])
    encoded = pyramid("test", LEVELS["spp"]).encoded
    values, argmax = simt.roi_spatial_pyramid_pool_with_argmax(x, rois, encoded, 1.0, ROI_POOL, False)
    assert values.shape == (1, 150)
    assert values.isnan().all()
    assert (argmax == -1).all()
    assert not simt.gather(x, argmax, rois, [1, 4, 9, 36]).any()


def test_a_forged_argmax_is_skipped(simt):
    argmax = torch.tensor([[0, 15, 16, -2, 2**31 - 1, -(2**31)]], dtype=torch.int32)
    grad = torch.ones(1, 6)
    scattered = simt.scatter(grad, argmax, None, [6], [1, 1, 4, 4], False)
    assert scattered.flatten().nonzero().flatten().tolist() == [0, 15]
    gathered = simt.gather(torch.ones(1, 1, 4, 4), argmax, None, [6])
    assert gathered.tolist() == [[1, 1, 0, 0, 0, 0]]


# Planes whose sums fit in shared memory several times, and one that is added up in ranges of its cells; of 2^k
# channels and others, so that what is written in packs has a rest.
@pytest.mark.usefixtures("schedule")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("level_bins", [[1], [2, 3], [36, 4, 10], [600, 5]], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 16, 6, 6), (2, 5, 61, 105)], ids=str)
def test_any_argmax_is_scattered_and_gathered(simt, shape, level_bins, channels_last):
    """Cells that many bins name and few, in no order, no cell, and cells that do not exist, which count as none."""
    n, c, h, w = shape
    generator = torch.Generator().manual_seed(0)
    rows = 10 if sum(level_bins) > 100 else 70  # more than a warp lists at a time, of each image
    rois = torch.rand(rows, 5, generator=generator) * n
    for dtype in (torch.float32, torch.bfloat16):
        x = make(shape, dtype, "ties", channels_last)
        for cells in (2, h * w):
            size = (rows, c * sum(level_bins))
            argmax = torch.randint(-1, cells, size, generator=generator, dtype=torch.int32)
            argmax[::3] = argmax[::3].clamp(max=cells // 4)  # whole rows in one part of the plane
            none = torch.tensor([-1, -(2**31), h * w, 2**31 - 1], dtype=torch.int32)[torch.arange(size[1]) % 4]
            forged = torch.where(argmax < 0, none, argmax)
            compare_linear(simt, x, argmax, rois, level_bins, channels_last, forged)
            compare_linear(simt, x, argmax[:n], None, level_bins, channels_last, forged[:n])


def test_more_regions_than_a_chunk_equal_the_cpu(simt):
    """Sorted by image, so that whole chunks have none of an image's; the last image has none at all."""
    x = make((4, 2, 3, 4), torch.float32, "ties", False)
    rois = random_rois(2100, 3, 3, 4)
    rois[:, 0] = rois[:, 0].sort().values
    compare_regions(simt, x, rois, (1,), 1.0, "outer", False)


def test_derivatives_of_more_maps_than_a_launch_holds_equal_the_cpu(simt):
    maps = [make((2, 5, 3 + m, 9), torch.float32, "ties", m % 2 == 1) for m in range(18)]
    layouts = [m % 2 == 1 for m in range(18)]
    rois, map_indices = random_rois(60, 2, 9, 9), torch.arange(60) * 7 % 18
    argmax = torch.randint(27, (60, 5 * 3), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    rows = (argmax, rois, map_indices, [1, 2])
    sizes = [number for x in maps for number in x.shape]
    grad = integers(argmax.shape, torch.float32, seed=5)
    assert_same(simt.scatter_of_maps(grad, *rows, sizes, layouts), CPU.scatter_of_maps(grad, *rows, sizes, layouts))
    assert_same(simt.gather_of_maps(maps, *rows), CPU.gather_of_maps(maps, *rows))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 3, 12, 10), (1, 2, 61, 105)], ids=str)
def test_gradients_have_one_order_of_additions(simt, monkeypatch, shape, channels_last):
    """Random gradients, whose sums depend on the order, have the same bits in every order of threads."""
    x = make(shape, torch.float32, "ties", channels_last)
    rois = random_rois(200, *(shape[i] for i in (0, 2, 3)))
    encoded, level_bins = pyramid("test", LEVELS["spp"])
    of_regions = CPU.roi_spatial_pyramid_pool_with_argmax(x, rois, encoded, 1.0, ROI_POOL, False)[1]
    of_maps = CPU.spatial_pyramid_pool_with_argmax(x, encoded)[1]
    stride1 = CPU.multi_kernel_max_pool2d_with_argmax(x, (5, 9), False)[1]
    cells = shape[2] * shape[3]
    for argmax, regions, bins in (
        (of_regions, rois, level_bins),
        (of_maps, None, level_bins),
        (stride1, None, [cells] * 3),
    ):
        grad = torch.randn(argmax.shape, generator=torch.Generator().manual_seed(0))
        results = []
        for order, poison in SCHEDULES:
            monkeypatch.setenv("SPP_SIMT_ORDER", order)
            monkeypatch.setenv("SPP_SIMT_POISON", poison)
            results.append(simt.scatter(grad, argmax, regions, bins, list(shape), channels_last))
        assert_same(results[1], results[0])
        assert_same(results[2], results[0])


LAUNCHING = """
#include <cassert>
#include "cuda/launch.h"
using namespace spp_ext::cuda;
__global__ void count(int* calls) { ++*calls; }
template <class F>
std::string failure(const F& f) {
  try {
    f();
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}
void launches() {
  int calls = 0;
  const auto fails = [&](std::int64_t shared_bytes, std::int64_t most) {
    return !failure([&] { launch(count, 1, 1, shared_bytes, Stream{nullptr, 1, most}, &calls); }).empty();
  };
  assert(fails(50 << 10, 1 << 30));  // more than the device has: refused when asked for
  assert(fails(60 << 10, 55 << 10));  // more than was asked for: refused at the launch
  assert(cudaGetLastError() == cudaSuccess);
  assert(calls == 0 && !fails(50 << 10, 55 << 10) && calls == 1);
}
void devices() {
  const auto asking = [] { return failure([] { device_stream(0, nullptr); }); };
  const Stream first = device_stream(0, nullptr), second = device_stream(1, nullptr);
  assert(second.sms == first.sms + 1 && second.shared_bytes == first.shared_bytes + 1);
  assert(driver_fault().empty() && asking().empty());
  simt::driver_version = 12060;
  assert(asking() == "spp_ext: expected a driver for CUDA 13.0 or newer, as these kernels were built with CUDA 13.0, "
                     "got one for CUDA 12.6");
  assert("spp_ext: " + driver_fault() == asking());
  simt::driver_version = 0;
  assert(driver_fault().find("got none") != std::string::npos);
  simt::driver_version = 14000;
  assert(driver_fault().empty());
}
int main() {
  launches();
  devices();
}
"""


def test_launching(tmp_path):
    """A failed launch leaves no error to the next; limits are the device's own, and its driver's age is told."""
    file, program = tmp_path / "main.cpp", tmp_path / "main"
    file.write_text(LAUNCHING)
    here, csrc = Path(__file__).parent, backend.ROOT / "csrc"
    command = ["g++", "-std=c++17", *(f"-I{folder}" for folder in (here / "include", here, csrc))]
    command += [file, here / "simt.cpp", "-x", "c++", csrc / "cuda" / "stream.cu", "-o", program]
    subprocess.run(command, check=True)
    subprocess.run([program], check=True)


@pytest.mark.integration
def test_kernels_stay_inside_their_memory():
    """The tests of this file again, some of each, under AddressSanitizer."""
    library = backend.build_simt("address")
    # The runtimes must be there before Python; the C++ one, too, or exceptions cannot be intercepted.
    runtimes = []
    for name in ("libasan.so", "libstdc++.so"):
        path = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        runtimes.append(os.fspath(Path(path.strip()).resolve()))
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes),
        # Python never frees all it has; and torch's and our copies of a type may differ in debug information.
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
        "SPP_EXT_SIMT_LIBRARY": os.fspath(library),
    }
    chosen = (
        "forward and (float32 and equal or several or every_plan) or anywhere or any_pyramid or more_levels "
        "or becomes_nan or forged or empty or many_kernel or stride and not 80 or forward and any_argmax or than_a"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider", __file__, "-k", chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=backend.ROOT)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "passed" in done.stdout
