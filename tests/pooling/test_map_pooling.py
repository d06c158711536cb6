"""Pooling of whole maps: tables to check by eye, then equality with torch's composition and with the reference."""

import pytest
import torch
from support import (
    DTYPES,
    INF,
    KINDS,
    LAYOUTS,
    NAN,
    TABLE,
    TABLE_BINS,
    assert_same,
    assert_same_bits,
    gaussian,
    integers,
    lay_out,
    make_map,
    torch_pyramid,
)

import spp_ext
from spp_ext import Bins, reference


def pool(rows, levels, dtype=torch.float32):
    """Values and argmax, as lists, of one plane."""
    plane = torch.as_tensor(rows, dtype=dtype)[None]  # [C=1, H, W]
    values, argmax = spp_ext.spatial_pyramid_pool(plane, levels, return_indices=True)
    assert_same(spp_ext.spatial_pyramid_pool(plane, levels), values)
    return values.tolist(), argmax.tolist()


def check(x, levels=(1, 2, 3, 6), torch_too=True):
    """Equality with the reference, and where there are only grids with torch: values, argmax, and values alone."""
    values, argmax = spp_ext.spatial_pyramid_pool(x, levels, return_indices=True)
    assert_same([values, argmax], reference.spatial_pyramid_pool(x, levels, return_indices=True))
    assert_same(spp_ext.spatial_pyramid_pool(x, levels), values)
    if torch_too:
        assert_same([values, argmax], torch_pyramid(x, levels))


def check_torch(x, levels=(1, 2, 3, 6)):
    """Equality with torch alone, which takes larger maps than the reference."""
    values, argmax = spp_ext.spatial_pyramid_pool(x, levels, return_indices=True)
    assert_same([values, argmax], torch_pyramid(x, levels))
    assert_same(spp_ext.spatial_pyramid_pool(x, levels), values)


# ---- tables ----


def test_the_4x4_table(dtype):
    values, argmax = pool(TABLE, [1, 2, 3, 4], dtype)
    assert values == [9, *[9, 8, 7, 6], *[9, 9, 8, 7, 8, 8, 7, 6, 6], *TABLE.flatten().tolist()]
    assert argmax == [1, *[1, 6, 8, 10], *[1, 1, 6, 8, 6, 6, 8, 10, 10], *range(16)]


def test_rows_and_columns_of_the_4x4_table():
    assert pool(TABLE, [(4, 1), (1, 4)]) == ([9, 8, 7, 4, 7, 9, 8, 5], [1, 6, 8, 15, 8, 1, 6, 7])


def test_bins_of_the_4x4_table():
    # top row, centre, right half, everything, last cell
    assert pool(TABLE, [TABLE_BINS]) == ([9, 8, 8, 9, 4], [1, 6, 6, 1, 15])
    assert pool(TABLE, [TABLE_BINS, 4])[0][:5] == [9, 8, 8, 9, 4]
    assert pool(TABLE, [Bins([(1, 0, 2, 1)], (2, 1))]) == ([7], [8])  # the lower half
    assert pool(TABLE, [Bins([(1, 1, 2, 2)], 3)]) == ([8], [6])  # rows and columns [1, 3)


def test_output_is_level_then_channel_then_bin():
    x = torch.stack([TABLE, 10 * TABLE])
    assert spp_ext.spatial_pyramid_pool(x, [1, 2]).tolist() == [9, 90, *[9, 8, 7, 6], *[90, 80, 70, 60]]


def test_more_bins_than_cells_share_cells():
    assert pool([[1, 2]], [(1, 3), (2, 1)]) == ([1, 2, 2, 2, 2], [0, 1, 1, 1, 1])


def test_first_cell_wins_ties(dtype):
    assert pool([[5, 7], [7, 7]], [1, 2], dtype) == ([7, 5, 7, 7, 7], [1, 0, 1, 2, 3])
    assert pool([[5, 5, 5]] * 3, [1, 3], dtype)[1] == [0, *range(9)]
    assert pool([[0, 1], [1, 0]], [1], dtype)[1] == [1]  # in row-major order, not column by column


