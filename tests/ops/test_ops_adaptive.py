"""`ops.adaptive_max_pool2d` and its module are torch's: values, indices, gradients, layouts, errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support import KINDS, assert_refuses, assert_same, assert_well_written, integers, lay_out, make_map

from spp_ext.ops import AdaptiveMaxPool2d, adaptive_max_pool2d

SIZES = [3, 1, (2, 4), [4, 1], (None, 2), (3, None), (None, None), (7, 9), torch.Size([2, 2])]


def outcome(function, *arguments):
    """What came of a call: the results with their places in memory, or the type of the error."""
    try:
        results = function(*arguments)
    except Exception as error:
        return type(error)
    results = results if isinstance(results, tuple) else (results,)
    return [(result.shape, result.stride(), result.dtype) for result in results]


@pytest.mark.parametrize("output_size", SIZES, ids=str)
def test_values_and_indices_are_torchs(kind, dtype, output_size):
    x = make_map(kind, [2, 3, 6, 8], dtype)
    expected = F.adaptive_max_pool2d(x, output_size, return_indices=True)
    assert_same(adaptive_max_pool2d(x, output_size, return_indices=True), expected)
    assert_same(adaptive_max_pool2d(x, output_size), expected[0])


@pytest.mark.parametrize("output_size", [3, 1, (None, 1), (2, 5)], ids=str)
def test_results_lie_in_memory_as_torchs(layout, output_size):
    x = lay_out(integers([2, 3, 6, 8], torch.float32), layout)
    expected = F.adaptive_max_pool2d(x, output_size, return_indices=True)
    got = adaptive_max_pool2d(x, output_size, return_indices=True)
    assert_same(got, expected)
    assert [part.stride() for part in got] == [part.stride() for part in expected]


@pytest.mark.parametrize("shape", [[2, 1, 5, 6], [2, 3, 1, 1], [1, 3, 1, 6], [2, 1, 1, 1], [3, 4, 5, 1]], ids=str)
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_an_ambiguous_layout_is_read_as_torch_reads_it(shape, format):
    x = torch.zeros(shape).contiguous(memory_format=format)
    for view in (x, x.transpose(2, 3), x[:1]):
        for size in (1, 2, (None, 1)):
            assert outcome(adaptive_max_pool2d, view, size, True) == outcome(F.adaptive_max_pool2d, view, size, True)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_single_map_has_no_batch(order, dtype):
    x = integers([3, 6, 8], dtype).permute(order)
    expected = F.adaptive_max_pool2d(x, (2, None), return_indices=True)
    got = adaptive_max_pool2d(x, (2, None), return_indices=True)
    assert_same(got, expected)
    assert [part.stride() for part in got] == [part.stride() for part in expected]


@pytest.mark.parametrize("shape", [[0, 3, 5, 6], [0, 5, 6]], ids=str)
def test_an_empty_batch_gives_an_empty_result(shape):
    x = torch.zeros(shape, requires_grad=True)
    output, indices = adaptive_max_pool2d(x, (2, 3), return_indices=True)
    assert_same((output, indices), F.adaptive_max_pool2d(x, (2, 3), return_indices=True))
    output.sum().backward()
    assert_same(x.grad, torch.zeros(shape))


@pytest.mark.parametrize("size", [0, (0, 3), (3, 0)], ids=str)
def test_a_grid_without_bins_is_empty_and_its_gradient_zero(size):
    x = torch.ones(2, 3, 5, 6, requires_grad=True)
    got = adaptive_max_pool2d(x, size, return_indices=True)
    assert_same(got, F.adaptive_max_pool2d(x, size, return_indices=True))
    got[0].sum().backward()
    assert_same(x.grad, torch.zeros(2, 3, 5, 6))


@pytest.mark.parametrize(
    "size", [None, (None,), (3,), -1, (3, -1), (1, 2, 3), (1, 2, 3, 4), (), 2.0, (2.0, 2), True, (True, 2), "3", 10**12]
)
def test_a_bad_output_size_is_refused_with_torchs_type_of_error(size):
    x = torch.zeros(2, 3, 5, 6)
    with pytest.raises(outcome(F.adaptive_max_pool2d, x, size)) as caught:
        adaptive_max_pool2d(x, size)
    assert outcome(adaptive_max_pool2d, x, size) is outcome(F.adaptive_max_pool2d, x, size)
    assert_well_written(str(caught.value))


def test_more_bins_than_a_level_may_have_are_refused():
    message = "spp_ext.ops.adaptive_max_pool2d: expected output_size of at most 2147483647 bins, got (65536, 32768)"
    assert_refuses(RuntimeError, message, lambda: adaptive_max_pool2d(torch.zeros(1, 1, 2, 2), (2**16, 2**15)))


SHAPES = [[], [5], [5, 6], [1, 2, 3, 5, 6], [2, 0, 5, 6], [2, 3, 0, 6], [2, 3, 5, 0], [3, 0, 6], [0, 0, 5, 6]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [2, (None, 2)], ids=str)
def test_a_bad_shape_is_refused_with_torchs_type_of_error(shape, size):
    x = torch.zeros(shape)
    with pytest.raises((RuntimeError, ValueError)) as caught:
        adaptive_max_pool2d(x, size)
    assert type(caught.value) is outcome(F.adaptive_max_pool2d, x, size)
    assert_well_written(str(caught.value))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_a_dtype_without_a_kernel_is_not_implemented_as_in_torch(dtype):
    x = torch.zeros(2, 3, 5, 6).to(dtype)
    assert outcome(adaptive_max_pool2d, x, 2) is outcome(F.adaptive_max_pool2d, x, 2) is NotImplementedError


def test_what_is_no_tensor_is_a_type_error():
    with pytest.raises(TypeError, match="expected input to be a Tensor, got list"):
        adaptive_max_pool2d([[1.0]], 1)


def test_gradients_are_torchs_in_values_and_layout(kind, layout):
    x = lay_out(make_map(kind, [2, 3, 6, 8], torch.float64), layout)
    ours, theirs = x.detach().requires_grad_(), x.detach().requires_grad_()
    output, expected = adaptive_max_pool2d(ours, (3, 4)), F.adaptive_max_pool2d(theirs, (3, 4))
    grad = integers(output.shape, torch.float64, seed=1)
    output.backward(grad)
    expected.backward(grad)
    assert_same(ours.grad, theirs.grad)


def test_derivatives_of_every_order_and_mode():
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    for y in (x, x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()):

        def pool(input):
            return adaptive_max_pool2d(input, (2, 3))

        assert torch.autograd.gradcheck(pool, y, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(pool, y)


def test_indices_lead_to_the_values_and_have_no_gradient():
    x = integers([2, 3, 6, 8], torch.float32).requires_grad_()
    output, indices = adaptive_max_pool2d(x, 3, return_indices=True)
    assert indices.dtype == torch.int64 and not indices.requires_grad and output.requires_grad
    assert_same(x.detach().flatten(2).gather(2, indices.flatten(2)).view(output.shape), output.detach())


def test_vmap_pools_each_sample():
    x = integers([4, 2, 3, 6, 8], torch.float32)
    pooled = torch.func.vmap(lambda sample: adaptive_max_pool2d(sample, 3))(x)
    assert_same(pooled, torch.stack([F.adaptive_max_pool2d(sample, 3) for sample in x]))


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.none() | st.integers(1, 14), st.none() | st.integers(1, 14)),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_any_size_is_torchs(shape, size, kind, seed):
    x = make_map(kind, shape, torch.float32, seed)
    assert_same(adaptive_max_pool2d(x, size, True), F.adaptive_max_pool2d(x, size, True))


@pytest.mark.parametrize("arguments", [(3,), ((2, None),), (5, True)])
def test_the_module_is_torchs(arguments):
    ours, theirs = AdaptiveMaxPool2d(*arguments), torch.nn.AdaptiveMaxPool2d(*arguments)
    x = integers([2, 3, 6, 8], torch.float32)
    got, expected = ours(x), theirs(x)
    assert_same(got, expected)
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, torch.nn.AdaptiveMaxPool2d)
