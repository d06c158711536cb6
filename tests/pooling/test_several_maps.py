"""Regions of several maps in one call: each row is exactly that of its own map, and so is every derivative."""

from pathlib import Path

import pytest
import torch
from support import (
    CONVENTIONS,
    NAN,
    ROI_POOL,
    assert_refuses,
    assert_same,
    gaussian,
    generator,
    images_of,
    integers,
    lay_out,
    make_map,
    random_rois,
)
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import spp_ext
from spp_ext import Bins, reference
from spp_ext._torch import functions
from spp_ext._torch.kernels import kernels
from spp_ext._torch.op_table import Rows

ROI = "spp_ext.roi_spatial_pyramid_pool"
LEVELS = (1, 2, (3, 2), Bins([(0, 0, 1, 2), (1, 1, 3, 2)], (3, 2)))
SIZES = [(7, 9), (12, 4), (1, 1), (20, 23), (5, 30)]
SCALES = [0.5, 1.0, 0.25, 2.0, 1 / 3]
LAYOUTS = ["contiguous", "channels_last", "every_second_cell", "channels_last_offset", "transposed"]


def several(dtype=torch.float32, kind="ties", channels=5, images=2, layouts=LAYOUTS):
    """A map of every size, each in a layout of its own."""
    maps = [make_map(kind, (images, channels, *size), dtype, seed) for seed, size in enumerate(SIZES)]
    return [lay_out(x, layout) for x, layout in zip(maps, layouts, strict=True)]


def regions(count, images=2, dtype=torch.float32, seed=0):
    """Rois over and around the maps, and the map of each, in no order."""
    return random_rois(count, images, 16, 18, seed, dtype), torch.randint(5, (count,), generator=generator(seed + 7))


def map_by_map(maps, rois, map_indices, levels=LEVELS, scales=SCALES, **options):
    """The rows that the op for one map gives, put together."""
    rows = [(map_indices == m).nonzero().flatten() for m in range(len(maps))]
    parts = [
        spp_ext.roi_spatial_pyramid_pool(x, rois[of_map], levels, scale, **options)
        for x, of_map, scale in zip(maps, rows, scales, strict=True)
    ]
    order = torch.cat(rows).argsort()
    if options.get("return_indices"):
        return tuple(torch.cat(column)[order] for column in zip(*parts, strict=True))
    return torch.cat(parts)[order]


def pool(maps, rois, map_indices, levels=LEVELS, scales=SCALES, **options):
    return spp_ext.roi_spatial_pyramid_pool(maps, rois, levels, scales, map_indices=map_indices, **options)


# ---- values and indices ----


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_regions_of_several_maps_equal_the_reference(dtype, convention):
    maps, (rois, map_indices) = several(dtype, channels=3), regions(25)
    options = {"convention": convention, "map_indices": map_indices}
    expected = reference.roi_spatial_pyramid_pool(maps, rois, LEVELS, SCALES, return_indices=True, **options)
    assert_same(pool(maps, rois, return_indices=True, **options), expected)
    assert_same(pool(maps, rois, **options), expected[0])


def test_every_kind_of_data_equals_the_op_for_one_map(kind, dtype):
    maps, (rois, map_indices) = several(dtype, kind), regions(60)
    expected = map_by_map(maps, rois, map_indices, return_indices=True)
    assert_same(pool(maps, rois, map_indices, return_indices=True), expected)
    assert_same(pool(maps, rois, map_indices), expected[0])


def test_maps_in_any_layout(layout, dtype):
    maps = several(dtype, layouts=["contiguous", layout, "channels_last", layout, "contiguous"])
    rois, map_indices = regions(40)
    got = pool(maps, rois, map_indices, return_indices=True)
    assert_same(got, map_by_map(maps, rois, map_indices, return_indices=True))


@pytest.mark.parametrize("channels", [1, 8, 17, 33])
def test_many_regions_on_several_threads(channels, two_threads):
    maps, (rois, map_indices) = several(channels=channels), regions(1500)
    got = pool(maps, rois, map_indices, (1, 2, 3, 6), return_indices=True)
    assert_same(got, map_by_map(maps, rois, map_indices, (1, 2, 3, 6), return_indices=True))


