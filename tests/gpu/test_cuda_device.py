"""What only a GPU can show: sizes, streams, graphs, and that the host never waits.

The rest of the suite, run with ``--backend cuda``, tests what the kernels compute, on small maps. The maps and the
numbers of regions here are large enough that each kernel is launched as it is in use.
"""

import contextlib
import copy
import ctypes
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from op_calls import calls, out_calls
from pooling_models import SPP, SPPF
from support import DTYPES, assert_same, assert_same_bits, integers, random_rois, run_python
from torch.library import opcheck

import spp_ext
from spp_ext import _checks, ops
from spp_ext._torch import library

LEVELS = (1, 2, 3, 6)
SHAPES = [(1, 256, 13, 13), (16, 256, 13, 13), (2, 512, 64, 64), (1, 64, 200, 200), (3, 130, 57, 41), (1, 3, 500, 400)]
# The levels of a feature pyramid, of an image of 800 x 1216.
FPN = [(1, 256, 200, 304), (1, 256, 100, 152), (1, 256, 50, 76), (1, 256, 25, 38)]
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
layouts = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])


def make(shape, dtype=torch.float32, channels_last=False, seed=0):
    x = torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def rois_for(x, count, scale=1 / 16):
    return random_rois(count, x.shape[0], x.shape[2], x.shape[3], scale=scale).cuda()


def pool_regions(x, rois, **options):
    return spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS, 1 / 16, **options)


def pyramid_of_maps(count, dtype=torch.float32, channels_last=False):
    """Maps, boxes on all of them but the last, and which map each box is pooled from."""
    maps = [make(shape, dtype, channels_last, seed) for seed, shape in enumerate(FPN)]
    rois = random_rois(count, 1, *FPN[0][2:], scale=SCALES[0]).cuda()
    return maps, rois, (torch.arange(count) * 7 % 5 % 3).cuda()


def pool_maps(maps, rois, map_indices, **options):
    return spp_ext.roi_spatial_pyramid_pool(maps, rois, LEVELS, SCALES, map_indices=map_indices, **options)


def on_host(*tensors):
    return [[x.cpu() for x in part] if isinstance(part, list) else part.cpu() for part in tensors]


def whole_gradient(pool, grad, *maps):
    """The gradients of maps, for a gradient of whole numbers, whose sums are exact."""
    leaves = [x.detach().requires_grad_() for x in maps]
    return torch.autograd.grad(pool(*leaves), leaves, grad, materialize_grads=True)


def needs_gigabytes(count):
    """Skips a test that the GPU has not enough free memory for."""
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] / 1e9
    if free < count:
        pytest.skip(f"needs {count} GB of free GPU memory, and there are {free:.1f}")


