"""The scoreboard: how long a warp takes alone, on kernels whose clocks a person can work out."""

import ctypes
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tools.gpu_model import interpreter, ptx, scoreboard
from tools.gpu_model.gpus import GPUS
from tools.gpu_model.weights import Weights

LOAD = scoreboard.FROM_DRAM
H100 = scoreboard.timings([GPUS["h100"]], Weights())
DECLARED = {"%p": "pred", "%f": "f32", "%r": "b32", "%rd": "b64"}
HEAD = """
	.reg .pred 	%p<9>;
	.reg .f32 	%f<99>;
	.reg .b32 	%r<99>;
	.reg .b64 	%rd<99>;
	ld.param.u64 	%rd1, [k_param_0];
	mov.u32 	%r1, %tid.x;
"""


def clocks(body, memory=None, threads=32, load=LOAD):
    """Of the longest warp of one block."""
    memory = np.zeros(4096, np.uint64) if memory is None else memory
    text = f".visible .entry k(\n\t.param .u64 k_param_0\n)\n{{{HEAD}{body}\n}}\n"
    parameters = ctypes.c_uint64(memory.ctypes.data).value.to_bytes(8, "little")
    launch = SimpleNamespace(kernel="k", grid=1, threads=threads, shared_bytes=4096, params=parameters)
    counts = interpreter.run(interpreter.Program(ptx.parse(text)["k"]), launch, [0], H100)
    return counts.clocks["90", load].longest


def lines(*parts):
    return "\n".join(parts)


def adds(number, register="%r2"):
    """A chain, each from the one before."""
    return lines(*[f"add.s32 {register}, {register}, 1;"] * number)


def looped(body, rounds):
    return lines(
        "mov.u32 %r90, 0;", "$LOOP:", body, f"add.s32 %r90, %r90, 1;\nsetp.lt.s32 %p1, %r90, {rounds};",
        "@%p1 bra $LOOP;\nret;",
    )  # fmt: skip


def a_round(body, before=""):
    """What one more round of a loop takes."""
    return (clocks(before + looped(body, 30)) - clocks(before + looped(body, 20))) / 10


# ---- loads ----


@pytest.mark.parametrize("load", [scoreboard.FROM_DRAM, scoreboard.FROM_L2])
def test_loads_that_depend_on_one_another_take_their_latencies_together(load):
    chase = np.zeros(1, np.uint64)
    chase[0] = chase.ctypes.data  # points to itself
    took = [
        clocks("ld.global.u64 %rd1, [%rd1];\n" * n + "add.s64 %rd2, %rd1, 1;\nret;", chase, load=load) for n in (1, 9)
    ]
    assert took[0] == pytest.approx(load, abs=20)
    assert took[1] - took[0] == 8 * load


def independent(number):
    loads = (f"ld.global.u32 %r{10 + i}, [%rd1+{4 * i}];" for i in range(number))
    uses = (f"add.s32 %r{10 + i}, %r{10 + i}, 1;" for i in range(number))
    return [line for pair in zip(loads, uses, strict=True) for line in pair]


def test_loads_that_do_not_take_one_latency_and_their_uses():
    one, many = (clocks(lines(*independent(n), "ret;")) for n in (1, 40))
    assert one == pytest.approx(LOAD, abs=20)
    assert many == one + 39


def test_a_branch_between_keeps_loads_apart():
    """A use before the end of a stretch waits; ptxas does not fetch ahead over a branch."""
    parts = [
        lines(load, use, "setp.eq.s32 %p1, %r1, 99;\n@%p1 bra $END;")
        for load, use in zip(independent(4)[::2], independent(4)[1::2], strict=True)
    ]
    assert clocks(lines(*parts, "$END:", "ret;")) == pytest.approx(4 * LOAD, abs=40)


def test_a_load_that_nobody_uses_waits_for_nothing():
    assert clocks("ld.global.u32 %r2, [%rd1];\nret;") < 20


