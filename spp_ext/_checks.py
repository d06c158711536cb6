"""What the public functions require of their arguments, written once: each check names the op in one short sentence."""

from __future__ import annotations

import operator
import os

import torch
from torch import Tensor

from spp_ext._torch.private import transforms_are_open

# The kernels compute `edge * extent` in 64 bits; with at most 2**20 divisions that cannot overflow for any window.
MAX_DIVISIONS = 2**20

DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
DTYPE_NAMES = "float32, float64, float16 or bfloat16"


def cut_short(text: str) -> str:
    """At most 100 characters."""
    return text if len(text) <= 100 else f"{text[:97]}..."


def shown(value: object) -> str:
    """A value as an error shows it: on one line, and cut short."""
    try:
        return cut_short(" ".join(repr(value).split()))
    except ValueError:  # Python writes out no integer of more than some thousand digits
        return f"a huge {type(value).__name__}"


def check_tensor(op: str, value: object, name: str = "input") -> None:
    """Raises TypeError unless ``value`` is a tensor of a dtype that the kernels have."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected {name} to be a Tensor, got {type(value).__name__}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{op}: expected {name} of dtype {DTYPE_NAMES}, got {value.dtype}")


def whole_number(value: object, what: str) -> int:
    """``value`` as an int; ``what`` begins the error, "op: expected ..."."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what}, got {shown(value)}") from None


def divisions(value: object, what: str) -> tuple[int, int]:
    """A positive int, or a pair of them, as ``(rows, cols)``."""
    items = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(items) != 2:
        raise ValueError(f"{what}, got {shown(value)}")
    rows, cols = whole_number(items[0], what), whole_number(items[1], what)
    if not (0 < rows <= MAX_DIVISIONS and 0 < cols <= MAX_DIVISIONS):
        raise ValueError(f"{what}, got {shown(value)}")
    return rows, cols


def scale(op: str, spatial_scale: object) -> float:
    """``spatial_scale`` as a float. The kernels check that it is positive, and finite in float32."""
    if isinstance(spatial_scale, bool) or not isinstance(spatial_scale, (int, float)):
        raise TypeError(f"{op}: expected spatial_scale to be a number, got {shown(spatial_scale)}")
    if isinstance(spatial_scale, int) and abs(spatial_scale) > 2**128:  # which float() may not hold
        raise ValueError(f"{op}: expected spatial_scale to be a positive finite number, got {shown(spatial_scale)}")
    return float(spatial_scale)


def can_look_into(tensor: Tensor) -> bool:
    """Whether Python may decide by what ``tensor`` holds: not in a graph, nor under a transform, nor without data."""
    in_a_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return type(tensor) is Tensor and not (in_a_graph or transforms_are_open() or tensor.is_meta)


def validates_by_default() -> bool:
    """Whether the environment variable SPP_EXT_VALIDATE asks for checks that are left out otherwise.

    These are: on CUDA, of the contents of boxes and sizes, which waits for the device; everywhere, whether any box
    reaches its map.
    """
    return os.environ.get("SPP_EXT_VALIDATE", "0") not in ("", "0")
