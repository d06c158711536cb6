"""Whatever the shape, strides, dtype, levels, boxes and data: the same values, argmax and gradient as the reference."""

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import (
    CONVENTIONS,
    DTYPES,
    KINDS,
    LAYOUTS,
    assert_same,
    gaussian,
    generator,
    images_of,
    integers,
    lay_out,
    make_map,
    torch_pyramid,
)

import spp_ext
from spp_ext import Bins, _core, reference
from spp_ext._torch import functions
from spp_ext._torch.op_table import Rows
from spp_ext.levels import encode_levels, parse_levels

# ---- strategies ----

seeds = st.integers(0, 2**20)
dtypes = st.sampled_from(DTYPES)


@st.composite
def bins(draw):
    rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 9))

    def interval(n):
        return st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted).filter(lambda pair: pair[0] < pair[1])

    rectangles = draw(st.lists(st.tuples(interval(rows), interval(cols)), min_size=1, max_size=5))
    return Bins([(top, left, bottom, right) for (top, bottom), (left, right) in rectangles], (rows, cols))


grids = st.one_of(st.integers(1, 9), st.tuples(st.integers(1, 9), st.integers(1, 9)))
pyramids_of_grids = st.lists(grids, min_size=1, max_size=4).map(tuple)
pyramids = st.lists(st.one_of(grids, grids, bins()), min_size=1, max_size=4).map(tuple)


@st.composite
def maps(draw, min_images=0):
    """A map of any dtype, layout and kind of data, small enough for the reference."""
    images = draw(st.integers(min_images, 3))
    channels = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33]))
    limit = 12 if channels < 6 else 6
    shape = (images, channels, draw(st.integers(1, limit)), draw(st.integers(1, limit)))
    x = make_map(draw(st.sampled_from(KINDS)), shape, draw(dtypes), draw(seeds))
    return lay_out(x, draw(st.sampled_from(LAYOUTS)))


coordinates = st.one_of(
    st.integers(-40, 80).map(lambda quarter: quarter / 4),
    st.integers(-3, 14),
    st.integers(-3, 14).map(lambda n: n + 0.5),
    st.floats(-20, 30, width=32),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.sampled_from([0.49999997, -0.49999997, 1.5000001, 1e10, -1e10, 3e38, -3e38, 2.0**31, -(2.0**40), 1e-45, -0.0]),
)
scales = st.one_of(st.sampled_from([1.0, 0.5, 1 / 16, 1 / 3, 2.0, 1e-30, 1e30]), st.floats(0.01, 4))


@st.composite
def regions(draw, images):
    """Rows [K, 5] of any float dtype that hold finite numbers and images that exist."""
    dtype = draw(dtypes)
    index = st.integers(0, images - 1).flatmap(lambda n: st.sampled_from([n, n + 0.5] if n else [0, 0.5, -0.5, -0.0]))
    rows = draw(st.lists(st.tuples(index, *[coordinates] * 4), max_size=8))
    limit = torch.finfo(dtype).max
    rois = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5).clamp(-limit, limit).to(dtype)
    return rois


def examples(count):
    return settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


# ---- properties ----


def pooled(function, x):
    """Values alone, then values, indices and gradient (for random grad_output) of a pooling function."""
    alone = function(x)
    leaf = x.detach().requires_grad_()
    values, indices = function(leaf, return_indices=True)
    assert_same(function(x, return_indices=True), [values.detach(), indices])
    assert_same(alone, values.detach())
    grad = gaussian(values.shape, x.dtype, 11)
    return values.detach(), indices, grad, torch.autograd.grad(values, leaf, grad)[0]


@examples(150)
@given(maps(), pyramids)
@example(torch.zeros(1, 1, 1, 1), ((1, 9), 9))
def test_maps_equal_the_reference(x, levels):
    values, indices, grad, gradient = pooled(lambda x, **options: spp_ext.spatial_pyramid_pool(x, levels, **options), x)
    assert_same([values, indices], reference.spatial_pyramid_pool(x, levels, return_indices=True))
    assert_same(gradient, reference.scatter(grad, indices, levels, x.shape))


