"""Records the launches of ops on CPU tensors, planned as for a GPU, by way of the emulation of tests/simt."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools import cuda_report

from .gpus import GPU

SMALL = (2, 64 * 1024)  # the emulation's own device


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    kernel: str  # its symbol
    grid: int
    threads: int
    shared_bytes: int
    params: bytes  # as CUDA lays them out

    @property
    def name(self) -> str:
        """The kernel's readable name."""
        return cuda_report.readable([self.kernel])[self.kernel]


RECORDER = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
)


def build() -> Path:
    """Builds the emulation, if it is not up to date, and returns the library's path."""
    helpers = str(cuda_report.ROOT / "tests" / "helpers")
    if helpers not in sys.path:
        sys.path.append(helpers)
    return Path(importlib.import_module("backend").build_simt())


@contextmanager
def launches(library: Path, gpu: GPU, seen: Callable[[Launch], bool]) -> Iterator[None]:
    """Inside, ops of ``torch.ops.spp_ext_simt`` plan for ``gpu`` and hand over each launch, while all memory is alive.

    Args:
        library: the emulation, which is loaded.
        gpu: what launchers plan for.
        seen: may run the launch on its memory; returns whether the emulation is to run it too. What it raises comes
            out of the ``with``; the launches that follow are not run.
    """
    simt = ctypes.CDLL(str(library))
    failed: list[BaseException] = []

    def on_launch(name: bytes, grid: int, threads: int, shared: int, params: int, size: int) -> int:
        if failed:
            return 0
        try:
            return seen(Launch(name.decode(), grid, threads, shared, ctypes.string_at(params, size)))
        except BaseException as error:  # it must not pass through C++
            failed.append(error)
            return 0

    recorder = RECORDER(on_launch)
    simt.simt_record(recorder, gpu.sms, gpu.shared_per_block)
    try:
        yield
    finally:
        simt.simt_record(None, *SMALL)
    if failed:
        raise failed[0]
