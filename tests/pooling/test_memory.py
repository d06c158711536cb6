"""A call leaves nothing behind, and works in memory that has a bound whatever the size of its map."""

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
