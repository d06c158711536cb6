"""The PTX interpreter: what it counts on kernels written for the purpose, and the faults that it must name."""

import ctypes
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tools.gpu_model import interpreter, ptx

HEAD = """
	.reg .pred 	%p<9>;
	.reg .b16 	%rs<9>;
	.reg .f32 	%f<9>;
	.reg .b32 	%r<20>;
	.reg .b64 	%rd<20>;
	ld.param.u64 	%rd1, [k_param_0];
	mov.u32 	%r1, %tid.x;
	mov.u32 	%r2, %ctaid.x;
	mov.u32 	%r3, %ntid.x;
	mad.lo.s32 	%r4, %r2, %r3, %r1;
"""
AROUND = 5  # instructions of HEAD
QUIET = 0x7FFFFFFF  # a NaN
ONE_H, ONE_B = 0x3C003C00, 0x3F803F80  # a pair of 1.0, as float16 and as bfloat16


def kernel(body):
    text = f".visible .entry k(\n\t.param .u64 k_param_0\n)\n{{{HEAD}{body}\n}}\n"
    return interpreter.Program(ptx.parse(text)["k"])


def run(body, memory, grid=1, threads=32, shared=0, blocks=None):
    launch = SimpleNamespace(
        kernel="k",
        grid=grid,
        threads=threads,
        shared_bytes=shared,
        params=ctypes.c_uint64(memory.ctypes.data).value.to_bytes(8, "little"),
    )
    return interpreter.run(kernel(body), launch, range(grid) if blocks is None else blocks)


def strided(step, form="f32", times=4):
    return f"""
	mul.wide.u32 	%rd2, %r4, {step * times};
	add.s64 	%rd3, %rd1, %rd2;
	ld.global.{form} 	%f1, [%rd3];
	ret;"""


@pytest.mark.parametrize("step, sectors", [(1, 4), (2, 8), (8, 32), (0, 1), (100, 32)])
def test_a_strided_load_asks_for_the_sectors_that_it_touches(step, sectors):
    memory = np.zeros(4096 + 8, np.float32)
    start = -memory.ctypes.data % 32 // 4  # the first number of a sector
    counts = run(strided(step), memory[start:])
    traffic = counts.global_loads
    assert (traffic.requests, traffic.bytes, traffic.sectors, traffic.distinct) == (1, 128, sectors, sectors)


def test_sectors_that_blocks_share_are_distinct_once():
    memory = np.zeros(64, np.float32)
    counts = run(strided(0), memory, grid=3)
    assert (counts.global_loads.sectors, counts.global_loads.block_distinct, counts.global_loads.distinct) == (3, 3, 1)


@pytest.mark.parametrize("words, wavefronts", [(1, 1), (2, 2), (32, 32), (33, 1), (0, 1)])
def test_a_column_walk_conflicts_as_often_as_rows_share_a_bank(words, wavefronts):
    counts = run(
        f"mul.lo.s32 %r5, %r1, {4 * words};\nld.shared.f32 %f1, [%r5];\nret;", np.zeros(1, np.float32), shared=8192
    )
    assert (counts.shared_loads.wavefronts, counts.shared_loads.ideal) == (wavefronts, 1)


def test_wide_accesses_of_shared_memory_go_in_parts_of_a_warp():
    counts = run(
        "shl.b32 %r5, %r1, 4;\nld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r5];\nret;", np.zeros(1, np.float32), shared=512
    )
    assert (counts.shared_loads.requests, counts.shared_loads.wavefronts, counts.shared_loads.ideal) == (1, 4, 4)


BRANCH = """
	setp.lt.u32 	%p1, %r1, {limit};
	@%p1 bra 	$THEN;
	add.s32 	%r6, %r6, 1;
	add.s32 	%r6, %r6, 1;
	bra.uni 	$END;
$THEN:
	add.s32 	%r6, %r6, 5;
$END:
	mul.wide.u32 	%rd2, %r4, 4;
	add.s64 	%rd3, %rd1, %rd2;
	st.global.u32 	[%rd3], %r6;
	ret;"""


def test_a_branch_that_splits_a_warp_counts_both_sides():
    memory = np.zeros(64, np.uint32)
    counts = run(BRANCH.format(limit=40), memory, threads=64)  # all of warp 0, 8 lanes of warp 1
    assert counts.divergent == 1
    assert counts.forms["add.s32"] == 1 + (2 + 1)
    assert counts.forms["@bra"] == 2 and counts.forms["bra.uni"] == 1
    assert counts.forms["st.global.u32"] == 2  # after the branch they are together again
    assert counts.longest == AROUND + 2 + 3 + 1 + 4
    assert memory.tolist() == [5] * 40 + [2] * 24


LOOP = """
	mov.u32 	%r5, 0;
$LOOP:
	add.s32 	%r5, %r5, 1;
	setp.lt.s32 	%p1, %r5, %r1;
	@%p1 bra 	$LOOP;
	ret;"""


