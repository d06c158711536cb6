"""What test_compile.py runs in a process of its own: ``python compile_cases.py BACKEND``. Compiled once, torch is
slower ever after, and what it has compiled would be counted with what comes later."""

import sys
import warnings

import torch
import torch.utils._pytree as pytree
from pooling_models import DarknetOrder
from support import random_rois
from torch.autograd import forward_ad

import spp_ext
import spp_ext.ops

LEVELS = (1, 2, spp_ext.Bins([(0, 0, 1, 2), (1, 0, 2, 2)], 2), (2, 1))
# No two sizes are equal, and none is a number that the code compares with: torch would take that for a rule.
SIZES = [((2, 3, 11, 6), 8), ((3, 7, 8, 9), 10), ((6, 8, 13, 17), 12)]
COUNT = 0


def backend(graph, inputs):
    global COUNT
    COUNT += 1
    return torch._dynamo.lookup_backend(sys.argv[1])(graph, inputs)


def maps(x):
    return 2 * spp_ext.spatial_pyramid_pool(x * 1, LEVELS)


def regions(x, rois):
    return 2 * spp_ext.roi_spatial_pyramid_pool(x * 1, rois, LEVELS, 0.5, convention="outer")


def with_indices(x):
    return spp_ext.spatial_pyramid_pool(x * 1, LEVELS, return_indices=True)


def listed(x, first, second):
    return spp_ext.roi_spatial_pyramid_pool(x, [first[:, 1:], second[:, 1:]], LEVELS)


def several(x, y, rois):
    maps, map_indices = [x * 1, y * 1], torch.arange(len(rois)) % 2
    options = {"convention": "outer", "map_indices": map_indices}
    return 2 * spp_ext.roi_spatial_pyramid_pool(maps, rois, LEVELS, (0.5, 0.25), **options)


def images(x, y, _):
    return 2 * spp_ext.spatial_pyramid_pool([x * 1, y * 1], LEVELS)


def images_in_any_number(x, y, _):
    return 2 * spp_ext.spatial_pyramid_pool([x * 1, y[0]], LEVELS)


def parts(x, rois):
    return 2 * spp_ext.spatial_pyramid_pool(x * 1, LEVELS, sizes=(1 + rois[: len(x), 1:3].abs().long()).clamp(max=6))


def of_a_pyramid(x, rois):
    maps = {"0": x, "1": x[:, :, ::2, ::2]}
    return spp_ext.ops.MultiScaleRoIPool(["0", "1"], 2, canonical_scale=10)(maps, rois, [(40, 40)])


def several_into(x, y, rois, out):
    map_indices = torch.arange(len(rois)) % 2
    return spp_ext.roi_spatial_pyramid_pool([x * 1, y * 1], rois, LEVELS, map_indices=map_indices, out=out)


def cubes(pool):
    return lambda *arguments: pool(*arguments).pow(3).sum()


def one_map(layout=torch.contiguous_format, dtype=torch.float32):
    return [(torch.randn(size).to(dtype=dtype, memory_format=layout),) for size, _ in SIZES]


def map_and_rois():
    return [(torch.randn(size), random_rois(count, size[0], *size[2:])) for size, count in SIZES]


def samples():
    return [(torch.randn(5, *size).double(),) for size, _ in SIZES]


def small():
    return [(torch.randn(1, 1, 3, 3).double(),)]


def map_and_lists():
    return [
        (torch.randn(2, *size[1:]), *(random_rois(k, 1, *size[2:]) for k in (count, count + 7)))
        for size, count in SIZES
    ]


def maps_and_rois():
    return [
        (torch.randn(size), torch.randn(*size[:2], size[2] + 14, size[3] + 27), random_rois(count, size[0], *size[2:]))
        for size, count in SIZES
    ]


def boxes_in_batches():
    return [(x, y, torch.stack([rois] * 4 + [rois.flip(0)])) for x, y, rois in maps_and_rois()]


