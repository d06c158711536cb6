"""``python -m spp_ext selftest``: random cases of every op, compared with the pure-Python reference by equality.

Case ``i`` of seed ``s`` is drawn from ``(s, i)`` alone, so ``--seed 0 --case 137`` in a bug report is enough
to see the same tensors again.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import spp_ext
from spp_ext import reference, testing
from spp_ext._torch import library as _library

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last", "strided", "offset", "transposed")
VALUES = ("normal", "ties", "signed zeros", "nan", "-inf", "all -inf", "inf and nan", "huge")
# Around the widths of vector registers, where remainders begin.
CHANNELS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)
# Of the maps of a case. The reference visits every cell of every bin in Python; this keeps a case at milliseconds.
MAX_CELLS = 16000
REPORTED = 5


# ---- a case ------------------------------------------------------------------------------------------------


class Case(ABC):
    """One random call of a public op. Each op is a subclass, which draws what the op takes beside its map."""

    module: ClassVar[ModuleType] = spp_ext  # where the op is public
    op: ClassVar[str]  # its name there and in the reference
    takes_one_image: ClassVar[bool] = False  # [C, H, W]
    takes_no_channels: ClassVar[bool] = True
    most_maps: ClassVar[int] = 1
    max_cells: ClassVar[int] = MAX_CELLS

    def __init__(self, random: np.random.Generator) -> None:
        images = 0 if random.random() < 0.03 else int(random.integers(1, 4))
        channels = 0 if self.takes_no_channels and random.random() < 0.03 else int(random.choice(CHANNELS))
        dtype = _any(random, DTYPES)
        self.values = _any(random, VALUES) if random.random() < 0.8 else "normal"
        # Several maps are alike in all this, but each has a size and a layout of its own.
        count = int(random.integers(1, self.most_maps + 1)) if random.random() < 0.4 else 1
        room = max(4, self.max_cells // count // max(images * channels, 1))  # cells a plane may have
        self.layouts = [_any(random, LAYOUTS) for _ in range(count)]
        self.inputs: list[Tensor] = []  # [N, C, H, W], or one [C, H, W]
        for layout in self.layouts:
            height = min(room, int(random.integers(1, 13 if random.random() < 0.7 else 65)))
            width = min(room // height, int(random.integers(1, 13 if random.random() < 0.7 else 65)))
            numbers = _numbers(random, (images, channels, height, width), self.values, dtype)
            self.inputs.append(_laid_out(numbers, layout))
        if self.takes_one_image and images == count == 1 and random.random() < 0.3:
            self.inputs = [self.inputs[0][0]]
        self.arguments = self.draw_arguments(random)  # the reference takes them by the same names
        self.grad_seed = int(random.integers(2**31))

    @abstractmethod
    def draw_arguments(self, random: np.random.Generator) -> dict[str, Any]:
        """The keyword arguments beside the map."""

    def input(self) -> Tensor | list[Tensor]:
        """The map, or the sequence of maps where the call is one of several."""
        return self.inputs if len(self.inputs) > 1 or "map_indices" in self.arguments else self.inputs[0]

    def describe(self) -> str:
        """The parameters, a few lines."""
        lines = [("op", f"{self.module.__name__}.{self.op}")]
        for input, layout in zip(self.inputs, self.layouts, strict=True):
            strides = f"strides {list(input.stride())}"
            what = f"{list(input.shape)} {str(input.dtype)[6:]}, {layout}, {strides}, values: {self.values}"
            lines.append(("input", what))
        lines += [(name, _shown(value)) for name, value in self.arguments.items()]
        return "\n".join(f"{name:13} {what}" for name, what in lines)


class SpatialPyramidPool(Case):
    """Whole maps, one or several, or the part of each image that is valid."""

    op = "spatial_pyramid_pool"
    takes_one_image = True
    most_maps = 4

    def draw_arguments(self, random: np.random.Generator) -> dict[str, Any]:  # noqa: D102
        arguments: dict[str, Any] = {"levels": _levels(random)}
        if len(self.inputs) == 1 and self.inputs[0].dim() == 4 and random.random() < 0.3:
            images, _, height, width = self.inputs[0].shape
            arguments["sizes"] = torch.from_numpy(random.integers(1, [height + 1, width + 1], (images, 2)))
        return arguments


class AdaptiveMaxPool2d(Case):
    """Whole maps in one grid."""

    module: ClassVar[ModuleType] = spp_ext.ops
    op = "adaptive_max_pool2d"
    takes_one_image = True
    takes_no_channels = False

    def draw_arguments(self, random: np.random.Generator) -> dict[str, Any]:  # noqa: D102
        n, rows, cols = (int(size) for size in random.integers(1, 10, 3))
        return {"output_size": _any(random, [n, (rows, cols), [rows, cols], (None, cols), (rows, None)])}


class RoISpatialPyramidPool(Case):
    """Regions of one map or of several."""

    op = "roi_spatial_pyramid_pool"
    most_maps = 4

    def draw_arguments(self, random: np.random.Generator) -> dict[str, Any]:  # noqa: D102
        convention = _any(random, list(reference.CONVENTIONS))
        arguments = {"levels": _levels(random), "convention": convention}
        if len(self.inputs) == 1 and random.random() < 0.9:
            scale = _scale(random)
            return {**arguments, "boxes": _boxes(random, self.inputs, [scale])[0], "spatial_scale": scale}
        scales = [_scale(random) for _ in self.inputs]
        boxes, map_indices = _boxes(random, self.inputs, scales)
        return {**arguments, "boxes": boxes, "spatial_scale": scales, "map_indices": map_indices}


class RoIPool(Case):
    """Regions in one grid, with torchvision's edges."""

    module: ClassVar[ModuleType] = spp_ext.ops
    op = "roi_pool"

    def draw_arguments(self, random: np.random.Generator) -> dict[str, Any]:  # noqa: D102
        scale = _scale(random)
        # With 7, 11, 13 or 14 bins these edges are not the integer ones at some extents, of which the least is 7.
        few, many = int(random.integers(1, 7)), _any(random, [7, 11, 13, 14])
        output_size = _any(random, [few, 7, (1, many), [many, 1]])
        return {
            "boxes": _boxes(random, self.inputs, [scale])[0],
            "output_size": output_size,
            "spatial_scale": scale,
        }


