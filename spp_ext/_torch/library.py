"""Finds and loads the op libraries; nothing else of the package touches the file system.

Importing spp_ext never fails because of a library: a broken installation is reported at the first use of an op, and by
``python -m spp_ext info``. A library is loaded only if it is of this version, and used only if it has every op of the
table.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from spp_ext._torch.op_table import NAMES, NAMESPACE, OUT_NAMES, overload
from spp_ext._version import __version__

_FOLDER = Path(__file__).parents[1]
_CPU = _FOLDER / "libspp_ext_cpu.so"
_CUDA = _FOLDER / "libspp_ext_cuda.so"


def _failure(reason: object) -> RuntimeError:
    """The reason on one line, and the command that mends it."""
    is_checkout = (_FOLDER.parent / "setup.py").exists()
    build = "python setup.py build_ext --inplace" if is_checkout else "pip install --no-build-isolation ."
    return RuntimeError(
        f"{' '.join(str(reason).split())}; build spp_ext for this torch, {torch.__version__}, with `{build}` in the "
        "folder of its source"
    )


def _load(path: Path) -> RuntimeError | None:
    try:
        version = _version_in(path.read_bytes())
        if version not in (__version__, None):
            return _failure(f"{path} is of {version}, not {__version__}")
        torch.ops.load_library(os.fspath(path))
    except (OSError, RuntimeError) as error:
        # torch's own error names only the file; what the system's loader said of it is the cause.
        return _failure(error.__cause__ or error)
    return None


def _version_in(content: bytes) -> str | None:
    """The version of a library, read before anything of it runs; None if this is no library at all."""
    _, _, found = content.partition(b"spp_ext version ")  # which csrc/torch/version.cpp puts there
    if found:
        return found.partition(b"\0")[0].decode(errors="replace")
    return "an older version" if content.startswith(b"\x7fELF") else None


def _load_ops() -> RuntimeError | None:
    """Loads the CPU's library, which defines the ops."""
    ops = getattr(torch.ops, NAMESPACE)
    if hasattr(ops, NAMES[0]) and os.path.realpath(_CPU) not in torch.ops.loaded_libraries:
        others = [path for path in torch.ops.loaded_libraries if os.path.basename(path) == _CPU.name]
        return RuntimeError(
            f"this process has loaded another copy already, {', '.join(others)}; import one alone: "
            "`pip uninstall spp_ext` removes the one that is installed"
        )
    if (error := _load(_CPU)) is not None:
        return error
    try:
        for name in (*NAMES, *OUT_NAMES):
            overload(ops, name)
    except AttributeError:
        return _failure(f"{_CPU} is of an older build and has no {NAMESPACE}::{name}")
    return None


_load_error = _load_ops()
# The CUDA library is there when it was built, and of use where torch has CUDA.
_uses_cuda = _load_error is None and torch.version.cuda is not None and _CUDA.exists()
_cuda_load_error = _load(_CUDA) if _uses_cuda else None


def library_path() -> Path:
    """Where the op library is expected."""
    return _CPU


def load_error() -> RuntimeError | None:
    """Why the op library did not load, and what to do, on one line; or None."""
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
