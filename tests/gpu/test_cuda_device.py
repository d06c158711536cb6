"""What only a GPU can show: sizes, streams, graphs, and that the host never waits.

The rest of the suite, run with ``--backend cuda``, tests what the kernels compute, on small maps. The maps and the
numbers of regions here are large enough that each kernel is launched as it is in use.
"""

import math

import pytest
import torch
from support import DTYPES, assert_same, assert_same_bits, random_rois

import spp_ext

LEVELS = (1, 2, 3, 6)
SHAPES = [(1, 256, 13, 13), (16, 256, 13, 13), (2, 512, 64, 64), (1, 64, 200, 200), (3, 130, 57, 41), (1, 3, 500, 400)]


def make(shape, dtype=torch.float32, channels_last=False, seed=0):
    x = torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def rois_for(x, count, scale=1 / 16):
    return random_rois(count, x.shape[0], x.shape[2], x.shape[3], scale=scale).cuda()


def pool_regions(x, rois, **options):
    return spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS, 1 / 16, **options)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_equal_the_cpu(shape, dtype, channels_last):
    x = make(shape, dtype, channels_last)
    expected = spp_ext.spatial_pyramid_pool(x.cpu(), LEVELS, return_indices=True)
    got = spp_ext.spatial_pyramid_pool(x, LEVELS, return_indices=True)
    assert_same([part.cpu() for part in got], expected)
    assert_same(spp_ext.spatial_pyramid_pool(x, LEVELS).cpu(), expected[0])


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [3, 300])
def test_regions_equal_the_cpu(shape, dtype, channels_last, count):
    x = make(shape, dtype, channels_last)
    rois = rois_for(x, count)
    expected = pool_regions(x.cpu(), rois.cpu(), return_indices=True)
    assert_same([part.cpu() for part in pool_regions(x, rois, return_indices=True)], expected)
    assert_same(pool_regions(x, rois).cpu(), expected[0])


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_equal_the_cpu_where_sums_are_exact_and_repeat_where_not(shape, channels_last):
    x = make(shape, channels_last=channels_last)
    rois = rois_for(x, 200)
    for pool in (lambda y: spp_ext.spatial_pyramid_pool(y, LEVELS), lambda y: pool_regions(y, rois.to(y.device))):
        leaf, host = x.clone().requires_grad_(), x.cpu().requires_grad_()
        output, host_output = pool(leaf), pool(host)
        whole = torch.randint(-4, 5, host_output.shape, generator=torch.Generator().manual_seed(1)).float()
        (got,) = torch.autograd.grad(output, leaf, whole.cuda(), retain_graph=True)
        (expected,) = torch.autograd.grad(host_output, host, whole)
        assert_same(got.cpu(), expected)
        assert got.stride() == x.stride()
        some = torch.randn_like(output)
        first, second = (torch.autograd.grad(output, leaf, some, retain_graph=True)[0] for _ in range(2))
        assert_same_bits(first, second)


def test_torch_agrees_that_gradients_are_deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        x = make((2, 64, 30, 40)).requires_grad_()
        (spp_ext.spatial_pyramid_pool(x).sum() + pool_regions(x, rois_for(x, 50)).sum()).backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_waits_for_the_device():
    x = make((4, 64, 30, 40)).requires_grad_()
    rois = rois_for(x, 50)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        (spp_ext.spatial_pyramid_pool(x).sum() + pool_regions(x, rois).sum()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_replays_on_new_inputs():
    x = make((2, 64, 30, 40)).requires_grad_()
    rois = rois_for(x, 40)

    def step():
        output = torch.cat([spp_ext.spatial_pyramid_pool(x), pool_regions(x, rois)])
        return output.detach(), torch.autograd.grad(output.sum(), x)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for seed in (1, 2):
        with torch.no_grad():
            x.copy_(make(x.shape, seed=seed))
            rois[:, 1:] += 7
        graph.replay()
        assert_same(captured, step())


def test_work_is_ordered_on_a_side_stream():
    x = torch.zeros(4, 256, 60, 60, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # a kernel on any other stream would overtake the write below
        x.fill_(3.0)
        output = spp_ext.spatial_pyramid_pool(x)
    side.synchronize()
    assert (output == 3).all()


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_more_than_two_to_the_31_elements(channels_last):
    shape = (2, 260, 2048, 2050)  # 2.18e9 elements, 4.4 GB
    x = torch.empty(shape, dtype=torch.bfloat16, device="cuda")
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.fill_(-1)
    last = (1, 259, 2047, 2049)
    x[last] = 5
    output, indices = spp_ext.spatial_pyramid_pool(x, (1, 2), return_indices=True)
    assert output[1, 259] == 5
    assert indices[1, 259] == 2048 * 2050 - 1
    assert (output.float().sum() == -output.numel() + 12).item()  # the cell is the maximum of two bins
    whole = torch.tensor([[1.0, 0, 0, 2049, 2047]], device="cuda")
    regions = spp_ext.roi_spatial_pyramid_pool(x, whole, (1, 2))
    assert_same(regions[0], output[1])


def test_more_than_two_to_the_31_elements_of_output():
    x = make((1, 256, 20, 20), torch.bfloat16)
    rois = rois_for(x, 1000).repeat(180, 1)  # 2.3e9 elements
    output = pool_regions(x, rois)
    assert output.numel() > 2**31
    assert_same(output[-1000:], pool_regions(x, rois[-1000:]))


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_bad_regions_become_nan_or_are_refused(channels_last):
    x = make((2, 32, 20, 20), channels_last=channels_last)
    rois = torch.tensor([[0.0, 1, 1, 99, 99], [2, 0, 0, 50, 50], [1, math.nan, 0, 50, 50]], device="cuda")
    output = pool_regions(x, rois)
    assert_same(output[0].cpu(), pool_regions(x.cpu(), rois[:1].cpu())[0])
    assert output[1:].isnan().all()
    with pytest.raises(IndexError, match="got 2 in row 1"):
        pool_regions(x, rois, validate=True)


def test_running_out_of_memory_is_torchs_error():
    x = torch.zeros(1, 1, 1, 1, device="cuda").expand(1, 1 << 22, 1, 1)
    with pytest.raises(torch.OutOfMemoryError, match="spatial_pyramid_pool"):
        spp_ext.spatial_pyramid_pool(x, (1000,))


def test_the_last_device_is_used_whichever_is_current():
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    x = make((1, 8, 9, 9)).to(last)
    with torch.cuda.device(0):
        output = spp_ext.spatial_pyramid_pool(x)
    assert output.device == last
    assert_same(output.cpu(), spp_ext.spatial_pyramid_pool(x.cpu()))
