"""Predicts every case of the benchmarks: plans each full-size call, runs a sample of its blocks, checks and counts."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import multiprocessing
import os
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import report as benchmarks_report
from benchmarks.cases import FORWARD, Case, cases
from benchmarks.commit import commit
from spp_ext._progress import progress
from spp_ext.cli.tables import as_text

from . import naive, registers, report
from .calls import Call, Data, calls, make
from .counts import Counts
from .execute import Modules, execute
from .gpus import GPU, GPUS
from .predict import SECTOR, Footprint, Prediction, of_call, predict
from .record import Launch, build, launches
from .scoreboard import timings
from .weights import Weights

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "gpu-model.json"
BLOCKS = 8  # of a launch that are run, at most, and fewer where they are large
THREADS = 2048  # of the blocks that are run, roughly
NAIVE_BLOCKS = 4
ALL_BLOCKS = 64  # launches that others follow are run as a whole, by the interpreter up to so many blocks
UNWRITTEN = 0xFE  # the byte in fresh memory: no number or cell that a kernel writes has the bits 0xfefe...


def spread(grid: int, blocks: int) -> list[int]:
    """So many blocks of a grid, evenly."""
    if grid <= blocks:
        return list(range(grid))
    return sorted({round(i * (grid - 1) / (blocks - 1)) for i in range(blocks)})


@contextlib.contextmanager
def marked_memory() -> Iterator[None]:
    """Fresh memory, of tensors too, is full of `UNWRITTEN`, so that what a kernel did not write shows."""
    perturb = -6  # M_PERTURB of glibc's mallopt, which fills with the complement; 0 turns it off
    libc = ctypes.CDLL(None)
    libc.mallopt(perturb, UNWRITTEN ^ 0xFF)
    try:
        yield
    finally:
        libc.mallopt(perturb, 0)


def compare(got: Tensor, expected: Tensor, what: str) -> int:
    """How many elements were written; they must be those expected, bit for bit, save the sign of a zero.

    Raises:
        RuntimeError: one is not, or none was written.
    """
    size = got.element_size()
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    unwritten = int.from_bytes(bytes([UNWRITTEN] * size), "little", signed=True)
    written = got.view(bits) != unwritten
    same = (got.view(bits) == expected.view(bits)) | ((got == 0) & (expected == 0))
    wrong = written & ~same
    if wrong.any():
        first = tuple(wrong.nonzero()[0].tolist())
        raise RuntimeError(
            f"{what}: {int(wrong.sum())} of {int(written.sum())} numbers are wrong, the first at {first}: "
            f"{got[first].item()} for {expected[first].item()}"
        )
    if not written.any():
        raise RuntimeError(f"{what}: the blocks that were run wrote nothing")
    return int(written.sum())


def footprints(call: Call, counted: Sequence[Counts]) -> list[Footprint]:
    """Of the launches of a call: they read its inputs and what those before wrote, and the last writes its result."""
    found, before = [], 0.0
    for counts in counted:
        found.append(Footprint(call.read_bytes + before, call.written if counts is counted[-1] else math.inf))
        before += (counts.global_stores.distinct + counts.atomics.distinct) * SECTOR * counts.grid / counts.blocks
    return found


class Model:
    """Predicts calls on the GPUs that are asked for; keeps the counts of a plan for the next GPU that has it."""

    def __init__(self, gpus: Sequence[str], blocks: int) -> None:
        self.gpus = [GPUS[key] for key in gpus]
        self.blocks = blocks
        self.library = Path(os.environ["SPP_EXT_SIMT_LIBRARY"])
        self.weights = Weights()
        # One run counts for all GPUs of one PTX, and keeps the clocks of each.
        self.timings = {
            gpu.ptx: timings([other for other in self.gpus if other.ptx == gpu.ptx], self.weights) for gpu in self.gpus
        }
        self.modules = Modules()
        self.registers = {gpu.architecture: registers.of_kernels(gpu.architecture) for gpu in self.gpus}
        self.naive_registers = {
            gpu.architecture: registers.of_source(naive.SOURCE, gpu.architecture) for gpu in self.gpus
        }

    def ours(self, case: Case, call: Call, expected: tuple[Tensor, ...]) -> dict[str, tuple[Prediction, list[Any]]]:
        """Key of a GPU -> the prediction of a call, and a summary of its launches."""
        counted: dict[Any, list[Any]] = {}
        found = {}
        for gpu in self.gpus:
            plan = self._plan(call, gpu)
            key = (gpu.ptx, *plan)
            if key not in counted:
                counted[key] = self._run(case, call, gpu, len(plan), expected)
            found[gpu.key] = self._predict(call, gpu, counted[key])
        return found

    def _plan(self, call: Call, gpu: GPU) -> list[Any]:
        """The launches of a call, which is not run."""
        plan: list[Any] = []

        def note(launch: Launch) -> bool:
            plan.append((launch.kernel, launch.grid, launch.threads, launch.shared_bytes))
            return False

        with launches(self.library, gpu, note):
            call.run(torch.ops.spp_ext_simt)
        return plan

    def _run(self, case: Case, call: Call, gpu: GPU, number: int, expected: tuple[Tensor, ...]) -> list[Any]:
        counts: list[Any] = []

        def run(launch: Launch) -> bool:
            last = len(counts) == number - 1
            few = max(2, min(self.blocks, THREADS // launch.threads))
            sample = launch.grid if launch.grid <= ALL_BLOCKS and not last else few
            blocks = spread(launch.grid, sample)
            counts.append((launch, execute(self.modules.ours(gpu.ptx), launch, blocks, self.timings[gpu.ptx])))
            return not last and sample < launch.grid

        with launches(self.library, gpu, run), marked_memory():
            got = call.run(torch.ops.spp_ext_simt)
        for one, other in zip(got, expected, strict=True):
            compare(one, other, f"{case.name}, {call.name}, as on {gpu.name}")
        return counts

    def _predict(self, call: Call, gpu: GPU, counted: list[Any]) -> tuple[Prediction, list[Any]]:
        predictions, summary = [], []
        reached = footprints(call, [counts for _, counts in counted])
        for number, ((launch, counts), footprint) in enumerate(zip(counted, reached, strict=True)):
            used, static = self.registers[gpu.architecture][launch.kernel]
            warm = number > 0 and call.read_bytes + call.written < gpu.l2_size
            one = predict(counts, used, gpu, self.weights, footprint, warm, static)
            predictions.append(one)
            summary.append(_summary(launch.name, counts, used, one))
        return of_call(predictions, gpu), summary

    def naive(self, data: Data, call: Call) -> dict[str, Prediction]:
        """Key of a GPU -> the prediction of the naive kernels for a call."""
        plan = naive.Naive(data)
        getattr(plan, call.name)()
        found = {}
        for ptx, group in itertools.groupby(self.gpus, lambda gpu: gpu.ptx):
            counted = [
                execute(self.modules.naive(ptx), launch, spread(launch.grid, NAIVE_BLOCKS), self.timings[ptx])
                for launch in plan.launches
            ]
            for gpu in group:
                predictions = []
                for launch, counts in zip(plan.launches, counted, strict=True):
                    used, static = self.naive_registers[gpu.architecture][launch.kernel]
                    reads = launch.footprint.reads + launch.footprint.writes
                    warm = launch.reads_again and reads < gpu.l2_size
                    predictions.append(predict(counts, used, gpu, self.weights, launch.footprint, warm, static))
                found[gpu.key] = of_call(predictions, gpu)
        return found


def _summary(name: str, counts: Any, used: int, prediction: Prediction) -> dict[str, Any]:
    assert prediction.occupancy is not None
    return {
        "kernel": name,
        "grid": counts.grid,
        "threads": counts.threads,
        "shared_bytes": counts.shared_bytes,
        "registers": used,
        "blocks_per_sm": prediction.occupancy.blocks,
        "limit": prediction.occupancy.limit,
        "warp_instructions": round(prediction.instructions),
        "barriers_per_block": counts.barriers / counts.blocks,
        "dram_bytes": round(prediction.dram_bytes),
        "seconds": prediction.seconds,
        "resource": prediction.resource,
        "resources": {name: round(seconds, 9) for name, seconds in prediction.resources.items()},
    }


_model: Model | None = None


def _start(gpus: Sequence[str], blocks: int) -> None:
    global _model
    torch.set_num_threads(1)
    torch.ops.load_library(os.environ["SPP_EXT_SIMT_LIBRARY"])
    _model = Model(gpus, blocks)


def _predict_group(group: Sequence[Case]) -> list[report.Row]:
    """Cases that differ in their kind alone, and so share their data and the naive kernels' forward pass."""
    assert _model is not None
    rows = []
    known: dict[Any, Any] = {}  # what is predicted already, by the op and whether it gives an argmax
    naive_known: dict[str, dict[str, Prediction]] = {}
    for case in group:
        start = time.perf_counter()
        data = make(case)
        own: dict[str, dict[str, Any]] = {gpu.key: {} for gpu in _model.gpus}
        for call in calls(data):
            key = (call.name, case.kind == FORWARD)
            if key not in known:
                known[key] = _model.ours(case, call, call.run(torch.ops.spp_ext))
            if call.name not in naive_known:
                naive_known[call.name] = _model.naive(data, call)
            found, others = known[key], naive_known[call.name]
            for gpu in _model.gpus:
                prediction, summary = found[gpu.key]
                floor = call.bytes / gpu.dram_bytes
                own[gpu.key][call.name] = {
                    "seconds": prediction.seconds,
                    "resource": prediction.resource,
                    "floor_seconds": floor,
                    "floor_fraction": floor / prediction.seconds,
                    "naive_seconds": others[gpu.key].seconds,
                    "naive_resource": others[gpu.key].resource,
                    "launches": summary,
                }
        rows.append(
            {"case": case.name, "bytes": case.bytes, "gpus": {key: _whole(parts) for key, parts in own.items()}}
        )
        rows[-1]["took_seconds"] = round(time.perf_counter() - start, 1)
    return rows