def test_a_load_of_what_may_have_been_written_waits_for_the_store():
    second = "ld.global{} .u32 %r4, [%rd1+8];\nadd.s32 %r5, %r4, 1;\nret;"
    body = "ld.global.u32 %r2, [%rd1];\nst.global.u32 [%rd1+4], %r2;\n"
    assert clocks(body + second.format("").replace(" .", ".")) == pytest.approx(2 * LOAD, abs=20)
    assert clocks(body + second.format(".nc").replace(" .", ".")) == pytest.approx(LOAD, abs=20)


def test_shared_memory_answers_sooner():
    body = "mov.u32 %r3, 0;\n" + "ld.shared.u32 %r3, [%r3];\nand.b32 %r3, %r3, 0;\n" * 10 + "ret;"
    assert clocks(body) == pytest.approx(10 * (scoreboard.SHARED + 4), abs=20)


# ---- loads that are fetched ahead ----

AHEAD = "ld.global.u32 %r2, [%rd1];\n"
FETCH = "ld.global.u32 %r3, [%rd1];"


@pytest.mark.parametrize("work", [10, 100, 200])
def test_a_load_that_is_used_a_round_later_hides_behind_the_work_of_the_round(work):
    # The move is the name that the value has in the next round.
    ahead = a_round(lines(FETCH, adds(work), "mov.u32 %r2, %r3;"), AHEAD)
    at_once = a_round(lines(AHEAD, adds(work)))
    assert ahead == pytest.approx(max((LOAD + 4 * work) / 2, 4 * work), abs=10)  # two are under way
    assert at_once == pytest.approx(LOAD + 4 * work, abs=10)


def test_two_rounds_ahead_hide_more():
    moves = "mov.u32 %r2, %r4;\nmov.u32 %r4, %r3;"
    assert a_round(lines(FETCH, adds(90), moves), AHEAD) == pytest.approx(4 * 90, abs=10)


# ---- arithmetic ----


def test_a_chain_takes_its_latency_and_what_is_free_to_run_a_clock_each():
    assert clocks(adds(201) + "\nret;") - clocks(adds(101) + "\nret;") == 400
    free = [lines(*(f"add.s32 %r{10 + i % 80}, %r1, {i};" for i in range(n)), "ret;") for n in (1, 101)]
    assert clocks(free[1]) - clocks(free[0]) == pytest.approx(100, abs=4)


def test_lanes_tell_each_other_in_turn_or_side_by_side():
    shuffle = "shfl.sync.bfly.b32 %r{0}, %r{1}, 1, 31, -1;\n"
    chain = "".join(shuffle.format(2, 2) for _ in range(10))
    apart = "".join(shuffle.format(10 + i, 2) for i in range(10))
    use = "".join(f"add.s32 %r{10 + i}, %r{10 + i}, 1;\n" for i in range(10))
    assert clocks(chain + "add.s32 %r2, %r2, 1;\nret;") == pytest.approx(10 * scoreboard.EXCHANGE, abs=20)
    assert clocks(apart + use + "ret;") == pytest.approx(scoreboard.EXCHANGE, abs=30)


def test_a_branch_waits_for_its_predicate():
    test = "ld.global.u32 %r2, [%rd1];\nsetp.eq.s32 %p1, %r2, 1;\n"
    assert clocks(test + "@%p1 bra $END;\n$END:\nret;") == pytest.approx(LOAD, abs=20)
    assert clocks(test + "bra.uni $END;\n$END:\nret;") == pytest.approx(LOAD, abs=20)  # setp waits itself


def test_a_stretch_of_names_alone_takes_no_time():
    assert clocks("$A:\nmov.u32 %r2, %r1;\n$B:\nret;") == clocks("ret;")


# ---- several warps ----

SIDES = """
	setp.lt.u32 %p1, %r1, 32;
	@{no}%p1 bra $SKIP{no_label};
	{work}
$SKIP{no_label}:
"""


def one_warp(first, work):
    return SIDES.format(no="!" if first else "", no_label=int(first), work=work)


