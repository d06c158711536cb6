"""Lists of maps, and padded batches with the size of each image: each row is exactly that of its own image alone."""

import pytest
import torch
from support import (
    BINS,
    INF,
    KINDS,
    NAN,
    TABLE,
    assert_same,
    gaussian,
    generator,
    integers,
    lay_out,
    make_map,
)
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jvp, vmap

import spp_ext
from spp_ext import _core, reference, spatial_pyramid_pool
from spp_ext._images import images_of_maps, parts_of_images

LEVELS = (1, 2, (3, 2), BINS)
SIZES = [(7, 9), (12, 4), (1, 1), (20, 23), (5, 30)]
LAYOUTS = ["contiguous", "channels_last", "every_second_cell", "channels_last_offset", "transposed"]


def listed(dtype=torch.float32, kind="ties", images=(2, 2, 2, 2, 2), channels=3):
    """A map of every size, each in a layout of its own; None for the number of images is a map of one, [C, H, W]."""
    maps = [
        lay_out(make_map(kind, (n or 1, channels, *size), dtype, seed), layout)
        for seed, (n, size, layout) in enumerate(zip(images, SIZES, LAYOUTS, strict=True))
    ]
    return [x if n is not None else x[0] for x, n in zip(maps, images, strict=True)]


def one_by_one(maps, levels=LEVELS, **options):
    """What the op for one map gives of each, put together."""
    parts = [spatial_pyramid_pool(x if x.dim() == 4 else x.unsqueeze(0), levels, **options) for x in maps]
    if options.get("return_indices"):
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))
    return torch.cat(parts)


def padded(dtype=torch.float32, kind="ties", channels=3, padding=NAN):
    """Images of every size in one map, with something beyond each, and the sizes."""
    x = torch.full((len(SIZES), channels, 21, 32), padding, dtype=dtype)
    for n, (rows, cols) in enumerate(SIZES):
        x[n, :, :rows, :cols] = make_map(kind, (channels, rows, cols), dtype, n)
    return x, torch.tensor(SIZES)


def cropped(x, levels=LEVELS, sizes=SIZES):
    return one_by_one([x[n : n + 1, :, :rows, :cols] for n, (rows, cols) in enumerate(sizes)], levels)


NUMBERS_OF_IMAGES = [(2,) * 5, (1,) * 5, (None,) * 5, (1, 3, None, 2, 1), (0,) * 5, (0, 2, 1, 0, 2)]


# ---- values and indices ----


@pytest.mark.parametrize("images", NUMBERS_OF_IMAGES, ids=str)
def test_a_list_equals_the_reference(dtype, images):
    maps = listed(dtype, images=images)
    expected = reference.spatial_pyramid_pool(maps, LEVELS, return_indices=True)
    assert_same(spatial_pyramid_pool(maps, LEVELS, return_indices=True), expected)
    assert_same(spatial_pyramid_pool(tuple(maps), LEVELS), expected[0])


@pytest.mark.parametrize("images", [(2, 2, 2, 2, 2), (1, 3, None, 2, 1)], ids=str)
def test_a_list_of_every_kind_of_data_equals_the_maps_alone(kind, dtype, images):
    maps = listed(dtype, kind, images, channels=17)
    expected = one_by_one(maps, return_indices=True)
    assert_same(spatial_pyramid_pool(maps, LEVELS, return_indices=True), expected)
    assert_same(spatial_pyramid_pool(maps, LEVELS), expected[0])


def test_sizes_equal_the_reference(kind, dtype):
    x, sizes = padded(dtype, kind)
    expected = reference.spatial_pyramid_pool(x, LEVELS, sizes=sizes, return_indices=True)
    assert_same(spatial_pyramid_pool(x, LEVELS, sizes=sizes, return_indices=True), expected)
    assert_same(spatial_pyramid_pool(x, LEVELS, sizes=sizes), expected[0])


@pytest.mark.parametrize("padding", [NAN, INF, 3e38, -INF])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_plays_no_part(padding, layout):
    x, sizes = padded(padding=padding, kind="gaussian", channels=17)
    assert_same(spatial_pyramid_pool(lay_out(x, layout), LEVELS, sizes=sizes), cropped(x))


@pytest.mark.parametrize("dtype_of_sizes", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint32])
def test_sizes_of_any_integer_dtype_and_strides(dtype_of_sizes):
    x, sizes = padded()
    spread = torch.full((len(SIZES), 3), 77).to(dtype_of_sizes)
    spread[:, 1:] = sizes.to(dtype_of_sizes)
    assert_same(spatial_pyramid_pool(x, LEVELS, sizes=spread[:, 1:]), cropped(x))
    wide = torch.zeros(1, 1, 1, 300)  # more columns than uint8 has numbers
    assert_same(spatial_pyramid_pool(wide, (1,), sizes=torch.tensor([[1, 200]], dtype=torch.uint8)), torch.zeros(1, 1))


