"""Checks spp_ext on the GPU of this machine and leaves the outcome as JSON beside the benchmarks' results.

    python tools/gpu_check.py        (make gpu-check)

Uses the packages of the Python that runs it and installs nothing: torch with CUDA, pytest, hypothesis, numpy, cmake,
ninja, pybind11, nvcc; compute-sanitizer where CUDA has it. Steps: build for the GPU that is there; the suite on CUDA
tensors; the tests that need a GPU; compute-sanitizer's four tools. All steps run even if one fails; the exit status
is 1 then.
"""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# These folders test what the kernels compute. A test that is not about CUDA carries the marker cpu_only.
SUITE = [ROOT / "tests" / folder for folder in ("pooling", "derivatives", "ops", "errors")]
SELECTED = "not cpu_only and not integration and not peers"
SANITIZERS = ["memcheck", "racecheck", "initcheck", "synccheck"]


def run(name, command, environment):
    """Runs one step, its output passed through; returns what the JSON says of it."""
    print(f"\n== {name}: {' '.join(map(str, command))}", flush=True)
    begin = time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    print(done.stdout[-6000:], flush=True)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    summary = next((line for line in reversed(lines) if re.search(r"passed|failed|ERROR SUMMARY|hazards", line)), "")
    return {
        "step": name,
        "passed": done.returncode == 0,
        "summary": summary.strip(),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def sanitizer_path():
    """compute-sanitizer, from the path or beside nvcc."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    beside = Path(nvcc).resolve().parent / "compute-sanitizer"
    return shutil.which("compute-sanitizer") or (str(beside) if beside.exists() else None)


def main():
    """Runs every step and writes the JSON; returns the exit status."""
    if not torch.cuda.is_available():
        print("gpu-check needs a GPU that torch can use, and there is none.", file=sys.stderr)
        return 1
    major, minor = torch.cuda.get_device_capability()
    environment = {
        **os.environ,
        "PYTHONPATH": os.fspath(ROOT),
        "CI": "true",  # hypothesis then draws the same cases on every run
        "SPP_EXT_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}",
    }
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    parallel = ["-n", str(min(8, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    steps = [run("build", [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], environment)]
    suite = [*pytest, *parallel, "--backend", "cuda", "-m", SELECTED, *SUITE]
    steps.append(run("suite on CUDA tensors", suite, environment))
    steps.append(run("tests that need a GPU", [*pytest, ROOT / "tests" / "gpu"], environment))
    sanitizer = sanitizer_path()
    if sanitizer is None:
        steps.append({"step": "compute-sanitizer", "passed": False, "summary": "not found", "seconds": 0})
    else:
        # Each tensor gets an allocation of its own: torch's cache would hide an access just outside it.
        unpooled = {**environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        for tool in SANITIZERS:
            command = [sanitizer, "--tool", tool, "--error-exitcode", "1"]
            command += [sys.executable, ROOT / "tests" / "gpu" / "sanitizer_cases.py"]
            steps.append(run(f"compute-sanitizer {tool}", command, unpooled))

    name = torch.cuda.get_device_name()
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"gpu-check-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}.json"
    report = {
        "hardware": name,
        "capability": f"{major}.{minor}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "steps": steps,
    }
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{name}: {path.relative_to(ROOT)}")
    for step in steps:
        verdict = "passed" if step["passed"] else "FAILED"
        print(f"  {verdict}  {step['step']:<28} {step['seconds']:>7.1f} s  {step['summary']}")
    return 0 if all(step["passed"] for step in steps) else 1


if __name__ == "__main__":
    sys.exit(main())
