"""Modules are copied, saved and shown as any other."""

import copy
import io
import pickle

import pytest
import torch
from support import (
    BINS,
    assert_same,
    gaussian,
    random_rois,
)
from torch.utils._pytree import tree_map

import spp_ext
from spp_ext import ops

X = gaussian((2, 3, 7, 6), torch.float32)
ROIS = random_rois(5, 2, 7, 6)
REUSING = {  # the module, what it pools, and what gives a result of another shape
    "SpatialPyramidPool": (lambda **kw: spp_ext.SpatialPyramidPool((1, BINS), **kw), (X,), (X[:1],)),
    "list of maps": (
        lambda **kw: spp_ext.SpatialPyramidPool((1, 2), **kw),
        ([X, X[..., :4]],),
        ([X, X[:1, ..., :4]],),
    ),
    "valid sizes": (
        lambda **kw: spp_ext.SpatialPyramidPool((1, 2), **kw),
        (X, torch.tensor([[7, 2], [3, 6]])),
        (X[:1], torch.tensor([[3, 6]])),
    ),
    "RoISpatialPyramidPool": (lambda **kw: spp_ext.RoISpatialPyramidPool((1, 2), **kw), (X, ROIS), (X, ROIS[:4])),
    "several maps": (
        lambda **kw: spp_ext.RoISpatialPyramidPool((1, 2), (1.0, 0.5), **kw),
        ([X, X[..., :4]], ROIS, torch.tensor([0, 1, 1, 0, 1])),
        ([X, X[..., :4]], ROIS[:1], torch.tensor([1])),
    ),
    "RoIPool": (
        lambda **kw: ops.RoIPool(2, 0.5, **kw),
        (X, [ROIS[:2, 1:], ROIS[2:, 1:]]),
        (X, [ROIS[:1, 1:], ROIS[:0, 1:]]),
    ),
    "MultiScaleRoIPool": (
        lambda **kw: ops.MultiScaleRoIPool(["0", "1"], 2, **kw),
        ({"0": X, "1": X[..., ::2, ::2]}, [ROIS[:2, 1:], ROIS[2:, 1:]], [(14, 12)] * 2),
        ({"0": X, "1": X[..., ::2, ::2]}, [ROIS[:1, 1:], ROIS[:0, 1:]], [(14, 12)] * 2),
    ),
    "AdaptiveMaxPool2d": (lambda **kw: ops.AdaptiveMaxPool2d((2, None), **kw), (X,), (X[..., :4],)),
    "AdaptiveMaxPool2d, channels_last": (
        lambda **kw: ops.AdaptiveMaxPool2d((2, 3), **kw),
        (X.contiguous(memory_format=torch.channels_last),),
        (X,),
    ),
    "SPP": (lambda **kw: ops.SPP((5, 3), **kw), (X,), (X[0],)),
    "SPPF": (lambda **kw: ops.SPPF(3, **kw), (X,), (X.contiguous(memory_format=torch.channels_last),)),
}


@pytest.mark.parametrize(
    "module",
    [
        spp_ext.SpatialPyramidPool((1, [2, 3], BINS)),
        spp_ext.RoISpatialPyramidPool([2, (1, 3), BINS], 1 / 16, "outer"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_survive_copying_and_pickling(module):
    x = gaussian((2, 3, 7, 6), torch.float32)
    arguments = (x,) if isinstance(module, spp_ext.SpatialPyramidPool) else (x, random_rois(5, 2, 7, 6))
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    for other in (
        copy.copy(module),
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(stream, weights_only=False),
    ):
        assert repr(other) == repr(module) and other.bins == module.bins
        assert_same(other(*arguments), module(*arguments))
    assert list(module.parameters()) == [] and module.state_dict() == {}


def test_modules_show_what_they_do():
    assert repr(spp_ext.SpatialPyramidPool([1, [2, 3]])) == "SpatialPyramidPool(levels=(1, (2, 3)))"
    assert repr(spp_ext.RoISpatialPyramidPool((1, 2), 0.5, "outer")) == (
        "RoISpatialPyramidPool(levels=(1, 2), spatial_scale=0.5, convention='outer')"
    )
    assert spp_ext.SpatialPyramidPool().bins == spp_ext.RoISpatialPyramidPool().bins == 50


@pytest.fixture(params=REUSING)
def reusing(request):
    """A module that reuses its output, the same one without, arguments, and others with another result."""
    make, arguments, others = REUSING[request.param]
    return make(reuse_output=True), make(), arguments, others


def test_a_module_reuses_its_output_while_it_fits(reusing):
    module, plain, arguments, others = reusing
    expected = plain(*arguments)
    first = module(*arguments)
    assert_same(first, expected)
    first.zero_()
    assert module(*arguments) is first
    assert_same(first, expected)
    assert first.stride() == expected.stride()
    other, expected_other = module(*others), plain(*others)
    assert other is not first and other.stride() == expected_other.stride()
    assert_same(other, expected_other)
    assert_same(first, expected)
    assert plain(*arguments) is not plain(*arguments)


def test_a_map_of_another_size_or_dtype_makes_no_difference_but_where_it_must():
    pool = spp_ext.SpatialPyramidPool((1, 2), reuse_output=True)
    first = pool(X)
    assert pool(X[..., :5]) is first  # one length for a map of any size
    assert pool(X.double()).dtype == torch.float64
    pool.levels = (3,)
    assert_same(pool(X), spp_ext.spatial_pyramid_pool(X, (3,)))


def test_where_a_gradient_is_needed_nothing_is_reused(reusing):
    module, _, (maps, *rest), _ = reusing
    given = tree_map(lambda x: x.clone().requires_grad_(), maps)
    outputs = [module(given, *rest) for _ in range(2)]
    assert outputs[0] is not outputs[1]
    outputs[0].sum().backward()
    with torch.no_grad():
        assert module(given, *rest) is module(given, *rest)
    assert torch.vmap(lambda x: ops.SPP(reuse_output=True)(x))(X[None]).shape == (1, 2, 12, 7, 6)


def test_inference_mode_and_its_end_each_have_an_output(reusing):
    module, plain, arguments, _ = reusing
    with torch.inference_mode():
        first = module(*arguments)
        assert module(*arguments) is first and first.is_inference()
    assert not module(*arguments).is_inference()
    assert_same(module(*arguments), plain(*arguments))


def test_a_kept_output_is_no_part_of_a_module(reusing):
    module, _, arguments, _ = reusing
    size = len(pickle.dumps(module))
    first = module(*arguments)
    assert len(pickle.dumps(module)) == size and module.state_dict() == {}
    for other in (copy.copy(module), copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.reuse_output and other(*arguments) is not first
        assert_same(other(*arguments), first)
    assert module(*arguments) is first


def test_a_module_refuses_bad_input_as_its_function_does(reusing):
    module, plain, arguments, _ = reusing
    module(*arguments)
    for bad in (None, 3, [], X[0, 0], X.int()):
        with pytest.raises(Exception, match="spp_ext") as expected:
            plain(bad, *arguments[1:])
        with pytest.raises(type(expected.value)) as got:
            module(bad, *arguments[1:])
        assert str(got.value) == str(expected.value)


def test_modules_show_that_they_reuse_their_output(reusing):
    module, plain, _, _ = reusing
    assert repr(module) == f"{repr(plain)[:-1]}, reuse_output=True)"