@examples(60)
@given(st.data(), maps(), pyramids)
def test_lists_of_maps_equal_the_reference(data, x, levels):
    """The map beside others of any size, number of images and layout."""
    maps = [x]
    for _ in range(data.draw(st.integers(0, 3))):
        shape = (data.draw(st.integers(0, 2)), x.shape[1], *data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7))))
        other = make_map(data.draw(st.sampled_from(KINDS)), shape, x.dtype, data.draw(seeds))
        maps.append(lay_out(other, data.draw(st.sampled_from(LAYOUTS))) if shape[0] != 1 else other[0])
    leaves = [x.detach().requires_grad_() for x in maps]
    values, indices = spp_ext.spatial_pyramid_pool(leaves, levels, return_indices=True)
    expected = reference.spatial_pyramid_pool(maps, levels, return_indices=True)
    assert_same([values.detach(), indices], expected)
    assert_same(spp_ext.spatial_pyramid_pool(maps, levels), expected[0])
    grad = gaussian(values.shape, x.dtype, 11)
    counts = [len(x) if x.dim() == 4 else 1 for x in maps]
    got = torch.autograd.grad(values, leaves, grad, allow_unused=True)
    for x, its, its_grad, cells in zip(maps, got, grad.split(counts), indices.split(counts), strict=True):
        shape = x.shape if x.dim() == 4 else (1, *x.shape)
        wanted = reference.scatter(its_grad, cells, levels, shape).view(x.shape)
        assert_same(torch.zeros_like(x) if its is None else its, wanted)


@examples(60)
@given(st.data(), maps(), pyramids)
def test_parts_of_images_equal_the_reference(data, x, levels):
    rows_and_cols = st.tuples(st.integers(1, x.shape[2]), st.integers(1, x.shape[3]))
    drawn = data.draw(st.lists(rows_and_cols, min_size=len(x), max_size=len(x)))
    sizes = torch.tensor(drawn, dtype=torch.int64).view(-1, 2)
    values, indices, grad, gradient = pooled(
        lambda x, **options: spp_ext.spatial_pyramid_pool(x, levels, sizes=sizes, **options), x
    )
    assert_same([values, indices], reference.spatial_pyramid_pool(x, levels, sizes=sizes, return_indices=True))
    assert_same(gradient, reference.scatter(grad, indices, levels, x.shape))


@examples(150)
@given(maps(min_images=1), pyramids_of_grids)
def test_grids_equal_torch(x, levels):
    if x.shape[1] == 0:
        return  # which torch refuses
    x = x.detach().requires_grad_()
    expected, expected_indices = torch_pyramid(x, levels)
    got, indices = spp_ext.spatial_pyramid_pool(x, levels, return_indices=True)
    assert_same([got, indices], [expected, expected_indices])
    grad = integers(got.shape, x.dtype, low=-1, high=1)
    assert_same(torch.autograd.grad(got, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])


@pytest.mark.cpu_only  # CUDA adds a region's parts in another fixed order
@examples(200)
@given(st.data(), maps(min_images=1), pyramids, scales, st.sampled_from(CONVENTIONS))
def test_regions_equal_the_reference(data, x, levels, scale, convention):
    rois = data.draw(regions(x.shape[0]))
    options = {"spatial_scale": scale, "convention": convention}
    values, indices, grad, gradient = pooled(
        lambda x, **more: spp_ext.roi_spatial_pyramid_pool(x, rois, levels, **options, **more), x
    )
    expected = reference.roi_spatial_pyramid_pool(x, rois, levels, return_indices=True, **options)
    assert_same([values, indices], expected)
    assert_same(gradient, reference.scatter(grad, indices, levels, x.shape, images_of(rois)))


@examples(60)
@given(st.data(), maps(min_images=1), pyramids, scales, st.sampled_from(CONVENTIONS))
def test_lists_of_boxes_equal_rows(data, x, levels, scale, convention):
    rois = data.draw(regions(x.shape[0]))
    images = torch.tensor(images_of(rois), dtype=torch.int64)
    listed = [rois[images == n, 1:] for n in range(x.shape[0])]
    grouped = torch.cat([rois[images == n] for n in range(x.shape[0])])
    options = {"convention": convention, "return_indices": True}
    assert_same(
        spp_ext.roi_spatial_pyramid_pool(x, listed, levels, scale, **options),
        spp_ext.roi_spatial_pyramid_pool(x, grouped, levels, scale, **options),
    )


