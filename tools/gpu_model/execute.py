"""Runs a sample of the blocks of a launch on the PTX that the build makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import naive, ptx
from .counts import Counts
from .interpreter import Program, run
from .scoreboard import Timing


class Modules:
    """The kernels, parsed once for each architecture and translated when they are first run."""

    def __init__(self) -> None:
        self._programs: dict[Any, dict[str, Program]] = {}

    def ours(self, architecture: str) -> dict[str, Program]:
        """Of csrc/cuda."""
        return self._of(("ours", architecture), lambda: ptx.modules(architecture))

    def naive(self, architecture: str) -> dict[str, Program]:
        """Of naive.cu."""
        return self._of(("naive", architecture), lambda: [ptx.of_source(naive.SOURCE, architecture)])

    def _of(self, key: Any, texts: Any) -> dict[str, Program]:
        if key not in self._programs:
            kernels = [kernel for text in texts() for kernel in ptx.parse(text).values()]
            self._programs[key] = {kernel.name: Program(kernel) for kernel in kernels}
        return self._programs[key]


def execute(
    programs: dict[str, Program], launch: Any, blocks: Sequence[int], timings: tuple[Timing, ...] = ()
) -> Counts:
    """The counts of some blocks of a launch, which write the launch's memory, and their clocks for some timings."""
    return run(programs[launch.kernel], launch, blocks, timings)
