"""`replace_pooling` swaps what it can prove, says why it leaves the rest, and changes no output and no gradient."""

import copy
import io
import pickle
import sys
import types
import warnings

import pytest
import torch
import torch.nn.functional as F
from support import assert_same, integers
from torch import nn

import spp_ext
from spp_ext import ops, replace_pooling

# ---- blocks as people write them ----


class Conv(nn.Module):
    def __init__(self, c1, c2, k=1):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, padding=k // 2, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


def keeps_size(k, **keywords):
    return nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2, **keywords)


class SPP(nn.Module):  # YOLOv3-SPP, YOLOv5
    def __init__(self, c1, c2, k=(5, 9, 13)):
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 // 2 * (len(k) + 1), c2)
        self.m = nn.ModuleList([keeps_size(x) for x in k])

    def forward(self, x):
        x = self.cv1(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.cv2(torch.cat([x] + [m(x) for m in self.m], 1))


class SPPF(nn.Module):  # YOLOv5, YOLOv8
    def __init__(self, c1, c2, k=5):
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 // 2 * 4, c2)
        self.m = keeps_size(k)

    def forward(self, x):
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class NewerSPPF(nn.Module):  # a number of pools, and a shortcut
    def __init__(self, c1, c2, k=5, n=3, shortcut=False):
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 // 2 * (n + 1), c2)
        self.m = keeps_size(k)
        self.n = n
        self.add = shortcut and c1 == c2

    def forward(self, x):
        y = [self.cv1(x)]
        y.extend(self.m(y[-1]) for _ in range(getattr(self, "n", 3)))
        y = self.cv2(torch.cat(y, 1))
        return y + x if getattr(self, "add", False) else y


class SPPCSPC(nn.Module):  # YOLOv7
    def __init__(self, c1, c2, k=(5, 9, 13)):
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c2), Conv(c1, c2)
        self.cv3, self.cv4 = Conv(c2, c2, 3), Conv(c2, c2)
        self.m = nn.ModuleList([keeps_size(x) for x in k])
        self.cv5, self.cv6 = Conv(4 * c2, c2), Conv(c2, c2, 3)
        self.cv7 = Conv(2 * c2, c2)

    def forward(self, x):
        x1 = self.cv4(self.cv3(self.cv1(x)))
        y1 = self.cv6(self.cv5(torch.cat([x1] + [m(x1) for m in self.m], 1)))
        y2 = self.cv2(x)
        return self.cv7(torch.cat((y1, y2), dim=1))


class SPPELAN(nn.Module):  # YOLOv9
    def __init__(self, c1, c2, c3, k=5):
        super().__init__()
        self.c = c3
        self.cv1 = Conv(c1, c3)
        self.cv2, self.cv3, self.cv4 = keeps_size(k), keeps_size(k), keeps_size(k)
        self.cv5 = Conv(4 * c3, c2)

    def forward(self, x):
        y = [self.cv1(x)]
        y.extend(m(y[-1]) for m in [self.cv2, self.cv3, self.cv4])
        return self.cv5(torch.cat(y, 1))


class DarknetOrder(nn.Module):  # YOLOv4: the largest pool first, the map last
    def __init__(self, sizes=(5, 9, 13)):
        super().__init__()
        self.maxpools = nn.ModuleList([keeps_size(size) for size in sizes])

    def forward(self, x):
        return torch.cat([pool(x) for pool in self.maxpools[::-1]] + [x], dim=1)


class Bottleneck(nn.Module):  # YOLOX, and pools in a dict
    def __init__(self, c1, c2):
        super().__init__()
        self.conv1 = Conv(c1, 4)
        self.m = nn.ModuleDict({"a": keeps_size(3), "b": keeps_size(7)})
        self.conv2 = Conv(12, c2)

    def forward(self, x):
        x = self.conv1(x)
        return self.conv2(torch.concat(tensors=[x, *(m(x) for m in self.m.values())], dim=1))


class SPPNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.levels = nn.ModuleList([nn.AdaptiveMaxPool2d(n) for n in (6, 3, (2, 2), 1)])
        self.head = nn.Linear(6 * 50, 5)

    def forward(self, x):
        x = self.features(x)
        return self.head(torch.cat([level(x).flatten(1) for level in self.levels], 1))


