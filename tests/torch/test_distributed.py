"""Two processes: sharded images, boxes and channels give what one process gives, and so does training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import python_path

pytestmark = pytest.mark.cpu_only  # other processes, which know of no --backend

SCRIPT = Path(__file__).parents[1] / "helpers" / "distributed_cases.py"


@pytest.mark.parametrize("case", ["maps", "regions", "kernels", "second_derivatives", "training"])
def test_two_processes_give_what_one_gives(case, tmp_path):
    environment = {**os.environ, "PYTHONPATH": python_path()}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, case, str(rank), tmp_path / "rendezvous"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