def test_a_loop_runs_as_long_as_the_last_lane_of_its_warp():
    counts = run(LOOP, np.zeros(1, np.uint32), threads=96)
    turns = 31 + 63 + 95
    assert counts.forms["add.s32"] == turns
    assert sum(counts.forms.values()) == 3 * (AROUND + 1) + 3 * turns + (1 + 1 + 1)
    assert counts.longest == AROUND + 1 + 3 * 95 + 1


EXCHANGE = """
	shl.b32 	%r5, %r1, 2;
	st.shared.u32 	[%r5], %r1;
	bar.sync 	0;
	xor.b32 	%r6, %r5, 252;
	ld.shared.u32 	%r7, [%r6];
	mul.wide.u32 	%rd2, %r4, 4;
	add.s64 	%rd3, %rd1, %rd2;
	st.global.u32 	[%rd3], %r7;
	bar.sync 	0;
	ret;"""


def test_barriers_are_counted_by_block_and_order_shared_memory():
    memory = np.zeros(128, np.uint32)
    counts = run(EXCHANGE, memory, grid=2, threads=64, shared=256)
    assert counts.barriers == 4
    assert memory.tolist() == 2 * list(range(63, -1, -1))


def test_a_barrier_that_some_threads_never_reach_lets_the_others_go_once_they_return():
    counts = run("setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $OUT;\nbar.sync 0;\n$OUT:\nret;", np.zeros(1), threads=64)
    assert counts.barriers == 1


def test_threads_that_wait_for_one_another_at_different_barriers_are_an_error():
    body = "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra $B;\nbar.sync 0;\nret;\n$B:\nbar.sync 0;\nret;"
    with pytest.raises(RuntimeError, match="k: threads wait for one another at different places"):
        run(body, np.zeros(1), threads=64)


def test_only_some_blocks_are_run_and_write():
    memory = np.zeros(32 * 5, np.uint32)
    counts = run(BRANCH.format(limit=40), memory, grid=5, blocks=[1, 4])
    assert (counts.grid, counts.blocks) == (5, 2)
    assert memory.reshape(5, 32).max(1).tolist() == [0, 5, 0, 0, 5]


def test_shared_memory_begins_full_of_poison():
    memory = np.zeros(32, np.uint32)
    run(
        "shl.b32 %r5, %r1, 2;\nld.shared.u32 %r6, [%r5];\nmul.wide.u32 %rd2, %r1, 4;\n"
        "add.s64 %rd3, %rd1, %rd2;\nst.global.u32 [%rd3], %r6;\nret;",
        memory,
        shared=128,
    )
    assert (memory == 0xFFFFFFFF).all()


@pytest.mark.parametrize(
    "body, message",
    [
        ("mov.u64 %rd2, 8;\nld.global.f32 %f1, [%rd2];\nret;", r"block 0, thread 0: address 0x8 is outside of memory"),
        ("shl.b32 %r5, %r1, 2;\nld.shared.f32 %f1, [%r5];\nret;", "thread 31: .* outside of 64 bytes of shared"),
        ("mul.wide.u32 %rd2, %r1, 8;\nadd.s64 %rd3, %rd1, %rd2;\nld.global.v4.f32 {%f1,%f2,%f3,%f4}, [%rd3];\nret;",
         "not a multiple of the access"),
    ],
)  # fmt: skip
def test_an_access_that_must_not_be_is_named(body, message):
    memory = np.zeros(1024, np.float32)
    start = -memory.ctypes.data % 16 // 4
    with pytest.raises(RuntimeError, match=message):
        run(body, memory[start:], shared=64)


@pytest.mark.parametrize(
    "form", ["sin.approx.f32", "tex.1d.v4.f32.s32", "add.sat.s32", "max.xorsign.abs.f32", "cvt.sat.f32.f32"]
)
def test_a_form_that_it_does_not_know_is_named(form):
    with pytest.raises(ValueError, match=f"does not know: {form}"):
        run(f"{form} %f1, %f2, %f3;\nret;", np.zeros(1))


@pytest.mark.parametrize(
    "line",
    [
        "cvt.rz.f32.f64 %f1, %rd2;",  # NumPy rounds to the nearest
        "cvt.rz.bf16x2.f32 %r5, %f1, %f2;",
        "div.rz.f32 %f1, %f2, %f3;",
        "setp.lt.u32 %p1|%p2, %r1, 2;",
        "setp.gt.f16x2 %p1, %r5, %r6;",
        "bar.sync 1, 32;",  # some threads of a block
        "bar.arrive 0, 64;",
        "bar.red.popc.u32 %r5, 0, %p1;",
        "@%p1 bar.sync 0;",
        "@%p1 shfl.sync.idx.b32 %r5, %r1, 0, 31, -1;",
        "vote.sync.uni.pred %p1, %p2, -1;",
        "match.all.sync.b32 %r5, %r1, -1;",
        "redux.sync.max.NaN.f32 %f1, %f2, -1;",
    ],
)
def test_a_form_of_a_known_opcode_with_another_meaning_is_named(line):
    with pytest.raises(ValueError, match=f"does not know: {re.escape(line[:-1])}"):
        run(f"{line}\nret;", np.zeros(1))


