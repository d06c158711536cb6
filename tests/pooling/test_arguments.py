"""Arguments as people have them: numbers of NumPy's and torch's, sequences that are no lists, and what is none."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from support import (
    NAN,
    OUTER,
    assert_refuses,
    assert_same,
    assert_well_written,
    gaussian,
    random_rois,
)

import spp_ext
from spp_ext import Bins, ops

X = gaussian((2, 3, 7, 6), torch.float32)
ROIS = random_rois(5, 2, 7, 6, scale=0.5)
PAIR = torch.tensor([0, 1, 1, 0, 1])


class Items(Sequence):
    """A sequence that is neither a list nor a tuple, as a configuration file's."""

    def __init__(self, *items):
        self.items = items

    def __getitem__(self, at):
        return self.items[at]

    def __len__(self):
        return len(self.items)


# ---- numbers ----

HALVES = [np.float32(0.5), np.float16(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).half()]
ONES = [1, np.int64(1), np.uint8(1), torch.tensor(1)]


@pytest.mark.parametrize("scale", HALVES + ONES, ids=lambda scale: f"{type(scale).__name__} {scale}")
def test_a_scale_is_any_number_or_an_array_of_one(scale):
    regions = spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1, 2), float(scale))
    assert_same(spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1, 2), scale), regions)
    module = spp_ext.RoISpatialPyramidPool((1, 2), scale)
    assert type(module.spatial_scale) is float
    assert_same(module(X, ROIS), regions)
    pooled = ops.roi_pool(X, ROIS, 2, float(scale))
    assert_same(ops.roi_pool(X, ROIS, 2, scale), pooled)
    assert_same(ops.RoIPool(2, scale)(X, ROIS), pooled)


@pytest.mark.parametrize("make", [Items, lambda *items: np.array(items), lambda *items: torch.tensor(items)])
def test_scales_of_several_maps_are_any_sequence(make):
    maps = [X, X[..., :4]]
    expected = spp_ext.roi_spatial_pyramid_pool(maps, ROIS, (2,), (1.0, 0.5), map_indices=PAIR)
    given = make(1.0, 0.5)
    assert_same(spp_ext.roi_spatial_pyramid_pool(maps, ROIS, (2,), given, map_indices=PAIR), expected)
    module = spp_ext.RoISpatialPyramidPool((2,), given)
    assert module.spatial_scale == (1.0, 0.5)
    assert_same(module(maps, ROIS, PAIR), expected)


def test_the_least_scale_that_is_infinite_is_the_kernels():
    infinite = 2.0**128 - 2.0**103
    below = math.nextafter(infinite, 0)
    op = torch.ops.spp_ext.roi_spatial_pyramid_pool
    op(X, ROIS[:0], [1, 1], below, OUTER, False)
    spp_ext.roi_spatial_pyramid_pool(X, ROIS[:0], (1,), below)
    for call in (
        lambda: op(X, ROIS[:0], [1, 1], infinite, OUTER, False),
        lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS[:0], (1,), infinite),
    ):
        with pytest.raises(ValueError, match="expected spatial_scale to be a positive finite number, got 3"):
            call()


# ---- sequences ----

