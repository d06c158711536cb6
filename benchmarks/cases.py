"""What is measured: shapes named by where they come from, the bytes each must move, and how fast each should be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from spp_ext.cli.composition import STRIDE, boxes_around

LEVELS = (1, 2, 3, 6)
BINS = sum(level * level for level in LEVELS)

FORWARD, WITH_ARGMAX, WITH_BACKWARD = "forward", "forward with argmax", "forward + backward"
Kind = Literal["forward", "forward with argmax", "forward + backward"]

ENGINES = ("OpenVINO", "ONNX Runtime")
READS = ("sum", "amax", "max")  # the floor "read" is the quickest of them
FRESH, REUSED = "spp_ext", "out="  # our result in fresh memory, and in a tensor that is there


@dataclass(frozen=True)
class Target:
    """How fast a row should be: another's time over ours, at least."""

    against: str  # a contender's name, as `baselines` lists them
    least: float  # 12 against "torch": 12 times as fast as torch; 1 / 1.2 against "read": within 1.2 of that floor
    ours: Literal["spp_ext", "out="] = FRESH  # whose time it is held to
    reason: str = ""  # what stands between a row that misses it and the target


@dataclass(frozen=True)
class Case:
    """One row of the report."""

    source: str  # the network or image that such a map comes from
    shape: tuple[int, int, int, int]  # N, C, H, W
    regions: int = 0  # K; 0 pools the whole map
    kind: Kind = "forward"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    kernel_sizes: tuple[int, ...] = ()  # of stride-1 pools; a case that has them has no levels
    targets: tuple[Target, ...] = ()

    @property
    def name(self) -> str:
        """Unique; says everything that differs from a forward pass over a contiguous float32 map."""
        what = f" K={self.regions}" if self.regions else ""
        if self.kernel_sizes:
            what = f" kernels {', '.join(map(str, self.kernel_sizes))}"
        name = f"{self.source}: {'x'.join(map(str, self.shape))}{what} {self.kind}"
        return ", ".join([name, *(word for word in (self.dtype, self.layout) if word not in ("float32", "contiguous"))])

    @property
    def output_shape(self) -> tuple[int, ...]:
        n, c, h, w = self.shape
        if self.kernel_sizes:
            return n, (1 + len(self.kernel_sizes)) * c, h, w
        return self.regions or n, c * BINS

    @property
    def bytes(self) -> int:
        """The bytes that must move: each input read once, each result written once, an argmax only where one is needed.

        A backward pass reads the gradient of the output and the argmax, and writes the gradient of the map.
        """
        element = 4 if self.dtype == "float32" else 2
        map, output = math.prod(self.shape), math.prod(self.output_shape)
        moved = (map + output) * element + self.regions * 5 * 4
        if self.kind != FORWARD:
            moved += output * 4
        if self.kind == WITH_BACKWARD:
            moved += output * (element + 4) + map * element
        return moved

    def floor(self, device: str) -> str:
        """Which of the floors the report sets beside the time."""
        if self.writes_more and self.kind == FORWARD:
            return "fresh" if device == "cpu" else "refill"
        return "read" if device == "cpu" and not self.writes_more and self.kind != WITH_BACKWARD else "copy"

    @property
    def has_fixed_buffers(self) -> bool:
        """Whether it is what an inference engine runs, and what ``out=`` is for: float32, forward, no argmax."""
        return self.kind == FORWARD and self.dtype == "float32"

    @property
    def chain(self) -> tuple[int, ...]:
        """The kernel sizes of stride-1 pools that, each on the result of the one before, equal the case's own.

        A maximum of maxima is one over a larger window: 5 of 5 is 9, and 5 of that 13. YOLO's SPPF is built so.
        """
        return tuple(
            size - before + 1 for before, size in zip((1, *self.kernel_sizes), self.kernel_sizes, strict=False)
        )

    @property
    def writes_more(self) -> bool:
        """Whether most of the time must go to writing the output."""
        return bool(self.regions or self.kernel_sizes)


