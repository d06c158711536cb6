"""Times several functions fairly in one process: warmed up, interleaved, garbage collector held."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

LEAST_TURNS = 5  # a function gets so many turns even if they take longer than its part of the time ...
MOST_SECONDS = 60.0  # ... but it begins no other turn after so long


def one_turn(function: Callable[[], object], seconds: float) -> list[float]:
    """The seconds that each call took, of as many calls as fill ``seconds`` and at least one."""
    samples: list[float] = []
    begin = now = time.perf_counter()
    while not samples or now - begin < seconds:
        start = time.perf_counter()
        result = function()
        now = time.perf_counter()
        samples.append(now - start)
        del result  # freed outside the timed part, because a caller keeps the result
    return samples


def interleaved_samples(
    functions: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    seconds: float,
    turn: Callable[[Callable[[], object], float], list[float]] = one_turn,
) -> dict[str, list[float]]:
    """Seconds of single calls, many of each function.

    The functions take turns, so a change of clock frequency or a noisy neighbour meets them all alike. Each call is
    timed by itself, so a few that were interrupted do not move the median.

    Args:
        functions: name -> function without arguments.
        turns: how many each function gets, after one to warm up. One that has used its part of ``seconds`` sits out.
        seconds: for all of them together, roughly.
        turn: times the calls of one function for so many seconds.
    """
    part = seconds / len(functions)
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        turn(function, part / turns)
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for index in range(turns):
            for name, function in functions.items():
                used = sum(samples[name])
                if used < part or (index < LEAST_TURNS and used < MOST_SECONDS):
                    samples[name] += turn(function, part / turns)
    finally:
        if was_enabled:
            gc.enable()
    return samples
