"""From what a launch executes to the time it takes: the formula, which stands here and nowhere else.

**This is a prediction**, good to about 35 %, and no measurement. The time of a launch is the longest of the times that
each resource needs alone, on the busiest multiprocessor, plus what a launch costs:

    DRAM       bytes that must come or go / (0.85 x what a copy reaches); what blocks share comes once for a wave
    L2         sectors that the first-level caches ask for / its rate; an atomic addition reads and writes
    L1         passes of shared memory and 128-byte lines of global memory / 1 a clock
    issue      machine instructions of warps / (0.65 x 4 a clock)
    alu, ...   the same, for each part of a multiprocessor alone / its own rate
    latency    the waves of blocks, each as long as the warps of a block would take with the multiprocessor to
               themselves, the last as long as the longest block; scoreboard.py says how long that is

A multiprocessor is given ceil(blocks / multiprocessors) blocks. What it does not know: caches beyond their size, queues
in front of memory, clocks that sink under load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .gpus import GPU, Occupancy, occupancy
from .scoreboard import FROM_DRAM, FROM_L2
from .weights import Weights

DRAM_SHARE = 0.85  # of what a copy reaches
ISSUE_SHARE = 0.65  # of the instructions that could be issued
SECTOR = 32
SM_SECTORS_PER_CLOCK = 2.0  # that L2 hands to one multiprocessor


@dataclass(frozen=True)
class Footprint:
    """What a launch cannot touch more of, in bytes: all that it may read, and all that it may write."""

    reads: float
    writes: float


@dataclass(frozen=True)
class Prediction:
    """Of one launch, or of all launches of a call."""

    seconds: float
    resource: str  # the one that the time follows from
    resources: Mapping[str, float] = field(default_factory=dict)  # seconds that each needs alone
    occupancy: Occupancy | None = None
    instructions: float = 0.0  # machine instructions of warps
    dram_bytes: float = 0.0


def misses(asked: float, distinct: float, capacity: float) -> float:
    """The sectors that a cache must fetch of those it is asked for, when it holds a part of what is touched."""
    if asked <= distinct or distinct == 0:
        return asked
    held = min(1.0, capacity / (distinct * SECTOR))
    return distinct + (asked - distinct) * (1 - held)


def busiest(blocks: int, sms: int) -> float:
    """How much more than its share the busiest multiprocessor has to do."""
    return math.ceil(blocks / sms) * sms / blocks


def predict(
    counts: Any,
    registers: int,
    gpu: GPU,
    weights: Weights,
    footprint: Footprint,
    warm: bool = False,
    static_bytes: int = 0,
) -> Prediction:
    """The time of one launch, without what the launch itself costs.

    Args:
        counts: `counts.Counts` of a sample of its blocks.
        registers: of a thread.
        gpu: where.
        weights: of the PTX forms.
        footprint: the memory that it works on.
        warm: whether what it reads was left in L2 by the launch before.
        static_bytes: shared memory of a block beside what the launch asks for.
    """
    blocks = counts.grid
    scale = blocks / counts.blocks
    held = occupancy(gpu, counts.threads, registers, counts.shared_bytes + static_bytes)
    parts = weights.total(counts.forms, gpu.architecture)
    instructions = sum(parts.values()) * scale
    share = busiest(blocks, gpu.sms) / gpu.sms  # of all work, that of the busiest multiprocessor
    resident = min(held.blocks, math.ceil(blocks / gpu.sms))

    loads, stores = counts.global_loads, counts.global_stores
    l1 = max(gpu.l1_size - resident * counts.shared_bytes, 16 * 1024)
    own = loads.block_distinct / counts.blocks  # distinct sectors of one block
    fetched = misses(loads.sectors / counts.blocks, own, l1 / resident) * blocks
    atomics = counts.atomics.sectors * scale
    l2_sectors = fetched + stores.sectors * scale + 2 * atomics

    unique = min(loads.distinct * scale, footprint.reads / SECTOR)
    waves = math.ceil(blocks / (gpu.sms * held.blocks))
    # Blocks of one wave go through what they share at the same pace, and the first of them brings it for all.
    asked = min(max(fetched, unique), waves * unique)
    dram_sectors = 0.0 if warm else misses(asked, unique, gpu.l2_size)
    written = min((stores.distinct + counts.atomics.distinct) * scale, footprint.writes / SECTOR)
    dram_bytes = (dram_sectors + written) * SECTOR

    lines = sum(max(traffic.sectors / 4, traffic.requests) for traffic in (loads, stores, counts.atomics))
    passes = (counts.shared_loads.wavefronts + counts.shared_stores.wavefronts) * 128 / gpu.shared_bytes_per_clock
    busy = 1 / (gpu.clock)
    resources = {
        "DRAM": dram_bytes / (DRAM_SHARE * gpu.dram_bytes),
        "L2": max(l2_sectors * SECTOR / gpu.l2_bytes, l2_sectors * share / SM_SECTORS_PER_CLOCK * busy),
        "L1": (lines * 128 / gpu.shared_bytes_per_clock + passes) * scale * share * busy,
        "issue": instructions * share / (ISSUE_SHARE * gpu.issue) * busy,
        **{part: parts.get(part, 0.0) * scale * share / rate * busy for part, rate in gpu.rates.items()},
        "latency": _latency(counts, waves, gpu, dram_sectors / fetched if fetched else 0.0) * busy,
    }
    resource = max(resources, key=resources.__getitem__)
    return Prediction(resources[resource], resource, resources, held, instructions, dram_bytes)


def _latency(counts: Any, waves: int, gpu: GPU, missing: float) -> float:
    """Clocks: the waves of blocks, the last as long as the longest.

    Loads come from DRAM or from L2, and so the time lies between those of all from here and all from there; where, by
    the share of sectors that L2 is ``missing``.
    """
    total = 0.0
    for share, load in ((missing, FROM_DRAM), (1 - missing, FROM_L2)):
        clocks = counts.clocks[gpu.architecture, load]
        total += share * ((waves - 1) * clocks.mean + clocks.longest)
    return total


def of_call(launches: Sequence[Prediction], gpu: GPU) -> Prediction:
    """The time of a call: its launches, one after the other."""
    resources: dict[str, float] = {}
    binding: dict[str, float] = {"launch": len(launches) * gpu.launch}
    for launch in launches:
        for name, seconds in launch.resources.items():
            resources[name] = resources.get(name, 0.0) + seconds
        binding[launch.resource] = binding.get(launch.resource, 0.0) + launch.seconds
    return Prediction(
        sum(binding.values()),
        max(binding, key=binding.__getitem__),
        resources | {"launch": binding["launch"]},
        None,
        sum(launch.instructions for launch in launches),
        sum(launch.dram_bytes for launch in launches),
    )