def tangents(x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(maps(forward_ad.make_dual(x, x.cos()))).tangent


def swapped_block():
    block = DarknetOrder((3, 5))
    assert len(spp_ext.replace_pooling(block).swapped) == 1
    return block


def forward_cases():
    yield "map", maps, one_map(), 1
    yield "map, channels_last", maps, one_map(torch.channels_last), 1
    yield "module that reuses its output", spp_ext.SpatialPyramidPool(LEVELS, reuse_output=True), one_map(), 1
    # A module has read its tensor and its range before.
    yield "module of regions", spp_ext.RoISpatialPyramidPool(range(1, 4), torch.tensor(0.5)), map_and_rois(), 1
    yield "levels in a range", lambda x: 2 * spp_ext.spatial_pyramid_pool(x * 1, range(1, 4)), one_map(), 1
    yield "swapped block", swapped_block(), one_map(), 1
    yield "map, bfloat16", maps, one_map(dtype=torch.bfloat16), 1
    yield "regions", regions, map_and_rois(), 1
    yield "indices", with_indices, one_map(), 1
    yield "lists of boxes", listed, map_and_lists(), 1
    yield "several maps", several, maps_and_rois(), 1
    yield "list of maps", images, maps_and_rois(), 1
    yield "list of maps of two numbers of images", images_in_any_number, maps_and_rois()[:1], 1
    yield "sizes of images", parts, map_and_rois(), 1
    yield "feature pyramid", of_a_pyramid, map_and_rois(), 1
    yield "grad of several maps", torch.func.grad(cubes(several), (0, 1)), maps_and_rois(), 1
    yield "vmap over boxes of several maps", torch.vmap(several, (None, None, 0)), boxes_in_batches(), 1
    yield "jvp of several maps", lambda x, y, r: torch.func.jvp(several, (x, y, r), (x, y, r))[1], maps_and_rois(), 3
    yield "grad", torch.func.grad(cubes(maps)), one_map(), 1
    yield "grad of regions", torch.func.grad(cubes(regions)), map_and_rois(), 1
    yield "vmap", torch.vmap(maps), samples(), 1
    yield "vmap of grad", torch.vmap(torch.func.grad(cubes(maps))), samples(), 1
    # torch compiles these once per size, whatever is differentiated.
    yield "jvp", lambda x: torch.func.jvp(maps, (x,), (x.cos(),))[1], one_map(), 3
    yield "forward mode", tangents, one_map(), 3
    yield "jacrev", torch.func.jacrev(maps), small(), 1
    yield "jacfwd", torch.func.jacfwd(maps), small(), 1
    yield "hessian", torch.func.hessian(cubes(maps)), small(), 1


def registered(x, out):
    return torch.ops.spp_ext.spatial_pyramid_pool.out(x * 1, [1, 1, 2, 2], out=out)


def out_cases():
    yield "map", lambda x, out: spp_ext.spatial_pyramid_pool(x * 1, LEVELS, out=out), one_map()
    yield "regions", lambda x, r, out: spp_ext.roi_spatial_pyramid_pool(x * 1, r, LEVELS, out=out), map_and_rois()
    yield "several maps", several_into, maps_and_rois()
    yield "adaptive", lambda x, out: spp_ext.ops.adaptive_max_pool2d(x * 1, (4, 5), out=out), one_map()
    yield "roi_pool", lambda x, r, out: spp_ext.ops.roi_pool(x * 1, r, 5, out=out), map_and_rois()
    for layout in (torch.contiguous_format, torch.channels_last):
        yield "pools", lambda x, out: spp_ext.ops.multi_kernel_max_pool2d(x * 1, (3, 5), out=out), one_map(layout)
    yield "pools out of order", lambda x, out: spp_ext.ops.multi_kernel_max_pool2d(x * 1, (5, 3), out=out), one_map()


def check_out(name, function, calls):
    """One graph for whatever is contiguous, and one for columns of something wider."""
    global COUNT
    torch._dynamo.reset()
    COUNT = 0
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for number, arguments in enumerate(calls):
        expected = function(*arguments, None)
        wider = expected.new_zeros(*expected.shape[:-1], expected.shape[-1] + 38)
        for out in (torch.zeros_like(expected), wider[..., 1:-37]):
            assert compiled(*arguments, out) is out, name
            if number == 0 and out.is_contiguous():  # as in `main`
                COUNT = min(COUNT, 1)
            assert torch.equal(out, expected), name
        assert not wider[..., :1].any() and not wider[..., -37:].any(), name
    assert COUNT == 2, f"{name} with out: {COUNT} graphs"


def check_compiled_autograd():
    """The backward pass alone is compiled, by whoever calls backward."""
    x, y, rois = maps_and_rois()[0]
    pools = {
        "maps": maps,
        "several maps": lambda x: several(x, y, rois),
        "module": spp_ext.ops.SPPF(),
        "swapped block": swapped_block(),
    }
    for name, pool in pools.items():
        torch._dynamo.reset()
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        for leaf, compiled in zip(leaves, (True, False), strict=True):
            loss = pool(leaf).square().sum()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The .grad attribute")  # torch's own: it looks at the loss's
                with torch._dynamo.utils.maybe_enable_compiled_autograd(compiled, fullgraph=True, dynamic=False):
                    loss.backward()
        check(f"compiled autograd of {name}", leaves[0].grad, leaves[1].grad, exact=sys.argv[1] == "aot_eager")


def check(name, got, expected, exact):
    for one, other in zip(pytree.tree_leaves(got), pytree.tree_leaves(expected), strict=True):
        assert one.stride() == other.stride() and one.dtype == other.dtype, name
        assert torch.equal(one, other) if exact else torch.allclose(one, other, rtol=1e-5, atol=1e-6), name


def main():
    global COUNT
    for name, function, calls, graphs in forward_cases():
        torch._dynamo.reset()
        COUNT = 0
        compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
        for number, arguments in enumerate(calls):
            check(name, compiled(*arguments), function(*arguments), exact=sys.argv[1] == "aot_eager")
            if number == 0:  # which may start over, when torch finds that a float is no variable
                COUNT = min(COUNT, 1)
        assert COUNT == graphs, f"{name}: {COUNT} graphs"

    for name, function, calls in (
        ("training on maps", maps, one_map()),
        ("training on channels_last maps", maps, one_map(torch.channels_last)),
        ("training on regions", regions, map_and_rois()),
        ("training on several maps", several, maps_and_rois()),
        ("training on a list of maps", images, maps_and_rois()),
    ):
        torch._dynamo.reset()
        COUNT = 0
        compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
        for x, *rest in calls:
            leaves = [x.clone().requires_grad_() for _ in range(2)]
            outputs = [pool(leaf, *rest) for pool, leaf in zip((compiled, function), leaves, strict=True)]
            grad = torch.randn_like(outputs[0])
            check(
                name,
                *(torch.autograd.grad(output, leaf, grad) for output, leaf in zip(outputs, leaves, strict=True)),
                True,
            )
        assert COUNT == 1, f"{name}: {COUNT} graphs"

    check_compiled_autograd()
    for name, function, calls in out_cases():
        check_out(name, function, calls)
    torch._dynamo.reset()
    compiled = torch.compile(registered, fullgraph=True, backend=backend)
    for ((x,),) in zip(one_map(), strict=True):
        out, expected = (torch.zeros(x.shape[0], 5 * x.shape[1]) for _ in range(2))
        assert compiled(x, out) is out
        assert torch.equal(out, registered(x, expected))

    # A tensor as scale is read, so it breaks the graph.
    torch._dynamo.reset()
    (x, rois), scale = map_and_rois()[0], torch.tensor(0.5)
    compiled = torch.compile(spp_ext.ops.roi_pool, backend=backend)
    for factor in (1, 2):
        assert torch.equal(compiled(x, rois, 2, factor * scale), spp_ext.ops.roi_pool(x, rois, 2, factor * 0.5))


if __name__ == "__main__":
    warnings.simplefilter("error")
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)
    main()