@pytest.mark.parametrize("dtype_of_boxes", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_boxes_of_any_dtype(dtype_of_boxes):
    maps, (rois, map_indices) = several(), regions(30, dtype=dtype_of_boxes)
    assert_same(pool(maps, rois, map_indices), map_by_map(maps, rois, map_indices))


@pytest.mark.parametrize("dtype_of_indices", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_map_indices_of_any_integer_dtype_and_strides(dtype_of_indices):
    maps, (rois, map_indices) = several(), regions(30)
    expected = map_by_map(maps, rois, map_indices)
    assert_same(pool(maps, rois, map_indices.to(dtype_of_indices)), expected)
    spread = torch.full((30, 2), 99, dtype=dtype_of_indices)
    spread[:, 1] = map_indices
    assert_same(pool(maps, rois, spread[:, 1]), expected)


def test_a_map_index_that_int32_cannot_hold_does_not_come_to_mean_a_map():
    maps, (rois, map_indices) = several(), regions(3)
    map_indices[1] = 2**32
    message = f"{ROI}: expected map_indices from 0 to 4, got 4294967296 in row 1"
    assert_refuses(IndexError, message, lambda: pool(maps, rois, map_indices))


def test_map_indices_of_any_strides_in_the_registered_op():
    maps, (rois, map_indices) = several(), regions(40)
    arguments = ([1, 1, 2, 2], SCALES, ROI_POOL, False)
    op = torch.ops.spp_ext.roi_spatial_pyramid_pool_of_maps
    expected = pool(maps, rois, map_indices, (1, 2))
    for strided in (
        torch.stack([map_indices, 4 - map_indices], 1)[:, 0],
        torch.zeros(len(map_indices) + 3, dtype=torch.int64)[3:].copy_(map_indices),
    ):
        assert_same(op(maps, rois, strided, *arguments), expected)
    for m in range(5):
        same = torch.tensor([m]).expand(len(rois))
        assert_same(op(maps, rois, same, *arguments), pool(maps, rois, same.clone(), (1, 2)))


def test_one_scale_serves_all_maps():
    maps, (rois, map_indices) = several(), regions(30)
    assert_same(pool(maps, rois, map_indices, scales=0.5), pool(maps, rois, map_indices, scales=[0.5] * 5))


def test_lists_of_boxes_take_lists_of_map_indices():
    maps, (rois, map_indices) = several(images=3), regions(30, 1)
    images = [slice(0, 11), slice(11, 11), slice(11, 30)]
    rois[:, 0] = torch.tensor([0.0] * 11 + [2.0] * 19)
    listed = pool(maps, [rois[image, 1:] for image in images], [map_indices[image] for image in images])
    assert_same(listed, pool(maps, rois, map_indices))
    assert_same(pool(several(images=0), [], []), torch.zeros(0, 5 * 13))


def test_the_module_is_the_function():
    maps, (rois, map_indices) = several(), regions(30)
    module = spp_ext.RoISpatialPyramidPool(LEVELS, SCALES, "outer")
    assert_same(module(maps, rois, map_indices), pool(maps, rois, map_indices, convention="outer"))
    assert f"spatial_scale={tuple(SCALES)}" in repr(module)


def test_the_readmes_example_runs():
    blocks = (Path(__file__).parents[2] / "README.md").read_text().split("```python\n")
    names = {}
    for block in blocks[1:3]:
        exec(block.split("```")[0], names)
    assert names["regions"].shape == (2, 12800)
    assert names["map_indices"].tolist() == [2, 0]
    assert [bool(x.grad.any()) for x in names["maps"]] == [True, False, True, False, False]


# ---- nothing to pool ----


def test_one_map_in_a_list_is_that_map():
    (x, *_), (rois, _) = several(), regions(30)
    expected = spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS, 0.5, return_indices=True)
    assert_same(pool([x], rois, torch.zeros(30, dtype=torch.int64), scales=[0.5], return_indices=True), expected)


@pytest.mark.parametrize("unused", [0, 2, 4])
def test_a_map_without_regions(unused):
    maps, (rois, map_indices) = several(), regions(60)
    rois, map_indices = rois[map_indices != unused], map_indices[map_indices != unused]
    leaves = [x.detach().requires_grad_() for x in maps]
    output = pool(leaves, rois, map_indices, convention="spp_net")  # which moves every window into its map
    assert_same(output.detach(), map_by_map(maps, rois, map_indices, convention="spp_net"))
    grads = torch.autograd.grad(output.sum(), leaves)
    assert [bool(g.any()) for g in grads] == [m != unused for m in range(5)]


@pytest.mark.parametrize(("images", "channels", "count"), [(2, 5, 0), (0, 5, 0), (2, 0, 9)])
def test_nothing_to_pool_gives_the_right_shapes(images, channels, count):
    maps = [x.requires_grad_() for x in several(images=images, channels=channels, layouts=["contiguous"] * 5)]
    rois, map_indices = regions(count, max(images, 1))
    output, indices = pool(maps, rois, map_indices, return_indices=True)
    assert output.shape == indices.shape == (count, 13 * channels)
    for x, its_grad in zip(maps, torch.autograd.grad(output.sum(), maps), strict=True):
        assert_same(its_grad, torch.zeros_like(x))


# ---- gradients ----


def test_gradients_are_those_of_every_map_alone(dtype):
    maps, (rois, map_indices) = several(dtype), regions(60)
    leaves = [[x.detach().requires_grad_() for x in maps] for _ in range(2)]
    output = pool(leaves[0], rois, map_indices)
    upstream = integers(output.shape, dtype, low=-2, high=2)
    got = torch.autograd.grad(output, leaves[0], upstream)
    expected = torch.autograd.grad(map_by_map(leaves[1], rois, map_indices), leaves[1], upstream)
    assert_same(got, expected)
    assert [g.stride() for g in got] == [g.stride() for g in expected]
    _, indices = pool(maps, rois, map_indices, return_indices=True)
    for m, x in enumerate(maps):
        rows = map_indices == m
        sums = reference.scatter(upstream[rows], indices[rows], LEVELS, x.shape, images_of(rois[rows]))
        assert_same(got[m], sums)


def test_map_indices_may_change_before_the_backward_pass():
    maps, (rois, map_indices) = [x.detach().requires_grad_() for x in several()], regions(60)
    output = pool(maps, rois, map_indices)
    expected = torch.autograd.grad(output.sum(), maps, retain_graph=True)
    map_indices.zero_()
    assert_same(torch.autograd.grad(output.sum(), maps), expected)


def test_every_element_is_written(deterministic, dtype):
    """Fresh memory is full of NaN here, of which no row and no gradient keeps any."""
    maps, (rois, map_indices) = [x.detach().requires_grad_() for x in several(dtype)], regions(60)
    output, indices = pool(maps, rois, map_indices, return_indices=True)
    expected = reference.roi_spatial_pyramid_pool(
        maps, rois, LEVELS, SCALES, map_indices=map_indices, return_indices=True
    )
    assert_same((output.detach(), indices), expected)
    grads = torch.autograd.grad(output.sum(), maps)
    assert not any(g.isnan().any() for g in grads)
    cells = sum(g.double().sum() for g in grads)
    assert cells == (indices >= 0).sum()
    argmax, level_bins = indices.int(), [1, 4, 6, 2]
    gathered = functions.gather(argmax, Rows(rois, map_indices), level_bins, *(x.detach() for x in maps))
    assert_same(gathered, expected[0])


def test_a_gradient_for_some_of_the_maps():
    maps, (rois, map_indices) = several(), regions(60)
    maps[3].requires_grad_()
    pool(maps, rois, map_indices).sum().backward()
    assert maps[3].grad.sum() == (pool(maps, rois, map_indices, return_indices=True)[1] >= 0)[map_indices == 3].sum()
    assert all(x.grad is None for m, x in enumerate(maps) if m != 3)
    with torch.no_grad():
        assert not pool(maps, rois, map_indices).requires_grad


def test_gradients_have_the_same_bits_on_every_run(two_threads):
    maps, (rois, map_indices) = several(kind="gaussian", channels=33), regions(700)
    upstream = gaussian((700, 33 * 13), torch.float32)
    runs = []
    for _ in range(3):
        leaves = [x.detach().requires_grad_() for x in maps]
        runs.append(torch.autograd.grad(pool(leaves, rois, map_indices), leaves, upstream))
    assert_same(runs[1], runs[0])
    assert_same(runs[2], runs[0])


SMALL = [(4, 3), (2, 5), (3, 3)]
SMALL_ROIS = torch.tensor(
    [[0.0, 0, 0, 2, 3], [1, 1, 1, 4, 3], [1, 0, 0, 1, 2], [0, -3, 1, 1, 9], [0, 20, 20, 30, 30], [1, 2, 1, 0, 0]]
)
SMALL_MAP_INDICES = torch.tensor([1, 0, 1, 0, 0, 1])  # none on the last map
SMALL_SCALES = [1.0, 0.75, 1.0]


def distinct(seed=0):
    """Small maps whose cells are far apart, so that no small step changes which one is the maximum."""
    order = torch.randperm(2 * 2 * sum(h * w for h, w in SMALL), generator=generator(seed)).double() / 7
    parts = order.split([4 * h * w for h, w in SMALL])
    return [part.reshape(2, 2, *size) for part, size in zip(parts, SMALL, strict=True)]


def pool_small(*maps):
    return pool(maps, SMALL_ROIS, SMALL_MAP_INDICES, (1, (2, 3)), SMALL_SCALES)


def one_by_one(*maps):
    return map_by_map(maps, SMALL_ROIS, SMALL_MAP_INDICES, (1, (2, 3)), SMALL_SCALES)


def test_gradients_are_checked_in_both_modes_and_in_batches():
    maps = [x.requires_grad_() for x in distinct()]
    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(pool_small, maps, **modes)
    assert gradgradcheck(pool_small, maps, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True)


def test_gradients_are_checked_in_mixed_layouts():
    maps = [lay_out(x, layout).requires_grad_() for x, layout in zip(distinct(), LAYOUTS[:3], strict=True)]
    assert gradcheck(pool_small, maps, check_forward_ad=True)
    assert gradgradcheck(pool_small, maps, check_fwd_over_rev=True)


@pytest.mark.parametrize("channels_last", [False, True])
def test_gather_and_scatter_are_transposes(channels_last):
    maps = [x.requires_grad_() for x in distinct()]
    argmax = torch.randint(-1, 9, (6, 2 * 5), generator=generator(1), dtype=torch.int32)
    upstream = gaussian(argmax.shape, torch.float64).requires_grad_()
    rows = (argmax, Rows(SMALL_ROIS, SMALL_MAP_INDICES), [1, 4])
    shapes = [(x.shape, channels_last) for x in maps]

    def gather(*maps):
        return functions.gather(*rows, *maps)

    def scatter(upstream):
        return functions.scatter(upstream, *rows, shapes)

    assert gradcheck(gather, maps, check_forward_ad=True)
    assert gradgradcheck(gather, maps, check_fwd_over_rev=True)
    assert gradcheck(scatter, (upstream,), check_forward_ad=True)
    assert gradgradcheck(scatter, (upstream,), check_fwd_over_rev=True)
    assert_same(torch.autograd.grad(gather(*maps), maps, upstream.detach()), tuple(scatter(upstream.detach())))


# ---- torch.func ----


def cubes(function):
    return lambda *maps: function(*maps).pow(3).sum()


ALL = (0, 1, 2)
TRANSFORMS = {
    "grad": lambda f: grad(cubes(f), ALL),
    "grad of grad": lambda f: grad(lambda *x: sum(g.square().sum() for g in grad(cubes(f), ALL)(*x)), ALL),
    "vjp": lambda f: lambda *x: vjp(f, *x)[1](f(*x)),
    "jvp": lambda f: lambda *x: jvp(f, x, tuple(part.cos() for part in x)),
    "jvp of grad": lambda f: lambda *x: jvp(grad(cubes(f), ALL), x, tuple(part.cos() for part in x)),
    "grad of jvp": lambda f: grad(lambda *x: jvp(f, x, tuple(part.cos() for part in x))[1].pow(3).sum(), ALL),
    "jvp of one map": lambda f: lambda *x: jvp(lambda y: f(x[0], y, x[2]), x[1:2], (x[1].cos(),)),
    "grad of one map": lambda f: lambda *x: grad(lambda y: cubes(f)(x[0], y, x[2]))(x[1]),
    "jacfwd": lambda f: jacfwd(f, ALL),
    "jacrev": lambda f: jacrev(f, ALL),
    "hessian": lambda f: hessian(cubes(f), ALL),
}


def registered(*maps):
    encoded = [1, 1, 2, 3]
    return torch.ops.spp_ext.roi_spatial_pyramid_pool_of_maps(
        maps, SMALL_ROIS, SMALL_MAP_INDICES, encoded, SMALL_SCALES, ROI_POOL, False
    )


@pytest.mark.parametrize("function", [pool_small, registered])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_gives_what_it_gives_of_every_map_alone(transform, function):
    maps = [lay_out(x, layout) for x, layout in zip(distinct(), LAYOUTS[:3], strict=True)]
    got, expected = (TRANSFORMS[transform](f)(*maps) for f in (function, one_by_one))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (None, 0, 0), (1, None, 2), (4, 3, None)], ids=str)
