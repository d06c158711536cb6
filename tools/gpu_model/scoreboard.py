"""How long each warp would take if it were alone: the latency that only other warps can hide.

A scoreboard follows the interpreter. It keeps the clock of each warp, and of each register when it is ready. What lies
between labels, branches and barriers is a stretch, which ptxas may schedule as it likes; so inside of it

    an instruction begins as soon as its sources are ready, whatever stands before it;
    a load of memory that may have been written begins after the stores before it;
    a register is ready the latency of its instruction after that has begun;
    the stretch ends when all have been issued, one machine instruction a clock.

So a load that is used in its stretch holds the warp up, for no instruction of the next begins before. One that is used
later has that long to arrive: it was fetched ahead. PTX that takes no machine instruction, such as most moves, gives a
value a second name and waits for nothing. A barrier takes all warps of a block to the latest of their clocks.

All of that is additions and maxima, and so is a stretch as a whole: clock and registers after it are the maximum of
clock and registers before it, each plus a constant. The constants are found once, and a stretch costs the interpreter
a few operations on small arrays however long it is.

What it leaves out: bank conflicts and the lines that a load is split into, which the formula counts for a whole
multiprocessor; what a branch costs beyond its predicate; the issue of instructions that wait for different registers
from before, of which the longest kind alone is counted; what the first-level cache holds, which is taken to come from
L2; that registers may be too few for so many loads ahead, and that ptxas may unroll a loop once more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .counts import Clocks
from .gpus import GPU
from .ptx import Instruction
from .weights import Weights

Array = NDArray[Any]

FROM_DRAM, FROM_L2 = 600.0, 280.0  # clocks from a load of global memory to its use, in round numbers for all GPUs
SHARED = 28.0
EXCHANGE = 25.0  # what lanes of a warp tell each other
ARITHMETIC = 4.0  # of each machine instruction, one after the other
BARRIER = 30.0

EXCHANGES = ("shfl", "vote", "match", "redux")
LOADS, STORES = ("ld", "atom"), ("st", "atom", "red")
NEVER = -np.inf


@dataclass(frozen=True)
class Timing:
    """What instructions take on one architecture, with loads of global memory from one place."""

    weights: Weights
    architecture: str
    fp64: float  # clocks from a double to its use
    load: float

    def issue(self, one: Instruction) -> float:
        """The machine instructions."""
        return sum(self.weights.of(one.form, self.architecture).values())

    def latency(self, one: Instruction) -> float:
        """The clocks until the result can be used."""
        op = one.form.split(".")[0]
        if op in LOADS and _space(one) != "param":
            return SHARED if _space(one) == "shared" else self.load
        if op in EXCHANGES:
            return EXCHANGE
        parts = self.weights.of(one.form, self.architecture)
        return sum(count * (self.fp64 if part == "fp64" else ARITHMETIC) for part, count in parts.items())


def timings(gpus: Sequence[GPU], weights: Weights) -> tuple[Timing, ...]:
    """Those of some GPUs, each with loads from DRAM and from L2."""
    by_architecture = {gpu.architecture: gpu for gpu in gpus}
    return tuple(
        Timing(weights, gpu.architecture, gpu.fp64_clocks, load)
        for gpu in by_architecture.values()
        for load in (FROM_DRAM, FROM_L2)
    )


def _space(one: Instruction) -> str:
    words = one.form.split(".")
    return next((word for word in words if word in ("shared", "param", "const", "local")), "global")


def _registers(text: str, declared: Mapping[str, str]) -> list[str]:
    found = re.findall(r"%[a-z]+\d*", text)
    return [register for register in found if register.rstrip("0123456789") in declared]


def sources_and_targets(one: Instruction, declared: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The registers that an instruction waits for, and those that it writes."""
    op = one.form.split(".")[0]
    writes = op not in ("st", "red", "bra", "ret", "exit", "bar", "barrier")
    targets = _registers(one.operands[0], declared) if writes and one.operands else []
    sources = [name for operand in one.operands[1 if writes else 0 :] for name in _registers(operand, declared)]
    if one.guard:  # where the predicate does not hold, what was there before stays
        sources += [one.guard, *targets]
    return sources, targets


def exposed(instructions: Sequence[Instruction], declared: Mapping[str, str]) -> list[str]:
    """The registers whose values come into a stretch from outside."""
    found: dict[str, None] = {}
    written: set[str] = set()
    for one in instructions:
        sources, targets = sources_and_targets(one, declared)
        found |= dict.fromkeys(name for name in sources if name not in written)
        written |= set(targets)
    return list(found)