def test_a_barrier_takes_all_warps_to_the_latest():
    first, second = one_warp(True, adds(500)), one_warp(False, adds(300))
    apart = clocks(first + second + "ret;", threads=64)
    together = clocks(first + "bar.sync 0;\n" + second + "ret;", threads=64)
    assert apart == pytest.approx(2000, abs=30)
    assert together == pytest.approx(2000 + scoreboard.BARRIER + 1200, abs=30)


def test_warps_that_have_returned_hold_nobody_up():
    body = one_warp(True, adds(500) + "\nret;") + "bar.sync 0;\n" + adds(10) + "\nret;"
    assert clocks(body, threads=64) == pytest.approx(2000, abs=30)


# ---- against one instruction after the other ----


def simulated(instructions, timing, clock, ready):
    """When a stretch ends, and registers are ready: by hand, for one warp."""
    ready, begins = dict(ready), []
    for one in instructions:
        sources, targets = scoreboard.sources_and_targets(one, DECLARED)
        begin = max([clock, *(ready.get(name, 0) for name in sources)])
        begins.append((begin, timing.issue(one)))
        ready |= dict.fromkeys(targets, begin + timing.latency(one))
    for begin, issue in sorted(begins):
        clock = max(clock, begin) + issue
    return clock, ready


def anything(generator, number):
    """A straight line of so many instructions."""
    made = []
    for _ in range(number):
        a, b, c = (f"%r{generator.randrange(12)}" for _ in range(3))
        form = generator.choice(
            ["add.s32 {}, {}, {}", "mad.lo.s32 {0}, {1}, {2}, {1}", "ld.shared.u32 {}, [{}]", "popc.b32 {}, {}"]
        )
        form, *operands = re.split(r" |, ", form.format(a, b, c))
        made.append(ptx.Instruction(form, tuple(operands), None, False, ""))
    return made


@pytest.mark.parametrize("seed", range(20))
def test_a_stretch_is_what_its_instructions_are_one_after_the_other(seed):
    generator = random.Random(seed)
    instructions = anything(generator, 40)
    names = [f"%r{i}" for i in range(12)]
    stretches = scoreboard.Stretches({0: instructions, 1: anything(generator, 60)}, DECLARED, H100)
    board = scoreboard.Board(stretches, 1, 3)
    board.clocks[:] = [[100.0, 200.0, 300.0]]
    kept = [name for name in names if name in stretches.places]
    for name in kept:
        board._ready[stretches.places[name]] = [[generator.randrange(500) for _ in range(3)]] * 2
    before, at = board.clocks.copy(), {name: board._ready[stretches.places[name]].copy() for name in kept}
    board.execute(0, np.array([True, False, True]))
    for warp in (0, 2):
        end, ready = simulated(instructions, H100[0], before[0, warp], {name: at[name][0, warp] for name in kept})
        assert {name: board._ready[stretches.places[name]][0, warp] for name in kept} == {
            name: ready[name] for name in kept
        }
        # Of what waits for different registers from before, the issue of one kind alone is counted.
        assert end - 40 * 2 <= board.clocks[0, warp] <= end
    assert (board.clocks[:, 1] == before[:, 1]).all()
    assert all((board._ready[stretches.places[name]][:, 1] == at[name][:, 1]).all() for name in kept)


def test_a_dependency_that_is_left_out_is_noticed(monkeypatch):
    whole = scoreboard.sources_and_targets

    def without_addresses(one, declared):
        sources, targets = whole(one, declared)
        return ([] if one.form.startswith("ld.global") else sources), targets

    monkeypatch.setattr(scoreboard, "sources_and_targets", without_addresses)
    with pytest.raises(AssertionError):
        test_loads_that_depend_on_one_another_take_their_latencies_together(LOAD)
    monkeypatch.setattr(
        scoreboard, "sources_and_targets", lambda one, declared: (whole(one, declared)[0][1:], whole(one, declared)[1])
    )
    with pytest.raises(AssertionError):
        test_a_chain_takes_its_latency_and_what_is_free_to_run_a_clock_each()
