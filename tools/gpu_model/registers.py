"""The registers and the static shared memory of every kernel, as ptxas reports them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from tools import cuda_report

CACHE = cuda_report.ROOT / "build" / "gpu-model"
NVCC = ["nvcc", "-std=c++17", "-O3", "--fmad=false"]  # for a source that is not part of the build


def digest(paths: Iterable[Path]) -> str:
    """Of the contents of files, and their names."""
    hashed = hashlib.sha256()
    for path in sorted(paths):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:16]


def sources() -> list[Path]:
    """All that the compiled kernels follow from."""
    root = cuda_report.ROOT
    files = [path for folder in ("csrc/core", "csrc/cuda", "cmake") for path in (root / folder).iterdir()]
    return [path for path in files if path.is_file()]


def _report(commands: list[list[str]], name: str) -> dict[str, list[int]]:
    cached = CACHE / f"registers-{name}.json"
    if cached.exists():
        return json.loads(cached.read_text())
    texts = cuda_report.run_all(commands)
    found = {row[0]: [row[2], row[5]] for text in texts for row in cuda_report.read_report(text)}
    CACHE.mkdir(parents=True, exist_ok=True)
    cached.write_text(json.dumps(found))
    return found


def of_kernels(architecture: str) -> dict[str, list[int]]:
    """Symbol -> (registers of a thread, bytes of static shared memory of a block), for the kernels of csrc/cuda."""
    commands = [cuda_report.for_architecture(command, architecture) for command in cuda_report.compile_commands()]
    return _report(commands, f"{architecture}-{digest(sources())}")


def of_source(path: Path, architecture: str) -> dict[str, list[int]]:
    """The same for one file of its own."""
    command = [*NVCC, "-Xptxas=-v", f"-arch=sm_{architecture}", "-cubin", "-o", "/dev/null", str(path.resolve())]
    return _report([command], f"{architecture}-{path.stem}-{digest([path])}")
