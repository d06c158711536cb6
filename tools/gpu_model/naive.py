"""The launches of the naive kernels (naive.cu) for a call: one for each level, and what joins the levels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import LEVELS
from spp_ext.cli.composition import STRIDE

from .calls import Data
from .predict import Footprint

SOURCE = Path(__file__).with_name("naive.cu")
THREADS = 256


@dataclass
class NaiveLaunch:
    """One launch of a kernel of naive.cu."""

    kernel: str
    grid: int
    params: bytes
    footprint: Footprint
    reads_again: bool  # what a launch before it read or wrote
    threads: int = THREADS
    shared_bytes: int = 0


def _pack(*arguments: tuple[str, Any] | bytes) -> bytes:
    """Parameters as CUDA lays them out, each aligned to its size; structs, as bytes, to 8."""
    packed = b""
    for argument in arguments:
        piece = argument if isinstance(argument, bytes) else struct.pack("<" + argument[0], argument[1])
        alignment = 8 if isinstance(argument, bytes) else len(piece)
        packed += b"\0" * (-len(packed) % alignment) + piece
    return packed


def _pointer(tensor: Tensor | None) -> tuple[str, int]:
    return "Q", 0 if tensor is None else tensor.data_ptr()


class Naive:
    """Plans the launches, and owns the memory that they work in."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.dtype = data.case.dtype
        self.launches: list[NaiveLaunch] = []
        self.buffers: list[Tensor] = []

    def _empty(self, numbers: int, dtype: torch.dtype | None = None) -> Tensor:
        buffer = torch.empty(numbers, dtype=dtype or self.data.map.dtype)
        self.buffers.append(buffer)
        return buffer

    def _add(self, kernel: str, threads: int, footprint: Footprint, *arguments: Any, again: bool = False) -> None:
        grid = -(-threads // THREADS)
        params = _pack(*arguments)
        self.launches.append(NaiveLaunch(f"{kernel}_{self.dtype}", grid, params, footprint, again))

    def _map(self) -> bytes:
        _, c, h, w = self.data.case.shape
        last = self.data.case.layout == "channels_last"
        strides = (c, 1) if last else (1, h * w)
        return struct.pack("<Qiiiii?3x", self.data.map.data_ptr(), c, h, w, *strides, last)

    def pool(self) -> list[tuple[Tensor, Tensor]]:
        """Pools every level into memory of its own, and copies them together; returns (values, argmax) of each."""
        case, map = self.data.case, self.data.map
        n, c, h, w = case.shape
        pooled = []
        rows = case.regions or n
        for number, level in enumerate(case.kernel_sizes or LEVELS):
            outputs = rows * c * (h * w if case.kernel_sizes else level * level)
            wide = torch.int32 if case.regions else torch.int64
            values, argmax = self._empty(outputs), self._empty(outputs, wide)
            pooled.append((values, argmax))
            footprint = Footprint(map.nbytes + 20 * case.regions, values.nbytes + argmax.nbytes)
            result = (("i", level), ("q", outputs), _pointer(values), _pointer(argmax))
            if case.kernel_sizes:
                self._add("pool_same", outputs, footprint, self._map(), *result, again=number > 0)
            elif self.data.rois is None:
                self._add("pool_level", outputs, footprint, self._map(), *result, again=number > 0)
            else:
                regions = (_pointer(self.data.rois), ("f", 1 / STRIDE))
                self._add("pool_regions", outputs, footprint, self._map(), *regions, *result, again=number > 0)
        parts = [values for values, _ in pooled]
        if case.kernel_sizes:
            parts = [map, *parts]
            rows = n * h * w if case.layout == "channels_last" else n
        self._concatenate(parts, rows)
        return pooled

    def _concatenate(self, parts: list[Tensor], rows: int) -> None:
        numbers = sum(part.numel() for part in parts)
        output = self._empty(numbers)
        lengths = [part.numel() // rows for part in parts]
        sources = struct.pack("<4Q4i", *(part.data_ptr() for part in parts), *lengths)
        footprint = Footprint(output.nbytes, output.nbytes)
        self._add(
            "concatenate",
            numbers,
            footprint,
            sources,
            ("i", sum(lengths)),
            ("q", numbers),
            _pointer(output),
            again=True,
        )

    def scatter(self) -> None:
        """For every level: zeros, and one atomic addition an element; then the sum of what the levels gave."""
        data, case = self.data, self.data.case
        assert data.argmax is not None and data.grad_output is not None
        n, c, h, w = case.shape
        length = data.grad_output.numel() // (case.regions or n)
        argmax = data.argmax.reshape(-1, length)
        blocks = [h * w] * (1 + len(case.kernel_sizes)) if case.kernel_sizes else [k * k for k in LEVELS]
        first, cells = 0, data.map.numel()
        total = None
        for number, bins in enumerate(blocks):
            own = argmax[:, first : first + c * bins].to(torch.int32 if case.regions else torch.int64).contiguous()
            self.buffers.append(own)
            if not case.kernel_sizes or number > 0:  # the gradient of the map itself is a view
                grad = self._empty(cells)
                self._add("fill_zero", cells, Footprint(0, grad.nbytes), ("q", cells), _pointer(grad))
                read = own.nbytes + own.numel() * data.map.element_size()
                footprint = Footprint(read + grad.nbytes, grad.nbytes)
                regions = [_pointer(data.rois)] if case.regions else []
                kernel = "add_region_gradients" if case.regions else "add_gradients"
                numbers = [("i", bins), ("i", length), ("i", first), ("q", own.numel())]
                arguments = [_pointer(data.grad_output), _pointer(own), *regions, self._map(), *numbers, _pointer(grad)]
                self._add(kernel, own.numel(), footprint, *arguments)
            else:
                grad = data.grad_output
            if total is not None:
                footprint = Footprint(2 * grad.nbytes, grad.nbytes)
                result = self._empty(cells)
                arguments = [("q", cells), _pointer(total), _pointer(grad), _pointer(result)]
                self._add("add_arrays", cells, footprint, *arguments, again=True)
                total = result
            else:
                total = grad
            first += c * bins