def test_an_index_is_one_into_the_padded_plane():
    x, sizes = TABLE.view(1, 1, 4, 4), torch.tensor([[3, 2]])
    values, indices = spatial_pyramid_pool(x, (1, 2), sizes=sizes, return_indices=True)
    assert_same(TABLE.flatten()[indices], values)
    assert values.tolist() == [[9, 3, 9, 7, 4]]
    assert indices.tolist() == [[1, 4, 1, 8, 5]]


@pytest.mark.parametrize("images", NUMBERS_OF_IMAGES[:4], ids=str)
def test_large_maps_on_several_threads(images, two_threads):
    maps = [gaussian((n or 1, 33, 60 + 7 * m, 50 - m), torch.float32, m) for m, n in enumerate(images)]
    maps = [x if n is not None else x[0] for x, n in zip(maps, images, strict=True)]
    maps[1] = maps[1].to(memory_format=torch.channels_last) if maps[1].dim() == 4 else maps[1]
    levels = (1, 2, 3, 6)
    expected = one_by_one(maps, levels, return_indices=True)
    assert_same(spatial_pyramid_pool(maps, levels, return_indices=True), expected)
    assert_same(spatial_pyramid_pool(maps, levels), expected[0])


LARGEST = 2**31 - 1  # cells of a plane, so rows or columns too


@pytest.mark.parametrize("size", [1, 2, 2**24 - 1, 2**24 + 1, 2**24 + 3, 2**30 + 1, LARGEST])
def test_the_region_of_an_image_is_exactly_its_cells(size):
    """Whatever the size: float32 holds no odd number beyond 2^24."""
    column = torch.zeros(1).expand(2, 1, size, 1)
    for x, part in ((column, [size, 1]), (column.mT, [1, size])):
        rois = parts_of_images("op", torch.tensor([[1, 1], part]), x)
        _, (whole, map_indices) = images_of_maps((x,))
        assert rois.dtype == whole.dtype == torch.float64 and map_indices.tolist() == [0, 0]
        for (_, *box), (rows, cols) in (*zip(rois.tolist(), [[1, 1], part], strict=True), (whole[1].tolist(), part)):
            assert _core.roi_window("spp_net", *box, 1.0, *x.shape[2:], float64=True) == (0, rows, 0, cols)
        assert rois[:, 0].tolist() == whole[:, 0].tolist() == [0, 1]


def test_modules_take_lists_and_sizes():
    module, (x, sizes) = spp_ext.SpatialPyramidPool(LEVELS), padded()
    assert_same(module(x, sizes), cropped(x))
    assert_same(module(x, sizes=sizes), cropped(x))
    assert_same(module(listed()), one_by_one(listed()))


# ---- gradients ----


@pytest.mark.parametrize("images", [(2, 2, 2, 2, 2), (1, 3, None, 2, 1)], ids=str)
def test_gradients_of_a_list_are_those_of_the_maps_alone(dtype, images):
    leaves = [[x.detach().requires_grad_() for x in listed(dtype, images=images)] for _ in range(2)]
    output, expected = spatial_pyramid_pool(leaves[0], LEVELS), one_by_one(leaves[1])
    upstream = integers(output.shape, dtype, low=-2, high=2)
    got = torch.autograd.grad(output, leaves[0], upstream)
    assert_same(got, torch.autograd.grad(expected, leaves[1], upstream))


def test_gradients_of_sizes_are_those_of_the_parts_alone(dtype):
    x, sizes = padded(dtype)
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    output = spatial_pyramid_pool(leaves[0], LEVELS, sizes=sizes)
    upstream = integers(output.shape, dtype, low=-2, high=2)
    got = torch.autograd.grad(output, leaves[0], upstream)
    assert_same(got, torch.autograd.grad(cropped(leaves[1]), leaves[1], upstream))
    values, indices = spatial_pyramid_pool(x, LEVELS, sizes=sizes, return_indices=True)
    assert_same(got[0], reference.scatter(upstream, indices, LEVELS, x.shape))


def test_sizes_may_change_before_the_backward_pass():
    x, sizes = padded(torch.float64)
    x.requires_grad_()
    output = spatial_pyramid_pool(x, LEVELS, sizes=sizes)
    expected = torch.autograd.grad(output.sum(), x, retain_graph=True)
    sizes.fill_(1)
    assert_same(torch.autograd.grad(output.sum(), x), expected)


