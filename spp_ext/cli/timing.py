"""Times several functions fairly in one process: warmed up, interleaved, garbage collector held."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

LEAST_TURNS = 5  # a function gets so many turns even if they take longer than its part of the time ...
MOST_SECONDS = 60.0  # ... but it begins no other turn after so long
MOST_CALLS = 20  # in one turn on a GPU, because its queue must hold the kernels of all of them
QUEUE_SECONDS = 0.2  # the GPU is held up no longer than this
REST_SECONDS = 0.01  # between turns on the CPU
CYCLES_PER_SECOND = 2_000_000_000  # of a GPU's clock, roughly


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


def rested_turn(function: Callable[[], object], seconds: float) -> list[float]:
    """`one_turn`, once the threads of the function before are asleep: OpenMP's spin for milliseconds after a call."""
    if torch.get_num_threads() > 1:
        time.sleep(REST_SECONDS)
    return one_turn(function, seconds)


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


TURNS = {"cpu": rested_turn, "cuda": device_turn}


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


def spread(samples: Sequence[float], share: float = 1.0) -> dict[str, float]:
    """Median and the tenth and ninetieth percentile in seconds, of functions that do a share of the work."""
    tenths = statistics.quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else [samples[0]] * 9
    numbers = {"median": statistics.median(samples), "p10": tenths[0], "p90": tenths[-1]}
    return {name: round(number / share, 10) for name, number in numbers.items()} | {"calls": len(samples)}


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
