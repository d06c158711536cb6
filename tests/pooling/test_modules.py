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

import spp_ext


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
