"""Times several functions fairly in one process: warmed up, interleaved, garbage collector held, medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds of one call: the median, and the fastest, which tells how quiet the machine was."""

    median: float
    fastest: float


def one_turn(function: Callable[[], object], seconds: float) -> list[float]:
    """The seconds that each call took, of as many calls as fill ``seconds`` and at least one."""
    samples = []
    begin = now = time.perf_counter()
    while not samples or now - begin < seconds:
        start = time.perf_counter()
        result = function()
        now = time.perf_counter()
        samples.append(now - start)
        del result  # outside the clock: giving memory back is the caller's business
    return samples


def interleaved_medians(
    functions: Mapping[str, Callable[[], object]],
    *,
    turns: int = 15,
    turn_seconds: float = 0.01,
    most_seconds: float = 60.0,
) -> dict[str, Timing]:
    """The median time of one call of each function.

    The functions take turns, so a change of clock frequency or a noisy neighbour meets them all alike. Each
    call is timed by itself, so a few that were interrupted do not move the median.

    Args:
        functions: name -> function without arguments.
        turns: how many times each function gets its turn, after one to warm up.
        turn_seconds: how long a turn of a short function lasts; a longer one is called once a turn.
        most_seconds: no further round of turns begins after so long.
    """
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        one_turn(function, turn_seconds)
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    begin = time.perf_counter()
    try:
        for turn in range(max(turns, 1)):
            if turn and time.perf_counter() - begin > most_seconds:
                break
            for name, function in functions.items():
                samples[name] += one_turn(function, turn_seconds)
    finally:
        if was_enabled:
            gc.enable()
    return {name: Timing(statistics.median(times), min(times)) for name, times in samples.items()}
