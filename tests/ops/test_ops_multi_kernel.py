"""`kernels.multi_kernel_max_pool2d`, SPP and SPPF are torch's max pools, concatenated: values, layouts, gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support import DTYPES, KINDS, assert_same, assert_well_written, integers, lay_out, make_map

from spp_ext import reference
from spp_ext._torch.kernels import kernels
from spp_ext.ops import SPP, SPPF, multi_kernel_max_pool2d


def side_by_side(x, sizes):
    return torch.cat([x] + [F.max_pool2d(x, size, 1, size // 2) for size in sizes], -3)


def in_cascade(x, sizes):
    maps, before = [x], 1
    for size in sizes:
        kernel = size - before + 1
        maps.append(F.max_pool2d(maps[-1], kernel, 1, kernel // 2))
        before = size
    return torch.cat(maps, -3)


def torch_pools(x, sizes, cascade):
    return (in_cascade if cascade else side_by_side)(x, sizes)


def gradients(x, sizes, cascade):
    """Output and gradient, ours and torch's, in float64 where every order of a sum of whole numbers is exact."""
    ours, theirs = x.detach().requires_grad_(), x.detach().double().requires_grad_()
    output = multi_kernel_max_pool2d(ours, sizes, cascade=cascade)
    expected = torch_pools(theirs, sizes, cascade)
    grad = integers(output.shape, x.dtype, seed=7)
    output.backward(grad)
    expected.backward(grad.double())
    return (output.detach(), ours.grad), (expected.detach().to(x.dtype), theirs.grad.to(x.dtype))


cascade_or_not = pytest.mark.parametrize("cascade", [False, True], ids=["side_by_side", "cascade"])


@cascade_or_not
@pytest.mark.parametrize("sizes", [(5, 9, 13), (3,), (1, 3), (3, 5, 11, 17), (13,)], ids=str)
def test_values_are_torchs(kind, dtype, sizes, cascade):
    x = make_map(kind, [2, 3, 9, 11], dtype)
    for format in (torch.contiguous_format, torch.channels_last):
        got = multi_kernel_max_pool2d(x.contiguous(memory_format=format), sizes, cascade=cascade)
        assert_same(got, torch_pools(x, sizes, cascade))
        assert got.is_contiguous(memory_format=format)


@cascade_or_not
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_torchs_at_ties_and_special_values(kind, format, cascade):
    x = make_map(kind, [2, 3, 9, 11], torch.float64).contiguous(memory_format=format)
    got, expected = gradients(x, (5, 9, 13), cascade)
    assert_same(got, expected)


@cascade_or_not
def test_gradients_of_every_dtype_are_rounded_once(dtype, cascade):
    x = integers([2, 3, 9, 11], dtype)
    got, expected = gradients(x, (5, 9, 13), cascade)
    assert_same(got, expected)


@cascade_or_not
def test_every_layout_is_read(layout, cascade):
    x = lay_out(integers([2, 3, 9, 11], torch.float32), layout)
    got, expected = gradients(x, (3, 7), cascade)
    assert_same(got, expected)


@cascade_or_not
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_a_gradient_has_the_layout_of_its_input(format, cascade):
    x = integers([2, 3, 9, 11], torch.float32).contiguous(memory_format=format).requires_grad_()
    multi_kernel_max_pool2d(x, cascade=cascade).sum().backward()
    assert x.grad.is_contiguous(memory_format=format)


def test_the_two_gradients_differ_at_ties_and_nowhere_else():
    def gradient(x, cascade):
        x = x.detach().requires_grad_()
        multi_kernel_max_pool2d(x, cascade=cascade).backward(torch.ones(1, 4, 9, 9))
        return x.grad

    tied, distinct = integers([1, 1, 9, 9], torch.float32), torch.randperm(81).float().view(1, 1, 9, 9)
    assert not torch.equal(gradient(tied, True), gradient(tied, False))
    assert_same(gradient(distinct, True), gradient(distinct, False))


@cascade_or_not
@pytest.mark.parametrize("shape", [[1, 1, 1, 1], [2, 3, 1, 7], [2, 3, 7, 1], [1, 70, 2, 3]], ids=str)
def test_windows_may_be_larger_than_the_map(shape, cascade):
    for kind in ("ties", "nan", "all minus inf"):
        x = make_map(kind, shape, torch.float64)
        assert_same(*gradients(x, (5, 9, 13, 101), cascade))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [[4, 83, 61, 57], [2, 64, 80, 64]], ids=str)  # odd, and whole vectors and lines