@examples(60)
@given(st.data(), maps(min_images=1), pyramids, st.sampled_from(CONVENTIONS))
def test_regions_do_not_care_about_each_other(data, x, levels, convention):
    rois = data.draw(regions(x.shape[0]))
    options = {"convention": convention, "return_indices": True}
    together = spp_ext.roi_spatial_pyramid_pool(x, rois, levels, **options)
    order = torch.randperm(len(rois), generator=generator(data.draw(seeds)))
    shuffled = spp_ext.roi_spatial_pyramid_pool(x, rois[order], levels, **options)
    assert_same(shuffled, [part[order] for part in together])
    for k in range(len(rois)):
        alone = spp_ext.roi_spatial_pyramid_pool(x, rois[k : k + 1], levels, **options)
        assert_same(alone, [part[k : k + 1] for part in together])


@examples(60)
@given(maps(), pyramids)
def test_values_are_the_cells_the_indices_name(x, levels):
    values, indices = spp_ext.spatial_pyramid_pool(x, levels, return_indices=True)
    level_bins = [level.bins for level in parse_levels("spp_ext.test", levels)]
    assert_same(functions.gather(indices.int(), Rows(), level_bins, x), values)
    columns = 0
    for part, where in zip(spp_ext.split_levels(values, levels), spp_ext.split_levels(indices, levels), strict=True):
        assert_same(x.flatten(2).gather(2, where.flatten(2)), part.flatten(2))
        columns += part[0].numel() if len(part) else 0
    assert columns in (0, values.shape[1])


@pytest.mark.cpu_only  # CUDA adds a region's parts in another fixed order
@examples(60)
@given(st.data(), maps(min_images=1), pyramids)
def test_gather_and_scatter_equal_the_reference(data, x, levels):
    """Of any argmax whatever, not only of one that pooling gives."""
    channels, cells = x.shape[1], x.shape[2] * x.shape[3]
    level_bins = [level.bins for level in parse_levels("spp_ext.test", levels)]
    rois = data.draw(st.one_of(st.none(), regions(x.shape[0])))
    rows = x.shape[0] if rois is None else len(rois)
    images = None if rois is None else images_of(rois)
    g = generator(data.draw(seeds))
    argmax = torch.randint(-1, cells, (rows, channels * sum(level_bins)), generator=g, dtype=torch.int32)
    assert_same(functions.gather(argmax, Rows(rois), level_bins, x), reference.gather(x, argmax, levels, images))
    grad = gaussian(argmax.shape, x.dtype, 5)
    expected = reference.scatter(grad, argmax, levels, x.shape, images)
    for channels_last in (False, True):
        (got,) = functions.scatter(grad, argmax, Rows(rois), level_bins, [(x.shape, channels_last)])
        assert_same(got, expected)


@examples(100)
@given(st.data(), st.integers(1, 2**20), st.integers(0, 2**41))
def test_bins_equal_the_reference(data, divisions, length):
    begin = data.draw(st.integers(0, divisions - 1))
    end = data.draw(st.integers(begin + 1, divisions))
    assert _core.bin_span(begin, end, divisions, length) == reference.bin_span(begin, end, divisions, length)


@examples(100)
@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-3, 12)), max_size=24))
def test_any_list_of_integers_is_a_pyramid_or_refused(encoded):
    try:
        sources = _core.plan(encoded)
    except ValueError as error:
        assert str(error).startswith("expected ")
    else:
        assert all(-1 <= source < len(sources) for source in sources)


@examples(100)
@given(pyramids)
def test_every_pyramid_has_a_plan(levels):
    sources = _core.plan(encode_levels(parse_levels("spp_ext.test", levels)))
    assert len(sources) == len(levels)
    for level, source in enumerate(sources):
        assert source != level and (source < 0 or not isinstance(levels[source], Bins))
        seen = {level}
        while source >= 0:
            assert source not in seen
            seen.add(source)
            source = sources[source]
