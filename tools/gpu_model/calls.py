"""The calls of ops that a case of the benchmarks makes, on real CPU tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import FORWARD, LEVELS, WITH_BACKWARD, Case, proposals
from spp_ext._boxes import CONVENTIONS
from spp_ext.cli.composition import STRIDE
from spp_ext.levels import pyramid

LEVEL_BINS = [level * level for level in LEVELS]


@dataclass
class Call:
    """One call of an op."""

    name: str  # "pool" or "scatter"
    run: Callable[[Any], tuple[Tensor, ...]]  # with torch.ops.spp_ext, or what has the same ops
    read: list[Tensor]  # its inputs
    written: int  # bytes of its results
    bytes: int  # that must move

    @property
    def read_bytes(self) -> int:
        """Of all inputs."""
        return sum(tensor.nbytes for tensor in self.read)


@dataclass
class Data:
    """What a case pools."""

    case: Case
    map: Tensor
    rois: Tensor | None
    argmax: Tensor | None = None  # of the CPU op, where the case has a backward pass
    grad_output: Tensor | None = None


def make(case: Case) -> Data:
    """Normally distributed numbers, and boxes as in the benchmarks.

    Gradients are small whole numbers: their sums are exact, whatever the order of the additions.
    """
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    # One draw for a few planes, over and over: drawing 67 million numbers takes longer than all else here.
    drawn = torch.randn(min(math.prod(case.shape), 1 << 22), generator=generator)
    numbers = drawn.repeat(-(-math.prod(case.shape) // len(drawn)))[: math.prod(case.shape)].reshape(case.shape)
    map = numbers.to(getattr(torch, case.dtype)).contiguous(memory_format=layout)
    return Data(case, map, proposals(case.regions, *case.shape[2:]) if case.regions else None)


def _pool(data: Data, with_argmax: bool) -> Callable[[Any], tuple[Tensor, ...]]:
    case, suffix = data.case, "_with_argmax" if with_argmax else ""
    arguments: tuple[Any, ...]
    if case.kernel_sizes:
        name, arguments = "multi_kernel_max_pool2d", (list(case.kernel_sizes), False)
    elif data.rois is None:
        name, arguments = "spatial_pyramid_pool", (pyramid("spp_ext", LEVELS).encoded,)
    else:
        name = "roi_spatial_pyramid_pool"
        encoded = pyramid("spp_ext", LEVELS).encoded
        arguments = (data.rois, encoded, 1 / STRIDE, CONVENTIONS["roi_pool"], False)

    def run(ops: Any) -> tuple[Tensor, ...]:
        result = getattr(ops, name + suffix)(data.map, *arguments)
        return result if with_argmax else (result,)

    return run


def calls(data: Data) -> list[Call]:
    """The calls of a case, in order. For a backward pass the CPU op finds the argmax."""
    case, map = data.case, data.map
    outputs, rois = math.prod(case.output_shape), [] if data.rois is None else [data.rois]
    with_argmax = case.kind != FORWARD
    pool = _pool(data, with_argmax)
    rois_bytes = sum(tensor.nbytes for tensor in rois)
    written = outputs * (map.element_size() + 4 * with_argmax)
    result = [Call("pool", pool, [map, *rois], written, map.nbytes + rois_bytes + written)]
    if case.kind != WITH_BACKWARD:
        return result
    _, data.argmax = pool(torch.ops.spp_ext)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(-4, 5, (1 << 20,), generator=generator).to(map.dtype)
    grad_output = drawn.repeat(-(-outputs // len(drawn)))[:outputs].reshape(case.output_shape)
    if case.kernel_sizes and case.layout == "channels_last":
        grad_output = grad_output.contiguous(memory_format=torch.channels_last)
    data.grad_output = grad_output
    bins = [case.shape[2] * case.shape[3]] * (1 + len(case.kernel_sizes)) if case.kernel_sizes else LEVEL_BINS
    last = case.layout == "channels_last"

    def scatter(ops: Any) -> tuple[Tensor, ...]:
        return (ops.scatter(grad_output, data.argmax, data.rois, bins, list(case.shape), last),)

    read = [grad_output, data.argmax, *rois]
    moved = grad_output.nbytes + data.argmax.nbytes + map.nbytes
    return [*result, Call("scatter", scatter, read, map.nbytes, moved)]