def test_local_memory_is_an_error():
    with pytest.raises(ValueError, match="local memory: st.local.f32"):
        run("st.local.f32 [%rd1], %f1;\nret;", np.zeros(1))


@pytest.mark.parametrize(
    "line, expected",
    [
        ("sub.s32 %r5, 3, %r1;", lambda t: 3 - t),
        ("shfl.sync.bfly.b32 %r5|%p1, %r1, 5, 31, -1;", lambda t: t ^ 5),
        ("shfl.sync.up.b32 %r5|%p1, %r1, 3, 0, -1;", lambda t: np.where(t >= 3, t - 3, t)),
        ("shfl.sync.down.b32 %r5, %r1, 3, 31, -1;", lambda t: np.where(t + 3 < 32, t + 3, t)),
        ("shfl.sync.idx.b32 %r5, %r1, 7, 31, -1;", lambda t: 0 * t + 7),
        ("setp.gt.u32 %p1, %r1, 29;\nvote.sync.ballot.b32 %r5, %p1, -1;", lambda t: 0 * t + 0xC0000000),
        ("shr.u32 %r6, %r1, 4;\nmatch.any.sync.b32 %r5, %r6, -1;", lambda t: np.where(t < 16, 0xFFFF, 0xFFFF0000)),
        ("redux.sync.max.u32 %r5, %r1, -1;", lambda t: 0 * t + 31),
        ("redux.sync.xor.b32 %r5, %r3, -1;", lambda t: 0 * t),
        ("setp.lt.u32 %p1, %r1, 31;\nvote.sync.all.pred %p2, %p1, -1;\nselp.u32 %r5, 1, 2, %p2;", lambda t: 0 * t + 2),
        ("div.s32 %r5, -7, %r3;", lambda t: 0 * t),
        ("mov.u32 %r6, -7;\ndiv.s32 %r5, %r6, 2;", lambda t: 0 * t - 3),
        ("mov.u32 %r6, -7;\nrem.s32 %r5, %r6, 2;", lambda t: 0 * t - 1),
        ("popc.b32 %r5, %r1;", lambda t: np.array([int(n).bit_count() for n in t])),
        ("clz.b32 %r5, %r1;", lambda t: np.array([32 - int(n).bit_length() for n in t])),
        ("brev.b32 %r5, %r1;", lambda t: np.array([int(f"{n:032b}"[::-1], 2) for n in t])),
        ("prmt.b32 %r5, %r1, 0, 0x4440;", lambda t: t),
        ("prmt.b32 %r5, %r1, %r1, 0x1054;", lambda t: t << 16 | t),
        ("lop3.b32 %r5, %r1, 12, 5, 0x96;", lambda t: t ^ 12 ^ 5),
        ("bfe.u32 %r5, %r1, 1, 2;", lambda t: t >> 1 & 3),
        ("bfi.b32 %r5, %r1, -1, 8, 4;", lambda t: 0xFFFFF0FF | (t & 15) << 8),
        ("shf.l.wrap.b32 %r5, %r1, %r1, 4;", lambda t: t << 4),
        ("shr.s32 %r6, -64, 2;\nadd.s32 %r5, %r6, %r1;", lambda t: t - 16),
        ("mul.hi.u32 %r5, %r1, -1;", lambda t: np.where(t > 0, t - 1, 0)),
        ("cvt.rn.f32.u32 %f1, %r1;\nadd.f32 %f2, %f1, 0f3F000000;\ncvt.rni.s32.f32 %r5, %f2;", lambda t: t + t % 2),
        ("cvt.rn.f32.s32 %f1, %r1;\nmax.NaN.f32 %f2, %f1, 0f7FFFFFFF;\nmov.b32 %r5, %f2;", lambda t: 0 * t + QUIET),
        ("mov.u32 %r6, 0x3C00BC00;\nmov.u32 %r7, 0xBC003C00;\nmax.NaN.f16x2 %r5, %r6, %r7;", lambda t: 0 * t + ONE_H),
        ("mov.u32 %r6, 0x3F80BF80;\nmov.u32 %r7, 0xBF803F80;\nmax.NaN.bf16x2 %r5, %r6, %r7;", lambda t: 0 * t + ONE_B),
        ("setp.ne.s32 %p1, %r1, 4;\nmov.u32 %r5, 1;\n@%p1 mov.u32 %r5, 2;", lambda t: np.where(t == 4, 1, 2)),
    ],
)  # fmt: skip
def test_each_opcode_computes_what_the_manual_says(line, expected):
    memory = np.zeros(32, np.uint32)
    counts = run(
        f"{line}\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, %rd2;\nst.global.u32 [%rd3], %r5;\nret;", memory
    )
    assert memory.tolist() == (expected(np.arange(32)) & 0xFFFFFFFF).tolist()
    assert sum(counts.forms.values()) == AROUND + 4 + line.count(";")


def test_atomic_additions_are_all_there_and_counted():
    memory = np.zeros(8, np.uint32)
    counts = run("red.global.add.u32 [%rd1], 2;\nret;", memory, grid=3)
    assert memory[0] == 2 * 96
    assert (counts.atomics.requests, counts.atomics.sectors, counts.atomics.distinct) == (3, 3, 1)
