"""Finds and loads the op libraries; nothing else of the package touches the file system.

Importing spp_ext never fails because of a library: a broken installation is reported at the first use of an op, and by
``python -m spp_ext info``.
"""

from __future__ import annotations

import os
from pathlib import Path

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
        fault = torch.ops.spp_ext.cuda_driver_fault()
        return f"loaded, of no use: {fault}" if fault else "loaded"
    if _cuda_load_error is not None:
        return f"not loaded: {_cuda_load_error}"
    if not _CUDA.exists():
        return "not built"
    return "built, not loaded: this torch has no CUDA"