@contextlib.contextmanager
def refusing_to_wait():
    """torch raises where the host would wait for the device."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is a prototype
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("default")


def test_the_library_is_loaded_and_its_driver_new_enough():
    assert library.cuda_status() == "loaded"


@layouts
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_equal_the_cpu(shape, dtype, channels_last):
    x = make(shape, dtype, channels_last)
    expected = spp_ext.spatial_pyramid_pool(x.cpu(), LEVELS, return_indices=True)
    got = spp_ext.spatial_pyramid_pool(x, LEVELS, return_indices=True)
    assert_same([part.cpu() for part in got], expected)
    assert_same(spp_ext.spatial_pyramid_pool(x, LEVELS).cpu(), expected[0])


@layouts
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [3, 300])
def test_regions_equal_the_cpu(shape, dtype, channels_last, count):
    x = make(shape, dtype, channels_last)
    rois = rois_for(x, count)
    expected = pool_regions(x.cpu(), rois.cpu(), return_indices=True)
    assert_same([part.cpu() for part in pool_regions(x, rois, return_indices=True)], expected)
    assert_same(pool_regions(x, rois).cpu(), expected[0])


@layouts
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


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_many_regions_of_a_large_map_equal_the_cpu(dtype, channels_last):
    x = make(FPN[0], dtype, channels_last)
    rois = rois_for(x, 2000, SCALES[0])

    def pool(x, rois, **options):
        return spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS, SCALES[0], **options)

    expected = pool(x.cpu(), rois.cpu(), return_indices=True)
    assert_same([part.cpu() for part in pool(x, rois, return_indices=True)], expected)
    assert_same(pool(x, rois).cpu(), expected[0])
    whole = integers(expected[0].shape, dtype, low=-1, high=1)
    (got,) = whole_gradient(lambda y: pool(y, rois), whole.cuda(), x)
    (want,) = whole_gradient(lambda y: pool(y, rois.cpu()), whole, x.cpu())
    assert_same(got.cpu(), want)


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 256, 200, 200), (1, 1024, 38, 63), (1, 8, 1000, 1000)], ids=str)
def test_one_large_image_equals_the_cpu(shape, dtype, channels_last):
    x = make(shape, dtype, channels_last)
    expected = spp_ext.spatial_pyramid_pool(x.cpu(), LEVELS, return_indices=True)
    assert_same([part.cpu() for part in spp_ext.spatial_pyramid_pool(x, LEVELS, return_indices=True)], expected)
    assert_same(spp_ext.spatial_pyramid_pool(x, LEVELS).cpu(), expected[0])
    whole = integers(expected[0].shape, dtype)
    (got,) = whole_gradient(lambda y: spp_ext.spatial_pyramid_pool(y, LEVELS), whole.cuda(), x)
    (want,) = whole_gradient(lambda y: spp_ext.spatial_pyramid_pool(y, LEVELS), whole, x.cpu())
    assert_same(got.cpu(), want)


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("count", [0, 5, 1000])
def test_regions_of_several_maps_equal_the_cpu(count, dtype, channels_last):
    maps, rois, which = pyramid_of_maps(count, dtype, channels_last)
    host = on_host(maps, rois, which)
    expected = pool_maps(*host, return_indices=True)
    assert_same([part.cpu() for part in pool_maps(maps, rois, which, return_indices=True)], expected)
    assert_same(pool_maps(maps, rois, which).cpu(), expected[0])
    whole = integers(expected[0].shape, dtype, low=-1, high=1)
    got = whole_gradient(lambda *maps: pool_maps(list(maps), rois, which), whole.cuda(), *maps)
    want = whole_gradient(lambda *maps: pool_maps(list(maps), *host[1:]), whole, *host[0])
    assert_same([part.cpu() for part in got], want)
    assert [part.stride() for part in got] == [x.stride() for x in maps]


@layouts
@pytest.mark.parametrize("cascade", [False, True], ids=["side by side", "cascade"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(8, 512, 20, 20), (4, 256, 40, 40), (1, 3, 300, 200)], ids=str)
def test_stride_one_pools_equal_the_cpu(shape, dtype, cascade, channels_last):
    def pool(x):
        return ops.multi_kernel_max_pool2d(x, (5, 9, 13), cascade=cascade)

    x = make(shape, dtype, channels_last)
    expected = pool(x.cpu())
    assert_same(pool(x).cpu(), expected)
    if not cascade:
        assert_same(pool(x), torch.cat([x, *(F.max_pool2d(x, size, 1, size // 2) for size in (5, 9, 13))], 1))
    whole = integers(expected.shape, dtype, low=-1, high=1)
    assert_same([g.cpu() for g in whole_gradient(pool, whole.cuda(), x)], whole_gradient(pool, whole, x.cpu()))


@layouts
def test_the_drop_ins_equal_the_cpu_and_torch(channels_last):
    x = make((2, 64, 57, 41), channels_last=channels_last)
    rois = rois_for(x, 200)
    for size in (1, 7, (3, 50)):
        assert_same(ops.adaptive_max_pool2d(x, size), F.adaptive_max_pool2d(x, size))
        expected = ops.roi_pool(x.cpu(), rois.cpu(), size, 1 / 16)
        assert_same(ops.roi_pool(x, rois, size, 1 / 16).cpu(), expected)


@pytest.mark.parametrize("block", [SPP, SPPF])
def test_a_swapped_model_gives_what_it_gave(block):
    torch.manual_seed(0)
    model = block(8, 16).cuda().eval()
    swapped = copy.deepcopy(model)
    assert len(spp_ext.replace_pooling(swapped).swapped) == 1
    x = make((2, 8, 20, 20)).requires_grad_()
    torch.testing.assert_close(swapped(x), model(x))  # the convolutions are not ours


def test_autocast_pools_what_it_is_given():
    x, rois = make((2, 3, 9, 3002), torch.float16).requires_grad_(), torch.tensor([[0.0, 2049, 0, 2049, 0]]).cuda()
    with torch.autocast("cuda", dtype=torch.float16):
        pooled = spp_ext.roi_spatial_pyramid_pool(x, rois, (1,))
    assert_same(pooled[0].detach(), x[0, :, 0, 2049].detach())  # a column that half precision has no number for
    pooled.sum().backward()
    assert x.grad.dtype == torch.float16 and x.grad.count_nonzero() == 3


@layouts
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (0, 3, 5, 6), (2, 0, 5, 6)], ids=str)
def test_opcheck(shape, gradient, channels_last):
    for op, arguments in calls(make(shape, channels_last=channels_last), gradient):
        opcheck(op.default, arguments)


@layouts
def test_opcheck_of_ops_that_write(channels_last):
    for op, arguments, values in out_calls(make((2, 3, 5, 6), channels_last=channels_last)):
        wider = values.new_zeros(*values.shape[:-1], values.shape[-1] + 3)
        for out in (torch.zeros_like(values), wider[..., 2:-1]):
            opcheck(op, arguments, {"out": out})
            assert_same(op(*arguments, out=out), values)


@pytest.mark.filterwarnings("ignore")  # what a compiler says of the machine is not about this package
def test_a_compiled_function_gives_the_same():
    x = make((2, 16, 30, 40)).requires_grad_()
    rois = rois_for(x, 50)

    def pool(x):
        return torch.cat([spp_ext.spatial_pyramid_pool(x * 2), pool_regions(x * 2, rois)])

    compiled = torch.compile(pool, fullgraph=True)
    assert_same(compiled(x), pool(x))
    ones = torch.ones_like(pool(x))
    assert_same(torch.autograd.grad(compiled(x), x, ones), torch.autograd.grad(pool(x), x, ones))


HOSTILE = """
import torch
import spp_ext
from support import INF, NAN
ops = torch.ops.spp_ext
x, grad = torch.zeros(2, 3, 4, 5, device="cuda"), torch.zeros(2, 3, device="cuda")
argmax, rois = torch.zeros(2, 3, dtype=torch.int32, device="cuda"), torch.zeros(2, 5, device="cuda")
numbers = [NAN, INF, -INF, 1e30, -1e30, 2.0, -1.0, 3.4e38, 1e-45]
calls = [
    *(lambda n=n: ops.gather(x, argmax.new_full((2, 3), n), rois, [1]) for n in (-(2**31), -2, 20, 2**31 - 1)),
    *(
        lambda n=n: ops.scatter(grad, argmax.new_full((2, 3), n), rois, [1], [2, 3, 4, 5], False)
        for n in (-(2**31), -2, 20, 2**31 - 1)
    ),
    *(lambda n=n: ops.gather(x, argmax, rois.new_full((2, 5), n), [1]) for n in numbers),
    *(lambda n=n: ops.scatter(grad, argmax, rois.new_full((2, 5), n), [1], [2, 3, 4, 5], False) for n in numbers),
    *(
        lambda n=n, c=c: ops.roi_spatial_pyramid_pool_with_argmax(x, rois.new_full((2, 5), n), [1, 1], 1.0, c, False)
        for n in numbers
        for c in range(4)
    ),
    *(
        lambda n=n: ops.roi_spatial_pyramid_pool_of_maps_with_argmax(
            [x, x], rois, torch.full((2,), n, device="cuda"), [1, 1], [1.0, 1.0], 2, False
        )
        for n in (-(2**63), -1, 2, 2**40)
    ),
    lambda: ops.gather(x, argmax.cpu(), None, [1]),
    lambda: ops.roi_spatial_pyramid_pool(x, rois.cpu(), [1, 1], 1.0, 2, False),
]
for call in calls:
    try:
        call()
    except (ValueError, IndexError, RuntimeError) as error:
        assert "CUDA error" not in str(error), error
    torch.cuda.synchronize()
    assert spp_ext.spatial_pyramid_pool(x + 1, (1,)).eq(1).all()
