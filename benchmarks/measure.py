"""Times calls that wait for the GPU, and finds how much memory a call takes at its peak."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from spp_ext.cli.timing import one_turn, rested_turn

from .baselines import Contender, contenders
from .cases import WITH_ARGMAX, WITH_BACKWARD, Case, cases


def waiting_turn(function: Callable[[], object], seconds: float) -> list[float]:
    """The seconds from each call to the end of its work on the GPU, for functions that wait for the GPU themselves."""

    def run() -> None:
        function()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return one_turn(run, seconds)


WAITING_TURNS = {"cpu": rested_turn, "cuda": waiting_turn}


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
