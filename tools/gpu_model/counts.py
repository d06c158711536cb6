"""What a launch executed: warp instructions by form, memory traffic, barriers, divergence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """Of one kind of access to memory."""

    requests: int = 0  # warp instructions
    bytes: int = 0  # that the active lanes asked for
    sectors: int = 0  # global: 32-byte sectors, each warp instruction's distinct ones
    distinct: int = 0  # global: distinct sectors over all blocks that were run
    block_distinct: int = 0  # global: the same for each block, summed
    wavefronts: int = 0  # shared: passes of the 32 banks of 4 bytes
    ideal: int = 0  # shared: passes without conflicts


@dataclass
class Clocks:
    """Of blocks, each as long as the longest of its warps, alone."""

    mean: float
    longest: float


@dataclass
class Counts:
    """Of one launch, over the blocks that were run."""

    kernel: str
    grid: int  # blocks of the launch
    blocks: int  # of which so many were run
    threads: int  # of a block
    shared_bytes: int  # dynamic, of a block
    forms: Counter[str] = field(default_factory=Counter)  # typed PTX form -> warp instructions
    global_loads: Traffic = field(default_factory=Traffic)
    global_stores: Traffic = field(default_factory=Traffic)
    atomics: Traffic = field(default_factory=Traffic)
    shared_loads: Traffic = field(default_factory=Traffic)
    shared_stores: Traffic = field(default_factory=Traffic)
    barriers: int = 0  # of blocks, summed
    divergent: int = 0  # branches that split a warp
    longest: int = 0  # the most warp instructions of any one warp
    # Architecture and clocks of a load of global memory -> clocks; of the timings that were asked for.
    clocks: dict[tuple[str, float], Clocks] = field(default_factory=dict)