class Stretch:
    """Instructions that are scheduled together, as the constants of their maxima.

    `constants` is [1 + inputs, 1 + outputs, timings]; the first input and the first output are the clock.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        declared: Mapping[str, str],
        places: Mapping[str, int],
        timings: Sequence[Timing],
    ) -> None:
        """Works the constants out.

        Args:
            instructions: in the order of the program.
            declared: prefixes of registers.
            places: register -> its place in a board, for those that any stretch takes from outside.
            timings: what instructions take.
        """
        names = exposed(instructions, declared)
        shape = (1 + len(names), len(timings))
        now = np.full(shape, NEVER)
        now[0] = 0
        ready: dict[str, Array] = {}  # register, or space of memory that was written -> [inputs, timings]
        for column, name in enumerate(names):
            ready[name] = np.full(shape, NEVER)
            ready[name][1 + column] = 0
        begins, issues = [now], [np.zeros(len(timings))]
        written: dict[str, None] = {}
        for one in instructions:
            sources, targets = sources_and_targets(one, declared)
            op, space = one.form.split(".")[0], _space(one)
            if op in LOADS and ".nc" not in one.form and space in ready:
                sources = [*sources, space]
            begin = functools.reduce(np.maximum, [ready[name] for name in sources], now)
            issue = np.array([timing.issue(one) for timing in timings])
            latency = np.array([timing.latency(one) for timing in timings])
            if issue.any():
                begins.append(begin)
                issues.append(issue)
            if op in STORES:
                ready[space] = np.maximum(ready.get(space, now), begin)
            ready |= dict.fromkeys(targets, begin + latency)
            written |= dict.fromkeys(targets)
        self.inputs = np.array([places[name] for name in names], np.int64)
        kept = [name for name in written if name in places]
        self.outputs = np.array([places[name] for name in kept], np.int64)
        self.constants = np.stack([_end(np.stack(begins), np.stack(issues)), *(ready[name] for name in kept)], axis=1)


def _end(begins: Array, issues: Array) -> Array:
    """When all is issued, given [instructions, inputs, timings] and [instructions, timings].

    Of what begins at some clock or later, one is issued a clock from there on.
    """
    order = np.argsort(-begins, axis=0, kind="stable")
    behind = np.cumsum(np.take_along_axis(np.broadcast_to(issues[:, None], begins.shape), order, axis=0), axis=0)
    return (np.take_along_axis(begins, order, axis=0) + behind).max(axis=0)


class Stretches:
    """Those of a kernel, by where they begin; each is worked out when a warp first comes to it."""

    def __init__(
        self, parts: Mapping[int, Sequence[Instruction]], declared: Mapping[str, str], timings: Sequence[Timing]
    ) -> None:
        self._parts, self._declared, self.timings = parts, declared, timings
        names = dict.fromkeys(name for part in parts.values() for name in exposed(part, declared))
        self.places = {name: place for place, name in enumerate(names)}
        self._found: dict[int, Stretch] = {}

    def at(self, begin: int) -> Stretch | None:
        """The stretch that begins there, if one does."""
        if begin not in self._found and begin in self._parts:
            self._found[begin] = Stretch(self._parts[begin], self._declared, self.places, self.timings)
        return self._found.get(begin)


class Board:
    """The clocks of the warps of some blocks that are run."""

    def __init__(self, stretches: Stretches, blocks: int, warps: int) -> None:
        self._stretches, self._blocks = stretches, blocks
        self.clocks = np.zeros((len(stretches.timings), blocks * warps))
        self._ready = np.zeros((len(stretches.places), *self.clocks.shape))

    def execute(self, begin: int, warps: Array) -> None:
        """Warps, a mask, run what begins there."""
        stretch = self._stretches.at(begin)
        if stretch is None:
            return
        who: Any = slice(None) if warps.all() else np.nonzero(warps)[0]
        clock = self.clocks[:, who]
        inputs = self._ready[stretch.inputs][:, :, who]
        after = clock + stretch.constants[0][:, :, None]
        for place in np.nonzero((inputs > clock).any(axis=(1, 2)))[0]:  # what is ready by now adds nothing
            np.maximum(after, inputs[place] + stretch.constants[1 + place][:, :, None], out=after)
        self.clocks[:, who] = after[0]
        if isinstance(who, slice):
            self._ready[stretch.outputs] = after[1:]
        else:
            self._ready[stretch.outputs[:, None], :, who] = after[1:].transpose(0, 2, 1)

    def meet(self, warps: Array) -> None:
        """Warps, a mask, come together at a barrier of their block."""
        here = np.where(warps, self.clocks, NEVER).reshape(len(self.clocks), self._blocks, -1)
        latest = np.broadcast_to(here.max(axis=2, keepdims=True) + BARRIER, here.shape).reshape(self.clocks.shape)
        self.clocks = np.where(warps, latest, self.clocks)

    def result(self) -> dict[tuple[str, float], Clocks]:
        """Architecture and clocks of a load -> those of the blocks."""
        blocks = self.clocks.reshape(len(self.clocks), self._blocks, -1).max(axis=2)
        return {
            (timing.architecture, timing.load): Clocks(float(row.mean()), float(row.max()))
            for timing, row in zip(self._stretches.timings, blocks, strict=True)
        }
