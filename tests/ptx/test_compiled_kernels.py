"""The PTX that nvcc makes of the CUDA kernels, run by the interpreter in place of the ops, equals the CPU kernels.

Every block of every launch is run. Where the emulation of tests/simt shows that the source is right, this shows that
what the compiler made of it is, with the instructions that the emulation replaces.
"""

import dataclasses

import pytest
import torch
from support import ROI_POOL, assert_same, assert_same_bits, integers, make_map, random_rois

from spp_ext.levels import pyramid
from tools.gpu_model.gpus import GPUS

# Fresh memory is full of NaN, so that what no block writes shows.
pytestmark = [pytest.mark.cpu_only, pytest.mark.usefixtures("deterministic")]

CPU = torch.ops.spp_ext
H100 = GPUS["h100"]
SMALL = dataclasses.replace(H100, sms=2, shared_per_block=64 * 1024)  # on which blocks have several units of work
SPP = pyramid("test", (1, 2, 3, 6))
FINE = pyramid("test", (24, 2))  # more bins than are looked up in a table

layouts = pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


def make(shape, dtype, last, kind="nan", seed=0):
    x = make_map(kind, shape, dtype, seed)
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


def compare_all(compare, gpu, name, x, arguments, rois, level_bins, last):
    """Pooling without and with argmax, and the derivatives by that argmax."""
    compare(gpu, name, x, *arguments)
    _, argmax = compare(gpu, f"{name}_with_argmax", x, *arguments)
    compare(gpu, "gather", x, argmax, rois, level_bins)
    grad = integers(argmax.shape, x.dtype, seed=5)
    compare(gpu, "scatter", grad, argmax, rois, level_bins, list(x.shape), last)


# Planes that a warp or a part of one pools, with packs of 16 bytes and without, and one that several blocks share.
@layouts
@dtypes
@pytest.mark.parametrize("shape", [(2, 8, 12, 16), (1, 5, 9, 7), (1, 3, 70, 45)], ids=str)
def test_whole_maps(compare, shape, dtype, last):
    gpu = SMALL if shape[0] == 2 else H100
    compare_all(compare, gpu, "spatial_pyramid_pool", make(shape, dtype, last), (SPP[0],), None, SPP[1], last)


# [N, C, H, W], regions, levels, where the tables of the map go.
REGIONS = {
    "shared": ((2, 40, 12, 10), 24, SPP),
    "shared, a few channels": ((1, 5, 26, 27), 12, SPP),
    "global": ((1, 8, 70, 45), 150, SPP),
    "none": ((1, 9, 70, 45), 3, SPP),
    "more bins": ((2, 3, 20, 30), 5, FINE),
}


@layouts
@dtypes
@pytest.mark.parametrize("place", REGIONS)
def test_regions(compare, place, dtype, last):
    shape, count, (encoded, level_bins) = REGIONS[place]
    rois = random_rois(count, shape[0], *shape[2:], scale=0.5)
    arguments = (rois, encoded, 0.5, ROI_POOL, False)
    x = make(shape, dtype, last)
    compare_all(compare, H100, "roi_spatial_pyramid_pool", x, arguments, rois, level_bins, last)


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
@pytest.mark.parametrize("shape", [(1, 8, 20, 24), (1, 3, 45, 9)], ids=str)
def test_stride_one(compare, shape, cascade, dtype, last):
    x, level_bins = make(shape, dtype, last), [shape[2] * shape[3]] * 4
    compare_all(compare, H100, "multi_kernel_max_pool2d", x, ((5, 9, 13), cascade), None, level_bins, last)


@layouts
def test_float64(compare, last):
    x = make((1, 5, 12, 9), torch.float64, last)
    rois = random_rois(6, 1, 12, 9)
    compare_all(compare, SMALL, "spatial_pyramid_pool", x, (SPP[0],), None, SPP[1], last)
    arguments = (rois, SPP[0], 1.0, ROI_POOL, False)
    compare_all(compare, SMALL, "roi_spatial_pyramid_pool", x, arguments, rois, SPP[1], last)
    compare_all(compare, SMALL, "multi_kernel_max_pool2d", x, ((3, 5), False), None, [108] * 3, last)
