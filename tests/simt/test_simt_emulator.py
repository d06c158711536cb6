"""The emulation that runs the CUDA kernels on the CPU: it is right, and it catches the faults it is there for."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
OPTIMISED, SANITIZED = ["-O2"], ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Flags, and those of the emulation itself.
BUILDS = {
    "plain": (OPTIMISED, []),
    "ucontext": (OPTIMISED, ["-DSIMT_UCONTEXT"]),  # the fibers of other processors
    "asan": (SANITIZED, []),
}
PROGRAMS = ["emulator_checks", "planted_faults"]
ORDERS = ["forward", "reversed", "shuffled:1", "shuffled:2"]

# What every case of planted_faults.cpp computes: the sum of a cell and the next one of its block.
INPUT = [3 * i + 1 for i in range(128)]
EXPECTED = [INPUT[i] + INPUT[i // 64 * 64 + (i + 1) % 64] for i in range(128)]

# Case, and the sentence of its fault.
REPORTED = [
    ("early_return", "divergent barrier in block (0, 0, 0): thread (0, 0, 0) waits in __syncthreads() at"),
    ("early_return", "but thread (63, 0, 0) has returned from the kernel"),
    ("two_barriers", "divergent barrier in block (0, 0, 0): thread (0, 0, 0) waits in __syncthreads() at"),
    ("two_barriers", "but thread (32, 0, 0) waits in __syncthreads() at"),
    ("endless_loop", "no end of block (0, 0, 0) after all the CPU time it may take: thread (4, 0, 0) runs"),
    ("endless_votes", "no end of block (0, 0, 0) after all the CPU time it may take: thread ("),
    ("mask_without_own_lane", "thread (31, 0, 0) of block (0, 0, 0) calls __shfl_down_sync(mask 0x7fffffff)"),
    ("mask_without_own_lane", "whose mask lacks its own lane, 31"),
    ("mask_with_returned_lane", "divergent warp in block (0, 0, 0): thread (0, 0, 0) waits in __shfl_down_sync"),
    ("mask_with_returned_lane", "but in lane 31 of the mask thread (31, 0, 0) has returned from the kernel"),
    ("differing_masks", "differing masks in block (0, 0, 0): thread (0, 0, 0) waits in"),
    ("differing_masks", "but in lane 7 of the mask thread (7, 0, 0) waits in __shfl_down_sync(mask 0x000000ff)"),
    ("divergent_warp", "divergent warp in block (0, 0, 0): thread (0, 0, 0) waits in __shfl_down_sync("),
    ("divergent_warp", "but in lane 8 of the mask thread (8, 0, 0) waits in __shfl_down_sync("),
    ("shuffle_beside_barrier", "thread (3, 0, 0) waits in __syncwarp(mask 0xffffffff) at planted_faults.cpp:"),
    ("shuffle_beside_barrier", "but in lane 0 of the mask thread (0, 0, 0) waits in __syncthreads() at"),
    ("bad_width", "whose width, 24, is not 1, 2, 4, 8, 16 or 32"),
]
OUT_OF_BOUNDS = ["shared_out_of_bounds", "global_out_of_bounds"]
UNORDERED = ["missing_barrier", "missing_second_barrier", "missing_warp_barrier"]
UNINITIALISED = ["uninitialised_cell"]
CASES = sorted({*OUT_OF_BOUNDS, *UNORDERED, *UNINITIALISED, *(case for case, _ in REPORTED)})


def compile_cxx(*arguments):
    done = subprocess.run([CXX, *FLAGS, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """The folder of BUILD/emulator_checks and BUILD/planted_faults."""
    folder = tmp_path_factory.mktemp("simt")

    def compile_object(source, flags):
        target = folder / f"{source}{''.join(flags)}.o".replace(",", "")
        if not target.exists():
            compile_cxx(*flags, "-c", HERE / f"{source}.cpp", "-o", target)
        return target

    with ThreadPoolExecutor() as pool:
        objects = {(source, *flags) for flags, _ in BUILDS.values() for source in PROGRAMS}
        objects |= {("simt", *flags, *own) for flags, own in BUILDS.values()}
        list(pool.map(lambda job: compile_object(job[0], job[1:]), objects))
    for build, (flags, own) in BUILDS.items():
        (folder / build).mkdir()
        for program in PROGRAMS:
            parts = compile_object(program, flags), compile_object("simt", [*flags, *own])
            compile_cxx(*flags, *parts, "-o", folder / build / program)
    return folder


def run(program, *arguments, **settings):
    """Runs to the end, with only the given SPP_SIMT_... settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPP_SIMT_")}
    environment |= {f"SPP_SIMT_{name.upper()}": str(value) for name, value in settings.items()}
    environment["ASAN_OPTIONS"] = "detect_stack_use_after_return=1"
    command = [str(program), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def results(programs, build, case, twin, **settings):
    """The numbers that one run of planted_faults prints."""
    process = run(programs / build / "planted_faults", case, twin, **settings)
    assert process.returncode == 0, process.stdout + process.stderr
    return [int(word) for word in process.stdout.split()]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("order", [None, *ORDERS])
def test_emulation_is_right(programs, build, order):
    settings = {} if order is None else {"order": order}
    process = run(programs / build / "emulator_checks", **settings)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("ok ") == 13


@pytest.mark.parametrize("case", CASES)
def test_repaired_twins_pass_in_every_order_with_any_poison(programs, case):
    for build in "plain", "asan":
        for order in ORDERS:
            for poison in 0x00, 0x7F:
                settings = {"order": order, "poison": poison}
                assert results(programs, build, case, "repaired", **settings) == EXPECTED, settings


@pytest.mark.parametrize("case", OUT_OF_BOUNDS)
def test_out_of_bounds_reads_are_caught_by_asan(programs, case):
    process = run(programs / "asan" / "planted_faults", case, "faulty")
    assert process.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in process.stderr
    assert "READ of size 4" in process.stderr
    assert case in process.stderr  # the kernel is named


@pytest.mark.parametrize("case", UNORDERED)
def test_missing_barriers_show_as_the_order_changes(programs, case):
    outcomes = [results(programs, "plain", case, "faulty", order=order) for order in ORDERS]
    assert any(outcome != EXPECTED for outcome in outcomes)
    assert len(set(map(tuple, outcomes))) > 1


@pytest.mark.parametrize("case", UNINITIALISED)
def test_uninitialised_cells_show_as_the_poison_changes(programs, case):
    outcomes = [results(programs, "plain", case, "faulty", poison=poison) for poison in ("0", "0x7f")]
    assert outcomes[0] != outcomes[1]
    assert all(outcome != EXPECTED for outcome in outcomes)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(("case", "sentence"), REPORTED)
def test_faults_are_reported(programs, build, case, sentence):
    process = run(programs / build / "planted_faults", case, "faulty", block_seconds=0.1)
    assert (process.returncode, process.stderr) == (1, "")
    reported, numbers = process.stdout.split("\n")
    assert sentence in reported
    assert [int(word) for word in numbers.split()] == EXPECTED  # a later launch is not disturbed


@pytest.mark.parametrize("case", sorted({case for case, _ in REPORTED}))
def test_faults_are_reported_in_every_order(programs, case):
    for order in ORDERS:
        process = run(programs / "plain" / "planted_faults", case, "faulty", order=order, block_seconds=0.1)
        assert (process.returncode, process.stderr) == (1, ""), order


def test_unknown_order_is_refused(programs):
    process = run(programs / "plain" / "emulator_checks", order="sideways")
    assert process.returncode == 1
    assert "SPP_SIMT_ORDER must be forward, reversed or shuffled[:seed], not sideways" in process.stdout


def test_atomic_sums_of_floats_do_not_compile(tmp_path):
    source = tmp_path / "kernel.cpp"
    for type_name, compiles in ("int", True), ("float", False), ("double", False):
        source.write_text(
            f'#include "simt.h"\n__global__ void add({type_name}* sum) {{ atomicAdd(sum, {type_name}(1)); }}\n'
        )
        command = [CXX, *FLAGS, f"-I{HERE}", "-fsyntax-only", str(source)]
        process = subprocess.run(command, capture_output=True, text=True)
        assert (process.returncode == 0) == compiles, process.stderr
        assert compiles or "deleted function" in process.stderr


def test_the_timing_names_every_kernel_it_timed(programs):
    process = run(programs / "plain" / "emulator_checks", "--time")
    lines = [line.split() for line in process.stdout.splitlines()]
    assert [name for name, _ in lines] == ["barriers", "shuffles", "neither"]
    for _, microseconds in lines:
        float(microseconds)  # a number; which one is the machine's business
