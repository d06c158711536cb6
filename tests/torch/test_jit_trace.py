"""torch.jit.trace: the graph has the registered ops, or torch's own for drop-ins, at any size, saved and loaded."""

import io

import pytest
import torch
from capture_cases import assert_same_program, inputs, make, models

pytestmark = pytest.mark.cpu_only  # the graph calls the CPU's ops itself


def save_and_load(traced):
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("name", models())
def test_a_trace_pools_at_any_size(name, grad):
    model = make(name)
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(model, inputs())
    for program in (traced, save_and_load(traced)):
        assert_same_program(program, model)
