"""What kernels may execute: machine instructions of warps, and memory traffic, of a few calls of medium size.

    python -m tools.gpu_model ceilings --write      # counts again and writes tests/ptx/ceilings.json

Counts follow from the source and the version of nvcc, not from the machine; so a test holds every change of a kernel to
them, where nvcc is the one that they were made with. They are of a sample of the blocks of each launch, planned as for
an H100, in units that the size of the call cancels out of:

    instructions    machine instructions of warps for 1000 elements of the larger of input and output
    traffic         bytes of the 32-byte sectors that warps ask for, per byte that must move
    conflicts       passes of shared memory per pass that the same bytes need; 1 where it is not used
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import WITH_ARGMAX, WITH_BACKWARD, Case

from .calls import calls, make
from .execute import Modules, execute
from .gpus import GPUS
from .record import Launch, build, launches
from .table import spread
from .weights import Weights

PATH = Path(__file__).parents[2] / "tests" / "ptx" / "ceilings.json"
GPU = GPUS["h100"]
LANES = 2048  # threads of a launch that are run, at least two blocks
ABOVE, BELOW = 1.05, 0.85  # of a ceiling: more is an error, and less asks for a lower ceiling

MAP = (4, 256, 32, 32)
REGIONS = (1, 128, 38, 50)
PLANES = (2, 128, 40, 40)
KERNELS = (5, 9, 13)

# Name -> the case whose last call is counted.
CASES = {
    "map": Case("", MAP),
    "map, bfloat16": Case("", MAP, dtype="bfloat16"),
    "map, channels_last": Case("", MAP, layout="channels_last"),
    "map, bfloat16, channels_last": Case("", MAP, dtype="bfloat16", layout="channels_last"),
    "scatter of a map": Case("", MAP, kind=WITH_BACKWARD),
    "regions": Case("", REGIONS, regions=300),
    "regions, bfloat16": Case("", REGIONS, regions=300, dtype="bfloat16"),
    "regions, argmax": Case("", REGIONS, regions=300, kind=WITH_ARGMAX),
    "scatter of regions": Case("", REGIONS, regions=300, kind=WITH_BACKWARD),
    "stride 1": Case("", PLANES, kernel_sizes=KERNELS),
    "stride 1, argmax": Case("", PLANES, kernel_sizes=KERNELS, kind=WITH_ARGMAX),
}


def count(case: Case, library: Path, modules: Modules, weights: Weights) -> dict[str, float]:
    """The three numbers of a case's last call; the emulation, which is loaded, does what the sample does not."""
    call = calls(make(case))[-1]
    instructions = sectors = passes = ideal = 0.0

    def sample(launch: Launch) -> bool:
        nonlocal instructions, sectors, passes, ideal
        blocks = spread(launch.grid, max(2, LANES // launch.threads))
        counts = execute(modules.ours(GPU.ptx), launch, blocks)
        scale = counts.grid / counts.blocks
        instructions += scale * sum(weights.total(counts.forms, GPU.architecture).values())
        sectors += scale * sum(t.sectors for t in (counts.global_loads, counts.global_stores, counts.atomics))
        passes += scale * sum(t.wavefronts for t in (counts.shared_loads, counts.shared_stores))
        ideal += scale * sum(t.ideal for t in (counts.shared_loads, counts.shared_stores))
        return len(blocks) < launch.grid

    with launches(library, GPU, sample):
        call.run(torch.ops.spp_ext_simt)
    elements = max(math.prod(case.shape), math.prod(case.output_shape))
    found = {
        "instructions": 1000 * instructions / elements,
        "traffic": 32 * sectors / call.bytes,
        "conflicts": passes / ideal if ideal else 1.0,
    }
    return {name: float(f"{number:.4g}") for name, number in found.items()}


def complaints(name: str, found: dict[str, float], ceilings: dict[str, float]) -> list[str]:
    """A sentence for each number that is above its ceiling, or so far below that the ceiling holds nothing."""
    again = "python -m tools.gpu_model ceilings --write"
    sentences = []
    for what, number in found.items():
        ratio = number / ceilings[what]
        told = f"{name}: {what} {number:g}, and the ceiling is {ceilings[what]:g}"
        if ratio > ABOVE:
            sentences.append(f"{told}: {ratio - 1:.0%} above; if that must be, `{again}` raises it")
        elif ratio < BELOW:
            sentences.append(f"{told}: {1 - ratio:.0%} below; `{again}` lowers it")
    return sentences


def compiler() -> str:
    """The version of nvcc, as 13.0."""
    told = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", told)
    if found is None:
        raise RuntimeError(f"nvcc does not tell its version: {told}")
    return found[1]


def read() -> dict[str, Any]:
    """The version of nvcc, and the ceilings by case."""
    return json.loads(PATH.read_text()) if PATH.exists() else {"nvcc": compiler(), "ceilings": {}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts, and prints what each ceiling is and was; writes them, or returns 1 if a count is past its own."""
    parser = ArgumentParser(prog="python -m tools.gpu_model ceilings", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make today's counts the ceilings")
    options = parser.parse_args(arguments)
    library = build()
    torch.ops.load_library(library)
    modules, weights = Modules(), Weights()
    before, result, failed = read()["ceilings"], {}, False
    for name, case in CASES.items():
        result[name] = count(case, library, modules, weights)
        ceilings = before.get(name, {})
        told = [f"{what} {number:g} (was {ceilings.get(what)})" for what, number in result[name].items()]
        print(f"{name}: {', '.join(told)}")
        failed |= ceilings.keys() != result[name].keys() or bool(complaints(name, result[name], ceilings))
    if options.write:
        PATH.write_text(json.dumps({"nvcc": compiler(), "ceilings": result}, indent=1) + "\n")
        return 0
    return int(failed)