def test_first_cell_wins_ties_of_zeros(dtype):
    assert pool([[0.0, -0.0]], [1], dtype)[1] == [0]
    assert pool([[-0.0, 0.0]], [1], dtype)[1] == [0]
    assert pool([[-1, 0.0], [-0.0, -1]], [1], dtype)[1] == [1]


def test_nan_wins(dtype):
    values, _ = pool([[1, NAN, INF], [3, 9, 2]], [1, (1, 3), (2, 1)], dtype)
    assert [v != v for v in values] == [True, False, True, False, True, False]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_nan_in_one_channel_alone_wins_there(layout, dtype):
    """Wherever it is among the channels that are pooled together."""
    x = gaussian((1, 64, 5, 6), dtype)
    for channel in range(64):
        one = x.clone()
        one[0, channel, 3, 2] = NAN
        one = lay_out(one, layout)
        assert_same(spp_ext.spatial_pyramid_pool(one, (1, 2)), torch_pyramid(one, (1, 2))[0])
        of_all = spp_ext.roi_spatial_pyramid_pool(one, torch.tensor([[0.0, 0, 0, 5, 4]]), (1, 2))
        assert_same(of_all, torch_pyramid(one, (1, 2))[0])


def test_all_minus_infinity_gives_minus_infinity_and_the_first_cell(dtype):
    assert pool([[-INF, -INF], [-INF, -INF]], [1, 2], dtype) == ([-INF] * 5, [0, 0, 1, 2, 3])
    assert pool([[-INF, -3]], [1], dtype) == ([-3], [1])


def test_the_most_negative_number_beats_minus_infinity(dtype):
    least = torch.finfo(dtype).min
    assert pool([[-INF, least]], [1], dtype) == ([least], [1])


# ---- equality with torch and the reference ----


def test_every_dtype_layout_and_kind_of_data(dtype, layout, kind):
    check(lay_out(make_map(kind, (2, 5, 7, 9), dtype), layout))


@pytest.mark.parametrize("levels", [(TABLE_BINS,), (TABLE_BINS, 4, 2), (8, TABLE_BINS), (TABLE_BINS, TABLE_BINS, 3)])
def test_bins_of_every_dtype_and_layout(levels, dtype, layout):
    check(lay_out(make_map("nan", (2, 5, 9, 6), dtype), layout), levels, torch_too=False)


SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 1, 1),
    (1, 1, 1, 2),
    (1, 2, 2, 1),
    (2, 3, 1, 13),
    (2, 3, 17, 1),
    (1, 2, 2, 2),
    (3, 1, 3, 5),
    (1, 5, 4, 4),
    (2, 2, 7, 11),
    (1, 3, 13, 13),
    (1, 2, 31, 37),
    (5, 1, 6, 6),
    (1, 19, 5, 3),
]
LEVELS = [
    (1,),
    (2,),
    (5,),
    (1, 2, 3, 6),
    (6, 3, 2, 1),
    (4, 3, 2, 1),
    (1, 2, 4),
    (3, 3, 1),
    ((1, 7),),
    ((7, 1), (1, 1)),
    ((2, 3), (3, 2), (6, 6)),
    (8, (16, 4)),
    (17,),
]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("levels", LEVELS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_and_pyramid(shape, levels, layout):
    check(lay_out(make_map("ties", shape), layout), levels)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "some_channels", "some_channels_last"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130])
def test_channels_that_fill_no_vector(channels, dtype, layout):
    for images in (1, 2, 5):
        check_torch(lay_out(make_map("nan", (images, channels, 6, 7), dtype, images), layout), (1, 2, 3, 6))


@pytest.mark.parametrize("layout", ["contiguous", "offset", "channels_last", "some_columns"])
@pytest.mark.parametrize("width", [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 100, 257])
def test_rows_that_fill_no_vector(width, dtype, layout):
    for height in (1, 4, 5, 7):
        check_torch(lay_out(make_map("ties", (1, 3, height, width), dtype, height), layout), (1, (2, 3), 4))