def _whole(parts: dict[str, Any]) -> dict[str, Any]:
    """A case: its calls, one after the other."""
    total = {key: sum(part[key] for part in parts.values()) for key in ("seconds", "floor_seconds", "naive_seconds")}
    longest = max(parts.values(), key=lambda part: part["seconds"])
    return {
        **total,
        "resource": longest["resource"],
        "floor_fraction": total["floor_seconds"] / total["seconds"],
        "calls": parts,
    }


def _groups(chosen: Sequence[Case]) -> list[list[Case]]:
    """The cases by all but their kind, the longest first."""
    groups: dict[Any, list[Case]] = {}
    for case in chosen:
        groups.setdefault((case.shape, case.regions, case.dtype, case.layout, case.kernel_sizes), []).append(case)
    return sorted(groups.values(), key=lambda group: -sum(case.bytes for case in group))


def main(arguments: Sequence[str] | None = None) -> int:
    """Predicts, prints the table and what failed; returns 1 if a case did."""
    parser = ArgumentParser(prog="python -m tools.gpu_model", description=__doc__)
    parser.add_argument("--gpus", default="h100", help=f"any of {','.join(GPUS)}, or all (default: %(default)s)")
    parser.add_argument("--filter", action="append", default=[], metavar="WORD", help="only cases named so; may repeat")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of a launch that are run (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/gpu-model.json and the README")
    options = parser.parse_args(arguments)
    gpus = list(GPUS) if options.gpus == "all" else options.gpus.split(",")
    if unknown := set(gpus) - set(GPUS):
        parser.error(f"unknown GPUs: {', '.join(sorted(unknown))}")
    chosen = [case for case in cases("cuda") if not options.filter or any(word in case.name for word in options.filter)]
    os.environ["SPP_EXT_SIMT_LIBRARY"] = str(build())
    for key in gpus:  # here, once, for all processes
        registers.of_kernels(GPUS[key].architecture)
        registers.of_source(naive.SOURCE, GPUS[key].architecture)
        Modules().ours(GPUS[key].ptx)
        Modules().naive(GPUS[key].ptx)
    rows, failed = {}, {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context, _start, (gpus, options.blocks)) as pool:
        waiting = {pool.submit(_predict_group, group): group for group in _groups(chosen)}
        for number, future in enumerate(as_completed(waiting)):
            progress(number, len(waiting), waiting[future][0].name)
            try:
                rows |= {row["case"]: row for row in future.result()}
            except Exception as error:  # the others are still worth having
                failed |= {case.name: f"{type(error).__name__}: {error}" for case in waiting[future]}
    progress(len(waiting), len(waiting), "")
    ordered = [rows[case.name] for case in chosen if case.name in rows]
    print(f"{as_text(report.table(ordered, gpus))}\n\n{report.ABOUT}\n")
    for name, error in failed.items():
        print(f"FAILED {name}: {error}")
    if options.write and not failed:
        report.save(ordered, RESULT, commit())
        section = report.section(ordered, gpus, benchmarks_report.as_markdown)
        benchmarks_report.write_sections(ROOT / "README.md", {"gpu-model": section})
    return 1 if failed else 0
