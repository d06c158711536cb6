"""``python -m spp_ext selftest``: random cases, compared with the pure-Python reference by equality.

Case ``i`` of seed ``s`` is drawn from ``(s, i)`` alone, so ``--seed 0 --case 137`` in a bug report is enough
to see the same tensors again.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import spp_ext
from spp_ext import reference
from spp_ext._torch import library as _library

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last", "strided", "offset", "transposed")
VALUES = ("normal", "ties", "signed zeros", "nan", "-inf", "all -inf", "inf and nan", "huge")
# Around the widths of vector registers, where remainders begin.
CHANNELS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)
# Of a whole input. The reference visits every cell of every bin in Python; this keeps a case at milliseconds.
MAX_CELLS = 16000
REPORTED = 5


@dataclass
class Case:
    """One random call. ``boxes`` is None for whole-map pooling."""

    input: Tensor  # [N, C, H, W], or [C, H, W] for a whole map
    levels: tuple[Any, ...]
    boxes: Tensor | list[Tensor] | None  # [K, 5], or one [L, 4] per image
    spatial_scale: float
    convention: str
    values: str
    layout: str
    grad_seed: int

    def pool(self, module: Any, input: Tensor, **options: Any) -> Any:
        """Calls ``module``'s op, be it `spp_ext` or `spp_ext.reference`."""
        if self.boxes is None:
            return module.spatial_pyramid_pool(input, self.levels, **options)
        return module.roi_spatial_pyramid_pool(
            input, self.boxes, self.levels, self.spatial_scale, convention=self.convention, **options
        )

    def describe(self) -> str:
        """The parameters, a few lines."""
        op = "spatial_pyramid_pool" if self.boxes is None else "roi_spatial_pyramid_pool"
        lines = [
            f"op      spp_ext.{op}",
            f"input   {list(self.input.shape)} {str(self.input.dtype)[6:]}, {self.layout}, "
            f"strides {list(self.input.stride())}, values: {self.values}",
            f"levels  {self.levels}",
        ]
        if self.boxes is not None:
            lines.append(f"scale   {self.spatial_scale!r}, convention {self.convention!r}")
            lists = self.boxes if isinstance(self.boxes, list) else [self.boxes]
            shown = "; ".join(f"{list(boxes.shape)} {str(boxes.dtype)[6:]} {boxes.tolist()}" for boxes in lists)
            lines.append(f"boxes   {shown}")
        return "\n".join(lines)


# ---- drawing a case ----------------------------------------------------------------------------------------


def _level(random: np.random.Generator) -> Any:
    kind = random.random()
    if kind < 0.55:
        return int(random.choice([1, 2, 3, 4, 5, 6, 7, 8]))
    if kind < 0.75:
        return int(random.integers(1, 7)), int(random.integers(1, 7))
    rows, columns = (int(n) for n in random.integers(1, 9, 2))
    rectangles = []
    for _ in range(int(random.integers(1, 6))):
        top, left = int(random.integers(rows)), int(random.integers(columns))
        bottom, right = int(random.integers(top, rows)) + 1, int(random.integers(left, columns)) + 1
        rectangles.append((top, left, bottom, right))
    return spp_ext.Bins(rectangles, (rows, columns))


def _levels(random: np.random.Generator) -> tuple[Any, ...]:
    if random.random() < 0.25:  # nested grids, which the library merges from one another
        return [(1, 2, 3, 6), (1, 2, 4), (4, 2, 1), (6, 3, 2, 1, 6)][int(random.integers(4))]
    return tuple(_level(random) for _ in range(int(random.integers(1, 4))))


