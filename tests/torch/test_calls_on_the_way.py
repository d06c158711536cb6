"""What a call costs in Python before it reaches a kernel: its functions, counted. Each was a measured part of the time.

A call that needs one more function than before fails here; if the function is worth it, raise the number and say why.
"""

import sys
from pathlib import Path

import pytest
import torch

import spp_ext
import spp_ext.ops

pytestmark = pytest.mark.cpu_only  # about Python

PACKAGE = str(Path(spp_ext.__file__).parent)
X, ROIS = torch.randn(1, 4, 6, 6), torch.tensor([[0.0, 0, 0, 5, 5]])
OUT = torch.empty(1, 200)
MAPS, MAP_INDICES = [X, torch.randn(1, 4, 5, 7)], torch.tensor([1])


def functions_called(call):
    """Names of the package's functions that a warm call runs through, as file:function."""
    for _ in range(3):
        call()
    called = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            called.append(f"{Path(frame.f_code.co_filename).stem}:{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return called


def training_step(pool, *maps):
    leaves = [x.clone().requires_grad_() for x in maps]

    def step():
        output = pool(*leaves)
        torch.autograd.grad(output, leaves, torch.ones_like(output), materialize_grads=True)

    return step


def several(*maps):
    return spp_ext.roi_spatial_pyramid_pool(list(maps), ROIS, map_indices=MAP_INDICES)


@pytest.mark.parametrize(
    ("call", "most"),
    [
        (lambda: spp_ext.spatial_pyramid_pool(X), 5),
        (lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS), 6),
        (lambda: several(*MAPS), 11),
        (lambda: spp_ext.ops.roi_pool(X, ROIS, 7), 12),
        (lambda: spp_ext.ops.adaptive_max_pool2d(X, 3), 15),
        (lambda: spp_ext.spatial_pyramid_pool(X, out=OUT), 5),
        (lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS, out=OUT), 6),
        (training_step(spp_ext.spatial_pyramid_pool, X), 15),
        (training_step(lambda x: spp_ext.roi_spatial_pyramid_pool(x, ROIS), X), 16),
        (training_step(several, *MAPS), 22),
    ],
    ids=[
        "map",
        "regions",
        "several",
        "roi_pool",
        "adaptive",
        "map out",
        "regions out",
        "map step",
        "regions step",
        "several step",
    ],
)
def test_a_call_takes_no_more_python_functions(call, most):
    called = [name for name in functions_called(call) if not name.endswith(">")]  # comprehensions
    assert len(called) <= most, called


def test_a_compiled_step_stays_in_one_file_of_the_package():
    compiled = torch.compile(lambda x: spp_ext.roi_spatial_pyramid_pool(x, ROIS), backend="aot_eager", fullgraph=True)
    called = functions_called(training_step(compiled, X))
    assert len(called) <= 4, called
    assert {name.split(":")[0] for name in called} == {"registration"}
