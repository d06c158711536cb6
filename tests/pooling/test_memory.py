"""A call leaves nothing behind, and works in memory that has a bound whatever the size of its map."""

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


PEAK = """
import resource
import torch
import spp_ext

torch.set_num_threads(2)
corners = torch.randint(0, 1490, (300, 2), generator=torch.Generator().manual_seed(0)).float()
small = torch.cat([torch.zeros(300, 1), corners, corners + 7], 1)
large = torch.tensor([[0.0, 0, 0, 1499, 1499], [0, 10, 700, 1400, 2000]])
x = torch.rand(1, 2, 1500, 1500)
maps = [x, x.contiguous(memory_format=torch.channels_last)]
spp_ext.roi_spatial_pyramid_pool(x[..., :40, :40], torch.zeros(2, 5))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


for rois in (small, large):
    for map in maps:
        before = peak()
        spp_ext.roi_spatial_pyramid_pool(map, rois, return_indices=True)
        print(peak() - before)
"""


def test_regions_of_a_large_map_take_no_more_memory_than_a_few_caches():
    """A thread's copy of the rows that it reads may be 16 MiB, where that of the whole map would be 137 MiB."""
    done = run_python("-c", PEAK)
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) < 40 * 1024  # KiB, on two threads
