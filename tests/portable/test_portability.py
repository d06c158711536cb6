"""The CPU kernels without torch, from other compilers and for other processors, equal the reference.

A C++ program replays a file of cases: what the reference was given, and what it computed. The program that this
machine's compiler makes runs in ``make test``; ``make test-aarch64`` and ``make test-clang`` run the others.
"""

import itertools
import os
import struct
import subprocess
from pathlib import Path

import native_builds
import numpy as np
import pytest
import torch
from support import BINS, DTYPES, INF, INSTRUCTION_SETS, KINDS, NAN, gaussian, make_map, random_rois

from spp_ext import _boxes, reference
from spp_ext._boxes import CONVENTIONS
from spp_ext.levels import encode_levels, parse_levels

pytestmark = pytest.mark.cpu_only

HERE = Path(__file__).parent
MAP, REGIONS, STRIDE1, WINDOWS, SPANS, FAULTS = range(6)  # kinds of cases, as replay.cpp numbers them
LAYOUTS = ["contiguous", "channels_last"]
LEVELS = [(1, 2, 3, 6), ((2, 5), 1), (BINS, 4, 2), (9,)]

# [N, C, H, W]: parts of vectors, whole vectors, and as many as a wide unit takes.
MAPS = [(2, 3, 1, 5), (1, 19, 7, 6), (3, 8, 5, 9), (1, 70, 3, 4)]


# ---- the file ----


class Case(bytearray):
    """The bytes of a case, in the order in which replay.cpp reads them. DTYPES and LAYOUTS are ordered as C++'s are."""

    def __init__(self, kind, name):
        self.array(name.encode())
        self.number(kind)

    def number(self, *values):
        self += struct.pack(f"<{len(values)}q", *values)

    def array(self, contents):
        self.number(len(contents))
        self += contents

    def numbers(self, values):
        self.array(struct.pack(f"<{len(values)}q", *values))

    def tensor(self, x, layout="contiguous"):
        x = x.permute(0, 2, 3, 1) if layout == "channels_last" else x
        self.array(x.contiguous().view(torch.uint8).numpy().tobytes())

    def regions(self, rois, convention, map_indices=(), scales=(1.0,)):
        self.number(DTYPES.index(rois.dtype), convention)
        self.tensor(rois)
        self.numbers(map_indices)
        self.array(struct.pack(f"<{len(scales)}d", *scales))

    def maps(self, maps, layouts):
        self.number(DTYPES.index(maps[0].dtype), len(maps))
        for x, layout in zip(maps, layouts, strict=True):
            self.number(LAYOUTS.index(layout), *x.shape)
            self.tensor(x, layout)

    def expected(self, pooled, grad_output, grads, layouts, output_layout="contiguous"):
        values, argmax = pooled
        self.tensor(values, output_layout)
        self.tensor(argmax.int(), output_layout)
        self.tensor(grad_output, output_layout)
        for grad, layout in zip(grads, layouts, strict=True):
            self.tensor(grad, layout)


def map_case(x, layout, levels):
    case = Case(MAP, f"map {list(x.shape)} {x.dtype} {layout} {levels}")
    case.maps([x], [layout])
    case.numbers(encode_levels(parse_levels("test", levels)))
    case.number(True)
    pooled = reference.spatial_pyramid_pool(x, levels, return_indices=True)
    grad = gaussian(pooled[0].shape, x.dtype, seed=1)
    case.expected(pooled, grad, [reference.scatter(grad, pooled[1], levels, x.shape)], [layout])
    return case


def stride1_case(x, layout, sizes, cascade):
    case = Case(STRIDE1, f"stride 1 {list(x.shape)} {x.dtype} {layout} {sizes} {cascade=}")
    case.maps([x], [layout])
    case.numbers(sizes)
    case.number(cascade)
    pooled = reference.multi_kernel_max_pool2d(x, sizes, cascade=cascade, return_indices=True)
    grad = gaussian(pooled[0].shape, x.dtype, seed=2)
    levels = [tuple(x.shape[2:])] * (len(sizes) + 1)
    case.expected(pooled, grad, [reference.scatter(grad, pooled[1], levels, x.shape)], [layout], layout)
    return case


