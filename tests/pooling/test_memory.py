"""A call leaves nothing behind: the process is as large after many calls as after a few."""

import json

import pytest
from support import run_python

pytestmark = pytest.mark.cpu_only  # other processes, which know of no --backend

CALLS = {
    "map": "spp_ext.spatial_pyramid_pool(x)",
    "regions": "spp_ext.roi_spatial_pyramid_pool(x, rois)",
    "regions of several maps": "spp_ext.roi_spatial_pyramid_pool(maps, rois, map_indices=map_indices)",
    "gradients of several maps": (
        "spp_ext.roi_spatial_pyramid_pool([x, leaf], rois, map_indices=map_indices).sum().backward()"
    ),
}
CELLS = [6, 20]  # scratch on the stack, and on the heap
SCRIPT = f"""
import json
import torch
import spp_ext

torch.set_num_threads(1)


def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def grown(call, cells):
    x, rois, map_indices = torch.randn(1, 4, cells, cells), torch.tensor([[0.0, 0, 0, 5, 5]]), torch.tensor([1])
    maps, leaf = [x, torch.randn(1, 4, 9, cells)], torch.randn(1, 4, 9, cells, requires_grad=True)
    names = {{**globals(), **locals()}}
    many = compile(f"for _ in range(number): {{call}}", call, "exec")
    exec(many, names | {{"number": 1_000}})
    before = pages()
    exec(many, names | {{"number": 10_000}})
    return pages() - before


print(json.dumps([[name, cells, grown(call, cells)] for name, call in {CALLS!r}.items() for cells in {CELLS}]))
"""


@pytest.fixture(scope="module")
def grown():
    """Call and cells -> by how many pages a process grew in 10,000 calls, one process for all."""
    done = run_python("-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    return {(call, cells): pages for call, cells, pages in json.loads(done.stdout)}


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("call", CALLS)
def test_many_calls_leave_no_memory_behind(call, cells, grown):
    assert grown[call, cells] < 66  # 27 bytes a call