print("survived", len(calls))
"""


def test_hostile_calls_leave_the_gpu_in_order():
    done = run_python("-c", HOSTILE)
    assert done.stdout.startswith("survived"), done.stdout + done.stderr


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
    maps, boxes, which = pyramid_of_maps(60)
    maps[0].requires_grad_()

    def step():
        pooled = [spp_ext.spatial_pyramid_pool(x), pool_regions(x, rois), pool_maps(maps, boxes, which)]
        pooled += [ops.multi_kernel_max_pool2d(x), ops.adaptive_max_pool2d(x, 7)]
        sum(part.sum() for part in pooled).backward()

    step()  # torch itself may wait when it sets something up
    torch.cuda.synchronize()
    with refusing_to_wait():
        step()


def test_torch_would_tell_if_the_host_waited():
    x = make((1, 1, 3, 3))
    with refusing_to_wait(), pytest.raises(RuntimeError, match="synchroniz"):
        x.sum().item()


def captured(step):
    """A graph of ``step``, which is called once before, as torch's documentation asks; and what it will write to."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        return graph, step()


def test_a_graph_replays_on_new_inputs():
    x = make((2, 64, 30, 40)).requires_grad_()
    rois = rois_for(x, 40)

    def step():
        output = torch.cat([spp_ext.spatial_pyramid_pool(x), pool_regions(x, rois)])
        return output.detach(), torch.autograd.grad(output.sum(), x)[0]

    graph, results = captured(step)
    for seed in (1, 2):
        with torch.no_grad():
            x.copy_(make(x.shape, seed=seed))
            rois[:, 1:] += 7
        graph.replay()
        assert_same(results, step())