def test_vmap_pools_every_sample(in_dims):
    samples = [torch.stack([distinct(seed)[m] for seed in range(3)]) for m in range(3)]

    def sample(i):
        return [x[0] if dim is None else x[i] for x, dim in zip(samples, in_dims, strict=True)]

    batched = [x[0] if dim is None else x.movedim(0, dim) for x, dim in zip(samples, in_dims, strict=True)]
    expected = torch.stack([one_by_one(*sample(i)) for i in range(3)])
    assert_same(vmap(pool_small, in_dims)(*batched), expected)
    assert_same(vmap(registered, in_dims)(*batched), expected)
    got = vmap(grad(cubes(pool_small), ALL), in_dims)(*batched)
    each = [grad(cubes(one_by_one), ALL)(*sample(i)) for i in range(3)]
    torch.testing.assert_close(got, tuple(torch.stack(parts) for parts in zip(*each, strict=True)))
    of_all = grad(lambda *x: vmap(pool_small, in_dims)(*x).pow(3).sum(), ALL)(*batched)
    for m, dim in enumerate(in_dims):
        parts = torch.stack([sample_grad[m] for sample_grad in each])
        torch.testing.assert_close(of_all[m], parts.sum(0) if dim is None else parts.movedim(0, dim))
    tangents = vmap(lambda *x: jvp(pool_small, x, tuple(part.cos() for part in x))[1], in_dims)(*batched)
    each = [jvp(one_by_one, tuple(sample(i)), tuple(x.cos() for x in sample(i)))[1] for i in range(3)]
    assert_same(tangents, torch.stack(each))


