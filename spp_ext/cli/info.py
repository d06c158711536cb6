"""``python -m spp_ext info``: the first thing to paste into a bug report.

Every line is found on its own: one that cannot be had (no torch, no built library) prints its reason, and the
rest still appears.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable


def _one_line(error: BaseException) -> str:
    """The error as one line, because loader errors run over many."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _spp_ext_version() -> str:
    package = importlib.import_module("spp_ext")
    version = getattr(package, "__version__", None) or importlib.metadata.version("spp_ext")
    return f"{version} in {os.path.dirname(os.path.abspath(package.__file__ or ''))}"


def _module_version(name: str) -> Callable[[], str]:
    return lambda: str(importlib.import_module(name).__version__)


def describe_cpu() -> str:
    """The CPU's model, and how many of its cores this process may use."""
    name = platform.processor()
    try:
        # On Linux platform.processor() is often empty or just the architecture; the kernel knows the model.
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        usable = os.cpu_count() or 1
    return f"{name or platform.machine()}, {usable} usable core{'' if usable == 1 else 's'}"


def _torch() -> str:
    torch = importlib.import_module("torch")
    cuda = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return f"{torch.__version__}, {cuda}"


def _library() -> str:
    library = importlib.import_module("spp_ext._torch.library")
    error = library.load_error()
    if error is not None:
        return f"not loaded. {_one_line(error)}"
    return str(library.library_path())


def _cuda_library() -> str:
    return " ".join(importlib.import_module("spp_ext._torch.library").cuda_status().split())


def _instruction_set() -> str:
    torch = importlib.import_module("torch")
    library = importlib.import_module("spp_ext._torch.library")
    if library.load_error() is not None:
        return "unknown, the op library is not loaded"
    in_use = str(torch.ops.spp_ext.cpu_instruction_set())
    try:
        capability = f" (torch itself: {torch.backends.cpu.get_cpu_capability()})"
    except Exception:
        capability = ""
    return in_use + capability


def _threads() -> str:
    return str(importlib.import_module("torch").get_num_threads())


def _gpu() -> str:
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return "none that torch can use"
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(index) for index in range(count))


def _build() -> dict[str, str]:
    return {str(key): str(value) for key, value in importlib.import_module("spp_ext._core").build_info().items()}


def _try(find: Callable[[], str]) -> str:
    try:
        return find()
    except Exception as error:
        return f"not available. {_one_line(error)}"


def run() -> int:
    """Prints the report and returns 0, whatever was found."""
    lines = {
        "spp_ext": _try(_spp_ext_version),
        "torch": _try(_torch),
        "numpy": _try(_module_version("numpy")),
        "python": _try(lambda: f"{platform.python_version()}, {sys.executable}"),
        "platform": _try(platform.platform),
        "cpu": _try(describe_cpu),
        "gpu": _try(_gpu),
        "op library": _try(_library),
        "CUDA op library": _try(_cuda_library),
        "instruction set": _try(_instruction_set),
        "threads": _try(_threads),
    }
    try:
        build = _build()
    except Exception as error:
        lines["build"] = f"not available. {_one_line(error)}"
    else:
        lines.update({f"build: {key.replace('_', ' ')}": value for key, value in build.items()})
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value or 'none'}")
    return 0
