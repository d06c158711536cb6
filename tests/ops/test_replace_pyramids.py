"""`replace_pooling` finds pyramids that are written by hand, and pools that are called as functions."""

import copy
import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from pooling_models import Conv, Detector, SPPNet, assert_same_model, rows
from support import assert_same, integers
from torch import nn

from spp_ext import replace_pooling

LEVELS = (1, (2, 3), 4)


class Pyramid(nn.Module):
    """A layer of a class of its own around a way to write a pyramid, between two layers that learn."""

    def __init__(self, dims=2):
        super().__init__()
        self.features = Conv(3, 4, 3)
        self.levels = LEVELS
        self.pools = nn.ModuleList([nn.AdaptiveMaxPool2d(level) for level in LEVELS])
        self.branches = nn.ModuleList([nn.Sequential(nn.AdaptiveMaxPool2d(level), nn.Flatten()) for level in LEVELS])
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4 * 23 if dims == 2 else 23, 5)

    def forward(self, x):
        return self.head(self.pyramid(self.features(x)))

    @classmethod
    def of_the_class(cls, x):
        return helper(x, LEVELS)


def functions(self, x):
    return torch.cat([F.adaptive_max_pool2d(x, level).flatten(1) for level in self.levels], 1)


def modules(self, x):
    return torch.cat([pool(x).flatten(1) for pool in self.pools], dim=1)


def modules_that_flatten(self, x):
    return torch.cat(tensors=[self.flatten(pool(x)) for pool in self.pools], dim=-1)


def branches(self, x):
    return torch.cat([branch(x) for branch in self.branches], 1)


def views(self, x):
    n, c, _, _ = x.shape
    parts = [F.adaptive_max_pool2d(x, output_size=level) for level in self.levels]
    return torch.cat([part.view(part.size(0), -1) for part in parts[:2]] + [parts[2].reshape(n, c * 16)], 1)


def one_after_the_other(self, x):
    spp = None
    for level in self.levels:
        pooled = nn.AdaptiveMaxPool2d(level)(x)
        flat = pooled.view(x.size()[0], -1)
        spp = flat if spp is None else torch.cat((spp, flat), 1)
    return spp


def viewed_twice(self, x):
    n, c, h, w = x.size()
    for i, level in enumerate(self.levels):
        pooled = F.adaptive_max_pool2d(x, output_size=level).view(n, -1)
        if i == 0:
            spp = pooled.view(n, -1).flatten(1)
        else:
            spp = torch.cat((spp, pooled.view(n, -1)), 1)
    return spp


