"""The reference of the drop-ins: literal tables to check by eye, torchvision's bin edges, and equality with torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import TABLE

from spp_ext import reference

pytestmark = pytest.mark.cpu_only  # no kernel runs

MAP = TABLE.numpy()


# ---- whole maps in one grid ----


def test_adaptive_max_pool2d_is_one_level_in_its_shape():
    values, argmax = reference.adaptive_max_pool2d(MAP[None], (2, None), return_indices=True)
    assert values.tolist() == [[[3, 9, 8, 5], [7, 3, 6, 4]]]
    assert argmax.tolist() == [[[4, 1, 6, 7], [8, 13, 10, 15]]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("output_size", [1, 3, (2, 5), [7, 1], (None, 2), (3, None), (None, None), 0, (0, 2)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (3, 6, 1), (0, 2, 3, 3)])
def test_adaptive_max_pool2d_equals_torch(shape, output_size, dtype):
    x = torch.randint(-3, 3, shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    got = reference.adaptive_max_pool2d(x, output_size, return_indices=True)
    expected = F.adaptive_max_pool2d(x, output_size, return_indices=True)
    for part, expected_part in zip(got, expected, strict=True):
        assert part.dtype == expected_part.dtype and torch.equal(part, expected_part)
    assert torch.equal(reference.adaptive_max_pool2d(x, output_size), expected[0])


# ---- torchvision's bin edges ----


@pytest.mark.parametrize(
    ("dtype", "length", "divisions", "span"),
    [
        (np.float32, 57, 7, (48, 58)),  # 57 / 7 is rounded up, and 7 of it are more than 57
        (np.float64, 57, 7, (48, 57)),
        (np.float64, 29, 7, (24, 30)),
        (np.float32, 29, 7, (24, 29)),
        (np.float32, 7, 13, (6, 8)),
        (np.float32, 57, 14, (52, 58)),
        (np.float32, 2**41 + 1, 4, (3 * 2**39, 2**41)),  # of the largest window; float32 cannot hold its length
    ],
)
def test_torchvisions_last_bin_ends_where_a_rounded_quotient_puts_it(dtype, length, divisions, span):
    assert reference.torchvision_bin_span(divisions - 1, divisions, divisions, length, dtype) == span


@pytest.mark.parametrize("divisions", [1, 2, 3, 4, 5, 6, 8, 12])
def test_torchvisions_edges_are_the_integer_ones_for_most_grids(divisions):
    for length in range(1, 4097):
        for i in range(divisions):
            bin = (i, i + 1, divisions, length)
            assert reference.torchvision_bin_span(*bin, np.float32) == reference.bin_span(*bin)


# ---- regions in one grid, with torchvision's edges ----


def roi_pool_box(plane, box, output_size, dtype=np.float32, **kwargs):
    """Values and argmax, as lists, of one plane pooled over one box (x1, y1, x2, y2)."""
    boxes = np.array([[0, *box]], dtype)
    pooled = reference.roi_pool(plane[None, None], boxes, output_size, return_indices=True, **kwargs)
    return tuple(part[0, 0].tolist() for part in pooled)


def test_roi_pool_on_the_4x4_map():
    assert roi_pool_box(MAP, (1, 0, 3, 2), (3, 1)) == ([[9], [8], [6]], [[1], [6], [10]])
    assert roi_pool_box(MAP, (16, 0, 48, 32), (1, 3), spatial_scale=1 / 16) == ([[9, 8, 5]], [[1, 6, 7]])
    assert roi_pool_box(MAP, (-2, 2, 1, 3), (1, 2)) == ([[0, 7]], [[-1, 8]])  # the left bin lies outside
    assert roi_pool_box(MAP, (2, 1, 0, 0), 2) == ([[8, 8], [8, 8]], [[6, 6], [6, 6]])  # inverted: one cell


def test_roi_pool_reads_the_cell_after_57_that_a_rounded_edge_reaches():
    ramp = np.arange(60, dtype=np.float32)[None]
    ends = [8, 16, 24, 32, 40, 48]  # the last cells of the first six of 7 bins
    assert roi_pool_box(ramp, (0, 0, 56, 0), (1, 7))[1] == [[*ends, 57]]
    assert roi_pool_box(ramp, (0, 0, 56, 0), (1, 7), np.float64)[1] == [[*ends, 56]]
    assert roi_pool_box(ramp, (2, 0, 58, 0), (1, 7))[1] == [[*(end + 2 for end in ends), 59]]
    assert roi_pool_box(ramp[:, :57], (0, 0, 56, 0), (1, 7))[1] == [[*ends, 56]]  # it is clipped to the map
    assert roi_pool_box(ramp.T, (0, 0, 0, 56), (7, 1))[1] == [[end] for end in [*ends, 57]]
    # Boxes in half precision are computed in float32.
    boxes = torch.tensor([[0, 0, 0, 56, 0]], dtype=torch.float16)
    assert reference.roi_pool(torch.from_numpy(ramp)[None, None], boxes, (1, 7))[0, 0, 0, -1] == 57


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_roi_pool_saturates_coordinates(dtype):
    huge = float(np.finfo(dtype).max)
    everything = ([[9]], [[1]])
    assert roi_pool_box(MAP, (-huge, -huge, huge, huge), 1, dtype) == everything
    assert roi_pool_box(MAP, (-1, -1, 1, 1), 1, dtype, spatial_scale=1e30) == everything
    assert roi_pool_box(MAP, (huge, 0, huge, 3), 1, dtype) == ([[0]], [[-1]])
    # From -2^40 to 2^40 the middle of 3 bins holds the map; from 0 to 2^40 the first does.
    assert roi_pool_box(MAP, (-huge, 0, huge, 3), (1, 3), dtype) == ([[0, 9, 0]], [[-1, 1, -1]])
    assert roi_pool_box(MAP, (0, 0, huge, 3), (1, 3), dtype) == ([[9, 0, 0]], [[1, -1, -1]])


def test_roi_pool_is_one_level_where_edges_are_the_integer_ones():
    x = torch.randint(-9, 9, (2, 3, 9, 8), generator=torch.Generator().manual_seed(4)).half()
    listed = [torch.tensor([[0.0, 1, 4, 3], [-3, 2, 5, 12]]), torch.tensor([[1.0, 0, 2, 5], [20, 20, 30, 30]])]
    got = reference.roi_pool(x, listed, (2, 5), 0.5, return_indices=True)
    level = reference.roi_spatial_pyramid_pool(x, listed, [(2, 5)], 0.5, return_indices=True)
    for part, expected in zip(got, level, strict=True):
        assert part.shape == (4, 3, 2, 5) and part.dtype == expected.dtype
        assert torch.equal(part.flatten(1), expected)
    assert torch.equal(reference.roi_pool(x, listed, (2, 5), 0.5), got[0])


# ---- gradients ----


@pytest.mark.parametrize("cascade", [False, True])
def test_gradient_of_several_kernels_equals_torch_autograd(cascade):
    sizes, kernels = (3, 5, 9), (3, 3, 5) if cascade else (3, 5, 9)
    x = torch.randint(-2, 3, (2, 3, 6, 5), generator=torch.Generator().manual_seed(5)).double().requires_grad_()  # ties
    blocks = [x]
    for kernel in kernels:
        blocks.append(F.max_pool2d(blocks[-1] if cascade else x, kernel, 1, kernel // 2))
    output = torch.cat(blocks, 1)
    values, argmax = reference.multi_kernel_max_pool2d(x, sizes, cascade=cascade, return_indices=True)
    assert torch.equal(values, output)
    grad = torch.randint(-9, 9, output.shape).double()
    (expected,) = torch.autograd.grad(output, x, grad)
    levels = [(6, 5)] * 4
    assert torch.equal(reference.scatter(grad, argmax, levels, x.shape), expected)
    assert torch.equal(reference.gather(x, argmax, levels), values)


def test_gather_and_scatter_keep_the_shape_of_a_grid():
    argmax = np.array([[[[0, 3]]], [[[2, -1]]]])  # [rows, C, 1, 2]
    grad = np.array([[[[5, 7]]], [[[9, 11]]]], np.float32)
    assert reference.scatter(grad, argmax, [(1, 2)], (1, 1, 2, 2), [0, 0]).tolist() == [[[[5, 0], [9, 7]]]]
    source = np.array([[[[1, 2], [3, 4]]]], np.float32)
    assert reference.gather(source, argmax, [(1, 2)], [0, 0]).tolist() == [[[[1, 4]]], [[[3, 0]]]]