class Detector(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.backbone = nn.Sequential(Conv(3, 8, 3), nn.MaxPool2d(2), Conv(8, 8))
        self.neck = block
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.neck(self.backbone(x)))


BLOCKS = {
    "SPP": (lambda: SPP(8, 8), "5, 9, 13"),
    "SPP in another order": (lambda: SPP(8, 8, (9, 3, 9)), "3, 9"),
    "SPPF": (lambda: SPPF(8, 8), "5, 9, 13 in cascade"),
    "newer SPPF": (lambda: NewerSPPF(8, 8, 3, 2), "3, 5 in cascade"),
    "newer SPPF with a shortcut": (lambda: NewerSPPF(8, 8, shortcut=True), "5, 9, 13 in cascade"),
    "SPPCSPC": (lambda: SPPCSPC(8, 8), "5, 9, 13"),
    "SPPELAN": (lambda: SPPELAN(8, 8, 6), "5, 9, 13 in cascade"),
    "YOLOX": (lambda: Bottleneck(8, 8), "3, 7"),
    "YOLOv4": (lambda: nn.Sequential(DarknetOrder(), nn.Conv2d(32, 8, 1)), "5, 9, 13"),
}


def results(model, x):
    """Outputs and every gradient, in float64, where the order of a sum does not show in ten digits."""
    x = x.detach().clone().requires_grad_()
    output = model(x)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (output * weight).sum().backward()
    grads = [x.grad, *(parameter.grad for parameter in model.parameters())]
    model.zero_grad()
    return output, grads


def assert_same_model(got, expected, shape=(2, 3, 40, 44)):
    for training in (False, True):
        got.train(training)
        expected.train(training)
        # Cells of two values, alike in every channel, stay tied behind convolutions of one cell.
        tied = (torch.rand(shape[0], 1, *shape[2:]) < 0.15).double().expand(shape)
        for x in (torch.randn(shape, dtype=torch.float64), tied):
            (output, grads), (expected_output, expected_grads) = results(got, x), results(expected, x)
            assert_same(output, expected_output)
            for grad, expected_grad in zip(grads, expected_grads, strict=True):
                torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-9)


def rows(report):
    return {row.name: (row.kind, row.replacement, row.note) for row in report.rows}


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


def test_every_pool_of_an_spp_net_is_swapped():
    torch.manual_seed(0)
    model = SPPNet().double()
    original = copy.deepcopy(model)
    report = replace_pooling(model)
    assert [row.name for row in report.swapped] == ["levels.0", "levels.1", "levels.2", "levels.3"]
    assert all(type(level) is ops.AdaptiveMaxPool2d for level in model.levels)
    assert_same_model(model, original, (2, 3, 30, 37))


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