def around(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@around
def in_another_function(self, x):
    return self.of_the_class(x)


def helper(x, levels):
    flat = [torch.flatten(F.adaptive_max_pool2d(x, level), start_dim=1) for level in reversed(levels)]
    return torch.concat(flat, 1)


def channel_by_channel(self, x):
    n, c = x.size()[:2]
    return torch.cat([pool(x).view(x.size(0), c, -1) for pool in self.pools], -1)


def flattened_planes(self, x):
    return torch.cat([F.adaptive_max_pool2d(x, level).flatten(2) for level in self.levels], 2)


LIST, BACKWARDS = "levels 1, 2 x 3, 4", "levels 4, 2 x 3, 1"
PYRAMIDS = {
    functions: LIST,
    modules: LIST,
    modules_that_flatten: LIST,
    branches: LIST,
    views: LIST,
    one_after_the_other: LIST,
    viewed_twice: LIST,
    in_another_function: BACKWARDS,
    channel_by_channel: LIST,
    flattened_planes: LIST,
}
THREE = (channel_by_channel, flattened_planes)


def written(pyramid):
    """A module whose class writes its pyramid in this way."""
    return type("Layer", (Pyramid,), {"pyramid": pyramid})(dims=3 if pyramid in THREE else 2)


@pytest.mark.parametrize("pyramid", PYRAMIDS, ids=lambda pyramid: pyramid.__name__)
def test_a_pyramid_is_found_however_it_is_written(pyramid, monkeypatch):
    torch.manual_seed(0)
    model = written(pyramid).double()
    original = copy.deepcopy(model)
    report = replace_pooling(model)
    assert rows(report) | {"": ("Layer", "FusedLayer", PYRAMIDS[pyramid])} == rows(report)
    assert_same_model(model, original, (2, 3, 9, 11))
    monkeypatch.setattr(F, "adaptive_max_pool2d", lambda *arguments: pytest.fail("a pool ran"))
    model(torch.randn(2, 3, 9, 11, dtype=torch.float64))


def test_an_spp_net_pools_in_one_call():
    torch.manual_seed(0)
    model = SPPNet().double()
    original = copy.deepcopy(model)
    report = replace_pooling(model)
    assert rows(report) == {
        "": ("SPPNet", "FusedSPPNet", "levels 6, 3, 2 x 2, 1"),
        "features.2": ("MaxPool2d", None, "a stride of 2 does not keep the size of the map"),
    }
    assert_same_model(model, original, (2, 3, 30, 37))
    assert_same_model(pickle.loads(pickle.dumps(model)), original, (2, 3, 30, 37))


@pytest.mark.parametrize("pyramid", [functions, views, channel_by_channel], ids=lambda pyramid: pyramid.__name__)
@pytest.mark.parametrize("shape", [(2, 4, 9, 11), (4, 9, 11), (0, 4, 3, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
def test_a_bare_pyramid_pools_what_it_pooled_before(pyramid, shape, dtype):
    layer = type("Layer", (nn.Module,), {"forward": pyramid, "levels": LEVELS})()
    layer.pools = nn.ModuleList([nn.AdaptiveMaxPool2d(level) for level in LEVELS])
    x = integers(shape, dtype)
    report = replace_pooling(layer, inplace=False)
    assert len(report.swapped) == 1
    try:
        expected = layer(x)
    except Exception:  # such as a view of no elements; to have a result then is no harm
        assert shape != (2, 4, 9, 11) or dtype == torch.int64
    else:
        assert_same(report.model(x), expected)


def test_a_view_to_the_size_of_another_tensor_is_compared_when_it_runs():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            batch = x.size(0)
            x = self.features(x.flatten(0, 1).unflatten(0, (-1, 3)))
            return torch.cat([F.adaptive_max_pool2d(x, level).view(batch, -1) for level in (1, 2)], 1)

    layer = Layer()
    report = replace_pooling(layer, inplace=False)
    assert [row.note for row in report.swapped] == ["levels 1, 2"]
    for shape in ((2, 3, 6, 5), (2, 6, 6, 5)):  # of the second the features have a batch of 4
        assert_same(report.model(torch.ones(shape)), layer(torch.ones(shape)))


def test_a_network_that_needs_a_larger_map_is_tried_on_one():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            pools = [layer for _ in range(3) for layer in (nn.MaxPool2d(3, 2), nn.ReLU())]
            self.features = nn.Sequential(nn.Conv2d(3, 4, 11, 4, 2), *pools)

        def forward(self, x):
            return torch.cat([F.adaptive_max_pool2d(self.features(x), 2).flatten(1)], 1)

    report = replace_pooling(Network())
    assert [row.note for row in report.swapped] == ["levels 2"]


# ---- YOLO's blocks with functions ----


def spp(self, x):
    x = self.cv1(x)
    return self.cv2(torch.cat([x] + [F.max_pool2d(x, k, stride=1, padding=k // 2) for k in (5, 9, 13)], 1))


def sppf(self, x):
    y = [self.cv1(x)]
    for _ in range(3):
        y.append(torch.max_pool2d(y[-1], [5, 5], 1, [2]))
    return self.cv2(torch.cat(y, 1))


def spp_from_the_largest(self, x):
    x = self.cv1(x)
    return self.cv2(torch.cat([*(F.max_pool2d(x, (k, k), 1, (k // 2, k // 2)) for k in (13, 9, 5)), x], dim=1))


def spp_of_modules_made_on_the_way(self, x):
    x = self.cv1(x)
    return self.cv2(torch.cat([x, *(nn.MaxPool2d(k, 1, k // 2)(x) for k in (5, 9, 13))], 1))


@pytest.mark.parametrize(
    ("forward", "note"),
    [
        (spp, "5, 9, 13"),
        (sppf, "5, 9, 13 in cascade"),
        (spp_from_the_largest, "5, 9, 13"),
        (spp_of_modules_made_on_the_way, "5, 9, 13"),
    ],
    ids=["SPP", "SPPF", "largest first", "modules"],
)
def test_a_block_that_pools_with_functions_is_found(forward, note):
    def initialize(self):
        nn.Module.__init__(self)
        self.cv1, self.cv2 = Conv(8, 4), Conv(16, 8)

    torch.manual_seed(0)
    model = Detector(type("Block", (nn.Module,), {"__init__": initialize, "forward": forward})()).double()
    original = copy.deepcopy(model)
    report = replace_pooling(model)
    assert rows(report)["neck"] == ("Block", "FusedBlock", note)
    assert [row.name for row in report.left_alone] == ["backbone.1"]
    assert_same_model(model, original)


# ---- what is left alone ----


def layer(forward):
    def initialize(self):
        nn.Module.__init__(self)
        self.conv = nn.Conv2d(4, 4, 1)
        self.pool = nn.AdaptiveMaxPool2d(2)

    return type("Layer", (nn.Module,), {"__init__": initialize, "forward": forward})()


def of_two(self, x):
    return torch.cat([F.adaptive_max_pool2d(y, 2).flatten(1) for y in (x, self.conv(x))], 1)


def with_more(self, x):
    return torch.cat([F.adaptive_max_pool2d(x, 2).flatten(1), self.conv(x).flatten(1)], 1)


def along_images(self, x):
    return torch.cat([F.adaptive_max_pool2d(x, 2).flatten(1), F.adaptive_max_pool2d(x, 2).flatten(1)])


def not_flattened(self, x):
    return torch.cat([F.adaptive_max_pool2d(x, 2), F.adaptive_max_pool2d(x, 2)], 1)


def rows_kept(self, x):
    return torch.cat([F.adaptive_max_pool2d(x, (None, 1)).flatten(1), F.adaptive_max_pool2d(x, 2).flatten(1)], 1)


def sized_by_the_map(self, x):
    return torch.cat([F.adaptive_max_pool2d(x, (x.shape[2] // 2, 1)).flatten(1)], 1)


def used_twice(self, x):
    pooled = F.adaptive_max_pool2d(x, 2)
    return torch.cat([pooled.flatten(1), F.adaptive_max_pool2d(x, 1).flatten(1)], 1) + pooled.mean()


def changed_on_the_way(self, x):
    first = F.adaptive_max_pool2d(x, 1).flatten(1)
    x.clamp_(max=100)
    return torch.cat([first, F.adaptive_max_pool2d(x, 2).flatten(1)], 1)


def viewed_by_columns(self, x):
    return torch.cat([F.adaptive_max_pool2d(x, n).view(-1, 4 * n * n) for n in (1, 2)], 1)


def with_indices(self, x):
    pooled, indices = F.adaptive_max_pool2d(x, 2, return_indices=True)
    return torch.cat([pooled.flatten(1), indices.flatten(1)], 1)


def alone(self, x):
    return F.adaptive_max_pool2d(x, 2)


def untraceable(self, x):
    return F.adaptive_max_pool2d(x, 2) if x.sum() > 0 else F.max_pool2d(x, 2)


def downsampling(self, x):
    return F.max_pool2d(F.relu(F.max_pool2d(self.conv(x), 2)), 2)


REFUSED = {
    of_two: {"adaptive_max_pool2d()": "its pools are of more than one map"},
    with_more: {"adaptive_max_pool2d()": "its pools are concatenated with more than pools"},
    along_images: {"adaptive_max_pool2d()": "concatenated along dimension 0, which is not their last"},
    not_flattened: {"adaptive_max_pool2d()": "its results are not flattened and concatenated"},
    rows_kept: {"adaptive_max_pool2d()": "an output size of (None, 1) is no level of a pyramid"},
    sized_by_the_map: {"adaptive_max_pool2d()": "its arguments are known only when it is called"},
    used_twice: {"adaptive_max_pool2d()": "its results are used for more than the concatenation"},
    changed_on_the_way: {"adaptive_max_pool2d()": "the map it pools is used on the way, where it may change"},
    viewed_by_columns: {"adaptive_max_pool2d()": "its results are not flattened and concatenated"},
    with_indices: {"adaptive_max_pool2d()": "its results are not flattened and concatenated"},
    alone: {"adaptive_max_pool2d()": "its results are not flattened and concatenated"},
    untraceable: {
        "adaptive_max_pool2d()": "its forward cannot be traced (TraceError",
        "max_pool2d()": "its forward cannot be traced (TraceError",
    },
    downsampling: {"max_pool2d()": "a stride of 2 does not keep the size of the map"},
}


@pytest.mark.parametrize("forward", REFUSED, ids=lambda forward: forward.__name__)
def test_a_function_that_is_not_swapped_has_a_row(forward):
    model = layer(forward)
    report = replace_pooling(model)
    assert type(model).__name__ == "Layer"
    left = {row.kind: row.note for row in report.left_alone if row.name == ""}
    assert left.keys() == REFUSED[forward].keys()
    for kind, reason in REFUSED[forward].items():
        assert reason in left[kind], str(report)
    assert [row.name for row in report.swapped] == ["pool"]  # a module is swapped by itself


def test_functions_that_a_fused_forward_still_calls_have_a_row():
    def forward(self, x):
        x = F.max_pool2d(x, 2)
        return torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1)

    report = replace_pooling(layer(forward))
    assert [(row.kind, row.note) for row in report.rows[:2]] == [
        ("Layer", "3"),
        ("max_pool2d()", "a stride of 2 does not keep the size of the map"),
    ]


@pytest.mark.parametrize("change", ["a hook", "a forward"])
def test_a_pool_that_somebody_changed_is_no_level(change):
    model = written(modules)
    pool = model.pools[0]
    if change == "a hook":
        pool.register_forward_hook(lambda *arguments: None)
    else:
        pool.forward = pool.forward  # which may be any other
    report = replace_pooling(model)
    swapped = {row.name for row in report.swapped}
    assert {"pools.1", "pools.2"} <= swapped and type(model).__name__ == "Layer"
    assert ("pools.0" in swapped) == (change == "a hook")  # its class can be swapped all the same


def test_a_pyramid_that_computes_something_else_is_never_made(monkeypatch):
    from spp_ext.swap import pyramids

    monkeypatch.setattr(pyramids, "spatial_pyramid_pool", lambda x, levels: x.new_zeros(x.shape[0], 4 * 23))
    model = written(functions)
    report = replace_pooling(model)
    assert type(model).__name__ == "Layer"
    assert rows(report)[""][2] == "its results were not the same in a trial"
