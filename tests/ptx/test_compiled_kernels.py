"""The PTX that nvcc makes of the CUDA kernels, run by the interpreter in place of the ops, equals the CPU kernels.

Every block of every launch is run. Where the emulation of tests/simt shows that the source is right, this shows that
what the compiler made of it is, with the instructions that the emulation replaces.
"""

import dataclasses

import numpy as np
import pytest
import torch
from support import ROI_POOL, assert_same, assert_same_bits, integers, make_map, random_rois

from spp_ext.levels import pyramid
from tools.gpu_model import interpreter
from tools.gpu_model.gpus import GPUS

pytestmark = pytest.mark.cpu_only

CPU = torch.ops.spp_ext
H100 = GPUS["h100"]
SMALL = dataclasses.replace(H100, sms=2, shared_per_block=64 * 1024)  # on which blocks have several units of work
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SPP = pyramid("test", (1, 2, 3, 6))
FINE = pyramid("test", (24, 2))  # more bins than are looked up in a table

layouts = pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def make(shape, dtype, last, seed=0):
    """Planes of NaN among numbers, of numbers, and of ties: the maximum of many cells of the first is NaN."""
    x = make_map("nan", shape, dtype, seed)
    for first, kind in ((1, "gaussian"), (2, "ties")):
        x[:, first::3] = make_map(kind, shape, dtype, seed)[:, first::3]
    return x.contiguous(memory_format=torch.channels_last) if last else x


@pytest.fixture
def compare(compiled):
    """Runs an op both ways, and returns the CPU's result. Without argmax, the sign of a zero is free."""

    def compare(gpu, op, *arguments):
        expected = getattr(CPU, op)(*arguments)
        got = compiled.call(gpu, op, *arguments)
        if "with_argmax" in op:
            assert_same(got[1], expected[1])
            assert_same_bits(got[0], expected[0])
        else:
            assert_same(got, expected)
        return expected

    return compare


def compare_pools(compare, gpu, op, x, *arguments):
    """Pooling without and with argmax; returns that."""
    compare(gpu, op, x, *arguments)
    return compare(gpu, f"{op}_with_argmax", x, *arguments)[1]


def compare_derivatives(compare, gpu, x, argmax, rois, level_bins, last):
    grad = integers(argmax.shape, x.dtype, seed=5, low=-250, high=250)  # whose sums 16 bits must round
    compare(gpu, "scatter", grad, argmax, rois, level_bins, list(x.shape), last)
    compare(gpu, "gather", x, argmax, rois, level_bins)


# Planes of which a block has several, read in packs of 16 bytes; and planes that several blocks share.
@layouts
@dtypes
@pytest.mark.parametrize("shape, gpu", [((2, 8, 12, 16), SMALL), ((1, 3, 70, 45), H100)], ids=["small", "large"])
def test_whole_maps(compare, shape, gpu, dtype, last):
    x = make(shape, dtype, last)
    argmax = compare_pools(compare, gpu, "spatial_pyramid_pool", x, SPP[0])
    compare_derivatives(compare, gpu, x, argmax, None, SPP[1], last)


# [N, C, H, W], regions, levels, by where the tables of the map go.
REGIONS = {
    "shared": ((1, 5, 26, 27), 12, SPP),
    "shared, many channels": ((2, 40, 12, 10), 24, SPP),
    "global": ((1, 8, 70, 45), 150, SPP),
    "none": ((1, 9, 70, 45), 3, SPP),
    "more bins": ((2, 3, 20, 30), 5, FINE),
}


@layouts
@pytest.mark.parametrize(
    "place, dtype",
    [(place, dtype) for place in REGIONS for dtype in (DTYPES if place in ("shared", "global") else DTYPES[:1])],
    ids=str,
)
def test_regions(compare, place, dtype, last):
    shape, count, (encoded, level_bins) = REGIONS[place]
    x, rois = make(shape, dtype, last), random_rois(count, shape[0], *shape[2:], scale=0.5)
    argmax = compare_pools(compare, H100, "roi_spatial_pyramid_pool", x, rois, encoded, 0.5, ROI_POOL, False)
    if place in ("shared", "more bins"):
        compare_derivatives(compare, H100, x, argmax, rois, level_bins, last)


@dtypes
def test_regions_of_several_maps(compare, dtype):
    shapes, layouts = [(2, 9, 11, 14), (2, 9, 1, 3), (2, 9, 30, 20), (2, 9, 4, 4)], [False, True, True, False]
    maps = [make(shape, dtype, last, seed=i) for i, (shape, last) in enumerate(zip(shapes, layouts, strict=True))]
    rois, indices = random_rois(30, 2, 12, 14), torch.arange(30) * 7 % 3  # none on the last map
    arguments = (maps, rois, indices, SPP[0], [0.5, 1.0, 2.0, 0.25], ROI_POOL, False)
    compare(H100, "roi_spatial_pyramid_pool_of_maps", *arguments)
    _, argmax = compare(H100, "roi_spatial_pyramid_pool_of_maps_with_argmax", *arguments)
    rows = (argmax, rois, indices, SPP[1])
    compare(H100, "gather_of_maps", maps, *rows)
    sizes = [number for shape in shapes for number in shape]
    compare(H100, "scatter_of_maps", integers(argmax.shape, dtype, seed=5), *rows, sizes, layouts)


@layouts
@dtypes
@pytest.mark.parametrize("cascade", [False, True], ids=["side by side", "cascade"])
def test_stride_one(compare, cascade, dtype, last):
    x = make((1, 8, 20, 24), dtype, last)
    argmax = compare_pools(compare, H100, "multi_kernel_max_pool2d", x, (5, 9, 13), cascade)
    if cascade and dtype == torch.float32:
        compare_derivatives(compare, H100, x, argmax, None, [20 * 24] * 4, last)


@layouts
def test_float64(compare, last):
    x, rois = make((1, 5, 12, 9), torch.float64, last), random_rois(6, 1, 12, 9)
    compare_pools(compare, SMALL, "spatial_pyramid_pool", x, SPP[0])
    compare_pools(compare, SMALL, "multi_kernel_max_pool2d", x, (3, 5), False)
    argmax = compare_pools(compare, SMALL, "roi_spatial_pyramid_pool", x, rois, SPP[0], 1.0, ROI_POOL, False)
    compare_derivatives(compare, SMALL, x, argmax, rois, SPP[1], last)


@pytest.mark.parametrize("op", ["spatial_pyramid_pool", "spatial_pyramid_pool_with_argmax"])
def test_the_results_are_those_of_the_interpreter(compare, monkeypatch, op):
    """Planted: it forgets what the first lanes store."""
    store = interpreter.State.store

    def forgetful(self, values, space, address, size, lanes, ix, text):
        here = np.arange(self.lanes) if ix is None else ix
        kept = here % 32 > 0 if space == "global" else here >= 0
        if kept.any():
            store(self, [value[kept] for value in values], space, address[kept], size, lanes, here[kept], text)

    monkeypatch.setattr(interpreter.State, "store", forgetful)
    with pytest.raises(pytest.fail.Exception, match="differ, first"):
        compare(H100, op, make((1, 2, 12, 16), torch.float32, False), SPP[0])
