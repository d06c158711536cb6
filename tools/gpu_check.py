"""Checks and measures spp_ext on the GPU of this machine, step by step, and keeps the outcome as JSON.

    python tools/gpu_check.py                              all steps        (make gpu-check)
    python tools/gpu_check.py --steps build,suite          some of them: the report keeps what it has of the others

    build       the libraries, for the GPU that is there; the other steps use what was built last
    suite       the suite on CUDA tensors
    gpu         the tests that need a GPU
    memcheck, racecheck, initcheck, synccheck               compute-sanitizer on a set of small calls
    bench       the benchmarks, beside torch, torchvision and torch.compile; results in --output. Goes on where an
                earlier run of the same commit stopped
    sppnet      R-CNN against SPP-net; results in --output

Uses the packages of the Python that runs it and installs nothing: torch with CUDA, pytest, hypothesis, numpy, cmake,
pybind11; nvcc and compute-sanitizer from the path, $CUDA_HOME or /usr/local/cuda. Every step is a process of its own
with a limit of time, its output is also in build/gpu-check/<step>.log, and the report is written after each. A step
that fails does not keep the next from running; the exit status is 1 then. Where there is no git, $SPP_EXT_COMMIT names
the commit.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(os.fspath(ROOT))
from benchmarks.commit import commit, is_exact  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
LOGS = ROOT / "build" / "gpu-check"
# These folders test what the kernels compute. A test that is not about CUDA carries the marker cpu_only.
SUITE = [ROOT / "tests" / folder for folder in ("pooling", "derivatives", "ops", "errors", "torch")]
SELECTED = "not cpu_only and not integration and not peers"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
STEPS = ("build", "suite", "gpu", *SANITIZERS, "bench", "sppnet")
SECONDS = 570  # of a step at most, if nothing else is asked for
KEPT = 40  # lines of errors in the report


def find_tool(name):
    """The path of a program of the CUDA toolkit, or None."""
    roots = [os.environ.get(variable) for variable in ("CUDA_HOME", "CUDA_PATH")]
    places = [Path(root) / "bin" / name for root in (*roots, "/usr/local/cuda") if root]
    found = next((os.fspath(place) for place in places if place.exists()), None)
    return shutil.which(name) or found


def environment_of_steps(architecture):
    """What the processes of the steps find in their environment."""
    nvcc = find_tool("nvcc")
    here = [os.fspath(Path(sys.executable).parent), *([os.fspath(Path(nvcc).parent)] if nvcc else [])]
    return {
        **os.environ,
        "PATH": os.pathsep.join([*here, os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [os.fspath(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "CI": "true",  # hypothesis then draws the same cases on every run
        "SPP_EXT_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": architecture,
    }


def commands(step, output):
    """The commands of a step, one after the other. Raises FileNotFoundError where a program is missing."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if step == "build":  # what setup.py does, which needs a setuptools of its own
        build = LOGS.parent / f"gpu-{sys.implementation.cache_tag}"
        configure = ["cmake", "-S", ROOT, "-B", build, f"-DPython_EXECUTABLE={sys.executable}"]
        configure += ["-DSPP_EXT_BUILD_PYTHON=ON", *(["-G", "Ninja"] if shutil.which("ninja") else [])]
        install = ["cmake", "--install", build, "--component", "python", "--prefix", ROOT / "spp_ext"]
        return [configure, ["cmake", "--build", build, "--parallel", str(os.cpu_count() or 1)], install]
    if step == "suite":
        parallel = ["-n", str(min(8, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
        return [[*pytest, *parallel, "--backend", "cuda", "-m", SELECTED, *SUITE]]
    if step == "gpu":
        return [[*pytest, ROOT / "tests" / "gpu"]]
    if step in SANITIZERS:
        sanitizer = find_tool("compute-sanitizer")
        if sanitizer is None:
            raise FileNotFoundError("compute-sanitizer was not found")
        # Whether memory was written can only be known if torch's kernels are watched too.
        ours = [] if step == "initcheck" else ["--kernel-name", "kns=spp_ext"]
        cases = [sys.executable, ROOT / "tests" / "gpu" / "sanitizer_cases.py"]
        return [[sanitizer, "--tool", step, "--error-exitcode", "1", *ours, *cases]]
    benchmarks = [sys.executable, "-m", "benchmarks", "--device", "cuda", "--output", output]
    return [[*benchmarks, "--compile", "150", "--resume"] if step == "bench" else [*benchmarks, "sppnet"]]


def run_logged(command, environment, log, seconds):
    """Runs a command, its output passed through and appended to a file; returns its status, None if time ran out."""
    print(f"$ {' '.join(map(str, command))}", flush=True)
    with log.open("ab") as file:
        begin = file.tell()
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children end with it
        )
        try:
            status = process.wait(timeout=max(seconds, 0))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = log.read_bytes()[begin:].decode(errors="replace")
    print(text if len(text) < 12000 else f"{text[:6000]}\n[...: {log}]\n{text[-6000:]}", flush=True)
    return status


def first_errors(text):
    """The lines that say what failed: a sanitizer's first reports, pytest's summary, errors of a compiler or cmake."""
    lines = text.splitlines()
    # The banner and the summaries at the end are no reports.
    reports = [line for line in lines if re.match(r"=========\s+\S", line) and "COMPUTE-SANITIZER" not in line]
    reports = [line for line in reports if not re.search(r"(ERROR|RACECHECK) SUMMARY", line)]
    failures = [line for line in lines if re.match(r"FAILED |ERROR |CMake Error", line)]
    others = [line for line in lines if re.match(r"E  |\w*Error\b", line) or re.search(r"\berror ?[:#]", line)]
    return [line[:300] for line in (reports or failures or others)[:KEPT]]


def run_step(step, environment, output, seconds):
    """Runs one step; returns what the report says of it."""
    print(f"\n== {step}", flush=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{step}.log"
    log.write_bytes(b"")
    if step in SANITIZERS:
        # Each tensor gets an allocation of its own: torch's cache would hide an access just outside it.
        environment = {**environment, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    begin = time.perf_counter()
    status, reason = 0, ""
    try:
        for command in commands(step, output):
            status = run_logged(command, environment, log, seconds - (time.perf_counter() - begin))
            if status != 0:
                break
    except FileNotFoundError as error:
        status, reason = 1, str(error)
    text = log.read_text(errors="replace")
    ends = [line for line in text.splitlines() if re.search(r"\d (passed|failed|error)|SUMMARY|^results ", line)]
    summary = f"stopped after {seconds:.0f} s" if status is None else reason or (ends[-1].strip() if ends else "")
    return {
        "step": step,
        "passed": status == 0,
        "summary": summary,
        "errors": [] if status == 0 else first_errors(text),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def about():
    """What the report says besides its steps."""
    return {
        "hardware": torch.cuda.get_device_name(),
        "capability": "{}.{}".format(*torch.cuda.get_device_capability()),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": commit(),
    }


def steps_so_far(path, same):
    """Step -> what an earlier run wrote of it, if it was of the same sources on the same machine."""
    try:
        report = json.loads(path.read_text())
        kept = is_exact(same["commit"]) and all(report.get(key) == value for key, value in same.items())
        return {step["step"]: step for step in report["steps"]} if kept else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _steps(text):
    names = text.split(",")
    if unknown := [name for name in names if name not in STEPS]:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(STEPS)}, got {','.join(unknown)}")
    return [step for step in STEPS if step in names]


def main(arguments=None):
    """Runs the steps that are asked for and writes the report after each; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=_steps, default=list(STEPS), metavar="STEP,STEP")
    parser.add_argument("--timeout", type=float, default=SECONDS, help="seconds for each step (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("gpu-check needs a GPU that torch can use, and there is none.", file=sys.stderr)
        return 1
    report = about()
    environment = environment_of_steps(report["capability"])
    os.environ["PATH"] = environment["PATH"]  # where programs are looked for
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", report["hardware"]).strip("-").lower()
    path = output / f"gpu-check-{name}.json"
    steps = steps_so_far(path, report)
    for step in options.steps:
        steps[step] = run_step(step, environment, output, options.timeout)
        report["steps"] = [steps[name] for name in STEPS if name in steps]
        path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{report['hardware']}, commit {report['commit']}: {path}")
    for step in report["steps"]:
        verdict = "passed" if step["passed"] else "FAILED"
        print(f"  {verdict}  {step['step']:<10} {step['seconds']:>7.1f} s  {step['summary']}")
    return 0 if all(steps[step]["passed"] for step in options.steps) else 1


if __name__ == "__main__":
    sys.exit(main())