SIZES = {
    "array": np.array([2, 3]),
    "tensor": torch.tensor([2, 3]),
    "list of tensors": [torch.tensor(2), torch.tensor(3)],
    "tuple of NumPy's": (np.int64(2), np.uint8(3)),
    "range": range(2, 4),
    "sequence": Items(2, 3),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("reuse_output", [False, True])
def test_an_output_size_is_any_sequence_of_whole_numbers(size, reuse_output):
    assert_same(ops.adaptive_max_pool2d(X, size), ops.adaptive_max_pool2d(X, (2, 3)))
    assert_same(ops.roi_pool(X, ROIS, size), ops.roi_pool(X, ROIS, (2, 3)))
    adaptive = ops.AdaptiveMaxPool2d(size, reuse_output=reuse_output)
    regions = ops.RoIPool(size, 1, reuse_output=reuse_output)
    assert adaptive.output_size == regions.output_size == (2, 3)
    for _ in range(2):  # with reuse_output the second compares what decides the shape
        assert_same(adaptive(X), ops.adaptive_max_pool2d(X, (2, 3)))
        assert_same(regions(X, ROIS), ops.roi_pool(X, ROIS, (2, 3)))


@pytest.mark.parametrize("size", [np.int64(3), np.array(3), torch.tensor(3)], ids=lambda size: type(size).__name__)
def test_an_output_size_is_any_whole_number(size):
    assert_same(ops.adaptive_max_pool2d(X, size), ops.adaptive_max_pool2d(X, 3))
    assert_same(ops.roi_pool(X, ROIS, size), ops.roi_pool(X, ROIS, 3))


@pytest.mark.parametrize("make", [Items, lambda *items: np.array(items)[::1]], ids=["sequence", "array"])
def test_levels_and_kernel_sizes_are_any_sequence(make):
    assert_same(spp_ext.spatial_pyramid_pool(X, make(1, 2, 3)), spp_ext.spatial_pyramid_pool(X, (1, 2, 3)))
    assert spp_ext.SpatialPyramidPool(make(1, 2, 3)).levels == (1, 2, 3)
    assert_same(ops.multi_kernel_max_pool2d(X, make(5, 3)), ops.multi_kernel_max_pool2d(X, (5, 3)))
    assert ops.SPP(make(5, 3)).kernel_sizes == (5, 3)


def test_ranges_and_sequences_in_sequences():
    assert_same(spp_ext.spatial_pyramid_pool(X, range(1, 4)), spp_ext.spatial_pyramid_pool(X, (1, 2, 3)))
    assert_same(ops.multi_kernel_max_pool2d(X, range(3, 8, 2)), ops.multi_kernel_max_pool2d(X, (3, 5, 7)))
    pair = Items(2, Items(1, 3))
    assert_same(spp_ext.spatial_pyramid_pool(X, pair), spp_ext.spatial_pyramid_pool(X, (2, (1, 3))))
    assert spp_ext.RoISpatialPyramidPool(pair).levels == (2, (1, 3))
    assert Bins(Items(Items(0, 0, 1, 2)), Items(2, 2)) == Bins(np.array([[0, 0, 1, 2]]), 2) == Bins([(0, 0, 1, 2)], 2)


def test_levels_of_a_module_stay_what_they_were():
    levels = [torch.tensor(3), [1, np.int64(2)], Bins([(0, 0, 1, 1)], 1)]
    module = spp_ext.SpatialPyramidPool(levels)
    levels[0].fill_(2)
    levels[1].append(3)
    assert repr(module.levels[:2]) == "(3, (1, 2))" and module.bins == 12
    assert module(X).shape == (2, 36)


@pytest.mark.parametrize("text", ["12", b"12", bytearray(b"12")], ids=lambda text: type(text).__name__)
def test_text_is_no_sequence(text):
    for call in (
        lambda: spp_ext.spatial_pyramid_pool(X, text),
        lambda: ops.multi_kernel_max_pool2d(X, text),
        lambda: ops.roi_pool(X, ROIS, text),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert_well_written(str(caught.value))


# ---- constructors ----

REGIONS, LEVELS = "spp_ext.RoISpatialPyramidPool: expected", "an int, a (rows, cols) pair (each from 1 to 1048576)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: spp_ext.SpatialPyramidPool((0,)), ValueError, f"every level to be {LEVELS} or spp_ext.Bins, got 0"),
        (
            lambda: spp_ext.RoISpatialPyramidPool((1,), -3.0, "roipool"),
            ValueError,
            "spatial_scale to be a positive finite number, got -3.0",
        ),
        (
            lambda: spp_ext.RoISpatialPyramidPool((1,), (1.0, NAN)),
            ValueError,
            "spatial_scale to be a positive finite number, got nan",
        ),
        (
            lambda: spp_ext.RoISpatialPyramidPool((1,), 1.0, "roipool"),
            ValueError,
            'convention "roi_pool", "spp_net" or "outer", got "roipool"',
        ),
        (
            lambda: ops.AdaptiveMaxPool2d("3"),
            TypeError,
            "output_size to be an int or a pair of ints and None, got '3'",
        ),
        (
            lambda: ops.AdaptiveMaxPool2d((1, 2, 3)),
            RuntimeError,
            "output_size to be an int or a pair of ints and None, got (1, 2, 3)",
        ),
        (
            lambda: ops.AdaptiveMaxPool2d(-1),
            RuntimeError,
            "output_size to be an int or a pair of ints and None, each from 0 to 1048576, got -1",
        ),
        (
            lambda: ops.RoIPool(0, 1.0),
            ValueError,
            "output_size, an int or a pair, between 1 and 1048576, got 0",
        ),
        (lambda: ops.RoIPool(7, "1"), TypeError, "spatial_scale to be a number, got '1'"),
        (lambda: ops.SPPF(3, 10**7), ValueError, "repeats from 1 to 1048575, got 10000000"),
        (lambda: ops.SPPF(3, 10**5000), ValueError, "repeats from 1 to 1048575, got a huge int"),
    ],
)
def test_a_module_is_refused_when_it_is_made(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert type(caught.value) is error
    name, _, rest = str(caught.value).partition(": expected ")
    assert rest == message
    assert_well_written(str(caught.value))


# ---- sizes ----


def test_the_bins_of_a_pyramid_and_the_length_of_its_rows():
    levels = (1, (2, 3), Bins([(0, 0, 1, 1), (0, 1, 1, 2)], 2))
    assert spp_ext.num_bins(levels) == 9 and spp_ext.num_bins([6, 3, 2, 1]) == 50
    for module in (spp_ext.SpatialPyramidPool(levels), spp_ext.RoISpatialPyramidPool(levels)):
        assert module.bins == 9 and module.out_features(3) == module.out_features(np.int64(3)) == 27
        name = f"spp_ext.{type(module).__name__}.out_features: expected channels, an int of at least 0, got"
        with pytest.raises(TypeError, match=f"^{name} 3.0$"):
            module.out_features(3.0)
        with pytest.raises(ValueError, match=f"^{name} -1$"):
            module.out_features(-1)
    assert spp_ext.SpatialPyramidPool(levels)(X).shape == (2, 27)
    assert_refuses(ValueError, "spp_ext.num_bins: expected at least one level, got none", lambda: spp_ext.num_bins(()))


# ---- messages ----

MILLION, HUGE = [2] * 10**6, 10**5000


@pytest.mark.parametrize(
    "call",
    [
        lambda: ops.adaptive_max_pool2d(X[0, 0], (2, 2)),
        lambda: ops.adaptive_max_pool2d(X, MILLION),
        lambda: ops.adaptive_max_pool2d(X, HUGE),
        lambda: ops.adaptive_max_pool2d(torch.zeros([1] * 1000), 1),
        lambda: ops.multi_kernel_max_pool2d(X, MILLION),
        lambda: ops.multi_kernel_max_pool2d(X, (HUGE + 1,)),
        lambda: ops.multi_kernel_max_pool2d(torch.zeros([1] * 1000)),
        lambda: ops.roi_pool(X, ROIS, MILLION),
        lambda: ops.roi_pool(X, ROIS, 2, -(10**400)),
        lambda: ops.roi_pool(torch.zeros([1] * 1000), ROIS, 2),
        lambda: spp_ext.num_bins((MILLION,)),
        lambda: spp_ext.num_bins((HUGE, 1)),
        lambda: spp_ext.num_bins("1" * 10**6),
        lambda: spp_ext.Bins([MILLION], 3),
        lambda: spp_ext.Bins([(0, 0, 1, HUGE)], 3),
        lambda: spp_ext.Bins([(0, 0, 1, 1)], HUGE),
        lambda: spp_ext.split_levels(torch.zeros([1] * 1000), (2,)),
        lambda: spp_ext.spatial_pyramid_pool(torch.zeros([1] * 1000)),
        lambda: spp_ext.spatial_pyramid_pool(X[0], (1,), out=torch.zeros([1] * 1000)),
        lambda: spp_ext.roi_spatial_pyramid_pool(torch.zeros([1] * 1000), ROIS),
        lambda: spp_ext.roi_spatial_pyramid_pool(X, [type(f"Number{n}", (), {})() for n in range(1000)]),
        lambda: spp_ext.roi_spatial_pyramid_pool(X, [torch.zeros([1] * 1000)] * 2),
        lambda: spp_ext.roi_spatial_pyramid_pool(
            [X, X], [ROIS[:, 1:]] * 2, map_indices=[torch.zeros(3, dtype=torch.int64)] * 10**4
        ),
        lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), [HUGE]),
        lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS, (1,), -(10**400)),
        lambda: spp_ext.roi_spatial_pyramid_pool(X, ROIS, convention="x" * 10**6),
    ],
)
def test_a_message_is_one_short_line(call):
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        call()
    message = str(caught.value)
    assert message.startswith("spp_ext.") and "\n" not in message and len(message) < 350


@pytest.mark.parametrize("size", [2, (2, 2), (None, 2)], ids=str)
def test_another_rank_is_blamed_on_the_rank(size):
    message = r"spp_ext\.ops\.adaptive_max_pool2d: expected input of shape \[N, C, H, W\] or \[C, H, W\], got \[7, 6\]"
    with pytest.raises((ValueError, RuntimeError), match=f"^{message}$"):
        ops.adaptive_max_pool2d(X[0, 0], size)
