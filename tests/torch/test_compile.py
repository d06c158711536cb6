"""torch.compile without a break: one graph for every size, forward, training and torch.func."""

from pathlib import Path

import pytest
from support import run_python

pytestmark = pytest.mark.cpu_only  # other processes, which know of no --backend

FOLDER = Path(__file__).parents[1] / "helpers"


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.integration)])
def test_compiled_functions_give_the_same_with_one_graph_for_every_size(backend):
    result = run_python(str(FOLDER / "compile_cases.py"), backend)
    assert result.returncode == 0, result.stdout + result.stderr