def test_images_of_any_size_equal_the_cpu_and_the_host_never_waits(monkeypatch):
    maps = [make(shape) for shape in ((2, 64, 30, 40), (1, 64, 13, 50), (64, 9, 9))]
    x, sizes = make((3, 64, 30, 40)), torch.tensor([[30, 40], [1, 7], [12, 39]])
    there = sizes.cuda()
    with refusing_to_wait():
        listed = spp_ext.spatial_pyramid_pool(maps, LEVELS)
        parts = spp_ext.spatial_pyramid_pool(x, LEVELS, sizes=there)
    assert_same(listed.cpu(), spp_ext.spatial_pyramid_pool([x.cpu() for x in maps], LEVELS))
    assert_same(parts.cpu(), spp_ext.spatial_pyramid_pool(x.cpu(), LEVELS, sizes=sizes))
    graph, result = captured(lambda: spp_ext.spatial_pyramid_pool(x, LEVELS, sizes=there))
    there[1, 0] = 31
    graph.replay()
    assert_same(result[::2], parts[::2])
    assert result[1].isnan().all()
    monkeypatch.setattr(_checks, "VALIDATES", True)
    with pytest.raises(ValueError, match=r"expected sizes from \[1, 1\] to \[30, 40\], got \[31, 7\] in row 1"):
        spp_ext.spatial_pyramid_pool(x, LEVELS, sizes=there)