class MultiKernelMaxPool2d(Case):
    """The pools of YOLO's blocks, side by side or in cascade."""

    module: ClassVar[ModuleType] = spp_ext.ops
    op = "multi_kernel_max_pool2d"
    takes_one_image = True
    max_cells = 500  # every cell has a bin around it

    def draw_arguments(self, random: np.random.Generator) -> dict[str, Any]:  # noqa: D102
        sizes = [int(size) for size in random.choice([1, 3, 5, 7, 9, 13, 101], int(random.integers(1, 4)))]
        cascade = bool(random.integers(2))
        return {"kernel_sizes": sorted(sizes) if cascade else sizes, "cascade": cascade}


# The ops, and how often each is drawn: the more it can be asked for, the more often.
OPS: dict[type[Case], float] = {
    SpatialPyramidPool: 0.25,
    RoISpatialPyramidPool: 0.35,
    RoIPool: 0.15,
    AdaptiveMaxPool2d: 0.1,
    MultiKernelMaxPool2d: 0.15,
}


def draw_case(seed: int, index: int) -> Case:
    """The case with this number; it depends on nothing else."""
    random = np.random.default_rng([seed, index])
    op = list(OPS)[int(random.choice(len(OPS), p=list(OPS.values())))]
    return op(random)


# ---- drawing its parts -------------------------------------------------------------------------------------


def _any(random: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(random.integers(len(choices)))]


def _scale(random: np.random.Generator) -> float:
    return _any(random, [1.0, 0.5, 1 / 16, 1 / 3, float(random.uniform(0.01, 2))])


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


def _ends(random: np.random.Generator, extent: int) -> np.ndarray:
    """The two ends of a box along an axis of ``extent`` cells, in cells: ordinary to hostile."""
    pair = np.sort(random.uniform(-0.2, 1.2, 2) * extent)
    kind = int(random.integers(12))
    if kind == 0:  # ends on half cells, where the conventions differ most
        pair = np.floor(pair) + 0.5
    elif kind == 1:
        pair = np.round(pair)
    elif kind == 2:  # inverted
        pair = pair[::-1]
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
    return pair


def _boxes(
    random: np.random.Generator, maps: Sequence[Tensor], scales: Sequence[float]
) -> tuple[Tensor, Tensor] | tuple[list[Tensor], list[Tensor]]:
    """Boxes, and the map of each, as the ops take them: all in one tensor, or a list of one per image."""
    images = maps[0].shape[0]
    dtype = _any(random, [torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16])
    limit = torch.finfo(dtype).max
    count = int(random.integers(0, 7)) if images else 0
    map_indices = torch.from_numpy(random.integers(0, len(maps), count))
    corners = np.zeros((count, 4))
    for box, m in zip(corners, map_indices.tolist(), strict=True):
        box[0::2], box[1::2] = (_ends(random, extent) / scales[m] for extent in (maps[m].shape[3], maps[m].shape[2]))
    coordinates = torch.from_numpy(np.clip(corners, -limit, limit)).to(dtype).clamp(-limit, limit)
    batch_index = torch.from_numpy(random.integers(0, max(images, 1), count))
    if images and random.random() < 0.3:
        of_image = [batch_index == image for image in range(images)]
        return [coordinates[rows] for rows in of_image], [map_indices[rows] for rows in of_image]
    return torch.cat([batch_index[:, None].to(dtype), coordinates], 1), map_indices


def _shown(value: Any) -> str:
    """A value with its tensors written out."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype)[6:]} {value.tolist()}"
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        return "; ".join(map(_shown, value))
    return repr(value)


# ---- checking it -------------------------------------------------------------------------------------------


def check(case: Case) -> str | None:
    """Runs a case through the library and the reference: values alone, values with indices, the gradient.

    Returns:
        None if everything is equal, else the first difference in words.
    """
    function = getattr(case.module, case.op)
    try:
        testing.check_against_reference(case.op, case.input(), function=function, seed=case.grad_seed, **case.arguments)
    except AssertionError as difference:
        return str(difference)
    except Exception as error:  # whatever it is, it is this case's result
        return f"raised {type(error).__name__}: {error}"
    return None


def _report(seed: int, index: int, case: Case, difference: str) -> str:
    again = f"{'again':13} python -m spp_ext selftest --seed {seed} --case {index}"
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