def test_an_output_larger_than_the_caches_is_written_whole(dtype, format, shape, kind):
    x = make_map(kind, shape, dtype).contiguous(memory_format=format)
    assert_same(multi_kernel_max_pool2d(x, (5, 9, 13)), torch_pools(x, (5, 9, 13), True))


def test_a_huge_kernel_costs_no_more():
    x = integers([1, 2, 6, 7], torch.float32)
    got = multi_kernel_max_pool2d(x, (5, 1_048_575))
    assert_same(got[:, 4:], x.amax((2, 3), keepdim=True).expand(1, 2, 6, 7))


@pytest.mark.parametrize("sizes", [(13, 9, 5), (9, 5, 13), (5, 5), (9, 5, 9, 1), [13, 5, 9]], ids=str)
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_sizes_may_come_in_any_order_and_again(sizes, format):
    x = integers([2, 3, 9, 11], torch.float64).contiguous(memory_format=format)
    assert_same(*gradients(x, sizes, False))
    assert multi_kernel_max_pool2d(x, sizes).is_contiguous(memory_format=format)


@cascade_or_not
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_single_map_has_no_batch(dtype, cascade):
    x = integers([3, 9, 11], dtype)
    assert_same(*gradients(x, (5, 9), cascade))


@cascade_or_not
@pytest.mark.parametrize("shape", [[0, 3, 5, 6], [2, 0, 5, 6]], ids=str)
def test_an_empty_batch_gives_an_empty_result(shape, cascade):
    x = torch.zeros(shape, requires_grad=True)
    output = multi_kernel_max_pool2d(x, (5, 9), cascade=cascade)
    assert output.shape == (shape[0], 3 * shape[1], 5, 6)
    output.sum().backward()
    assert_same(x.grad, torch.zeros(shape))


@cascade_or_not
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_derivatives_of_every_order_and_mode(format, cascade):
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64).contiguous(memory_format=format).requires_grad_()

    def pool(input):
        return multi_kernel_max_pool2d(input, (3, 7), cascade=cascade)

    assert torch.autograd.gradcheck(pool, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(pool, x)


@cascade_or_not
def test_transforms_of_torch_func(cascade):
    x = integers([4, 2, 3, 6, 7], torch.float64)

    def ours(sample):
        return multi_kernel_max_pool2d(sample, (3, 5), cascade=cascade)

    def theirs(sample):
        return torch_pools(sample, (3, 5), cascade)

    assert_same(torch.func.vmap(ours)(x), torch.stack([theirs(sample) for sample in x]))
    weight = integers([2, 9, 6, 7], torch.float64, seed=3)
    got = torch.func.vmap(torch.func.grad(lambda sample: (ours(sample) * weight).sum()))(x)
    expected = [torch.func.grad(lambda sample: (theirs(sample) * weight).sum())(sample) for sample in x]
    assert_same(got, torch.stack(expected))
    tangent = integers(x[0].shape, torch.float64, seed=4)
    distinct = torch.randperm(252, generator=torch.Generator().manual_seed(0)).double().view(2, 3, 6, 7)
    got, expected = (torch.func.jvp(pool, (distinct,), (tangent,)) for pool in (ours, theirs))
    assert_same(got, expected)


@cascade_or_not
def test_it_equals_the_reference_with_its_argmax(kind, cascade):
    x = make_map(kind, [2, 3, 6, 7], torch.float32)
    values, argmax = reference.multi_kernel_max_pool2d(x, (3, 5, 9), cascade=cascade, return_indices=True)
    for format in (torch.contiguous_format, torch.channels_last):
        y = x.contiguous(memory_format=format)
        assert_same(multi_kernel_max_pool2d(y, (3, 5, 9), cascade=cascade), values)
        got, got_argmax = kernels.multi_kernel_max_pool2d_with_argmax(y, [3, 5, 9], cascade)
        assert_same(got, values)
        assert_same(got_argmax.long(), argmax)


def test_the_reference_is_right_on_a_table_a_person_can_check():
    x = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 2]])[None, None]
    values, argmax = reference.multi_kernel_max_pool2d(x, (3,), return_indices=True)
    assert values[0, 1].tolist() == [[1, 1, 1], [1, 2, 2], [1, 2, 2]]
    assert argmax[0, 1].tolist() == [[0, 0, 1], [0, 8, 8], [4, 8, 8]]
    assert argmax[0, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_the_reference_follows_a_cascade_to_the_cell_that_the_chain_picks():
    x = torch.tensor([[0.0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])[None, None]
    side = reference.multi_kernel_max_pool2d(x, (3, 5), return_indices=True)[1]
    chain = reference.multi_kernel_max_pool2d(x, (3, 5), cascade=True, return_indices=True)[1]
    # The 5 x 5 cells around (1, 1) hold both ones. Row by row the one at (0, 3) is first. But of the nine pools that a
    # second 3-pool sees, the first has a 1 already, from (1, 0).
    assert side[0, 2, 1, 1] == 3
    assert chain[0, 2, 1, 1] == 4


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 16), st.integers(1, 16)),
    halves=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    kind=st.sampled_from(KINDS),
    cascade=st.booleans(),
    format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    seed=st.integers(0, 999),
)
def test_any_case_is_torchs(shape, halves, kind, cascade, format, seed):
    sizes = tuple(2 * half + 1 for half in (sorted(halves) if cascade else halves))
    x = make_map(kind, shape, torch.float64, seed).contiguous(memory_format=format)
    assert_same(*gradients(x, sizes, cascade))


