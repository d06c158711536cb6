"""``python -m spp_ext bench``: a call of the user's beside baselines of the user's, checked and then timed in turn."""

from __future__ import annotations

import datetime
import importlib
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import spp_ext
from spp_ext import reference, testing
from spp_ext._torch import library as _library

from .composition import STRIDE, Grid, compose, loop_over_slices, propose_regions
from .info import describe_cpu
from .tables import as_text
from .timing import TURNS, interleaved_samples, settle_malloc, spread

OURS = "spp_ext"
TORCH = "torch"  # the baseline that needs no name of a module
Pool = Callable[[Tensor], Tensor]


class Unable(Exception):
    """Nothing can be timed; the message says why, in one sentence."""


@dataclass(frozen=True)
class Call:
    """What is timed."""

    shape: tuple[int, int, int, int]  # N, C, H, W
    levels: tuple[Grid, ...]
    regions: int | None  # how many over all images; None: whole maps are pooled
    convention: spp_ext.Convention
    dtype: str
    layout: str  # "contiguous" or "channels_last"
    device: str  # "cpu" or "cuda"
    backward: bool  # whether a call is forward and backward
    seed: int

    def __str__(self) -> str:
        what = f"{self.regions} regions, {self.convention}" if self.regions else "whole maps"
        levels = ", ".join("x".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in self.levels)
        way = "forward + backward" if self.backward else "forward"
        shape = "x".join(map(str, self.shape))
        return f"{shape} {self.dtype}, {self.layout}, {self.device}; levels {levels}; {what}; {way}"


