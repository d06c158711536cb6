"""The same bits whatever the number of threads, the instruction set, or the run.

Run as a script this file prints the instruction set in use and, with the argument "digests", a digest of every case,
one a line, which the tests compare between processes.
"""

import hashlib
import sys

import pytest
import torch
from support import (
    CONVENTIONS,
    DTYPES,
    INSTRUCTION_SETS,
    KINDS,
    gaussian,
    lay_out,
    make_map,
    random_rois,
    run_python,
)

import spp_ext
from spp_ext import Bins

cpu_only = pytest.mark.cpu_only  # threads and instruction sets

BINS = Bins([(0, 0, 1, 4), (1, 1, 3, 3), (0, 2, 4, 4), (0, 0, 4, 4)], 4)


def map_case(x, levels):
    def run():
        leaf = x.detach().requires_grad_()
        output, indices = spp_ext.spatial_pyramid_pool(leaf, levels, return_indices=True)
        (grad,) = torch.autograd.grad(output, leaf, gaussian(output.shape, x.dtype, 1))
        return spp_ext.spatial_pyramid_pool(x, levels), output, indices, grad

    return run


def region_case(x, rois, levels, convention):
    def run():
        leaf = x.detach().requires_grad_()
        options = {"convention": convention, "spatial_scale": 0.5}
        output, indices = spp_ext.roi_spatial_pyramid_pool(leaf, rois, levels, return_indices=True, **options)
        (grad,) = torch.autograd.grad(output, leaf, gaussian(output.shape, x.dtype, 1))
        return spp_ext.roi_spatial_pyramid_pool(x, rois, levels, **options), output, indices, grad

    return run


def cases():
    """Names and functions that return tensors; large enough for two threads, of every dtype, layout and kind."""
    for n, dtype in enumerate(DTYPES):
        for layout in ("contiguous", "channels_last", "some_channels"):
            for kind in KINDS:
                name = f"{str(dtype)[6:]} {layout} {kind}"
                x = lay_out(make_map(kind, (2, 37, 19, 23), dtype, n), layout)
                yield f"map {name}", map_case(x, (1, 2, 3, 6))
                rois = random_rois(50, 2, 19, 23, seed=n, scale=0.5)
                yield f"regions {name}", region_case(x, rois, (1, 2, 3, 6), CONVENTIONS[n % 3])
        x = make_map("one nan", (3, 50, 30, 31), dtype, n)
        yield f"map bins {dtype}", map_case(x, (BINS, 4, (1, 7)))
        rois = random_rois(120, 3, 30, 31, seed=n, scale=0.5)
        yield f"regions bins {dtype}", region_case(x, rois, (BINS, (3, 1)), "outer")
        for channels in (1, 3, 16, 65):
            x = make_map("ties", (5, channels, 64, 65), dtype, n)
            yield f"map {channels} {dtype}", map_case(x, (2, 5))
            yield f"regions {channels} {dtype}", region_case(x, random_rois(40, 5, 64, 65), (2, 5), "roi_pool")
    for dtype in (torch.float16, torch.bfloat16):
        numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        # One number of each pair of a NaN's encodings is enough: hardware may set the quiet bit of the other.
        numbers = torch.where(numbers.isnan(), torch.nan, numbers)
        for layout in ("contiguous", "channels_last"):
            yield f"numbers {dtype} {layout}", map_case(lay_out(numbers.reshape(1, 16, 64, 64), layout), (64, 5))


def digest(tensors):
    """Of every bit, shape and stride."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(repr((tensor.dtype, tensor.shape, tensor.stride())).encode())
        total.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def digests():
    return {name: digest(run()) for name, run in cases()}


@pytest.fixture
def threads():
    """Sets the number of threads; the one before comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digests_here():
    """Of this process, on one thread."""
    assert torch.get_num_threads() == 1
    return digests()


@cpu_only
def test_one_thread_and_several_give_the_same_bits(digests_here, threads):
    assert len(digests_here) > 250
    for count in (2, 5):
        threads(count)
        assert digests() == digests_here


def test_runs_give_the_same_bits(threads):
    threads(4)  # more than cores, so that the threads take turns differently
    x, rois = gaussian((4, 65, 33, 35), torch.float32), random_rois(300, 4, 33, 35, scale=0.5)
    for run in (map_case(x, (1, 2, 3, 6)), region_case(x, rois, (1, 2, 3, 6), "roi_pool")):
        expected = digest(run())
        assert {digest(run()) for _ in range(30)} == {expected}


def run_with(instruction_set, *arguments):
    """What a new process prints: its instruction set, and digests on one thread where the arguments ask for them."""
    result = run_python(__file__, *arguments, SPP_EXT_INSTRUCTION_SET=instruction_set, OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    name, *lines = result.stdout.splitlines()
    return name, dict(line.split("\t") for line in lines)


@pytest.fixture(scope="module")
def best():
    return run_with(None)[0]


@cpu_only
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_instruction_sets_give_the_same_bits(instruction_set, best, digests_here):
    used, got = run_with(instruction_set, "digests")
    # What the processor cannot run is not used, whatever the environment says.
    assert used == min(instruction_set, best, key=INSTRUCTION_SETS.index)
    assert [name for name in digests_here if got.get(name) != digests_here[name]] == []


@cpu_only
def test_the_best_instruction_set_is_the_default(best):
    with open("/proc/cpuinfo") as cpuinfo:
        flags = set(next((line for line in cpuinfo if line.startswith("flags")), "").split())
    expected = "baseline"
    if {"avx2", "fma", "f16c"} <= flags:
        expected = "avx2"
        if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
            expected = "avx512"
    assert best == expected


@cpu_only
def test_an_unknown_instruction_set_is_ignored(best):
    assert run_with("mmx")[0] == best


@cpu_only
def test_this_process_reports_its_instruction_set():
    assert torch.ops.spp_ext.cpu_instruction_set() in INSTRUCTION_SETS


if __name__ == "__main__":
    print(torch.ops.spp_ext.cpu_instruction_set())
    for case_name, case_digest in digests().items() if "digests" in sys.argv else ():
        print(case_name, case_digest, sep="\t")