def refused(error, *arguments, **keywords):
    with pytest.raises(error) as caught:
        multi_kernel_max_pool2d(*arguments, **keywords)
    assert type(caught.value) is error
    assert str(caught.value).startswith("spp_ext.ops.multi_kernel_max_pool2d: ")
    assert_well_written(str(caught.value))


@pytest.mark.parametrize(
    ("error", "sizes"),
    [
        (TypeError, 5),
        (TypeError, None),
        (TypeError, (5.0,)),
        (TypeError, (True,)),
        (TypeError, ((5, 5),)),
        (ValueError, ()),
        (ValueError, (4,)),
        (ValueError, (5, 0)),
        (ValueError, (-3,)),
        (ValueError, (2**20 + 1,)),
    ],
)
def test_bad_sizes_are_refused(error, sizes):
    refused(error, torch.zeros(1, 2, 5, 6), sizes)
    refused(error, torch.zeros(1, 2, 5, 6), sizes, cascade=True)
    with pytest.raises(error):
        SPP(sizes)


def test_a_cascade_cannot_shrink():
    refused(ValueError, torch.zeros(1, 2, 5, 6), (5, 3), cascade=True)


def test_bad_maps_are_refused():
    refused(TypeError, [1.0])
    refused(TypeError, torch.zeros(1, 2, 5, 6, dtype=torch.int64))
    for shape in ([], [5], [5, 6], [1, 1, 2, 5, 6], [1, 2, 0, 6], [1, 2, 5, 0]):
        refused(ValueError, torch.zeros(shape))


def test_the_modules_are_the_pooling_of_the_blocks():
    x = integers([2, 3, 9, 11], torch.float32)
    assert_same(SPP()(x), side_by_side(x, (5, 9, 13)))
    assert_same(SPP([9, 5])(x), side_by_side(x, (9, 5)))
    assert_same(SPPF()(x), in_cascade(x, (5, 9, 13)))
    assert_same(SPPF(3, repeats=2)(x), in_cascade(x, (3, 5)))
    assert repr(SPP()) == "SPP(kernel_sizes=(5, 9, 13))"
    assert repr(SPPF()) == "SPPF(kernel_size=5, repeats=3)"
    for arguments in ((4,), (5, 0), (0,)):
        with pytest.raises(ValueError, match=r"spp_ext\.ops\.SPPF: expected"):
            SPPF(*arguments)


def test_without_a_gradient_only_the_output_is_computed(monkeypatch):
    def fail(*arguments):
        raise AssertionError("an argmax was computed")

    monkeypatch.setattr(kernels, "multi_kernel_max_pool2d_with_argmax", fail)
    x = integers([2, 3, 9, 11], torch.float32).requires_grad_()
    with torch.no_grad():
        multi_kernel_max_pool2d(x)
    with pytest.raises(AssertionError):
        multi_kernel_max_pool2d(x)
