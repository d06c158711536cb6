"""`make gpu-check` leaves out no test that says something about CUDA."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ELSEWHERE = re.compile(r"^pytestmark = pytest\.mark\.(cpu_only|peers)\b", re.MULTILINE)


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
    folders = [ROOT / "tests" / folder for folder in ("pooling", "derivatives", "ops", "errors")]
    files = [path for folder in folders for path in folder.glob("test_*.py")]
    expected = {str(path.relative_to(ROOT)) for path in files if not ELSEWHERE.search(path.read_text())}
    assert set(collected) == expected