def about(device: str) -> dict[str, Any]:
    """What a result says of the machine and the versions."""
    return {
        "hardware": describe_cpu() if device == "cpu" else torch.cuda.get_device_name(),
        "device": device,
        "cpu": describe_cpu(),
        "instruction_set": str(torch.ops.spp_ext.cpu_instruction_set()),
        "versions": {
            "spp_ext": spp_ext.__version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


# ---- what is called ----------------------------------------------------------------------------------------


def draw_boxes(call: Call) -> Tensor:
    """Boxes like a detector's proposals, ``[K, 5]`` in pixels at `STRIDE`, image after image.

    They end a cell before the map does, so that every convention's windows lie in the map and torch's slices suffice.
    """
    images, _, height, width = call.shape
    count = call.regions or 0
    boxes = propose_regions(count, (height - 1) * STRIDE, (width - 1) * STRIDE, call.seed)
    boxes[:, 0] = torch.arange(count) * images // max(count, 1)
    return boxes


def _loop_over_images(boxes: Tensor, call: Call) -> Pool:
    """Region pooling from torch's own ops. The windows are found once, outside of what is timed."""
    windows: list[list[tuple[int, int, int, int]]] = [[] for _ in range(call.shape[0])]
    for image, *box in boxes.tolist():
        window = reference.roi_window(box, 1 / STRIDE, call.convention, *call.shape[2:], np.float32)
        windows[int(image)].append(window)

    def pool(input: Tensor) -> Tensor:
        parts = [loop_over_slices(input[n : n + 1], mine, call.levels) for n, mine in enumerate(windows) if mine]
        return torch.cat(parts)

    return pool


def _load(baseline: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, colon, name = baseline.partition(":")
    try:
        function = getattr(importlib.import_module(module), name) if module and colon and name else None
    except (ImportError, AttributeError) as error:
        raise Unable(f"the baseline {baseline!r} was not found ({error})") from error
    if not callable(function):
        raise Unable(f"expected a baseline module:function or {TORCH!r}, got {baseline!r}")
    return function


def _bind(function: Callable[..., Tensor], *rest: Any, **keywords: Any) -> Pool:
    return lambda input: function(input, *rest, **keywords)


def pools(call: Call, baselines: Sequence[str]) -> dict[str, Pool]:
    """Name -> function of the map, for spp_ext and each baseline."""
    if call.regions is None:
        found = {OURS: _bind(spp_ext.spatial_pyramid_pool, call.levels)}
        return found | {name: _bind(compose if name == TORCH else _load(name), call.levels) for name in baselines}
    boxes = draw_boxes(call)
    rest = (boxes.to(call.device), call.levels, 1 / STRIDE)
    found = {OURS: _bind(spp_ext.roi_spatial_pyramid_pool, *rest, convention=call.convention)}
    for name in baselines:
        found[name] = _loop_over_images(boxes, call) if name == TORCH else _bind(_load(name), *rest)
    return found


def draw_map(call: Call) -> Tensor:
    """Normally distributed numbers, ``[N, C, H, W]``."""
    generator = torch.Generator().manual_seed(call.seed)
    numbers = torch.randn(call.shape, generator=generator).to(call.device, getattr(torch, call.dtype))
    last = call.layout == "channels_last"
    return numbers.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


# ---- checked, then timed -----------------------------------------------------------------------------------


def steps(call: Call, baselines: Sequence[str]) -> dict[str, Callable[[], object]]:
    """What is timed, name -> function without arguments; of each the results are equal to those of spp_ext.

    Raises:
        Unable: a result, or its gradient, is another.
    """
    input = draw_map(call)
    found = pools(call, baselines)
    try:
        expected = found[OURS](input)
    except (ValueError, RuntimeError) as error:
        raise Unable(" ".join(str(error).split())) from error
    # Few random signs add up to more than 256, and up to there sums are exact in every dtype, whatever their order.
    signs = torch.randint(0, 2, expected.shape, generator=torch.Generator().manual_seed(call.seed)) * 2 - 1
    grad_output = signs.to(expected)
    leaf = input.detach().requires_grad_(call.backward)

    def step(pool: Pool) -> Tensor:
        output = pool(leaf)
        return torch.autograd.grad(output, leaf, grad_output)[0] if call.backward else output

    gradient = step(found[OURS])
    for name in baselines:
        _require_equal(f"the result of {name}", found[name](input), expected)
        if call.backward:
            _require_equal(f"the gradient of {name}", step(found[name]), gradient)
    return {name: partial(step, pool) for name, pool in found.items()}


def _require_equal(what: str, got: Any, expected: Tensor) -> None:
    if not isinstance(got, Tensor):
        raise Unable(f"expected {what} to be a tensor, got {type(got).__name__}")
    difference = testing.first_difference(got, expected)
    if difference is not None:
        raise Unable(f"{what} is not that of spp_ext: {difference}")


def measure(call: Call, baselines: Sequence[str], threads: Sequence[int], turns: int, seconds: float) -> dict[str, Any]:
    """Checks and times a call: `about`, the call, and ``rows`` of the times of each contender in seconds.

    Args:
        call: what is timed.
        baselines: ``module:function`` each, or ``"torch"``. A function of (input, levels), or with regions of (input,
            boxes ``[K, 5]``, levels, spatial_scale), that returns ``[N, C * B]`` or ``[K, C * B]``.
        threads: of torch, one after another; on a GPU the first alone counts.
        turns, seconds: as in `interleaved_samples`, for each number of threads.

    Raises:
        Unable: a baseline is not found, or its results are others.
    """
    if call.device == "cuda" and not torch.cuda.is_available():
        raise Unable("torch finds no GPU")
    functions = steps(call, baselines)
    result = about(call.device) | {"call": asdict(call), "turns": turns, "seconds": seconds}
    rows: list[dict[str, Any]] = []
    result["rows"] = rows
    before = torch.get_num_threads()
    settle_malloc()
    try:
        for count in threads if call.device == "cpu" else threads[:1]:
            torch.set_num_threads(count)
            samples = interleaved_samples(functions, turns=turns, seconds=seconds, turn=TURNS[call.device])
            for name, times in samples.items():
                rows.append({"threads": count if call.device == "cpu" else None, "contender": name} | spread(times))
    finally:
        torch.set_num_threads(before)
    return result


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in milliseconds, and beside each what it is in times of spp_ext's."""
    lines = [("contender", "threads", "median", "p10", "p90", "calls", "/ spp_ext")]
    for row in rows:
        ours = next(it["median"] for it in rows if it["contender"] == OURS and it["threads"] == row["threads"])
        times = (f"{row[name] * 1e3:.3f}" for name in ("median", "p10", "p90"))
        ratio = f"{row['median'] / ours:.2f}" if ours else "-"
        lines.append((row["contender"], str(row["threads"] or "-"), *times, str(row["calls"]), ratio))
    return as_text(lines)


def run(
    call: Call, baselines: Sequence[str], threads: Sequence[int] | None, turns: int, seconds: float, output: str | None
) -> int:
    """Prints the table, and writes JSON if asked to; returns the exit status, 1 if nothing could be timed.

    Args:
        call, baselines, threads, turns, seconds: as in `measure`; default: the threads that torch uses.
        output: the path of the JSON.
    """
    error = _library.load_error()
    if error is not None:
        print(f"spp_ext bench: the op library did not load. {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    try:
        result = measure(call, baselines, threads or [torch.get_num_threads()], turns, seconds)
        print(f"{result['hardware']}; torch {torch.__version__}; spp_ext {spp_ext.__version__}")
        print(f"{call}\nresults equal; milliseconds, calls in turn\n\n{table(result['rows'])}")
        if any(row["p90"] > 3 * row["p10"] for row in result["rows"]):
            print("\nTimes varied threefold: other programs are busy here.")
        if output is not None:
            with open(output, "w", encoding="utf-8") as file:
                json.dump(result, file, indent=1)
    except (Unable, OSError) as refusal:
        print(f"spp_ext bench: {refusal}", file=sys.stderr)
        return 1
    return 0
