"""torch.jit.trace: the graph has the registered ops, or torch's own for drop-ins, at any size, saved and loaded."""

import io

import pytest
import torch
from capture_cases import assert_same_program, inputs, make, models
from support import run_python

from spp_ext._torch import library

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


@pytest.mark.parametrize("name", ["function maps", "module RoISpatialPyramidPool", "swapped SPPF"])
def test_a_trace_that_is_not_strict_and_not_checked(name):
    """As tensorboard and ultralytics make it."""
    model = make(name)
    assert_same_program(torch.jit.trace(model, inputs(), strict=False, check_trace=False), model)


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("function maps", "spp_ext::spatial_pyramid_pool"),
        ("function regions", "spp_ext::roi_spatial_pyramid_pool"),
        ("module RoIPool", "spp_ext::roi_spatial_pyramid_pool"),
        ("module AdaptiveMaxPool2d", "aten::adaptive_max_pool2d"),
        ("swapped SPPF", "aten::max_pool2d"),
    ],
)
def test_the_graph_has_the_registered_op_or_that_of_torch(name, op):
    kinds = {node.kind() for node in torch.jit.trace(make(name), inputs()).inlined_graph.nodes()}
    assert {kind for kind in kinds if "pool" in kind} == {op}


def test_a_file_loads_without_this_package(tmp_path):
    arguments = inputs()
    for name in ("function maps", "swapped SPPF"):
        model = make(name)
        torch.jit.trace(model, arguments).save(tmp_path / f"{name}.pt")
        torch.save((arguments, model(*arguments)), tmp_path / f"{name}.results")
    program = f"""
import sys, torch

def check(name):
    arguments, expected = torch.load(f"{tmp_path}/{{name}}.results")
    with torch.no_grad():
        assert torch.equal(torch.jit.load(f"{tmp_path}/{{name}}.pt")(*arguments), expected)

check("swapped SPPF")
torch.ops.load_library({str(library.library_path())!r})
check("function maps")
assert "spp_ext" not in sys.modules
"""
    result = run_python("-c", program)
    assert result.returncode == 0, result.stderr