SMALL = [(4, 3), (2, 5), (3, 3)]
SMALL_SIZES = torch.tensor([[2, 3], [4, 1]])


def distinct(shapes, seed=0):
    """Small maps whose cells are far apart, so that no small step changes which one is the maximum."""
    counts = [torch.Size(shape).numel() for shape in shapes]
    parts = (torch.randperm(sum(counts), generator=generator(seed)).double() / 7).split(counts)
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def pool_list(*maps):
    return spatial_pyramid_pool(maps, (1, (2, 3)))


def pool_sizes(x):
    return spatial_pyramid_pool(x, (1, (2, 3)), sizes=SMALL_SIZES)


FORMS = {
    "list": (pool_list, [(2, 2, *size) for size in SMALL], lambda *maps: one_by_one(maps, (1, (2, 3)))),
    "mixed list": (
        pool_list,
        [(1, 2, 4, 3), (2, 2, 5), (2, 2, 3, 3)],
        lambda *maps: one_by_one(maps, (1, (2, 3))),
    ),
    "sizes": (pool_sizes, [(2, 2, 4, 3)], lambda x: cropped(x, (1, (2, 3)), SMALL_SIZES.tolist())),
}


@pytest.fixture(params=FORMS)
def form(request):
    """The pooling, maps, and the same from the op for one map."""
    function, shapes, expected = FORMS[request.param]
    return function, distinct(shapes), expected


def test_gradients_are_checked_in_both_modes_and_in_batches(form):
    function, maps, _ = form
    maps = [x.requires_grad_() for x in maps]
    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(function, maps, **modes)
    assert gradgradcheck(function, maps, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True)


def cubes(function):
    return lambda *maps: function(*maps).pow(3).sum()


TRANSFORMS = {
    "grad": lambda f: grad(cubes(f)),
    "jvp": lambda f: lambda *x: jvp(f, x, tuple(part.cos() for part in x)),
    "jvp of grad": lambda f: lambda *x: jvp(grad(cubes(f)), x, tuple(part.cos() for part in x)),
    "hessian": lambda f: hessian(cubes(f)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_gives_what_it_gives_of_every_map_alone(transform, form):
    function, maps, expected = form
    got, want = (TRANSFORMS[transform](f)(*maps) for f in (function, expected))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_vmap_pools_every_sample(form):
    function, maps, expected = form
    samples = [torch.stack([x, x.flip(0), x.neg()]) for x in maps]
    each = torch.stack([expected(*(x[i] for x in samples)) for i in range(3)])
    assert_same(vmap(function)(*samples), each)
    got = vmap(grad(cubes(function)))(*samples)
    torch.testing.assert_close(got, torch.stack([grad(cubes(expected))(*(x[i] for x in samples)) for i in range(3)]))


def test_vmap_over_sizes():
    (x,) = distinct([(2, 2, 4, 3)])
    sizes = torch.stack([SMALL_SIZES, SMALL_SIZES.flip(0), torch.ones_like(SMALL_SIZES)])
    expected = torch.stack([cropped(x, (1, 2), one.tolist()) for one in sizes])
    assert_same(vmap(lambda s: spatial_pyramid_pool(x, (1, 2), sizes=s))(sizes), expected)
    both = vmap(lambda x, s: spatial_pyramid_pool(x, (1, 2), sizes=s))(torch.stack([x, -x, x + 1]), sizes)
    assert_same(both[1], cropped(-x, (1, 2), sizes[1].tolist()))


def test_a_bad_size_under_vmap_is_refused_as_its_box_is():
    (x,) = distinct([(2, 2, 4, 3)])
    sizes = torch.stack([SMALL_SIZES, torch.tensor([[5, 3], [1, 1]])])
    with pytest.raises(ValueError, match="expected finite boxes, got x2 = nan in row 2"):
        vmap(lambda s: spatial_pyramid_pool(x, (1,), sizes=s))(sizes)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_numpy_arrays_in_the_reference(kind):
    maps, (x, sizes) = listed(kind=kind), padded(kind=kind)
    got = reference.spatial_pyramid_pool([x.numpy() for x in maps], LEVELS)
    assert_same(torch.from_numpy(got), spatial_pyramid_pool(maps, LEVELS))
    got = reference.spatial_pyramid_pool(x.numpy(), LEVELS, sizes=sizes.numpy())
    assert_same(torch.from_numpy(got), cropped(x))
