"""The interpreter on small kernels that nvcc compiled: closed forms of what they execute, and faults planted in calls.

toys.ptx is committed, so that these run where nvcc is missing; where it is there, a fresh compilation is compared.
"""

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest

from tools.gpu_model import interpreter, ptx
from tools.gpu_model.record import Launch

pytestmark = pytest.mark.cpu_only

SOURCE = Path(__file__).with_name("toys.cu")
KERNELS = ptx.parse(SOURCE.with_suffix(".ptx").read_text())


def aligned(numbers):
    """A copy that begins at a multiple of 128 bytes."""
    numbers = np.asarray(numbers)
    memory = np.zeros(numbers.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 128
    copy = memory[start : start + numbers.nbytes].view(numbers.dtype)
    copy[:] = numbers
    return copy


def run(name, *arguments, grid=1, threads=32, shared=0, kernels=KERNELS):
    """The counts of all blocks; arrays are passed as pointers, whole numbers as int."""
    arrays = [isinstance(argument, np.ndarray) for argument in arguments]
    values = [a.ctypes.data if array else a for a, array in zip(arguments, arrays, strict=True)]
    params = struct.pack("".join("Q" if array else "i" for array in arrays), *values)
    program = interpreter.Program(kernels[name])
    return interpreter.run(program, Launch(name, grid, threads, shared, params), range(grid))


def floats(count):
    return aligned(np.arange(count, dtype=np.float32))


# ---- closed forms ----


@pytest.mark.parametrize("step, sectors", [(0, 1), (1, 4), (2, 8), (4, 16), (8, 32), (33, 32)])
def test_a_strided_load(step, sectors):
    source, target = floats(33 * 128), floats(128)
    counts = run("strided", source, target, step, grid=2, threads=64)
    assert target.tolist() == [step * i for i in range(128)]
    warps = 4
    assert sum(counts.forms.values()) == warps * len(KERNELS["strided"].instructions) == warps * 17
    assert counts.longest == 17
    loads, stores = counts.global_loads, counts.global_stores
    assert (loads.requests, loads.bytes, loads.sectors) == (warps, warps * 128, warps * sectors)
    assert (stores.requests, stores.bytes, stores.sectors) == (warps, warps * 128, warps * 4)
    assert loads.distinct == (1 if step == 0 else warps * sectors)
    assert loads.block_distinct == (2 if step == 0 else warps * sectors)
    assert (counts.divergent, counts.barriers, counts.shared_loads.requests) == (0, 0, 0)


@pytest.mark.parametrize("width, passes", [(32, 32), (33, 1), (34, 2), (36, 4), (40, 8), (48, 16)])
def test_a_walk_down_a_column_of_shared_memory(width, passes):
    source, target = floats(1024), floats(1024)
    counts = run("transposed", source, target, width, threads=1024, shared=4 * 32 * width)
    assert (target.reshape(32, 32) == source.reshape(32, 32).T).all()
    assert (counts.shared_stores.wavefronts, counts.shared_stores.ideal) == (32, 32)
    assert (counts.shared_loads.wavefronts, counts.shared_loads.ideal) == (32 * passes, 32)
    assert counts.barriers == 1
    assert sum(counts.forms.values()) == 32 * len(KERNELS["transposed"].instructions)


def test_barriers_are_those_of_all_blocks():
    source, target = floats(64), floats(64)
    assert run("transposed", source, target, 32, grid=3, threads=64, shared=4 * 32 * 32).barriers == 3


@pytest.mark.parametrize("turns", [[7] * 32, range(32), [0] * 31 + [5], [0] * 32], ids=["7", "0..31", "one", "none"])
def test_a_loop_runs_for_the_lane_that_needs_it_longest(turns):
    source, target = floats(40), floats(64)
    own = aligned(np.array([*turns, *[3] * 32], np.int32))
    counts = run("sum_of_first", source, own, target, threads=64)
    assert target.tolist() == [n * (n - 1) / 2 for n in own.tolist()]
    around, before, body = 10 + 2 + 4 + 1, 3, 6  # to the branch, into the loop, of a turn; see toys.ptx
    most = max(turns)
    first = around + (before + body * most if most else 0)
    assert counts.longest == max(first, around + before + 3 * body)
    assert sum(counts.forms.values()) == first + around + before + 3 * body
    assert counts.forms["add.rn.f32"] == most + 3
    # A warp parts where its lanes differ on whether to begin, and after each turn that some are done with.
    ends = {n for n in turns if 0 < n < most}
    assert counts.divergent == (min(turns) == 0 < most) + len(ends)


@pytest.mark.parametrize(
    "limit, split, first, second, longest",
    [(0, 0, 0, 2, 10), (5, 1, 1, 2, 15), (32, 0, 1, 1, 12), (64, 0, 2, 0, 12)],
)
def test_both_sides_of_a_branch_count_where_it_splits_a_warp(limit, split, first, second, longest):
    counters = aligned(np.zeros(3, np.uint32))
    counts = run("two_sides", counters, limit, threads=64)
    assert counters.tolist() == [limit, 64 - limit, limit]
    assert (counts.divergent, counts.longest) == (split, longest)
    assert counts.forms["atom.global.add.u32"] == counts.atomics.requests == 2 * first + second
    assert counts.forms["membar.gl"] == first
    assert counts.forms["ret"] == 2  # together again


def test_lanes_exchange_numbers():
    numbers = np.random.default_rng(0).integers(0, 5, 32).astype(np.uint32)
    source, target = aligned(numbers), aligned(np.zeros(96, np.uint32))
    counts = run("together", source, target)
    shuffled, odd, same = target.reshape(3, 32)
    assert shuffled.tolist() == numbers[np.arange(32) ^ 1].tolist()
    assert set(odd.tolist()) == {sum(1 << i for i in range(32) if numbers[i] % 2)}
    assert same.tolist() == [sum(1 << i for i in range(32) if numbers[i] == n) for n in numbers]
    assert sum(counts.forms.values()) == len(KERNELS["together"].instructions)


# ---- faults ----


@pytest.mark.parametrize("step", [1 << 29, -(1 << 29)])
def test_a_wild_address_is_named(step):
    where = (
        r"strided: ld\.global\.f32 \t?%f1, \[%rd7\]: block 0, thread \d+: address -?0x[0-9a-f]+ is outside of memory"
    )
    with pytest.raises(RuntimeError, match=where):
        run("strided", floats(32), floats(32), step)


@pytest.mark.parametrize("offset", [4, 8, 12, -4])
def test_a_vector_that_is_not_aligned_is_named(offset):
    where = rf"in_vectors: ld\.global\.v4\.u32.*: block 0, thread 0: address 0x\w+{offset % 16:x} is not a multiple"
    with pytest.raises(RuntimeError, match=where):
        run("in_vectors", floats(256)[32:], floats(128), offset)


def test_a_vector_that_is_aligned_is_moved():
    target = floats(128)
    counts = run("in_vectors", floats(256), target, 16)
    assert target.tolist() == list(range(4, 132))
    loads, stores = counts.global_loads, counts.global_stores
    assert (loads.requests, loads.bytes, loads.sectors) == (1, 512, 17)  # 16 bytes past the begin of a sector
    assert (stores.requests, stores.bytes, stores.sectors) == (1, 512, 16)


def test_an_access_past_the_end_of_shared_memory_is_named():
    with pytest.raises(RuntimeError, match="transposed: st.shared.*thread 1023: .* outside of 3968 bytes of shared"):
        run("transposed", floats(1024), floats(1024), 32, threads=1024, shared=4 * 31 * 32)


def test_what_nobody_wrote_to_shared_memory_is_poison():
    target = floats(32)
    run("unwritten", target, shared=128)
    assert (target.view(np.uint32) == 0xFFFFFFFF).all()


def test_a_form_without_a_meaning_is_named_with_its_kernel():
    text = SOURCE.with_suffix(".ptx").read_text().replace("st.global.f32", "st.global.f11")
    with pytest.raises(ValueError, match=r"st\.global\.f11"):
        run("unwritten", floats(32), shared=128, kernels=ptx.parse(text))


# ---- nvcc ----


def test_a_fresh_compilation_counts_the_same(nvcc):
    """What follows from the source; which instructions there are around it is up to nvcc's version."""
    fresh = ptx.parse(ptx.of_source(SOURCE, "75"))
    assert fresh.keys() == KERNELS.keys()
    for name, arguments, launch in (
        ("strided", (floats(1024), floats(128), 8), {"grid": 2, "threads": 64}),
        ("transposed", (floats(1024), floats(1024), 34), {"threads": 1024, "shared": 4352}),
        ("sum_of_first", (floats(40), aligned(np.arange(32, dtype=np.int32)), floats(32)), {}),
        ("two_sides", (aligned(np.zeros(3, np.uint32)), 5), {}),
        ("in_vectors", (floats(256), floats(128), 16), {}),
        ("together", (aligned(np.arange(32, dtype=np.uint32)), aligned(np.zeros(96, np.uint32))), {}),
    ):
        counts = [dataclasses.asdict(run(name, *arguments, **launch, kernels=k)) for k in (KERNELS, fresh)]
        for count in counts:
            del count["forms"], count["longest"]
        assert counts[0] == counts[1], name