def regions_case(maps, layouts, rois, levels, scales, convention):
    case = Case(REGIONS, f"regions {[list(x.shape) for x in maps]} {maps[0].dtype} {rois.dtype} {levels} {convention}")
    map_indices = [(7 * k // 3) % len(maps) for k in range(len(rois))]
    case.maps(maps, layouts)
    case.numbers(encode_levels(parse_levels("test", levels)))
    torchvision = convention == "torchvision"
    case.number(not torchvision)
    number = _boxes.TORCHVISION if torchvision else CONVENTIONS[convention]
    case.regions(rois, number, map_indices if len(maps) > 1 else [], scales)
    if torchvision:
        pooled = reference.roi_pool(maps[0], rois, levels[0], scales[0], return_indices=True)
        pooled = [part.flatten(1) for part in pooled]
    else:
        pooled = reference.roi_spatial_pyramid_pool(
            maps, rois, levels, scales, convention=convention, return_indices=True, map_indices=map_indices
        )
    grad = gaussian(pooled[0].shape, maps[0].dtype, seed=3)
    images = rois[:, 0].double().trunc().long()
    grads = []
    for m, x in enumerate(maps):
        own = torch.tensor([index == m for index in map_indices])
        grads.append(reference.scatter(grad[own], pooled[1][own], levels, x.shape, images[own]))
    case.expected(pooled, grad, grads, layouts)
    return case


def windows_case(convention, dtype):
    """Boxes on halves of cells and on what rounding makes of tenths, and beyond what integers hold."""
    number = np.float64 if dtype == torch.float64 else np.float32
    rois = random_rois(200, 1, 13, 17, dtype=torch.float64)
    rois[50:100, 1:] /= 5
    rois[100:105, 1:] *= torch.tensor([[1e3], [1e9], [1e15], [1e30], [1e37]])
    rois = rois.to(dtype)
    scale = 0.3
    case = Case(WINDOWS, f"windows {convention} {dtype}")
    case.regions(rois, CONVENTIONS[convention], scales=[scale])
    expected = []
    for k, box in enumerate(rois[:, 1:].tolist()):
        height, width = 1 + k % 13, 1 + k % 7
        expected += [height, width, *reference.roi_window(box, scale, convention, height, width, number)]
    case.numbers(expected)
    return case


def spans_case():
    random = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        divisions = int(random.integers(1, 2 ** random.integers(1, 21)))
        begin = int(random.integers(divisions))
        end = int(random.integers(begin + 1, divisions + 1))
        length = int(random.integers(1, 2 ** random.integers(1, 31)))
        numbers = (begin, end, divisions, length)
        rows += [*numbers, 0, *reference.bin_span(*numbers)]
        for edges, number in ((1, np.float32), (2, np.float64)):
            lo, hi = reference.torchvision_bin_span(*numbers, number)
            rows += [*numbers, edges, lo, hi]
    case = Case(SPANS, "spans")
    case.numbers(rows)
    return case


def fault_case(expected, row=None, map_indices=()):
    """Expected are kind, row and column, of two images and, with map indices, two maps."""
    rois = torch.zeros(3, 5, dtype=torch.float16)
    if row is not None:
        rois[expected[1]] = torch.tensor(row)
    case = Case(FAULTS, f"fault {row} {map_indices}")
    case.regions(rois, 0, map_indices, [1.0] * (2 if map_indices else 1))
    case.numbers([2, *expected])
    return case


def all_cases():
    kinds = itertools.cycle(KINDS)
    for dtype, layout in itertools.product(DTYPES, LAYOUTS):
        for shape, levels in zip(MAPS, LEVELS, strict=True):
            yield map_case(make_map(next(kinds), shape, dtype), layout, levels)
        for shape, sizes, cascade in (
            ((2, 5, 6, 7), (5, 9, 13), False),
            ((1, 9, 5, 8), (3, 5, 9), True),
            ((1, 64, 2, 3), (3,), False),
        ):
            yield stride1_case(make_map(next(kinds), shape, dtype), layout, sizes, cascade)
        other = LAYOUTS[1 - LAYOUTS.index(layout)]
        for convention, levels in zip([*CONVENTIONS, "torchvision"], LEVELS, strict=True):
            maps = [make_map(next(kinds), (2, 18, 6, 9), dtype)]
            scales = [0.5]
            if convention == "outer":
                maps.append(make_map(next(kinds), (2, 18, 4, 5), dtype))
                scales.append(0.3)
            rois = random_rois(9, 2, 12, 18, dtype=DTYPES[(DTYPES.index(dtype) + 1) % len(DTYPES)])
            yield regions_case(maps, [layout, other][: len(maps)], rois, levels, scales, convention)
    for convention, dtype in itertools.product(CONVENTIONS, (torch.float32, torch.float64, torch.bfloat16)):
        yield windows_case(convention, dtype)
    yield spans_case()
    yield fault_case((0, 0, 0))
    yield fault_case((1, 2, 0), map_indices=[0, 1, 2])
    yield fault_case((2, 1, 0), [2.0, 0, 0, 0, 0])
    yield fault_case((2, 0, 0), [-1.0, 0, 0, 0, 0])
    yield fault_case((3, 2, 4), [1.5, 0, 0, 0, NAN])
    yield fault_case((3, 1, 1), [0, -INF, 0, 0, 0])


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """The file, and how many cases are in it."""
    file = tmp_path_factory.mktemp("replay") / "cases"
    written = [*all_cases()]
    file.write_bytes(b"".join(written))
    return file, len(written)


# ---- the programs ----


def program(name, *options):
    folder = native_builds.ROOT / "build" / name
    installed = native_builds.cpp_package(folder / "installed", name, *options)
    native_builds.build(HERE, folder / "replay", f"-DCMAKE_PREFIX_PATH={installed}", *options)
    return folder / "replay" / "replay"


def assert_agrees(cases, *command):
    """With the kernels of every instruction set that this machine can run, of which the program says the best."""
    file, count = cases
    best = native_builds.run(*command, file).partition(":")[0]
    for instruction_set in INSTRUCTION_SETS[: INSTRUCTION_SETS.index(best) + 1]:
        said = native_builds.run(*command, file, SPP_EXT_INSTRUCTION_SET=instruction_set)
        assert said == f"{instruction_set}: {count} cases, 0 differences\n"


@pytest.fixture(scope="module")
def native():
    return program("cpp")


def test_kernels_of_this_machine_equal_the_reference(cases, native):
    assert_agrees(cases, native)


def test_a_difference_is_told(tmp_path, native):
    """The last bit of the last number that is expected, of three cases."""
    wrong = [map_case(make_map("gaussian", (1, 3, 4, 4)), "contiguous", (2,)), spans_case(), fault_case((0, 0, 0))]
    for case in wrong:
        case[-1] ^= 1
    (tmp_path / "wrong").write_bytes(b"".join(wrong))
    done = subprocess.run([native, tmp_path / "wrong"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    told = [line.rpartition(": ")[2] for line in done.stdout.splitlines()]
    assert [line.split(" is ")[0] for line in told[:-1]] == ["gradient 47", "gradient 47", "span 1199", "another fault"]
    assert told[-1] == "3 cases, 4 differences"


@pytest.mark.toolchains
def test_kernels_for_aarch64_equal_the_reference(cases):
    assert_agrees(cases, "qemu-aarch64", program("aarch64", f"--toolchain={HERE / 'aarch64.cmake'}"))


@pytest.mark.toolchains
def test_kernels_of_clang_equal_the_reference(cases):
    clang = os.environ.get("CLANG", "clang++")
    # A folder for each, since CMake forgets its options where the compiler changes.
    assert_agrees(cases, program(Path(clang).name, f"-DCMAKE_CXX_COMPILER={clang}"))