@pytest.mark.parametrize("dims", [(None, 0, 0), (0, 0, None), (0, None, 0), (None, None, 0), (None, 0, None)], ids=str)
def test_vmap_over_boxes_and_map_indices(dims):
    found = several(torch.float32)
    maps = [torch.stack([x, x.flip(0), x.neg()]) for x in found]
    each = [regions(12, seed=seed) for seed in range(3)]
    rois, map_indices = (torch.stack(part) for part in zip(*each, strict=True))
    samples = [
        ([x if dims[0] == 0 else x[0] for x in maps]),
        rois if dims[1] == 0 else rois[0],
        map_indices if dims[2] == 0 else map_indices[0],
    ]
    expected = []
    for i in range(3):
        x = [part[i] for part in maps] if dims[0] == 0 else found
        r, m = (part[i] if dim == 0 else part[0] for part, dim in zip((rois, map_indices), dims[1:], strict=True))
        expected.append(map_by_map(x, r, m))
    assert_same(vmap(pool, dims)(*samples), torch.stack(expected))


@pytest.mark.parametrize("index", [3, -1, 2**40])
def test_a_bad_map_index_is_found_under_vmap(index):
    samples = [torch.stack([x] * 4) for x in distinct()]
    map_indices = torch.stack([SMALL_MAP_INDICES] * 4)
    map_indices[2, 5] = index
    message = f"{ROI}: expected map_indices from 0 to 2, got {index} in row 17"

    def call(dims):
        maps = samples if dims[0] == 0 else distinct()
        return vmap(lambda x, m: pool(x, SMALL_ROIS, m, (1,), 1.0), dims)(maps, map_indices)

    assert_refuses(IndexError, message, lambda: call((0, 0)))
    assert_refuses(IndexError, message, lambda: call((None, 0)))


