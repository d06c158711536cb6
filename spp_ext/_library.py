"""Finds and loads the op library; nothing else of the package touches the file system.

Importing spp_ext never fails because of the library: a broken installation is reported at the first use of an op, and
by ``python -m spp_ext info``.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

_LIBRARY = Path(__file__).with_name("libspp_ext_cpu.so")
_load_error: Exception | None = None


def library_path() -> Path:
    """Where the op library is expected."""
    return _LIBRARY


def load_error() -> Exception | None:
    """Why the op library did not load, or None."""
    return _load_error


def _load() -> None:
    global _load_error
    try:
        torch.ops.load_library(os.fspath(_LIBRARY))
    except (OSError, RuntimeError) as error:
        _load_error = error


_load()


class _Missing:
    """Stands in for the ops when the library did not load, and says why at the first use."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(
            f"spp_ext: the op library {_LIBRARY.name} did not load ({_load_error}); reinstall spp_ext for this torch, "
            f"{torch.__version__}, or see `python -m spp_ext info`"
        )


class _Ops:
    """The registered ops' default overloads: calling one directly skips a search through its overloads each time."""

    def __init__(self) -> None:
        registered = torch.ops.spp_ext
        self.spatial_pyramid_pool = registered.spatial_pyramid_pool.default
        self.spatial_pyramid_pool_with_argmax = registered.spatial_pyramid_pool_with_argmax.default
        self.roi_spatial_pyramid_pool = registered.roi_spatial_pyramid_pool.default
        self.roi_spatial_pyramid_pool_with_argmax = registered.roi_spatial_pyramid_pool_with_argmax.default
        self.gather = registered.gather.default
        self.scatter = registered.scatter.default
        self.cpu_instruction_set = registered.cpu_instruction_set.default


ops: _Ops | _Missing = _Ops() if _load_error is None else _Missing()