def test_a_graph_writes_into_out():
    """Nothing is allocated for a result that is contiguous, so the graph has no memory of its own."""
    x, whole = make((2, 64, 30, 40)), torch.zeros(2, 64 * 50, device="cuda")
    blocks = torch.zeros(2, 4 * 64, 30, 40, device="cuda")

    def step():
        before = torch.cuda.memory_allocated()
        spp_ext.spatial_pyramid_pool(x, LEVELS, out=whole)
        ops.multi_kernel_max_pool2d(x, out=blocks)
        assert torch.cuda.memory_allocated() == before

    graph, _ = captured(step)
    for seed in (1, 2):
        x.copy_(make(x.shape, seed=seed))
        graph.replay()
        assert_same(whole, spp_ext.spatial_pyramid_pool(x, LEVELS))
        assert_same(blocks, ops.multi_kernel_max_pool2d(x))


def test_a_graph_of_several_maps_replays_on_new_inputs():
    maps, rois, which = pyramid_of_maps(300)
    for x in maps:
        x.requires_grad_()

    def step():
        output = pool_maps(maps, rois, which)
        return output.detach(), *torch.autograd.grad(output.sum(), maps, materialize_grads=True)

    graph, results = captured(step)
    for seed in (1, 2):
        with torch.no_grad():
            for x in maps:
                x.copy_(make(x.shape, seed=seed))
            rois[:, 1:] += 7
            which.copy_((which + 1) % 4)
        graph.replay()
        assert_same(results, step())


# Without the call before that torch's documentation asks for. A driver before CUDA 12.3 cannot load kernels meanwhile.
FIRST_CALL = """
import torch
import spp_ext
x = torch.randn(2, 8, 9, 11, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    output = spp_ext.spatial_pyramid_pool(x)
x.add_(1)
graph.replay()
assert output.equal(spp_ext.spatial_pyramid_pool(x))
print("replayed")
"""


def test_the_first_call_may_be_one_that_is_captured():
    version = ctypes.c_int()
    assert ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0
    if version.value < 12030:
        pytest.skip("needs a driver for CUDA 12.3")
    done = run_python("-c", FIRST_CALL)
    assert done.stdout == "replayed\n", done.stdout + done.stderr


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


@layouts
def test_more_than_two_to_the_31_elements(channels_last):
    needs_gigabytes(9)
    shape = (2, 260, 2048, 2050)  # 2.18e9 elements, 4.4 GB
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.empty(shape, dtype=torch.bfloat16, device="cuda", memory_format=memory_format).fill_(-1)
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
    needs_gigabytes(14)
    x = make((1, 256, 20, 20), torch.bfloat16)
    rois = rois_for(x, 1000).repeat(180, 1)  # 2.3e9 elements
    output = pool_regions(x, rois)
    assert output.numel() > 2**31
    assert_same(output[-1000:], pool_regions(x, rois[-1000:]))


@layouts
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


BROKEN = """
import torch
import spp_ext
x = torch.zeros(1, 64, 9, 9, device="cuda")
try:
    torch.zeros(3, device="cuda")[torch.tensor([9], device="cuda")]
    torch.cuda.synchronize()
except RuntimeError:
    pass
try:
    spp_ext.spatial_pyramid_pool(x, (1000,))
except RuntimeError as error:
    print(type(error) is torch.OutOfMemoryError, "device-side assert" in str(error), error)
"""


def test_a_gpu_that_another_op_broke_is_not_out_of_memory():
    done = run_python("-c", BROKEN)
    assert done.stdout.startswith("False True"), done.stdout + done.stderr


def test_the_last_device_is_used_whichever_is_current():
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    x = make((1, 8, 9, 9)).to(last)
    with torch.cuda.device(0):
        output = spp_ext.spatial_pyramid_pool(x)
    assert output.device == last
    assert_same(output.cpu(), spp_ext.spatial_pyramid_pool(x.cpu()))