def test_forward_mode_of_some_of_the_maps():
    maps = distinct()
    tangent = gaussian(maps[1].shape, torch.float64)
    with forward_ad.dual_level(), torch.no_grad():
        output = pool_small(maps[0], forward_ad.make_dual(maps[1], tangent), maps[2])
        got = forward_ad.unpack_dual(output).tangent
        assert forward_ad.unpack_dual(pool_small(*maps)).tangent is None
    zeros = torch.zeros_like
    assert_same(got, jvp(one_by_one, tuple(maps), (zeros(maps[0]), tangent, zeros(maps[2])))[1])


# ---- autocast, validation, errors ----


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_maps_with_float32_boxes_under_autocast(half):
    maps = [gaussian((2, 3, 1, width), half).requires_grad_() for width in (3002, 300)]
    rois = torch.tensor([[0.0, 2049, 0, 2049, 0], [1, 257, 0, 257, 0]])
    with torch.autocast("cpu", dtype=half):
        pooled = pool(maps, rois, torch.tensor([0, 1]), (1,), 1.0)
    assert_same(pooled.detach(), torch.stack([maps[0][0, :, 0, 2049], maps[1][1, :, 0, 257]]).detach())
    pooled.sum().backward()
    assert maps[0].grad.dtype == half and maps[0].grad[0, :, 0, 2049].eq(1).all() and maps[0].grad.sum() == 3


