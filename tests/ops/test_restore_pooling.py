"""`restore_pooling` and `undo`: a swapped model is what it was, also to those who have no spp_ext."""

import copy
import pickle
import sys
import types

import pytest
import torch
from pooling_models import BLOCKS, SPPF, Detector, SPPNet, assert_same_model
from torch import nn

from spp_ext import SpatialPyramidPool, ops, replace_pooling, restore_pooling


def classes(model):
    return [type(module) for module in model.modules()]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_what_it_was(name):
    torch.manual_seed(0)
    model = Detector(BLOCKS[name][0]()).double()
    before = classes(model), dict(vars(model.neck)), copy.deepcopy(model)
    (swapped,) = replace_pooling(model).swapped
    report = restore_pooling(model)
    assert (classes(model), vars(model.neck)) == before[:2]
    assert [(row.kind, row.replacement) for row in report.rows] == [(swapped.replacement, swapped.kind)]
    assert report.model is model
    assert_same_model(model, before[2])


@pytest.mark.parametrize("make", [lambda: Detector(SPPF(8, 8)), SPPNet])
def test_undo_of_a_report(make):
    model = make()
    before = classes(model)
    report = replace_pooling(model)
    assert classes(model) != before
    report.undo()
    assert classes(model) == before
    report.undo()  # nothing is left to do
    assert classes(model) == before
    assert len(replace_pooling(model).swapped) == len(report.swapped)


def test_undo_leaves_alone_what_was_no_swap():
    model = nn.Sequential(ops.AdaptiveMaxPool2d(2), nn.AdaptiveMaxPool2d(2))
    replace_pooling(model).undo()
    assert classes(model)[1:] == [ops.AdaptiveMaxPool2d, nn.AdaptiveMaxPool2d]


def test_hooks_and_attributes_stay():
    model = Detector(SPPF(8, 8))
    seen = []
    replace_pooling(model)
    neck = model.neck
    neck.register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    neck.i = 9
    restore_pooling(model)
    model(torch.randn(1, 3, 16, 16))
    assert model.neck is neck and neck.i == 9 and seen == [SPPF]


def test_drop_ins_become_what_they_stand_for():
    pool = ops.AdaptiveMaxPool2d((2, 3), reuse_output=True).eval()
    pool(torch.zeros(1, 1, 5, 5))
    model = nn.ModuleDict({"pool": pool, "pyramid": SpatialPyramidPool(), "block": ops.SPPF()})
    copied = restore_pooling(model, inplace=False).model
    assert classes(model)[1] is ops.AdaptiveMaxPool2d
    assert classes(copied)[1:] == [nn.AdaptiveMaxPool2d, SpatialPyramidPool, ops.SPPF]
    assert vars(copied["pool"]).keys() == vars(nn.AdaptiveMaxPool2d((2, 3))).keys()
    assert str(copied["pool"]) == str(nn.AdaptiveMaxPool2d((2, 3)))


def test_torchvisions_pool_comes_back(monkeypatch):
    class RoIPool(nn.Module):
        pass

    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchvision.ops", types.SimpleNamespace(RoIPool=RoIPool))
    pool = ops.RoIPool(2, 0.5)
    restore_pooling(pool)
    assert type(pool) is RoIPool and (pool.output_size, pool.spatial_scale) == (2, 0.5)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)  # as if it were not installed
    pool = ops.RoIPool(2, 0.5)
    (row,) = restore_pooling(pool).left_alone
    assert type(pool) is ops.RoIPool and "torchvision's, which is not installed" in row.note


@pytest.mark.parametrize("make", [lambda: Detector(SPPF(8, 8)), lambda: nn.AdaptiveMaxPool2d(2)])
def test_a_pickle_names_nothing_of_this_package(make):
    model = make()
    replace_pooling(model)
    assert b"spp_ext" in pickle.dumps(model)
    assert b"spp_ext" not in pickle.dumps(restore_pooling(model).model)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"spp_ext\.restore_pooling: expected model to be a torch\.nn\.Module, got int"):
        restore_pooling(3)
