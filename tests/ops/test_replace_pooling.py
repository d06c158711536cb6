"""`replace_pooling` swaps what it can prove, says why it leaves the rest, and changes no output and no gradient."""

import copy
import pickle
import sys
import types

import pytest
import torch
from pooling_models import (
    BLOCKS,
    SPP,
    SPPF,
    Conv,
    DarknetOrder,
    Detector,
    NewerSPPF,
    assert_same_model,
    keeps_size,
    rows,
    save_and_load,
)
from support import assert_same, integers
from torch import nn

from spp_ext import ops, replace_pooling

# ---- what is swapped ----


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_found_by_its_structure_and_computes_the_same(name):
    torch.manual_seed(0)
    make, note = BLOCKS[name]
    model = Detector(make()).double()
    original = copy.deepcopy(model)
    report = replace_pooling(model)
    assert report.model is model
    (swapped,) = report.swapped
    assert swapped.note == note and swapped.replacement == f"Fused{swapped.kind}"
    assert [row.name for row in report.left_alone] == ["backbone.1"]
    assert_same_model(model, original)


def test_no_pool_runs_any_more_in_a_fused_block(monkeypatch):
    model = Detector(SPPF(8, 8))
    replace_pooling(model)
    monkeypatch.setattr(model.neck.m, "forward", lambda x: pytest.fail("a pool ran"))
    assert model(torch.randn(1, 3, 16, 16)).shape == (1, 2, 8, 8)


def test_a_model_that_is_itself_a_pooling():
    pool = nn.AdaptiveMaxPool2d((3, None), return_indices=True)
    x = integers([2, 3, 9, 11], torch.float32)
    expected = pool(x)
    assert replace_pooling(pool).model is pool and type(pool) is ops.AdaptiveMaxPool2d
    assert_same(pool(x), expected)
    block = SPP(8, 8).eval()
    expected = block(torch.ones(1, 8, 9, 9))
    assert rows(replace_pooling(block)) == {"": ("SPP", "FusedSPP", "5, 9, 13")}
    assert_same(block(torch.ones(1, 8, 9, 9)), expected)


def test_a_module_in_two_places_is_swapped_once():
    pool = nn.AdaptiveMaxPool2d(2)
    model = nn.ModuleDict({"a": pool, "b": nn.Sequential(pool)})
    assert len(replace_pooling(model).swapped) == 1
    assert model["a"] is model["b"][0] is pool


def test_torchvisions_class_is_matched_by_identity(monkeypatch):
    class RoIPool(nn.Module):  # as torchvision's
        def __init__(self, output_size, spatial_scale):
            super().__init__()
            self.output_size = output_size
            self.spatial_scale = spatial_scale

        def forward(self, input, rois):
            raise AssertionError("torchvision ran")

    class Namesake(RoIPool):
        pass

    Namesake.__name__ = "RoIPool"
    monkeypatch.setitem(sys.modules, "torchvision.ops", types.SimpleNamespace(RoIPool=RoIPool))
    model = nn.ModuleDict({"pool": RoIPool((2, 3), 0.5), "namesake": Namesake(7, 1.0)})
    report = replace_pooling(model)
    assert rows(report) == {
        "pool": ("RoIPool", "RoIPool", "(2, 3)"),
        "namesake": ("RoIPool", None, "a subclass may pool in its own way"),
    }
    x, rois = integers([1, 3, 9, 11], torch.float32), torch.tensor([[0.0, 0, 0, 9, 9]])
    assert_same(model["pool"](x, rois), ops.roi_pool(x, rois, (2, 3), 0.5))


# ---- what is kept ----


def test_everything_about_a_swapped_module_is_kept():
    torch.manual_seed(0)
    model = nn.ModuleDict({"neck": SPPF(8, 8), "pool": nn.AdaptiveMaxPool2d(3)})
    neck, pool = model["neck"], model["pool"]
    neck.i, neck.f = 9, -1  # as Ultralytics numbers its layers
    neck.cv1.bn.eval()
    neck.cv2.requires_grad_(False)
    seen = []
    for module in (neck, pool, neck.cv1):
        module.register_forward_hook(lambda module, inputs, output: seen.append(type(module).__name__))
        module.register_forward_pre_hook(lambda module, inputs: seen.append("before"))
        module.register_full_backward_hook(lambda module, *grads: seen.append("backward"))
    state, names = copy.deepcopy(model.state_dict()), [name for name, _ in model.named_modules()]
    parameters, training = list(model.parameters()), [module.training for module in model.modules()]

    replace_pooling(model)
    assert model["neck"] is neck and model["pool"] is pool and isinstance(neck, SPPF)
    assert (neck.i, neck.f) == (9, -1)
    assert [name for name, _ in model.named_modules()] == names
    assert [module.training for module in model.modules()] == training
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.load_state_dict(state)
    assert seen == []  # the trial ran no hook

    pool(neck(torch.randn(1, 8, 9, 9, requires_grad=True))).sum().backward()
    assert sorted(set(seen)) == ["AdaptiveMaxPool2d", "Conv", "FusedSPPF", "backward", "before"]
    assert seen.count("before") == 3 and seen.count("backward") == 3