@pytest.mark.parametrize("index", [3, -1, -(2**63), 2**63 - 1])
def test_a_bad_map_index_is_refused(index):
    message = f"{ROI}: expected map_indices from 0 to 2, got {index} in row 4"
    map_indices = SMALL_MAP_INDICES.clone()
    map_indices[4] = index
    maps = [x.requires_grad_() for x in distinct()]
    assert_refuses(IndexError, message, lambda: pool(maps, SMALL_ROIS, map_indices, scales=1.0))
    assert_refuses(IndexError, message, lambda: pool(maps, SMALL_ROIS, map_indices, scales=1.0, validate=True))
    reference_message = rf"expected a map index in \[0, 3\), got {index} in row 4"
    with pytest.raises(IndexError, match=reference_message):
        reference.roi_spatial_pyramid_pool(maps, SMALL_ROIS, map_indices=map_indices)


@pytest.mark.parametrize("m", [0, 2])
def test_bad_boxes_are_refused_whatever_their_map(m):
    maps, rois, map_indices = distinct(), SMALL_ROIS.clone(), SMALL_MAP_INDICES.clone()
    map_indices[3] = m
    rois[3, 0] = 2
    message = f"{ROI}: expected batch indices of boxes from 0 to 1, got 2 in row 3"
    assert_refuses(IndexError, message, lambda: pool(maps, rois, map_indices, scales=1.0))
    rois[3, 0], rois[3, 2] = 0, NAN
    message = f"{ROI}: expected finite boxes, got y1 = nan in row 3"
    assert_refuses(ValueError, message, lambda: pool(maps, rois, map_indices, scales=1.0))


X, Y, ROIS, FIRST = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 6, 7), torch.zeros(1, 5), torch.zeros(1).long()
TENSOR = "expected map_indices, as boxes, to be a Tensor[K], got"
LIST = "expected map_indices, as boxes, to be a list of Tensor[L], got"
ALIKE = (
    "expected maps of one batch size and number of channels, got input[0] of shape [2, 3, 4, 5] and input[1] of shape"
)


