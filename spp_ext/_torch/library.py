"""Finds and loads the op libraries; nothing else of the package touches the file system.

Importing spp_ext never fails because of a library: a broken installation is reported at the first use of an op, and by
``python -m spp_ext info``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parents[1]


def _load(path: Path) -> Exception | None:
    try:
        torch.ops.load_library(os.fspath(path))
    except (OSError, RuntimeError) as error:
        return error
    return None


_CPU = _FOLDER / "libspp_ext_cpu.so"
_CUDA = _FOLDER / "libspp_ext_cuda.so"
_load_error = _load(_CPU)
# The CUDA library is there when it was built, and of use where torch has CUDA.
_uses_cuda = _load_error is None and torch.version.cuda is not None and _CUDA.exists()
_cuda_load_error = _load(_CUDA) if _uses_cuda else None


def library_path() -> Path:
    """Where the op library is expected."""
    return _CPU


def load_error() -> Exception | None:
    """Why the op library did not load, or None."""
    return _load_error


def cuda_status() -> str:
    """Whether ops on CUDA tensors are available, and if not, why."""
    if _uses_cuda and _cuda_load_error is None:
        return "loaded"
    if _cuda_load_error is not None:
        return f"not loaded: {_cuda_load_error}"
    if not _CUDA.exists():
        return "not built"
    return "built, not loaded: this torch has no CUDA"


class _Missing:
    """Stands in for the ops when the library did not load, and says why at the first use."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(
            f"spp_ext: the op library {_CPU.name} did not load ({_load_error}); reinstall spp_ext for this torch, "
            f"{torch.__version__}, or see `python -m spp_ext info`"
        )


def _kernel(op: Callable[..., Any]) -> Callable[..., Any]:
    """`op` without derivatives, which are the callers' business, raising torch's own error where memory runs out."""
    call_op = getattr(op, "_op", op)  # what calling it calls
    below_autograd = torch._C._AutoDispatchBelowAutograd

    @functools.wraps(op)
    def call(*arguments: Any) -> Any:
        try:
            # The derivatives of a registered op are a Python function, which costs as much as the op.
            with below_autograd():
                return call_op(*arguments)
        except RuntimeError as error:  # an extension on the stable ABI cannot throw torch.OutOfMemoryError
            if "could not allocate" not in str(error):
                raise
            raise torch.OutOfMemoryError(str(error)) from None

    return call


class _Ops:
    """The kernels of the registered ops' default overloads: naming one skips a search through its overloads."""

    def __init__(self) -> None:
        def find(name: str) -> Callable[..., Any]:
            return _kernel(getattr(torch.ops.spp_ext, name).default)

        self.spatial_pyramid_pool = find("spatial_pyramid_pool")
        self.spatial_pyramid_pool_with_argmax = find("spatial_pyramid_pool_with_argmax")
        self.roi_spatial_pyramid_pool = find("roi_spatial_pyramid_pool")
        self.roi_spatial_pyramid_pool_with_argmax = find("roi_spatial_pyramid_pool_with_argmax")
        self.roi_spatial_pyramid_pool_of_maps = find("roi_spatial_pyramid_pool_of_maps")
        self.roi_spatial_pyramid_pool_of_maps_with_argmax = find("roi_spatial_pyramid_pool_of_maps_with_argmax")
        self.multi_kernel_max_pool2d = find("multi_kernel_max_pool2d")
        self.multi_kernel_max_pool2d_with_argmax = find("multi_kernel_max_pool2d_with_argmax")
        self.gather = find("gather")
        self.scatter = find("scatter")
        self.gather_of_maps = find("gather_of_maps")
        self.scatter_of_maps = find("scatter_of_maps")
        self.cpu_instruction_set = find("cpu_instruction_set")


ops: _Ops | _Missing = _Ops() if _load_error is None else _Missing()