def test_bins_on_few_columns_of_wide_rows(dtype, layout):
    level = Bins([(0, 30, 9, 33), (2, 0, 3, 1), (1, 39, 8, 40), (0, 0, 9, 40), (4, 15, 5, 31), (3, 16, 4, 32)], (9, 40))
    check(lay_out(make_map("ties", (1, 3, 9, 40), dtype), layout), (level,), torch_too=False)


@pytest.mark.parametrize("kind", ["ties", "nan", "one nan", "inf and nan"])
def test_many_more_bins_than_cells(kind, dtype):
    check(make_map(kind, (1, 2, 7, 5), dtype), (40, (1, 64), 20))


def test_many_levels():
    check(integers((1, 3, 9, 9), torch.float32), tuple(range(1, 13)))
    check(integers((1, 3, 5, 5), torch.float32), (3, 2) * 20)


def test_a_large_plane(layout, dtype, two_threads):
    check_torch(lay_out(gaussian((1, 2, 300, 301), dtype), layout))


def test_a_large_plane_equals_the_reference(two_threads):
    check(make_map("one nan", (1, 1, 300, 301)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_batch(kind, two_threads):
    check_torch(make_map(kind, (8, 96, 13, 13)))
    check_torch(lay_out(make_map(kind, (8, 96, 13, 13)), "channels_last"))


@pytest.mark.parametrize("position", [0, 1, 15, 16, 17, 33, 52, 53, 54, 104])
def test_one_cell_is_found_wherever_it_is(position, layout):
    for value in (NAN, INF, 1.0):
        x = torch.full((2, 3, 15, 7), -1.0)
        x[:, :, position // 7, position % 7] = value
        check_torch(lay_out(x, layout), (1, 2, 3, 6, (15, 7)))


def test_two_nans_and_a_maximum_in_any_order():
    cells = [NAN, NAN, INF, 3.0, 3.0, -INF]
    orders = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(i)) for i in range(60)])
    x = torch.tensor(cells)[orders]  # [60, 6]
    for shape in ((1, 60, 2, 3), (1, 60, 3, 2), (1, 60, 1, 6), (1, 60, 6, 1), (60, 1, 2, 3)):
        check(x.reshape(shape), (1, 2, (1, 3)))


# ---- values come through unchanged ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_every_16_bit_number_comes_through(dtype, layout):
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    x = lay_out(numbers.reshape(1, 16, 64, 64), layout)
    assert_same_bits(spp_ext.spatial_pyramid_pool(x, [64]).flatten(), numbers)
    assert_same_bits(spp_ext.spatial_pyramid_pool(x, [64], return_indices=True)[0].flatten(), numbers)
    check_torch(x, (1, 5, 16))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_subnormals_are_not_flushed(dtype, layout):
    info = torch.finfo(dtype)
    tiny = torch.tensor([info.smallest_normal * n / 4 for n in (1, 2, 3)], dtype=torch.float64).to(dtype)
    x = lay_out(torch.cat([tiny, -tiny]).reshape(1, 1, 2, 3).repeat(1, 5, 1, 1), layout)
    values = spp_ext.spatial_pyramid_pool(x, [1, (2, 3)])
    assert_same(values[0, :5], tiny[2].expand(5))
    assert_same(values[0, 5:11], torch.cat([tiny, -tiny]))
    check(x)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("levels", [(1,), (2, 1), (1, 2, 3, 6)], ids=str)
def test_a_zero_keeps_the_sign_of_the_first(levels, layout):
    for dtype in DTYPES:
        x = lay_out(make_map("zeros", (2, 5, 7, 9), dtype), layout)
        values, _ = spp_ext.spatial_pyramid_pool(x, levels, return_indices=True)
        assert_same_bits(values, torch_pyramid(x, levels)[0])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_zeros_of_either_sign_are_one_maximum_without_argmax(dtype, layout):
    """Which of them comes out is not specified there: +0 and -0 are equal."""
    x = lay_out(make_map("zeros", (2, 5, 7, 9), dtype), layout)
    assert_same(spp_ext.spatial_pyramid_pool(x, (1, 2, 3, 6)), torch_pyramid(x)[0])


# ---- shapes at the edge ----


