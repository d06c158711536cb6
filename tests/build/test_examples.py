"""The examples run, and say what they are there to show."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(name, folder, *arguments):
    # One thread: sums then have one order everywhere, and what a seed learns is the same.
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "examples" / name, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["any_size_classifier.py", "region_features.py", "yolo_pooling.py"])
def test_example_runs(name, tmp_path):
    assert run(name, tmp_path).strip()


@pytest.mark.integration
def test_onnx_example_runs(tmp_path):
    assert run("export_onnx.py", tmp_path).strip()


# ---- SPP-net, whose networks learn for minutes ----


@pytest.fixture(scope="module")
def sppnet(tmp_path_factory):
    """The demo of SPP-net in its form of a minute: the folder with its results, and what it printed."""
    folder = tmp_path_factory.mktemp("sppnet")
    printed = run("sppnet", folder, "--quick", "--proposals", "grid", "--output", "results")
    return json.loads((folder / "results" / "sppnet-demo.json").read_text()), folder / "results", printed


@pytest.mark.integration
def test_sppnet_learns_at_every_size_it_was_trained_at(sppnet):
    accuracy = {kind: seeds[0] for kind, seeds in sppnet[0]["accuracy"].items()}
    assert set(accuracy) == {"no SPP", "SPP, one size", "SPP, two sizes"}
    for result in accuracy.values():
        assert result["square"]["112"] > 0.5  # chance is 0.1
        assert result["svm"]["112"] > 0.4
    assert accuracy["SPP, two sizes"]["square"]["80"] > 0.5


@pytest.mark.integration
def test_a_pyramid_and_two_sizes_help_where_they_should(sppnet):
    one, two = (sppnet[0]["accuracy"][kind][0]["square"] for kind in ("SPP, one size", "SPP, two sizes"))
    assert two["80"] > one["80"] + 0.05 and two["64"] > one["64"] + 0.05
    # A wide picture need not be stretched.
    wide = {kind: seeds[0]["wide"]["112"] for kind, seeds in sppnet[0]["accuracy"].items()}
    assert max(wide["SPP, one size"], wide["SPP, two sizes"]) > wide["no SPP"]
    # What two sizes gain at the small one they do not lose at the large one several times over.
    assert two["112"] - two["80"] < one["112"] - one["80"]


@pytest.mark.integration
def test_sppnet_detects(sppnet):
    result = sppnet[0]["detection"]["a grid"]
    assert result["recall"] > 0.7
    for name in ("1 scale", "5 scales"):
        assert result["mAP"][name] > 0.1  # chance is nearly 0: ten classes, a thousand boxes a scene
        assert 0 < result["windows"][name] <= 1


@pytest.mark.integration
def test_sppnet_writes_its_pictures_and_prints_its_table(sppnet):
    _, folder, printed = sppnet
    assert (folder / "accuracy.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "detections.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert "112 x 112" in printed and "SVM, 112 x 168" in printed and "5 scales" in printed


def test_every_example_is_run_by_a_test():
    listed = {"any_size_classifier.py", "region_features.py", "yolo_pooling.py", "export_onnx.py", "sppnet"}
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/__main__.py")}
    assert {path.name for path in (ROOT / "examples").glob("*.py")} | folders == listed
