"""Who runs in a case: spp_ext, the peers that compute the same, spp_ext on other terms, and the floors.

    ours    spp_ext         the result in fresh memory
    peers   torch           F.adaptive_max_pool2d at every level, then cat; a chain of F.max_pool2d, then cat
            torchvision     torchvision.ops.roi_pool at every level, then cat; float32 only
            torch slices    "torch" on the slice of each region, where torchvision is missing or has no such kernel;
                            on a sample of the regions, its time scaled up
            ... compiled    torch.compile of one of these, in float32
            OpenVINO, ONNX Runtime   see `engines`; CPU
    own     out=            the result in a tensor that is there, as the engines have it; CPU
            values only     the same without an argmax
            float32         the same in float32
            64th            the same on a 64th of the batch or the regions, its time scaled up
    floors  read            every cell read once, in memory's order: the quickest of sum, amax and NumPy's max
            refill, fresh   the output written once, into memory that is there, or fresh
            copy            a copy that moves as many bytes as the case must
            launch          a kernel that does nothing (CUDA)

Everybody pools the same numbers, and what a peer returns is compared with spp_ext's result before any clock starts.
"""

from __future__ import annotations

import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import spp_ext
from spp_ext import reference
from spp_ext.cli.composition import STRIDE, compose, loop_over_slices

from .cases import FORWARD, FRESH, LEVELS, READS, REUSED, WITH_BACKWARD, Case, proposals
from .engines import Pool, engines

SAMPLED_REGIONS = 50
PART = 64  # the contender "64th" does one part of the work of so many

TAKES_OUT = "out" in inspect.signature(spp_ext.spatial_pyramid_pool).parameters
_compiling = 0.0  # seconds so far, in this process

Role = Literal["ours", "peer", "engine", "own", "floor"]


@dataclass(frozen=True)
class Contender:
    """A function to time."""

    run: Callable[[], object]
    role: Role
    share: float = 1.0  # of the case's work that one call does


def _rotating(make: Callable[[], Tensor], device: str) -> Callable[[], Tensor]:
    """A function that hands out tensors in turn: on a GPU so many that none is still in the L2 cache."""
    tensors = [make()]
    if device == "cuda":
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        copies = min(512, math.ceil(2 * cache / max(tensors[0].nbytes, 1)))
        tensors += [make() for _ in range(copies - 1)]
    return itertools.cycle(tensors).__next__


def _maps(case: Case, device: str, gradient: bool) -> Callable[[], Tensor]:
    # On the CPU for both devices, so that both pool the same numbers.
    numbers = torch.randn(case.shape, generator=torch.Generator().manual_seed(0))
    layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    numbers = numbers.to(device, getattr(torch, case.dtype)).contiguous(memory_format=layout)
    return _rotating(lambda: numbers.clone().requires_grad_(gradient), device)


def boxes(case: Case, device: str) -> Tensor | None:
    """The boxes ``[K, 5]`` of a case with regions."""
    return proposals(case.regions, *case.shape[2:]).to(device) if case.regions else None


def step(case: Case, pool: Pool, device: str, rows: int | None = None) -> Callable[[], Tensor]:
    """What one call of a contender does: pool a map, with what the case's kind asks for.

    Args:
        case: which.
        pool: map -> output.
        device: "cpu" or "cuda".
        rows: how many rows the output of ``pool`` has, if not the case's number.
    """
    maps = _maps(case, device, gradient=case.kind != FORWARD)
    if case.kind != WITH_BACKWARD:
        return lambda: pool(maps())
    shape = (case.output_shape[0] if rows is None else rows, *case.output_shape[1:])
    grad_output = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, getattr(torch, case.dtype))

    def run() -> Tensor:
        map = maps()
        return torch.autograd.grad(pool(map), map, grad_output)[0]

    return run


def ours(case: Case, rois: Tensor | None, out: Tensor | None = None) -> Pool:
    """spp_ext's op for a case, over the whole map if there are no boxes, into ``out`` if there is one."""
    words = {} if out is None else {"out": out}
    if case.kernel_sizes:
        return lambda map: spp_ext.ops.multi_kernel_max_pool2d(map, case.kernel_sizes, **words)
    if rois is None:
        return lambda map: spp_ext.spatial_pyramid_pool(map, LEVELS, **words)
    return lambda map: spp_ext.roi_spatial_pyramid_pool(map, rois, LEVELS, 1 / STRIDE, **words)