@pytest.mark.parametrize(
    ("input", "boxes", "map_indices", "scales", "error", "message"),
    [
        ([], ROIS, FIRST, 1.0, ValueError, "expected at least one map in input, got none"),
        ([X, None], ROIS, FIRST, 1.0, TypeError, "expected input[1] to be a Tensor, got NoneType"),
        (
            [X, Y.int()],
            ROIS,
            FIRST,
            1.0,
            TypeError,
            "expected input[1] of dtype float32, float64, float16 or bfloat16, got torch.int32",
        ),
        ([X, Y[0]], ROIS, FIRST, 1.0, ValueError, "expected input[1] of shape [N, C, H, W], got [3, 6, 7]"),
        ([X, Y[:1]], ROIS, FIRST, 1.0, ValueError, f"{ALIKE} [1, 3, 6, 7]"),
        ([X, Y[:, :2]], ROIS, FIRST, 1.0, ValueError, f"{ALIKE} [2, 2, 6, 7]"),
        (
            [X, Y.double()],
            ROIS,
            FIRST,
            1.0,
            ValueError,
            "expected maps of one dtype, got input[0] of torch.float32 and input[1] of torch.float64",
        ),
        (
            [X, Y[:, :, :0]],
            ROIS,
            FIRST,
            1.0,
            ValueError,
            "expected input[1] with at least one row and one column, got [2, 3, 0, 7]",
        ),
        ([X, Y], ROIS, None, 1.0, TypeError, f"{TENSOR} NoneType"),
        ([X, Y], ROIS, [FIRST], 1.0, TypeError, f"{TENSOR} a list with ['Tensor']"),
        ([X, Y], [ROIS[:, 1:], ROIS[:, 1:]], FIRST, 1.0, TypeError, f"{LIST} Tensor"),
        ([X, Y], [ROIS[:, 1:], ROIS[:, 1:]], [0, 1], 1.0, TypeError, f"{LIST} a list with ['int']"),
        (
            [X, Y],
            [ROIS[:, 1:], ROIS[:, 1:]],
            [FIRST, FIRST[:0]],
            1.0,
            ValueError,
            "expected map_indices of shapes [[1], [1]], one for each of the boxes, got [[1], [0]]",
        ),
        ([X, Y], ROIS, FIRST.float(), 1.0, TypeError, "expected map_indices of an integer dtype, got torch.float32"),
        ([X, Y], ROIS, FIRST.bool(), 1.0, TypeError, "expected map_indices of an integer dtype, got torch.bool"),
        (
            [X, Y],
            ROIS,
            torch.zeros(2).long(),
            1.0,
            ValueError,
            "expected map_indices of shape [1], one for each of the boxes, got [2]",
        ),
        (
            [X, Y],
            ROIS,
            FIRST[None],
            1.0,
            ValueError,
            "expected map_indices of shape [1], one for each of the boxes, got [1, 1]",
        ),
        ([X, Y], ROIS, FIRST, [1.0], ValueError, "expected a spatial_scale for each of 2 maps, got 1"),
        ([X, Y], ROIS, FIRST, [1.0, "1"], TypeError, "expected spatial_scale to be a number, got '1'"),
        (
            [X, Y],
            ROIS,
            FIRST,
            [1.0, 0.0],
            ValueError,
            "expected spatial_scale to be a positive finite number, got 0.0",
        ),
        (X, ROIS, FIRST, 1.0, ValueError, "expected map_indices only with a sequence of maps, got them with one map"),
        (X, ROIS, None, [1.0], TypeError, "expected spatial_scale to be a number, got [1.0]"),
    ],
)
def test_what_does_not_fit_is_refused(input, boxes, map_indices, scales, error, message):
    def call():
        spp_ext.roi_spatial_pyramid_pool(input, boxes, (1,), scales, map_indices=map_indices)

    assert_refuses(error, f"{ROI}: {message}", call)


SIZES_OF = [*X.shape, *Y.shape]
ARGMAX, GRAD = torch.zeros(1, 3, dtype=torch.int32), torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: kernels.gather_of_maps([], ARGMAX, ROIS, FIRST, [1]),
            ValueError,
            "spp_ext.gather_of_maps: expected at least one map in sources, got none",
        ),
        (
            lambda: kernels.gather_of_maps([X, Y[:1]], ARGMAX, ROIS, FIRST, [1]),
            ValueError,
            "spp_ext.gather_of_maps: expected maps of one batch size and number of channels, got sources[0] of shape "
            "[2, 3, 4, 5] and sources[1] of shape [1, 3, 6, 7]",
        ),
        (
            lambda: kernels.gather_of_maps([X, Y], ARGMAX, ROIS, FIRST.int(), [1]),
            ValueError,
            "spp_ext.gather_of_maps: expected map_indices of dtype torch.int64, got torch.int32",
        ),
        (
            lambda: kernels.scatter_of_maps(GRAD, ARGMAX, ROIS, FIRST, [1], SIZES_OF, [False]),
            ValueError,
            "spp_ext.scatter_of_maps: expected input_sizes of 4 numbers, N, C, H and W, for each of at least one map",
        ),
        (
            lambda: kernels.scatter_of_maps(GRAD, ARGMAX, ROIS, FIRST, [1], [], []),
            ValueError,
            "spp_ext.scatter_of_maps: expected input_sizes of 4 numbers, N, C, H and W, for each of at least one map",
        ),
        (
            lambda: kernels.scatter_of_maps(GRAD, ARGMAX, ROIS, FIRST, [1], [*X.shape, 1, 3, 2, 2], [False] * 2),
            ValueError,
            "spp_ext.scatter_of_maps: expected input_sizes with one N and one C",
        ),
        (
            lambda: kernels.scatter_of_maps(GRAD, ARGMAX, ROIS, FIRST[:0], [1], SIZES_OF, [False] * 2),
            ValueError,
            "spp_ext.scatter_of_maps: expected map_indices of shape [1], one for each of the boxes, got [0]",
        ),
    ],
)
def test_the_registered_ops_check_their_arguments(call, error, message):
    assert_refuses(error, message, call)