def save_and_load(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


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


# ---- what is left alone, and why ----


def block(forward, *pools, **attributes):
    """A module of a class of its own with `pools` as its list `m`."""

    def initialize(self):
        nn.Module.__init__(self)
        self.m = nn.ModuleList(pools)
        self.conv = nn.Conv2d(4, 4, 1)
        for name, value in attributes.items():
            setattr(self, name, value)

    return type("Block", (nn.Module,), {"__init__": initialize, "forward": forward})()


def spp(self, x):
    return torch.cat([x] + [m(x) for m in self.m], 1)


def data_dependent(self, x):
    return torch.cat([x, self.m[0](x)], 1) if x.sum() > 0 else x


def by_mode(self, x):
    return torch.cat([x, self.m[0](x)], 1) if self.training else x


def remembers(self, x):
    self.last = x
    return torch.cat([x, self.m[0](x)], 1)


def appends(self, x):
    self.seen.append(x)
    return torch.cat([x, self.m[0](x)], 1)


def returns_a_pool(self, x):
    y = self.m[0](x)
    return torch.cat([x, y], 1), y


def along_columns(self, x):
    return torch.cat([x, self.m[0](x)], 3)


def with_something_else(self, x):
    return torch.cat([x, self.m[0](x), self.conv(x)], 1)


def without_the_map(self, x):
    return torch.cat([self.m[0](x), self.m[1](x)], 1)


def a_tree(self, x):
    y = self.m[0](x)
    return torch.cat([x, y, self.m[1](y), self.m[0](y)], 1)


def added(self, x):
    return x + self.m[0](x)


def two_maps(self, x, other):
    return torch.cat([x, self.m[0](x)], 1) + torch.cat([other, other], 1)


class Subclass(nn.MaxPool2d):
    def forward(self, x):
        return -super().forward(-x)


def hooked():
    pool = keeps_size(5)
    pool.register_forward_hook(lambda *arguments: None)
    return pool


def replaced_on_the_instance():
    module = block(spp, keeps_size(5))
    module.forward = types.MethodType(added, module)
    return module


LEFT_ALONE = {
    "a stride of 2": (lambda: nn.MaxPool2d(3, 2, 1), "a stride of 2 does not keep the size"),
    "an even kernel": (lambda: block(spp, nn.MaxPool2d((3, 5), 1, (1, 2))), "a kernel of (3, 5) is not an odd square"),
    "no padding": (lambda: nn.MaxPool2d(3, 1), "a padding of 0 does not keep the size"),
    "dilation": (lambda: block(spp, nn.MaxPool2d(3, 1, 1, dilation=2)), "a dilation of 2 leaves holes"),
    "indices": (lambda: nn.MaxPool2d(3, 1, 1, return_indices=True), "it returns indices"),
    "a subclass": (lambda: block(spp, Subclass(3, 1, 1)), "a subclass may pool in its own way"),
    "an average": (lambda: nn.AdaptiveAvgPool2d(1), "not one of the poolings that spp_ext has"),
    "alone": (lambda: nn.Sequential(keeps_size(5)), "its results are not concatenated with the map"),
    "hooks": (lambda: block(spp, hooked()), "it has hooks"),
    "an addition": (lambda: block(added, keeps_size(5)), "its results are not concatenated with the map"),
    "another axis": (lambda: block(along_columns, keeps_size(5)), "concatenated along dimension 3"),
    "more": (lambda: block(with_something_else, keeps_size(5)), "concatenated with more than the map"),
    "less": (lambda: block(without_the_map, keeps_size(5), keeps_size(3)), "concatenated with more than the map"),
    "a tree": (lambda: block(a_tree, keeps_size(5), keeps_size(3)), "neither all of one map nor a chain"),
    "used twice": (lambda: block(returns_a_pool, keeps_size(5)), "used for more than the concatenation"),
    "data": (lambda: block(data_dependent, keeps_size(5)), "its forward cannot be traced (TraceError"),
    "mode": (lambda: block(by_mode, keeps_size(5)), "differs between training and evaluation"),
    "memory": (lambda: block(remembers, keeps_size(5)), "writes to its own attributes"),
    "a list": (lambda: block(appends, keeps_size(5), seen=[]), "writes to its own attributes"),
    "an instance": (replaced_on_the_instance, "its forward was replaced on the instance"),
    "two inputs": (lambda: block(two_maps, keeps_size(5)), "its forward does not take one map"),
    "meta": (lambda: block(spp, keeps_size(5)).to("meta"), "cannot be tried on the meta device"),
    "fx": (lambda: torch.fx.symbolic_trace(block(spp, keeps_size(5))), "its forward was generated by torch.fx"),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_cannot_be_swapped_is_left_alone_with_the_reason(name):
    make, reason = LEFT_ALONE[name]
    model = make()
    classes = [type(module) for module in model.modules()]
    report = replace_pooling(model)
    assert report.swapped == []
    assert report.left_alone
    assert all(reason in row.note for row in report.left_alone), str(report)
    assert [type(module) for module in model.modules()] == classes


def test_a_failed_trace_leaves_no_trace():
    module = block(appends, keeps_size(5), seen=[])
    replace_pooling(module)
    assert module.seen == []
    module = block(remembers, keeps_size(5))
    replace_pooling(module)
    assert not hasattr(module, "last")


def test_a_replacement_that_computes_something_else_is_never_made(monkeypatch):
    from spp_ext.ops import fuse

    monkeypatch.setattr(fuse, "multi_kernel_max_pool2d", lambda x, sizes, cascade: torch.cat([x] * 4, 1))
    model = Detector(SPPF(8, 8))
    report = replace_pooling(model)
    assert report.swapped == [] and type(model.neck) is SPPF
    assert "its results were not the same in a trial" in rows(report)["neck.m"][2]


def test_a_wrong_gradient_at_ties_is_noticed(monkeypatch):
    from spp_ext.ops import fuse

    def side_by_side(x, sizes, cascade):
        return ops.multi_kernel_max_pool2d(x, sizes, cascade=False)

    monkeypatch.setattr(fuse, "multi_kernel_max_pool2d", side_by_side)
    model = Detector(SPPF(8, 8))
    report = replace_pooling(model)
    assert report.swapped == [], "values are the same, gradients are not"


def test_pools_that_a_fused_block_also_calls_otherwise_stay():
    def forward(self, x):
        x = torch.cat([x, self.m[0](x)], 1)
        return self.m[1](x)

    model = block(forward, keeps_size(5), keeps_size(3))
    original = copy.deepcopy(model)
    report = replace_pooling(model)
    assert [row.note for row in report.swapped] == ["5"]
    x = integers([2, 4, 9, 11], torch.float32)
    assert_same(model(x), original(x))


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
    from spp_ext import _library

    monkeypatch.setattr(_library, "load_error", lambda: OSError("no such file"))
    model = nn.Sequential(nn.AdaptiveMaxPool2d(2))
    with pytest.raises(RuntimeError, match="expected the kernels of spp_ext, got none"):
        replace_pooling(model)
    assert type(model[0]) is nn.AdaptiveMaxPool2d


def test_a_functional_pool_is_not_seen():
    class Functional(nn.Module):
        def forward(self, x):
            return F.adaptive_max_pool2d(x, 2)

    assert replace_pooling(Functional()).rows == []


# ---- real models ----

YOLOS = {
    "yolov3-spp.yaml": "SPP",
    "yolov5n.yaml": "SPPF",
    "yolov8n.yaml": "SPPF",
    "yolov9t.yaml": "SPPELAN",
    "yolo11n.yaml": "SPPF",
}


@pytest.mark.peers
@pytest.mark.parametrize("definition", YOLOS)
def test_a_real_yolo_computes_the_same(definition):
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(definition, verbose=False)
    report = replace_pooling(model, inplace=False)
    assert [row.kind for row in report.swapped] == [YOLOS[definition]]
    assert list(report.model.state_dict()) == list(model.state_dict())
    x = torch.rand(1, 3, 128, 160)
    for swapped, original in zip(head(report.model, x), head(model, x), strict=True):
        assert_same(swapped, original)
    assert_same(report.model.eval()(x)[0], model.eval()(x)[0])
    again = save_and_load(report.model)
    assert_same(again(x)[0], model(x)[0])

    small = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    for module in (model.double().train(), report.model.double().train()):
        sum(part.square().sum() for part in head(module, small)).backward()
    for ours, theirs in zip(report.model.parameters(), model.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-8 * float(theirs.grad.abs().max()))


def head(model, x):
    """What the heads of a model in training return, as a list of tensors."""
    found = []

    def collect(value):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            for item in value.values():
                collect(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                collect(item)

    training = model.training
    collect(model.train()(x))
    model.train(training)
    return found


@pytest.mark.peers
def test_a_torchvision_roi_pool_is_swapped():
    import torchvision

    model = nn.ModuleDict({"pool": torchvision.ops.RoIPool(7, 1 / 16)})
    x = integers([2, 3, 38, 50], torch.float32)
    boxes = [torch.tensor([[32.0, 48, 200, 300]]), torch.tensor([[0.0, 0, 799, 599]])]
    expected = model["pool"](x, boxes)
    assert len(replace_pooling(model).swapped) == 1
    assert type(model["pool"]) is spp_ext.ops.RoIPool
    assert_same(model["pool"](x, boxes), expected)
