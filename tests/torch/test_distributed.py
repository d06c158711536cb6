"""Two processes: sharded images, boxes and channels give what one process gives, and so does training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import python_path

pytestmark = pytest.mark.cpu_only  # other processes, which know of no --backend

SCRIPT = Path(__file__).parents[1] / "helpers" / "distributed_cases.py"


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Two processes that have ended, and what each printed. They run every case in turn and say which have passed."""
    environment = {**os.environ, "PYTHONPATH": python_path()}
    file = tmp_path_factory.mktemp("distributed") / "rendezvous"
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), file],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        return started, [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize("case", ["maps", "regions", "kernels", "second_derivatives", "ddp", "fsdp"])
def test_two_processes_give_what_one_gives(case, processes):
    for output in processes[1]:
        assert f"{case} passed" in output.splitlines(), "\n".join(processes[1])


def test_both_processes_end_well(processes):
    assert [process.returncode for process in processes[0]] == [0, 0], "\n".join(processes[1])