def test_random_numbers_are_drawn_as_before():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    replace_pooling(nn.Sequential(Conv(3, 8), nn.Dropout()))
    model = Detector(SPPF(8, 8))
    torch.manual_seed(0)
    replace_pooling(model)
    assert_same(torch.rand(3), expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients(context):
    model = Detector(SPPF(8, 8)).requires_grad_(False)
    with context():
        assert len(replace_pooling(model).swapped) == 1
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_of_any_dtype(dtype):
    torch.manual_seed(0)
    model = Detector(SPPF(8, 8)).to(dtype).eval()
    x = torch.randn(2, 3, 24, 20, dtype=dtype)
    expected = model(x)
    assert len(replace_pooling(model).swapped) == 1
    assert_same(model(x), expected)
    assert next(model.parameters()).dtype == dtype


def test_a_copy_leaves_the_model_as_it_is():
    model = Detector(SPPF(8, 8)).double()
    report = replace_pooling(model, inplace=False)
    assert report.model is not model and type(model.neck) is SPPF and isinstance(report.model.neck, SPPF)
    assert type(report.model.neck).__name__ == "FusedSPPF"
    assert_same_model(report.model, model)


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), lambda model: save_and_load(model)],
    ids=["deepcopy", "pickle", "torch.save"],
)
@pytest.mark.parametrize("make", [lambda: SPP(8, 8), lambda: NewerSPPF(8, 8, shortcut=True)], ids=["SPP", "SPPF"])
def test_a_swapped_model_is_copied_and_saved_as_any_other(again, make):
    model = Detector(make()).double()
    replace_pooling(model)
    twin = again(model)
    assert type(twin.neck).__name__ == type(model.neck).__name__
    assert type(twin.neck) is not type(model.neck) and twin.neck.cv1 is not model.neck.cv1
    assert_same_model(twin, model)


def test_swapping_again_swaps_nothing():
    model = nn.Sequential(Detector(SPPF(8, 8)), nn.AdaptiveMaxPool2d(2))
    replace_pooling(model)
    report = replace_pooling(model)
    assert report.swapped == []
    assert {row.note for row in report.left_alone if row.name != "0.backbone.1"} == {"it is spp_ext's already"}


def test_integers_and_single_maps_pool_as_before():
    for original in (DarknetOrder(), BareCascade()):
        report = replace_pooling(original, inplace=False)
        assert len(report.swapped) == 1
        for x in (integers([2, 3, 9, 11], torch.int64), integers([3, 9, 11], torch.float32)):
            assert_same(report.model(x), original(x))


class BareCascade(nn.Module):
    def __init__(self):
        super().__init__()
        self.m = keeps_size(3)

    def forward(self, x):
        y = self.m(x)
        return torch.cat([x, y, self.m(y)], 1)


# ---- the report, and bad arguments ----


def test_the_report_is_a_table():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(6))
    report = replace_pooling(model)
    assert str(report).splitlines() == [
        "Sequential: 1 swapped, 1 left alone",
        "module  was                is now             note",
        "1       MaxPool2d          left alone         a stride of 2 does not keep the size of the map",
        "2       AdaptiveMaxPool2d  AdaptiveMaxPool2d  6",
    ]
    assert repr(report) == "<Replacements Sequential: 1 swapped, 1 left alone>"
    assert str(replace_pooling(nn.ReLU())) == "ReLU: 0 swapped, 0 left alone"


def test_what_is_no_module_is_refused():
    with pytest.raises(
        TypeError, match=r"spp_ext\.replace_pooling: expected model to be a torch\.nn\.Module, got list"
    ):
        replace_pooling([nn.ReLU()])


def test_nothing_is_swapped_without_kernels(monkeypatch):
    from spp_ext._torch import library as _library

    monkeypatch.setattr(_library, "load_error", lambda: OSError("no such file"))
    model = nn.Sequential(nn.AdaptiveMaxPool2d(2))
    with pytest.raises(RuntimeError, match="expected the kernels of spp_ext, got none"):
        replace_pooling(model)
    assert type(model[0]) is nn.AdaptiveMaxPool2d