def _shape(random: np.random.Generator) -> tuple[int, int, int, int]:
    images = 0 if random.random() < 0.03 else int(random.integers(1, 4))
    channels = 0 if random.random() < 0.03 else int(random.choice(CHANNELS))
    room = max(4, MAX_CELLS // max(images * channels, 1))  # cells a plane may have
    height = min(room, int(random.integers(1, 13 if random.random() < 0.7 else 65)))
    width = min(room // height, int(random.integers(1, 13 if random.random() < 0.7 else 65)))
    return images, channels, height, width


def _numbers(random: np.random.Generator, shape: tuple[int, ...], values: str, dtype: torch.dtype) -> Tensor:
    """A contiguous tensor of ``shape``, of float64 numbers rounded to ``dtype``."""
    data = random.standard_normal(shape)
    chance = random.random(shape)
    if values == "ties":
        data = random.integers(-2, 3, shape).astype(np.float64)
    elif values == "signed zeros":
        data = np.where(chance < 0.4, 0.0, np.where(chance < 0.8, -0.0, -1.0))
    elif values == "nan":
        data = np.where(chance < 0.15, np.nan, np.round(data))
    elif values == "-inf":
        data = np.where(chance < 0.7, -np.inf, np.round(data))
    elif values == "all -inf":
        data = np.full(shape, -np.inf)
    elif values == "inf and nan":
        data = np.where(chance < 0.1, np.nan, np.where(chance < 0.3, np.inf, np.where(chance < 0.6, -np.inf, data)))
    elif values == "huge":
        limits = torch.finfo(dtype)
        data = np.where(chance < 0.3, limits.max, np.where(chance < 0.6, limits.min, limits.tiny * data))
    return torch.from_numpy(np.ascontiguousarray(data)).to(dtype)


def _laid_out(contiguous: Tensor, layout: str) -> Tensor:
    """The same values of ``[N, C, H, W]`` with other strides, or elsewhere in their storage."""
    images, channels, height, width = contiguous.shape
    if layout == "channels_last":
        return contiguous.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        room = torch.full((images, channels + 1, 2 * height, 2 * width + 1), torch.nan, dtype=contiguous.dtype)
        view = room[:, 1:, ::2, 1::2]
    elif layout == "offset":  # contiguous, but not aligned to a vector register
        view = torch.full((contiguous.numel() + 1,), torch.nan, dtype=contiguous.dtype)[1:].view(contiguous.shape)
    elif layout == "transposed":
        view = torch.empty((width, height, channels, images), dtype=contiguous.dtype).permute(3, 2, 1, 0)
    else:
        return contiguous
    view.copy_(contiguous)
    return view


def _coordinates(random: np.random.Generator, count: int, extent: int) -> np.ndarray:
    """``[count, 2]`` ends of boxes along an axis of ``extent`` cells, in cells: ordinary to hostile."""
    pairs = np.sort(random.uniform(-0.2, 1.2, (count, 2)) * extent, axis=1)
    for pair in pairs:
        kind = int(random.integers(12))
        if kind == 0:  # ends on half cells, where the conventions differ most
            pair[:] = np.floor(pair) + 0.5
        elif kind == 1:
            pair[:] = np.round(pair)
        elif kind == 2:  # inverted
            pair[:] = pair[::-1].copy()
        elif kind == 3:  # a point
            pair[1] = pair[0]
        elif kind == 4:  # all of it outside
            pair += random.choice([-3.0, 3.0]) * extent
        elif kind == 5:  # much larger than the map
            pair[:] = -random.uniform(1, 1000) * extent, random.uniform(1, 1000) * extent
        elif kind == 6:  # beyond what an integer holds
            pair[int(random.integers(2))] = random.choice([-1.0, 1.0]) * 10.0 ** random.uniform(8, 38)
        elif kind == 7:  # beyond what the coordinates' type holds; clamped to its largest finite number
            pair[int(random.integers(2))] = random.choice([-1.0, 1.0]) * 1e300
        elif kind == 8:  # smaller than a cell
            pair[1] = pair[0] + random.uniform(0, 0.9)
    return pairs


def _boxes(
    random: np.random.Generator, shape: tuple[int, int, int, int], spatial_scale: float
) -> Tensor | list[Tensor]:
    images, _, height, width = shape
    dtype = [torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16][int(random.integers(5))]
    limit = torch.finfo(dtype).max
    count = int(random.integers(0, 7)) if images else 0
    x, y = _coordinates(random, count, width), _coordinates(random, count, height)
    corners = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1) / spatial_scale  # [K, 4]
    coordinates = torch.from_numpy(np.clip(corners, -limit, limit)).to(dtype).clamp(-limit, limit)
    batch_index = torch.from_numpy(random.integers(0, max(images, 1), count))
    if images and random.random() < 0.3:
        return [coordinates[batch_index == image] for image in range(images)]
    return torch.cat([batch_index[:, None].to(dtype), coordinates], 1)


def draw_case(seed: int, index: int) -> Case:
    """The case with this number; it depends on nothing else."""
    random = np.random.default_rng([seed, index])
    shape = _shape(random)
    dtype = DTYPES[int(random.integers(len(DTYPES)))]
    values = VALUES[int(random.integers(len(VALUES)))] if random.random() < 0.8 else "normal"
    layout = LAYOUTS[int(random.integers(len(LAYOUTS)))]
    levels = _levels(random)
    spatial_scale = [1.0, 0.5, 1 / 16, 1 / 3, float(random.uniform(0.01, 2))][int(random.integers(5))]
    convention = list(reference.CONVENTIONS)[int(random.integers(3))]
    boxes = _boxes(random, shape, spatial_scale) if random.random() < 0.6 else None
    input = _laid_out(_numbers(random, shape, values, dtype), layout)
    if boxes is None and shape[0] == 1 and random.random() < 0.3:
        input = input[0]
    return Case(input, levels, boxes, spatial_scale, convention, values, layout, int(random.integers(2**31)))


# ---- checking it -------------------------------------------------------------------------------------------


def _difference(what: str, got: Tensor, expected: Tensor) -> str | None:
    """None if the tensors are equal (NaN equals NaN), else the first difference in words."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{what}: expected {list(expected.shape)} {expected.dtype}, got {list(got.shape)} {got.dtype}"
    differs = (got != expected) & ~(got.isnan() & expected.isnan())
    places = differs.nonzero()
    if not len(places):
        return None
    place = tuple(places[0].tolist())
    return (
        f"{what}: {len(places)} of {got.numel()} elements differ, first at {list(place)}: "
        f"expected {expected[place].item()}, got {got[place].item()}"
    )


def _expected_gradient(case: Case, grad_output: Tensor, argmax: Tensor) -> Tensor:
    shape = case.input.shape if case.input.dim() == 4 else (1, *case.input.shape)
    rows = grad_output.shape if case.input.dim() == 4 else (1, *grad_output.shape)
    batch_index = None
    if case.boxes is not None:
        batch_index, _ = reference.split_boxes("selftest", case.boxes, shape[0])
    grad = reference.scatter(grad_output.reshape(rows), argmax.reshape(rows), case.levels, tuple(shape), batch_index)
    return torch.as_tensor(grad).reshape(case.input.shape)


def check(case: Case) -> str | None:
    """Runs a case through the library and the reference: values alone, values with indices, the gradient.

    Returns:
        None if everything is equal, else the first difference in words.
    """
    expected_values, expected_argmax = case.pool(reference, case.input, return_indices=True)
    # Whole numbers, so that no order of summation can matter.
    generator = torch.Generator().manual_seed(case.grad_seed)
    grad_output = torch.randint(-3, 4, expected_values.shape, generator=generator).to(case.input.dtype)
    expected_gradient = _expected_gradient(case, grad_output, expected_argmax)
    try:
        values = case.pool(spp_ext, case.input)
        values_beside, argmax = case.pool(spp_ext, case.input, return_indices=True)
        leaf = case.input.detach().requires_grad_()
        output = case.pool(spp_ext, leaf)
        (gradient,) = torch.autograd.grad(output, leaf, grad_output)
    except Exception as error:  # whatever it is, it is this case's result
        return f"raised {type(error).__name__}: {error}"
    return (
        _difference("values", values, expected_values)
        or _difference("values, asked for with indices", values_beside, expected_values)
        or _difference("values, asked for with a gradient", output.detach(), expected_values)
        or _difference("indices", argmax, expected_argmax)
        or _difference("gradient", gradient, expected_gradient)
    )


def _report(seed: int, index: int, case: Case, difference: str) -> str:
    again = f"again   python -m spp_ext selftest --seed {seed} --case {index}"
    lines = [difference, *case.describe().splitlines(), again]
    return "\n  ".join([f"MISMATCH in case {index} of seed {seed}", *lines])


def _progress(total: int | None, started: float) -> Callable[[int, int], None]:
    """A function that prints a line about every ten seconds."""
    last = started

    def show(done: int, mismatches: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= 10:
            last = now
            of = "" if total is None else f" of {total}"
            print(f"  {done}{of} cases, {mismatches} mismatches, {now - started:.0f} s", flush=True)

    return show


def run(cases: int, seconds: float | None, seed: int, only: int | None) -> int:
    """Runs the self-test; returns the exit status, 1 if anything differed or the library did not load.

    Args:
        cases: how many cases to run.
        seconds: run as many as fit into this time instead.
        seed: what the cases are drawn from.
        only: run and describe this one case instead.
    """
    error = _library.load_error()
    if error is not None:
        print(f"spp_ext selftest: the op library did not load. {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    faulthandler.enable()  # a crash of the native code names the line here
    if only is not None:
        case = draw_case(seed, only)
        difference = check(case)
        print(
            f"case {only} of seed {seed}: equal\n{case.describe()}"
            if difference is None
            else _report(seed, only, case, difference)
        )
        return int(difference is not None)

    total = None if seconds is not None else cases
    started = time.perf_counter()
    show = _progress(total, started)
    amount = f"{cases} cases" if seconds is None else f"cases for {seconds:g} s"
    print(f"comparing spp_ext with its pure-Python reference: {amount}, seed {seed}", flush=True)
    done = mismatches = 0
    while done < cases if seconds is None else time.perf_counter() - started < seconds:
        case = draw_case(seed, done)
        difference = check(case)
        if difference is not None:
            mismatches += 1
            if mismatches <= REPORTED:
                print(_report(seed, done, case, difference), flush=True)
        done += 1
        show(done, mismatches)
    print(f"{done} cases, {mismatches} mismatches ({time.perf_counter() - started:.0f} s)")
    return int(mismatches > 0)
