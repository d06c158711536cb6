"""The examples run, and say what they are there to show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(name, folder):
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    command = [sys.executable, ROOT / "examples" / name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["any_size_classifier.py", "region_features.py", "yolo_pooling.py"])
def test_example_runs(name, tmp_path):
    assert run(name, tmp_path).strip()


@pytest.mark.integration
def test_onnx_example_runs(tmp_path):
    assert run("export_onnx.py", tmp_path).strip()


def test_every_example_is_run_by_a_test():
    listed = {"any_size_classifier.py", "region_features.py", "yolo_pooling.py", "export_onnx.py"}
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == listed
