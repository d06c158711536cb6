"""What the public functions require of their arguments, written once: each check names the op in one short sentence."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from numbers import Real
from typing import Any

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


def shape_shown(shape: Sequence[int]) -> str:
    """A shape as an error shows it. torch.compile can trace this, and not `shown`."""
    return f"{list(shape)}" if len(shape) <= 8 else f"{len(shape)} dimensions"


def not_strided(got: str) -> str:
    """What an error says of a tensor that the kernels cannot read, sparse ones among them."""
    return f"expected strided tensors on a device with kernels, got one {got}"


def check_strided(op: str, tensor: Tensor) -> None:
    """Raises NotImplementedError, as torch does, for nested, sparse and mkldnn tensors.

    The dispatcher refuses them too, and `_torch.errors` has it say the same; but they have no sizes to ask for.
    """
    if tensor.is_nested or tensor.layout is not torch.strided:
        kind = "that is nested" if tensor.is_nested else f"of layout {tensor.layout}"
        raise NotImplementedError(f"{op}: {not_strided(kind)}")


def check_tensor(op: str, value: object, name: str = "input") -> None:
    """Raises TypeError unless ``value`` is a tensor of a dtype that the kernels have."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected {name} to be a Tensor, got {type(value).__name__}")
    if value.is_nested or value.layout is not torch.strided:  # spares most calls a function
        check_strided(op, value)
    if value.dtype not in DTYPES:
        raise TypeError(f"{op}: expected {name} of dtype {DTYPE_NAMES}, got {value.dtype}")


def items_of(value: object) -> tuple[Any, ...] | None:
    """The items of a sequence, or of an array or a tensor of one dimension; None of anything else, such as a str."""
    if isinstance(value, (tuple, list)):
        return tuple(value)
    if isinstance(value, Sequence):
        return None if isinstance(value, (str, bytes, bytearray)) else tuple(value)
    return tuple(value) if getattr(value, "ndim", None) == 1 else None  # type: ignore[arg-type]


def whole_number(value: object, what: str) -> int:
    """``value`` as an int; ``what`` begins the error, "op: expected ..."."""
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what}, got {shown(value)}") from None


def divisions(value: object, what: str) -> tuple[int, int]:
    """A positive int, or a pair of them, as ``(rows, cols)``."""
    items = (value, value) if type(value) is int or (found := items_of(value)) is None else found
    if len(items) != 2:
        raise ValueError(f"{what}, got {shown(value)}")
    rows, cols = whole_number(items[0], what), whole_number(items[1], what)
    if not (0 < rows <= MAX_DIVISIONS and 0 < cols <= MAX_DIVISIONS):
        raise ValueError(f"{what}, got {shown(value)}")
    return rows, cols


def scale(op: str, spatial_scale: object) -> float:
    """``spatial_scale`` as a float: a number of Python's or NumPy's, or an array or tensor without dimensions.

    A tensor is read, which waits for its device, and which no graph of torch.compile or torch.export can hold.
    """
    value = spatial_scale
    if type(value) is not float:
        if not isinstance(value, int) and getattr(value, "ndim", None) == 0:
            value = value.item()  # type: ignore[attr-defined]
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{op}: expected spatial_scale to be a number, got {shown(spatial_scale)}")
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    # The least number that is infinite in float32, here because torch.compile takes a global float for a variable.
    if not 0 < value < 2.0**128 - 2.0**103:
        raise ValueError(f"{op}: expected spatial_scale to be a positive finite number, got {shown(spatial_scale)}")
    return value


def can_look_into(tensor: Tensor) -> bool:
    """Whether Python may decide by what ``tensor`` holds: not in a graph, nor under a transform, nor without data."""
    in_a_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return type(tensor) is Tensor and not (in_a_graph or transforms_are_open() or tensor.is_meta)


def environment_validates() -> bool:
    """Whether the environment variable SPP_EXT_VALIDATE asks for checks that are left out otherwise.

    These are: on CUDA, of the contents of boxes and sizes, which waits for the device; everywhere, whether any box
    reaches its map.
    """
    return os.environ.get("SPP_EXT_VALIDATE", "0") not in ("", "0")


# Asked once: a small call of regions would take a tenth longer.
VALIDATES = environment_validates()
