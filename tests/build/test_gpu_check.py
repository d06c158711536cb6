"""`make gpu-check` leaves out no test that says something about CUDA, and keeps what it learned whatever happens."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spp_ext._torch.op_table import NAMES

ROOT = Path(__file__).parents[2]
ELSEWHERE = re.compile(r"^pytestmark = (\[\s*)?pytest\.mark\.(cpu_only|integration|peers)\b", re.MULTILINE)


@pytest.fixture(scope="module")
def gpu_check():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        yield importlib.import_module("gpu_check")


def test_the_suite_has_every_file_without_a_marker(gpu_check):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-m", gpu_check.SELECTED, *gpu_check.SUITE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    collected = dict(line.split(": ") for line in done.stdout.splitlines() if line.startswith("tests/"))
    folders = [ROOT / "tests" / folder for folder in ("pooling", "derivatives", "ops", "errors", "torch")]
    files = [path for folder in folders for path in folder.glob("test_*.py")]
    expected = {str(path.relative_to(ROOT)) for path in files if not ELSEWHERE.search(path.read_text())}
    assert set(collected) == expected


class Counted(TorchDispatchMode):
    """Counts calls of the package's ops."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.namespace == "spp_ext":
            self.calls.append(op._opname)
        return op(*args, **(kwargs or {}))


@pytest.mark.cpu_only
def test_the_sanitizers_see_every_op_and_not_too_many_calls(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "gpu")
    with Counted() as counted:
        importlib.import_module("sanitizer_cases").main("cpu")
    assert set(counted.calls) == set(NAMES)
    assert len(counted.calls) < 800  # at 0.1 s each, far more than a sanitizer needs, 80 seconds


# ---- the steps, with a GPU that is not there and programs that are scripts ----

REPORT = "gpu-check-nvidia-h100-80gb-hbm3.json"


@pytest.fixture
def planted(gpu_check, monkeypatch, tmp_path):
    """Makes each step a Python script; returns a function that runs gpu_check and gives its status and report."""
    scripts = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(gpu_check, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(gpu_check, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(gpu_check, "commands", lambda step, _: [[sys.executable, "-c", scripts[step]]])
    monkeypatch.setenv("PATH", os.environ["PATH"])  # which main changes

    def check(steps, *options):
        scripts.update(steps)
        status = gpu_check.main(["--steps", ",".join(steps), "--output", str(tmp_path), *options])
        return status, json.loads((tmp_path / REPORT).read_text())

    return check


def test_a_failed_step_does_not_keep_the_next_from_running(planted):
    status, report = planted(
        {"build": "raise SystemExit('CMake Error: no compiler')", "gpu": "print('3 passed in 2s')"}
    )
    assert status == 1
    build, gpu = report["steps"]
    assert (build["passed"], build["errors"]) == (False, ["CMake Error: no compiler"])
    assert (gpu["passed"], gpu["errors"], gpu["summary"]) == (True, [], "3 passed in 2s")
    assert (report["hardware"], report["capability"], report["commit"]) == (
        "NVIDIA H100 80GB HBM3",
        "9.0",
        "0123456789ab",
    )


def test_a_report_keeps_the_steps_of_earlier_runs_of_the_same_commit(planted, gpu_check, monkeypatch):
    planted({"suite": "raise SystemExit(1)", "memcheck": "pass"})
    status, report = planted({"suite": "pass"})
    assert status == 0
    assert [(step["step"], step["passed"]) for step in report["steps"]] == [("suite", True), ("memcheck", True)]
    for other in ("ba9876543210", "0123456789ab-dirty", None):
        monkeypatch.setattr(gpu_check, "commit", lambda other=other: other)
        assert [step["step"] for step in planted({"gpu": "pass"})[1]["steps"]] == ["gpu"]
        assert [step["step"] for step in planted({"build": "pass"})[1]["steps"]] == (
            ["build", "gpu"] if other == "ba9876543210" else ["build"]
        )


def test_a_step_that_takes_too_long_is_ended_with_its_children(planted, tmp_path):
    child = f"import time; time.sleep(3); open({os.fspath(tmp_path / 'survived')!r}, 'w')"
    script = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    status, report = planted({"suite": script, "gpu": "pass"}, "--timeout", "1.5")
    assert status == 1
    suite, gpu = report["steps"]
    assert not suite["passed"] and suite["summary"] == "stopped after 2 s" and gpu["passed"]
    assert (tmp_path / "logs" / "suite.log").read_text() == "begun\n"
    time.sleep(3)
    assert not (tmp_path / "survived").exists()


def test_the_report_is_written_after_every_step(planted, tmp_path):
    look = f"import json; print(len(json.load(open({os.fspath(tmp_path / REPORT)!r}))['steps']), 'passed')"
    _, report = planted({"build": "pass", "suite": look, "gpu": look})
    assert [step["summary"] for step in report["steps"]] == ["", "1 passed", "2 passed"]


def test_steps_extend_the_environment_and_find_the_toolkit(gpu_check, monkeypatch, tmp_path):
    toolkit = tmp_path / "cuda" / "bin"
    toolkit.mkdir(parents=True)
    for name in ("nvcc", "compute-sanitizer"):
        (toolkit / name).write_text("#!/bin/sh\n")
        (toolkit / name).chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_HOME", os.fspath(tmp_path / "cuda"))
    monkeypatch.setenv("PYTHONPATH", "/of/the/user")
    environment = gpu_check.environment_of_steps("9.0")
    assert environment["PYTHONPATH"].split(os.pathsep) == [os.fspath(ROOT), "/of/the/user"]
    path = environment["PATH"].split(os.pathsep)
    assert os.fspath(toolkit) in path and path[-1] == "/nowhere"
    assert environment["TORCH_CUDA_ARCH_LIST"] == "9.0"
    for tool in gpu_check.SANITIZERS:
        (command,) = gpu_check.commands(tool, tmp_path)
        assert command[:3] == [os.fspath(toolkit / "compute-sanitizer"), "--tool", tool]
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setattr(gpu_check, "LOGS", tmp_path)
    monkeypatch.setattr(gpu_check, "find_tool", lambda name: None)
    step = gpu_check.run_step("memcheck", dict(os.environ), tmp_path, 5)
    assert (step["passed"], step["summary"]) == (False, "compute-sanitizer was not found")


SANITIZER = """========= COMPUTE-SANITIZER
collected
========= Invalid __global__ read of size 4 bytes
=========     at spp_ext::cuda::pool_map_planes(Params)+0x70
{}========= ERROR SUMMARY: 900 errors
"""


def test_the_first_errors_of_a_sanitizer_are_kept(gpu_check):
    errors = gpu_check.first_errors(SANITIZER.format("=========     another line\n" * 1000))
    assert errors[:2] == SANITIZER.splitlines()[2:4] and len(errors) == gpu_check.KEPT
    assert gpu_check.first_errors("x\nFAILED tests/a.py::b - E\n1 failed") == ["FAILED tests/a.py::b - E"]
    assert gpu_check.first_errors("a.cu(3): error: x\nninja: stopped") == ["a.cu(3): error: x"]


def test_the_commit_comes_from_the_environment_where_there_is_no_git(monkeypatch):
    with monkeypatch.context() as patch:
        patch.syspath_prepend(ROOT)
        commit = importlib.import_module("benchmarks.commit")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("SPP_EXT_COMMIT", "fedcba987654")
    assert commit.commit() == "fedcba987654" and commit.is_exact("fedcba987654")
    monkeypatch.delenv("SPP_EXT_COMMIT")
    assert commit.commit() is None and not commit.is_exact(None) and not commit.is_exact("fedcba987654-dirty")
