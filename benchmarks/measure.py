"""Times contenders side by side, and finds how much memory a call takes at its peak."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from spp_ext.cli.timing import one_turn

from .baselines import Contender, contenders
from .cases import WITH_ARGMAX, WITH_BACKWARD, Case, cases

MOST_CALLS = 20  # in one turn on a GPU, because its queue must hold the kernels of all of them
QUEUE_SECONDS = 0.2  # the GPU is held up no longer than this
REST_SECONDS = 0.01  # between turns on the CPU
CYCLES_PER_SECOND = 2_000_000_000  # of a GPU's clock, roughly


def device_turn(function: Callable[[], object], seconds: float) -> list[float]:
    """The seconds that each of a few calls kept the GPU busy.

    The GPU is held up while the calls are queued, so that it then runs them back to back and the events around each see
    the GPU's time, not the Python in between.
    """
    start = time.perf_counter()
    function()
    queued = time.perf_counter() - start
    torch.cuda.synchronize()
    calls = max(1, min(MOST_CALLS, int(seconds / (time.perf_counter() - start))))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    torch.cuda._sleep(int(min(2 * calls * queued, QUEUE_SECONDS) * CYCLES_PER_SECOND))
    for before, after in events:
        before.record()
        function()
        after.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1e3 for before, after in events]


def waiting_turn(function: Callable[[], object], seconds: float) -> list[float]:
    """The seconds from each call to the end of its work on the GPU, for functions that wait for the GPU themselves."""

    def run() -> None:
        function()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return one_turn(run, seconds)


def settle_malloc() -> None:
    """Makes glibc keep freed blocks of up to 32 MiB (it allows no more) for the next call.

    It does so by itself in a process that has run for long, depending on what was allocated before. The page faults of
    a call's result, which matter in a call of 0.1 ms, would then depend on the cases before it. Without glibc nothing
    changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def rested_turn(function: Callable[[], object], seconds: float) -> list[float]:
    """`one_turn`, once the threads of the function before are asleep: OpenMP's spin for milliseconds after a call."""
    if torch.get_num_threads() > 1:
        time.sleep(REST_SECONDS)
    return one_turn(function, seconds)


TURNS = {"cpu": rested_turn, "cuda": device_turn}
WAITING_TURNS = {"cpu": rested_turn, "cuda": waiting_turn}


def spread(samples: Sequence[float], share: float = 1.0) -> dict[str, float]:
    """Median and the tenth and ninetieth percentile in seconds, of functions that do a share of the work."""
    tenths = statistics.quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else [samples[0]] * 9
    numbers = {"median": statistics.median(samples), "p10": tenths[0], "p90": tenths[-1]}
    return {name: round(number / share, 10) for name, number in numbers.items()} | {"calls": len(samples)}


# ---- memory ------------------------------------------------------------------------------------------------


class _Malloc:
    """What glibc's malloc has mapped: with `cpu_memory`'s environment every block above 4 KiB, exact to the page."""

    class _Info(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t)
            for name in "arena ordblks smblks hblks mapped usmblks fsmblks uordblks fordblks keepcost".split()
        ]

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.mallinfo2.restype = self._Info
        self._libc.malloc.argtypes, self._libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        self._libc.free.argtypes = [ctypes.c_void_p]
        self._report, self._stderr = os.memfd_create("malloc_stats"), os.dup(2)

    def mapped(self) -> int:
        """Bytes at present."""
        return self._libc.mallinfo2().mapped

    def most_mapped(self) -> int:
        """Bytes at the peak of the process' life, which malloc_stats prints to stderr as its last number."""
        os.dup2(self._report, 2)
        self._libc.malloc_stats()
        os.dup2(self._stderr, 2)
        os.lseek(self._report, -64, os.SEEK_END)
        return int(os.read(self._report, 64).split()[-1])

    def extra(self, run: Callable[[], object]) -> int:
        """Bytes that a call maps at its peak beyond what it leaves behind."""
        # malloc would serve the call from holes between small blocks, and `mapped` would not show it. So the holes are
        # filled first: a block that fits into none of them is mapped.
        held = []
        for size in (4096 << doubled for doubled in range(9, -1, -1)):
            while True:
                before = self.mapped()
                held.append(self._libc.malloc(size))
                if self.mapped() > before:
                    break
        # Only the highest peak so far is known. One more block, whose memory is never touched, raises what is mapped to
        # that peak, so that whatever the call maps makes a new one.
        held.append(self._libc.malloc(self.most_mapped() - self.mapped() + 4096))
        kept = run()
        extra = self.most_mapped() - self.mapped()
        del kept
        for block in held:
            self._libc.free(block)
        return extra


def _extra(run: Callable[[], object], device: str) -> int:
    """Bytes that a call holds at its peak beyond what it leaves behind, which are its results and what they keep."""
    run()  # the first call also allocates what later calls use again
    if device == "cpu":
        return _Malloc().extra(run)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    kept = run()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    del kept
    return extra


def _saved(run: Callable[[], object]) -> int:
    """Bytes of the tensors that a call saves for its backward pass."""
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(saved.values())


def memory(case: Case, device: str, found: Mapping[str, Contender]) -> dict[str, dict[str, int]]:
    """Contender -> bytes ``extra`` at the peak of a forward call and, with an argmax, bytes ``saved`` for backward."""
    whole = {name: it.run for name, it in found.items() if it.role in ("ours", "peer") and it.share == 1}
    saved = {name: {"saved": _saved(run)} for name, run in whole.items()} if case.kind == WITH_ARGMAX else {}
    return {name: {"extra": _extra(run, device)} | saved.get(name, {}) for name, run in whole.items()}


def cpu_memory_here(threads: int, quick: bool, words: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Case -> `memory`, measured in this process, which `cpu_memory` prepared."""
    torch.set_num_threads(threads)
    torch.ones(1 << 20).add_(1)  # starts the threads
    chosen = [case for case in cases("cpu", quick) if not words or any(word in case.name for word in words)]
    # Backward passes are left out, because their peak includes everything that the forward pass leaves behind.
    measured = [case for case in chosen if case.kind != WITH_BACKWARD]
    return {case.name: memory(case, "cpu", contenders(case, against_engines=False)[0]) for case in measured}


def cpu_memory(threads: int, quick: bool, words: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Case -> `memory`, in a process of its own whose malloc maps each block and unmaps it when it is freed."""
    arguments = ["--threads", str(threads), *(["--quick"] if quick else []), *(f"--filter={word}" for word in words)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "memory"],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_TOP_PAD_": "0", "MALLOC_ARENA_MAX": "1"},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        print("the memory could not be measured; the message is above", file=sys.stderr)
        return {}
    return json.loads(done.stdout)