def test_one_image_without_a_batch_dimension(dtype):
    x = make_map("nan", (3, 5, 4), dtype)
    pooled = spp_ext.spatial_pyramid_pool(x, [2, 1], return_indices=True)
    assert pooled[0].shape == (15,)
    assert_same(pooled, reference.spatial_pyramid_pool(x, [2, 1], return_indices=True))
    assert_same(pooled, [part[0] for part in spp_ext.spatial_pyramid_pool(x[None], [2, 1], return_indices=True)])
    assert_same(spp_ext.spatial_pyramid_pool(x, [2, 1]), pooled[0])
    assert_same(spp_ext.spatial_pyramid_pool(x.transpose(1, 2), [2]), reference.spatial_pyramid_pool(x.mT, [2]))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 0, 4, 5), (0, 4, 5)])
def test_nothing_gives_nothing_of_the_right_shape(shape, dtype):
    x = torch.zeros(shape, dtype=dtype)
    values, argmax = spp_ext.spatial_pyramid_pool(x, return_indices=True)
    expected = (*shape[:-3], shape[-3] * 50)
    assert values.shape == argmax.shape == spp_ext.spatial_pyramid_pool(x).shape == expected
    assert values.dtype == dtype and argmax.dtype == torch.int64


@pytest.mark.parametrize("shape", [(1, 2, 0, 4), (1, 2, 4, 0), (0, 2, 0, 4), (1, 0, 4, 0), (2, 0, 4)])
def test_a_map_without_cells_is_refused(shape):
    with pytest.raises(ValueError, match="expected input with at least one row and one column, got"):
        spp_ext.spatial_pyramid_pool(torch.zeros(shape))


def test_default_levels_are_the_papers():
    x = integers((2, 3, 9, 9), torch.float32)
    assert_same(spp_ext.spatial_pyramid_pool(x), spp_ext.spatial_pyramid_pool(x, (1, 2, 3, 6)))
    assert_same(spp_ext.SpatialPyramidPool()(x), spp_ext.spatial_pyramid_pool(x))


# ---- memory ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_input_is_not_touched(layout):
    x = lay_out(make_map("nan", (2, 17, 7, 9)), layout)
    storage = torch.tensor(x.untyped_storage().tolist(), dtype=torch.uint8)
    version = x._version
    spp_ext.spatial_pyramid_pool(x, return_indices=True)
    spp_ext.spatial_pyramid_pool(x)
    assert x._version == version
    assert_same(torch.tensor(x.untyped_storage().tolist(), dtype=torch.uint8), storage)


def test_the_output_is_new_and_contiguous(layout):
    x = lay_out(make_map("gaussian", (2, 3, 1, 1)), layout)
    for pooled in (spp_ext.spatial_pyramid_pool(x, [1]), *spp_ext.spatial_pyramid_pool(x, [1], return_indices=True)):
        assert pooled.is_contiguous() and pooled.stride() == (3, 1)
        assert pooled.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 70])
def test_every_element_is_written(channels, dtype, layout, deterministic):
    assert torch.empty(3).isnan().all()  # what torch does here, and what makes this test say something
    check_torch(lay_out(integers((2, channels, 7, 5), dtype), layout), (1, 2, 3, 6, (3, 9)))
    x = lay_out(integers((2, channels, 7, 5), dtype), layout)
    assert not spp_ext.spatial_pyramid_pool(x, [TABLE_BINS, 5]).isnan().any()


def test_a_view_that_only_promises_to_negate():
    x = gaussian((2, 3, 6, 5), torch.float32)
    assert_same(spp_ext.spatial_pyramid_pool(torch._neg_view(x)), spp_ext.spatial_pyramid_pool(-x))
    imaginary = torch.complex(x, x).conj().imag
    assert_same(spp_ext.spatial_pyramid_pool(imaginary), spp_ext.spatial_pyramid_pool(-x))


def test_vmap_over_images(dtype):
    x = make_map("nan", (3, 2, 4, 6, 5), dtype)
    got = torch.vmap(lambda images: spp_ext.spatial_pyramid_pool(images, (1, 2)))(x)
    assert_same(got, torch.stack([spp_ext.spatial_pyramid_pool(images, (1, 2)) for images in x]))