def chained(map: Tensor, sizes: Sequence[int]) -> Tensor:
    """A map beside its stride-1 pools, each pooled from the one before: torch's quickest form, and YOLO's."""
    parts = [map]
    for size in sizes:
        parts.append(F.max_pool2d(parts[-1], size, 1, size // 2))
    return torch.cat(parts, 1)


def _peers(case: Case, rois: Tensor | None) -> Iterator[tuple[str, Pool, Tensor | slice]]:
    """Name, function, and which rows of the output it computes, the best peer first."""
    if case.kernel_sizes:
        yield "torch", lambda map: chained(map, case.chain), slice(None)
        return
    if rois is None:
        yield "torch", lambda map: compose(map, LEVELS), slice(None)
        return
    # roi_pool takes a map and boxes of one dtype, and draws the bins in its arithmetic: in 16 bits they are other bins.
    if case.dtype == "float32":
        try:
            from torchvision.ops import roi_pool
        except (ImportError, RuntimeError, OSError):  # missing, or built for another torch
            pass
        else:
            levels = [(level, level) for level in LEVELS]
            yield (
                "torchvision",
                lambda map: torch.cat([roi_pool(map, rois, level, 1 / STRIDE).flatten(1) for level in levels], 1),
                slice(None),
            )
    rows = torch.linspace(0, len(rois) - 1, min(SAMPLED_REGIONS, len(rois))).long()
    height, width = case.shape[2:]
    windows = [
        reference.roi_window(box, 1 / STRIDE, "roi_pool", height, width, np.float32)
        for box in rois[rows.to(rois.device), 1:].cpu().numpy()
    ]
    yield "torch slices", lambda map: loop_over_slices(map, windows, LEVELS), rows


def _own(case: Case, rois: Tensor | None, device: str) -> Iterator[tuple[str, Contender]]:
    """spp_ext into memory that is there, and on the other terms that the case's targets name."""
    named = {target.against for target in case.targets}
    if "values only" in named:
        yield "values only", Contender(step(replace(case, kind=FORWARD), ours(case, rois), device), "own")
    if "float32" in named:
        yield "float32", Contender(step(replace(case, dtype="float32"), ours(case, rois), device), "own")
    if "64th" in named and rois is not None:
        part = rois[: len(rois) // PART]
        yield "64th", Contender(step(case, ours(case, part), device, len(part)), "own", len(part) / len(rois))
    elif "64th" in named:
        part = replace(case, shape=(case.shape[0] // PART, *case.shape[1:]))
        yield "64th", Contender(step(part, ours(part, None), device), "own", part.shape[0] / case.shape[0])


def _reads(map: Tensor) -> dict[str, Callable[[], object]]:
    """Ways to read every byte of a map once, as float32 whatever its type: 16-bit reductions wait for arithmetic."""
    cells = map.as_strided((map.numel(),), (1,)).view(torch.float32)  # in memory's order, whatever the layout
    return dict(zip(READS, (cells.sum, cells.amax, cells.numpy().max), strict=True))


def _floors(case: Case, device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    dtype = getattr(torch, case.dtype)
    if case.floor(device) == "read":
        yield from _reads(_maps(case, device, gradient=False)()).items()
    elif case.floor(device) == "copy":
        sources = _rotating(lambda: torch.ones(case.bytes // 8, device=device), device)  # 4 bytes read, 4 written
        target = sources().clone()
        yield "copy", lambda: target.copy_(sources())
    else:
        outputs = _rotating(lambda: torch.empty(case.output_shape, dtype=dtype, device=device), device)
        yield "refill", lambda: outputs().fill_(1)
        yield "fresh", lambda: torch.full(case.output_shape, 1.0, dtype=dtype, device=device)
    if device == "cuda":
        yield "launch", lambda: torch.cuda._sleep(0)


def _compiled(pool: Pool, compile_seconds: float) -> Pool:
    if _compiling > compile_seconds:
        raise RuntimeError(f"not compiled, {compile_seconds:.0f} s were spent on others")
    torch.compiler.reset()  # all cases share one code object, and torch.compile recompiles it a limited number of times
    return torch.compile(pool, dynamic=False)


def contenders(
    case: Case, device: str = "cpu", compile_seconds: float = 0.0, against_engines: bool = True
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Everybody who runs in a case, spp_ext first, and why others do not.

    Args:
        case: which.
        device: "cpu" or "cuda".
        compile_seconds: how long this process may take to compile peers, over all cases; 0 compiles none.
        against_engines: whether OpenVINO and ONNX Runtime run, where they are installed.

    Raises:
        RuntimeError: a peer's result is not spp_ext's.
    """
    global _compiling
    rois = boxes(case, device)
    found = {FRESH: Contender(step(case, ours(case, rois), device), "ours")}
    omitted: dict[str, str] = {}
    map = _maps(case, device, gradient=False)()
    expected = ours(case, rois)(map)

    def add(name: str, role: Role, case: Case, make: Callable[[], Pool], rows: Tensor | slice = slice(None)) -> bool:
        try:
            pool = make()
            got = pool(map.contiguous() if case.layout == "contiguous" else map)
            run = step(case, pool, device, len(got))
            run()
        except Exception as error:  # another that fails is listed as omitted, and the rest are measured
            if role == "own":
                raise
            omitted[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            return False
        rows = rows.to(device) if isinstance(rows, Tensor) else rows
        if not torch.equal(got, expected[rows]):
            raise RuntimeError(f"{case.name}: {name} and spp_ext differ")
        found[name] = Contender(run, role, len(got) / len(expected))
        return True

    if device == "cpu" and case.has_fixed_buffers and TAKES_OUT:
        add(REUSED, "own", case, lambda: ours(case, rois, torch.empty_like(expected)))
    for name, pool, rows in _peers(case, rois):
        worked = add(name, "peer", case, lambda pool=pool: pool, rows)
        if worked and compile_seconds and case.dtype == "float32" and name != "torch slices":
            start = time.perf_counter()
            add(f"{name} compiled", "peer", case, lambda pool=pool: _compiled(pool, compile_seconds), rows)
            _compiling += time.perf_counter() - start
        if worked:
            break
    if device == "cpu" and against_engines:
        for name, engine in engines(case):
            given = replace(case, layout="contiguous")
            add(name, "engine", given, lambda engine=engine, given=given: engine(given, rois))
    found.update(_own(case, rois, device))
    found.update((name, Contender(run, "floor")) for name, run in _floors(case, device))
    return found, omitted
