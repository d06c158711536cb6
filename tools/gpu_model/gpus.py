"""The GPUs that times are predicted for: what NVIDIA's tables and well-known measurements say of each.

The tables are those of the CUDA C++ programming guide, "Compute capabilities" (limits, arithmetic throughput), of the
CUDA occupancy calculator (units in which registers and shared memory are given out), and of each card's data sheet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GPU:
    """One card."""

    name: str
    architecture: str  # "90" for sm_90
    ptx: str  # the architecture that its PTX is made for
    sms: int
    clock: float  # Hz, sustained
    dram_bytes: float  # a second, as a copy reaches it
    l2_bytes: float  # a second, as measured by others
    l2_size: int
    l1_size: int  # of a multiprocessor, shared memory included
    shared_bytes_per_clock: int  # of a multiprocessor
    max_warps: int  # of a multiprocessor, as all that follows
    max_blocks: int
    shared_per_sm: int
    shared_per_block: int  # at most, on request
    shared_unit: int  # shared memory is given out in multiples of it
    shared_reserved: int  # of every block, by the system
    # Warp instructions a clock, by the parts of weights.py. "memory" is what the load and store unit takes.
    rates: Mapping[str, float]
    registers: int = 65536
    register_unit: int = 256  # to a warp
    warp_unit: int = 4  # warps share registers in groups of so many, one in each quarter
    issue: float = 4.0  # warp instructions a clock
    fp64_clocks: float = 8.0  # roughly, from a double to its use
    launch: float = 2.5e-6  # seconds from launch to launch

    @property
    def key(self) -> str:
        """A word for the command line."""
        return self.name.split()[-1 if self.name.startswith("RTX") else 0].lower()


KIB, MIB = 1024, 1024 * 1024

# Clocks and rates of memory are what kernels sustain. The data sheets say 3.35, 2.04, 1.008 and 0.32 TB/s of DRAM, and
# at most 1.98 GHz for the H100 and 1.59 for the T4, which its 70 W do not sustain.
TABLE: dict[str, tuple[Any, Any, Any, Any]] = {
    "name": ("H100 SXM", "A100 SXM 80 GB", "RTX 4090", "T4"),
    "architecture": ("90", "80", "89", "75"),
    "ptx": ("90", "90", "90", "75"),
    "sms": (132, 108, 128, 40),
    "clock": (1.755e9, 1.41e9, 2.52e9, 1.35e9),
    "dram_bytes": (3.0e12, 1.75e12, 0.92e12, 0.26e12),
    "l2_bytes": (5.5e12, 4.4e12, 5.0e12, 1.2e12),
    "l2_size": (50 * MIB, 40 * MIB, 72 * MIB, 4 * MIB),
    "l1_size": (256 * KIB, 192 * KIB, 128 * KIB, 96 * KIB),
    "shared_bytes_per_clock": (128, 128, 128, 64),
    "max_warps": (64, 64, 48, 32),
    "max_blocks": (32, 32, 24, 16),
    "shared_per_sm": (228 * KIB, 164 * KIB, 100 * KIB, 64 * KIB),
    "shared_per_block": (227 * KIB, 163 * KIB, 99 * KIB, 64 * KIB),
    "shared_unit": (128, 128, 128, 256),
    "shared_reserved": (KIB, KIB, KIB, 0),
    "rates": tuple(
        {"alu": 2, "fma": fma, "fp64": fp64, "xu": 0.5, "memory": 1}
        for fma, fp64 in ((4, 2), (2, 1), (4, 1 / 16), (2, 1 / 16))
    ),
    "fp64_clocks": (8.0, 8.0, 40.0, 40.0),
}
GPUS = {
    gpu.key: gpu
    for gpu in (GPU(**dict(zip(TABLE, column, strict=True))) for column in zip(*TABLE.values(), strict=True))
}


@dataclass(frozen=True)
class Occupancy:
    """How many blocks a multiprocessor holds at once, and what keeps it from holding more."""

    blocks: int
    warps: int
    limit: str  # "warps", "blocks", "registers" or "shared memory"


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def occupancy(gpu: GPU, threads: int, registers: int, shared_bytes: int) -> Occupancy:
    """The occupancy of a kernel.

    Args:
        gpu: which.
        threads: of a block.
        registers: of a thread.
        shared_bytes: of a block, dynamic and static.

    Raises:
        ValueError: not one block fits.
    """
    warps = -(-threads // 32)
    shared = _round_up(shared_bytes + gpu.shared_reserved, gpu.shared_unit)
    of_registers = gpu.registers // _round_up(registers * 32, gpu.register_unit)
    limits = {
        "warps": gpu.max_warps // warps,
        "blocks": gpu.max_blocks,
        "registers": of_registers // gpu.warp_unit * gpu.warp_unit // warps,
        "shared memory": gpu.shared_per_sm // shared if shared else gpu.max_blocks,
    }
    limit = min(limits, key=limits.__getitem__)
    if limits[limit] == 0:
        raise ValueError(f"no block of {threads} threads fits on {gpu.name}: {limit}")
    return Occupancy(limits[limit], limits[limit] * warps, limit)
