"""A call leaves nothing behind: the process is as large after many calls as after a few."""

import pytest
from support import run_python

pytestmark = pytest.mark.cpu_only  # other processes, which know of no --backend

CALLS = """
import torch
import spp_ext

torch.set_num_threads(1)
x, rois = torch.randn(1, 4, {cells}, {cells}), torch.tensor([[0.0, 0, 0, 5, 5]])
maps, map_indices = [x, torch.randn(1, 4, 9, {cells}, requires_grad={gradient})], torch.tensor([1])


def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def calls(number):
    for _ in range(number):
        {call}


calls(2_000)
before = pages()
calls(30_000)
print(pages() - before)
"""


@pytest.mark.parametrize("cells", [6, 20])  # scratch on the stack, and on the heap
@pytest.mark.parametrize(
    ("call", "gradient"),
    [
        ("spp_ext.spatial_pyramid_pool(x)", False),
        ("spp_ext.roi_spatial_pyramid_pool(x, rois)", False),
        ("spp_ext.roi_spatial_pyramid_pool(maps, rois, map_indices=map_indices)", False),
        ("spp_ext.roi_spatial_pyramid_pool(maps, rois, map_indices=map_indices).sum().backward()", True),
    ],
    ids=["map", "regions", "regions of several maps", "gradients of several maps"],
)
def test_many_calls_leave_no_memory_behind(call, gradient, cells):
    done = run_python("-c", CALLS.format(call=call, cells=cells, gradient=gradient))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200  # 27 bytes a call