def proposals(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Boxes as a region proposal network draws them, ``[count, 5]`` of (0, x1, y1, x2, y2) in pixels.

    Anchors of 128, 256 and 512 pixels with aspects of 1:2, 1:1 and 2:1, moved and stretched a little. They are clipped
    one cell short of the edge: no window then leaves the map, so a slice of the map holds exactly what is pooled.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (height - 1) * STRIDE, (width - 1) * STRIDE
    side = 128.0 * 2 ** torch.randint(3, (count,), generator=generator)
    aspect = 2.0 ** (torch.randint(3, (count,), generator=generator) - 1)
    stretch = torch.exp(0.2 * torch.randn(2, count, generator=generator))
    x, y = torch.rand(2, count, generator=generator) * torch.tensor([[columns], [rows]])
    return boxes_around(x, y, side * aspect.sqrt() * stretch[0], side / aspect.sqrt() * stretch[1], rows, columns)


ZF5 = Case("ZF-5 conv5, 224 px", (1, 256, 13, 13))
ZF5_BATCH = Case("ZF-5 conv5, 224 px, batch of 16", (16, 256, 13, 13))
ZF5_LARGE = Case("ZF-5 conv5, 640x960 px", (1, 256, 40, 60))
VGG_BATCH = Case("VGG conv5, 512 px, batch of 8", (8, 512, 32, 32))
FPN = Case("FPN P2, 800 px", (1, 256, 200, 200))
OTHER_MAPS = (
    Case("overhead", (1, 1, 8, 8)),
    Case("ZF-5 conv5, 180 px", (1, 256, 10, 10)),
    Case("ResNet-50 C4, 600x1000 px", (1, 1024, 38, 63)),
    Case("YOLO P5, 640 px", (1, 512, 20, 20)),
)
REGIONS = Case("conv5, 600x800 px", (1, 256, 38, 50), regions=2000)
FEW_REGIONS = replace(REGIONS, regions=300)
YOLO = tuple(
    Case(source, shape, kernel_sizes=(5, 9, 13))
    for source, shape in (("YOLO SPP, 640 px", (1, 512, 20, 20)), ("YOLO SPP, batch of 8", (8, 256, 40, 40)))
)
YOLO_BATCHES = tuple(
    replace(YOLO[0], source=f"YOLO SPP, batch of {shape[0]}", shape=shape)
    for shape in ((8, 512, 20, 20), (32, 256, 40, 40))
)
VGG_REGIONS = Case("VGG conv5, 600x1000 px", (1, 512, 38, 63), regions=300)


# ---- targets of the CPU, and why rows miss them ----

WAKE = (
    "below 0.1 ms a call's fixed part counts: Python, the dispatcher, an allocation, and with two threads the second's "
    "waking"
)
BINS_OF_SMALL_PLANES = (
    "the floor keeps one number for all cells; fifty bins a plane need maxima of rows, transposed, reduced and merged"
)
MEMORY_BUS = "both threads wait for one memory bus, and the system clears the pages of a fresh result"
SCATTERED = "the backward pass adds 26 million numbers to cells in no order, and reads the argmax that forward wrote"
ARGMAX_WRITES = "an argmax doubles what is written"
WINDOWS = "the window of a region holds several times the bytes of its row of the output"

SCALING = Target("1 thread", 1.6, reason=MEMORY_BUS)  # for two threads, ...
SCALING_SECONDS = 1e-3  # ... where one takes longer than this


def _read(case: Case) -> Target:
    """Maps are held to the quickest way to read every cell once."""
    large = math.prod(case.shape) * 4 > 1e6
    return Target("read", 1 / 1.2 if large else 1 / 1.8, reason=BINS_OF_SMALL_PLANES if large else WAKE)


def _pyramids(case: Case) -> tuple[Target, ...]:
    """Regions, against the output written once, torchvision and OpenVINO."""
    return (
        Target("torchvision", 25),
        Target("OpenVINO", 10, REUSED, WINDOWS),
        Target("refill", 1 / 1.2 if case.regions >= 2000 else 1 / 1.8, REUSED, WINDOWS),
    )


def _stride_1(case: Case) -> tuple[Target, ...]:
    """YOLO's pools, against the engines' chains and the output written once."""
    large = math.prod(case.output_shape) * 4 > 32e6
    return (
        *(Target(engine, least, ours) for engine in ENGINES for least, ours in ((1.5, FRESH), (3, REUSED))),
        Target("refill", 1 / 1.3 if large else 1 / 2, REUSED),
    )


def _both_layouts(case: Case, targets: Callable[[Case], tuple[Target, ...]]) -> list[Case]:
    return [replace(case, layout=layout, targets=targets(case)) for layout in ("contiguous", "channels_last")]


def _cpu_cases() -> list[Case]:
    cases = [replace(case, targets=(_read(case),)) for case in (*OTHER_MAPS, ZF5)]
    cases += [replace(OTHER_MAPS[0], kind=WITH_BACKWARD)]
    as_fast_as_float32 = (Target("float32", 1),)
    for case in (VGG_BATCH, FPN, ZF5_LARGE, ZF5_BATCH):
        cases += [
            *_both_layouts(case, lambda case: (_read(case),)),
            replace(case, kind=WITH_ARGMAX, targets=(Target("values only", 1 / 1.5, reason=ARGMAX_WRITES),)),
            replace(case, kind=WITH_BACKWARD, targets=(Target("torch", 12, reason=MEMORY_BUS),)),
            *_both_layouts(replace(case, dtype="bfloat16"), lambda _: as_fast_as_float32),
        ]
    for case in YOLO:
        cases += [*_both_layouts(case, _stride_1), replace(case, kind=WITH_BACKWARD)]
    many = replace(ZF5_BATCH, source="ZF-5 conv5, 224 px, batch of 64", shape=(64, 256, 13, 13))
    return cases + [
        replace(many, targets=(_read(many), Target("64th", 0.8))),
        replace(FEW_REGIONS, targets=_pyramids(FEW_REGIONS)),
        replace(FEW_REGIONS, kind=WITH_BACKWARD),
        replace(VGG_REGIONS, targets=_pyramids(VGG_REGIONS)),
        replace(REGIONS, targets=(*_pyramids(REGIONS), Target("64th", 0.8))),
        replace(REGIONS, layout="channels_last", targets=_pyramids(REGIONS)),
        replace(REGIONS, kind=WITH_ARGMAX, targets=(Target("values only", 1 / 1.5, reason=ARGMAX_WRITES),)),
        replace(REGIONS, kind=WITH_BACKWARD, targets=(Target("torchvision", 25, reason=SCATTERED),)),
        replace(REGIONS, dtype="bfloat16", targets=as_fast_as_float32),
    ]


def _cuda_cases() -> list[Case]:
    cases = [*OTHER_MAPS, ZF5_LARGE, VGG_BATCH]
    for small in (ZF5, ZF5_BATCH):
        cases += [
            replace(small, targets=(Target("launch", 1 / 1.5), Target("torch", 5))),
            replace(small, kind=WITH_BACKWARD),
        ]
    for large in (Case("batch of 32", (32, 512, 64, 64)), Case("FPN P2, 800 px, batch of 8", (8, 256, 200, 200))):
        for layout in ("contiguous", "channels_last"):
            for dtype in ("float32", "bfloat16", "float16"):
                case = replace(large, layout=layout, dtype=dtype, targets=(Target("copy", 0.85),))
                cases += [case, replace(case, kind=WITH_BACKWARD, targets=(Target("copy", 0.7),))]
    one = replace(FPN, targets=(Target("copy", 0.6),))
    cases += [one, replace(one, kind=WITH_BACKWARD)]
    cases += [replace(one, layout="channels_last", dtype=dtype) for dtype in ("float32", "bfloat16", "float16")]
    for case in YOLO + YOLO_BATCHES:
        cases += [replace(case, kind=kind) for kind in (FORWARD, WITH_ARGMAX, WITH_BACKWARD)]
        cases += [replace(case, layout="channels_last")]
    cases += [replace(YOLO_BATCHES[-1], dtype=dtype) for dtype in ("bfloat16", "float16")]
    large_map, huge_map = (
        Case("stride 16, 1024 px", (1, 512, 64, 64)),
        Case("stride 16, 3200x4864 px", (1, 256, 200, 304)),
    )
    many = [replace(map, regions=regions) for map in (large_map, huge_map) for regions in (300, 2000)]
    for regions in (FEW_REGIONS, REGIONS, *many):
        case = replace(regions, targets=(Target("refill", 0.7), Target("torchvision", 10)))
        cases += [case, replace(case, kind=WITH_BACKWARD, targets=(Target("torchvision", 4),))]
        cases += [replace(case, dtype=dtype) for dtype in ("bfloat16", "float16")]
        cases += [
            replace(case, layout="channels_last"),
            replace(case, kind=WITH_ARGMAX, targets=(Target("values only", 1 / 2),)),
        ]
    return cases


def cases(device: str, quick: bool = False) -> list[Case]:
    """The cases of "cpu" or "cuda"; ``quick`` keeps only small ones, in the usual type and layout."""
    every = _cpu_cases() if device == "cpu" else _cuda_cases()
    if not quick:
        return every
    return [case for case in every if case.bytes < 20e6 and (case.dtype, case.layout) == ("float32", "contiguous")]
