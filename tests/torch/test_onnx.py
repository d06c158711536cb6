"""Export to ONNX, run in onnxruntime: equal to eager for every size, level and convention; or a clear error."""

import io
import logging

import pytest
import torch
from capture_cases import OTHER_SIZES, inputs, make, models
from support import CONVENTIONS, assert_same, integers, random_rois

import spp_ext
import spp_ext.onnx
from spp_ext import ops

pytestmark = pytest.mark.integration

BINS = spp_ext.Bins([(0, 0, 1, 2), (1, 0, 2, 2), (0, 1, 2, 2)], 2)
# 7 and 14: their edges in MaxRoiPool's own float32 arithmetic are others.
PYRAMIDS = [(1, 2, 3, 6), (7,), (14, BINS, (2, 3))]
ANY = torch.export.Dim.DYNAMIC
MAP, BOXES = {0: ANY, 2: ANY, 3: ANY}, {0: ANY}


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *arguments):
        return self.function(*arguments)


def export(function, arguments, dynamic):
    """Of a program that torch.export has made, in which are the registered ops: what the table translates."""
    program = torch.export.export(Call(function).eval(), arguments, dynamic_shapes=(dynamic,))
    return with_table(program)


def with_table(model, *arguments, **options):
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    table = spp_ext.onnx.translations()
    program = torch.onnx.export(
        model, *arguments, dynamo=True, custom_translation_table=table, verbose=False, **options
    )
    return session(program.model_proto.SerializeToString())


def session(model):
    import onnxruntime  # among the packages of make test-integration

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def run(*tensors):
        inputs = session.get_inputs()  # the older exporter leaves out those that are not used
        named = {node.name: tensors[int(node.name[-1])].numpy() for node in inputs}
        return torch.from_numpy(session.run(None, named)[0])

    return run


def export_plainly(model, arguments, dynamo):
    """With no argument of this package, to ONNX that takes any height, width and number of boxes."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    names = [f"input_{i}" for i in range(len(arguments))]
    if dynamo:
        options = {"dynamic_shapes": ({2: ANY, 3: ANY}, {0: ANY}), "input_names": names, "verbose": False}
        program = torch.onnx.export(model, arguments, dynamo=True, **options)
        return session(program.model_proto.SerializeToString())
    file, dynamic = io.BytesIO(), {"input_0": {2: "height", 3: "width"}, "input_1": {0: "boxes"}}
    torch.onnx.export(model, arguments, file, dynamo=False, input_names=names, dynamic_axes=dynamic)
    return session(file.getvalue())


def maps(shape):
    """Of either sign, and below zero only: some versions of MaxRoiPool start their maximum at 0."""
    yield integers(shape, torch.float32)
    yield torch.randn(shape)
    yield -torch.rand(shape) - 1


def test_parts_of_images_of_any_size():
    def pool(x, sizes):
        return spp_ext.spatial_pyramid_pool(x, (1, 2, BINS), sizes=sizes)

    run = export(pool, (torch.randn(2, 3, 7, 9), torch.tensor([[7, 2], [4, 9]])), (MAP, {0: ANY}))
    for x in maps((3, 3, 12, 8)):
        sizes = torch.tensor([[12, 8], [1, 1], [5, 3]])
        assert_same(run(x, sizes), pool(x, sizes))


@pytest.mark.parametrize("levels", PYRAMIDS, ids=str)
def test_maps_of_any_size(levels):
    def pool(x):
        return spp_ext.spatial_pyramid_pool(x, levels)

    run = export(pool, (torch.randn(2, 3, 9, 8),), (MAP,))
    for shape in ((2, 3, 9, 8), (1, 3, 57, 121), (5, 3, 4, 2), (1, 3, 1, 1)):
        for x in maps(shape):
            assert_same(run(x), pool(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("levels", PYRAMIDS, ids=str)
def test_any_regions_of_maps_of_any_size(levels, convention, dtype):
    def pool(x, rois):
        return spp_ext.roi_spatial_pyramid_pool(x, rois, levels, 0.3, convention=convention)

    run = export(pool, (torch.randn(2, 3, 9, 8), random_rois(4, 2, 9, 8, dtype=dtype)), (MAP, BOXES))
    for shape, count in (((2, 3, 9, 8), 5), ((3, 3, 57, 21), 200), ((1, 3, 1, 1), 3), ((2, 3, 9, 8), 0)):
        rois = random_rois(count, shape[0], *shape[2:], scale=0.3, dtype=dtype)
        for x in maps(shape):
            assert_same(run(x, rois), pool(x, rois))


def test_halves_are_rounded_away_from_zero():
    def pool(x, rois):
        return spp_ext.roi_spatial_pyramid_pool(x, rois, (1,))

    run = export(pool, (torch.randn(2, 3, 9, 8), random_rois(4, 2, 9, 8)), (MAP, BOXES))
    x = torch.arange(-243.0, 0).reshape(1, 3, 9, 9)
    below = torch.tensor(0.5).nextafter(torch.tensor(0.0)).item()
    ends = torch.tensor([-1.5, -0.5, -below, 0, below, 0.5, 1.5, 2.5, 3.5])
    rois = torch.cartesian_prod(torch.zeros(1), ends, ends, ends, ends)
    assert_same(run(x, rois), pool(x, rois))


def test_lists_of_boxes():
    def pool(x, first, second):
        return spp_ext.roi_spatial_pyramid_pool(x, [first, second], (1, 2))

    rois = random_rois(20, 1, 9, 8)[:, 1:]
    arguments, dynamic = (torch.randn(2, 3, 9, 8), rois[:5], rois[5:11]), (({2: ANY, 3: ANY}, BOXES, BOXES),)
    names = [f"input_{i}" for i in range(3)]
    run = with_table(Call(pool).eval(), arguments, dynamic_shapes=dynamic, input_names=names)
    x = torch.randn(2, 3, 12, 7)
    assert_same(run(x, rois[:13], rois[13:]), pool(x, rois[:13], rois[13:]))


def test_the_drop_ins():
    def regions(x, rois):
        return ops.roi_pool(x, rois, (7, 3), 0.3)

    run = export(regions, (torch.randn(2, 3, 9, 8), random_rois(4, 2, 9, 8)), (MAP, BOXES))
    x, rois = -torch.rand(2, 3, 60, 58) - 1, random_rois(200, 2, 60, 58, scale=0.3)
    assert_same(run(x, rois), regions(x, rois))
    for function in (
        lambda x: ops.adaptive_max_pool2d(x, (3, 7)),
        lambda x: ops.multi_kernel_max_pool2d(x, (3, 9, 5)),
        ops.SPPF(),
    ):
        run = export(function, (torch.randn(2, 3, 9, 8),), (MAP,))
        assert_same(run(x), function(x))


@pytest.mark.parametrize(
    ("function", "dtype", "message"),
    [
        (lambda x: spp_ext.spatial_pyramid_pool(x, return_indices=True), torch.float32, "no return_indices for ONNX"),
        (lambda x: spp_ext.spatial_pyramid_pool(x), torch.float64, "input of float32 for ONNX"),
        (lambda x: spp_ext.spatial_pyramid_pool(x), torch.float16, "input of float32 for ONNX"),
        (
            lambda x: spp_ext.roi_spatial_pyramid_pool([x, x], torch.zeros(1, 5), map_indices=torch.zeros(1).long()),
            torch.float32,
            "one map for ONNX",
        ),
        (lambda x: ops.roi_pool(x, torch.zeros(1, 5).double(), 2), torch.float32, "boxes of float32 for ONNX"),
    ],
)
def test_what_onnx_cannot_express_is_refused(function, dtype, message):
    with pytest.raises(Exception, match=message):
        export(function, (torch.randn(2, 3, 9, 8, dtype=dtype),), (MAP,))


# ---- without a table ----

TABLE = r"custom_translation_table=spp_ext.onnx.translations\(\)\), got an export without the table"
REFUSED = {
    "function indices": "expected no return_indices for ONNX",
    "function regions": TABLE,
    "function lists of boxes": TABLE,
    "function several maps": "expected one map for ONNX",
    "module RoISpatialPyramidPool": TABLE,
    "module RoISpatialPyramidPool of several maps": "expected one map for ONNX",
}
# Of adaptive pools torch has neither in ONNX, where sizes are not known.
AS_TORCH = {"function adaptive_max_pool2d, sizes of the input", "function adaptive_max_pool2d, indices"}
WRITTEN = [name for name in models() if name not in REFUSED and name not in AS_TORCH]
# Each takes the newer exporter seconds.
WITH_DYNAMO = ["function maps", "function adaptive_max_pool2d, None", "function roi_pool", "swapped SPPF"]


@pytest.mark.parametrize(
    ("name", "dynamo"), [*((name, True) for name in WITH_DYNAMO), *((name, False) for name in WRITTEN)]
)
def test_an_export_without_arguments_of_this_package(name, dynamo):
    model = make(name).float().eval()
    x, rois = inputs()
    run = export_plainly(model, (x.float(), rois), dynamo)
    for size in OTHER_SIZES:
        x, rois = inputs(*size)
        torch.testing.assert_close(run(x.float(), rois), model(x.float(), rois).detach())


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("function")])
def test_what_needs_the_table_says_so(name, dynamo, monkeypatch):
    monkeypatch.setattr("spp_ext._torch.onnx._has_translations", False)
    x, rois = inputs()
    with pytest.raises(Exception, match=REFUSED[name]):
        export_plainly(make(name).float().eval(), (x.float(), rois), dynamo)


def test_regions_with_the_table():
    model = make("module RoISpatialPyramidPool").float().eval()
    x, rois = inputs()
    names = ["input_0", "input_1"]
    run = with_table(model, (x.float(), rois), dynamic_shapes=({2: ANY, 3: ANY}, {0: ANY}), input_names=names)
    for size in OTHER_SIZES:
        x, rois = inputs(*size)
        torch.testing.assert_close(run(x.float(), rois), model(x.float(), rois).detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_maps_of_other_dtypes(dtype):
    model = Call(lambda x, rois: spp_ext.spatial_pyramid_pool(x, PYRAMIDS[2])).eval()
    x, rois = torch.randn(2, 3, 9, 8, dtype=dtype), torch.zeros(1, 5)
    run = export_plainly(model, (x, rois), dynamo=False)
    assert_same(run(x, rois), model(x, rois))


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "legacy"])
def test_values_equal_those_of_eager_to_the_last_bit(dynamo):
    model = OnlyPools().eval()
    run = export_plainly(model, (torch.randn(2, 3, 9, 8), random_rois(4, 2, 9, 8)), dynamo)
    for shape, count in (((2, 3, 9, 8), 5), ((2, 3, 57, 121), 40), ((2, 3, 1, 1), 1)):
        rois = random_rois(count, 2, *shape[2:])
        for x in maps(shape):
            assert_same(run(x, rois), model(x, rois))


class OnlyPools(torch.nn.Module):
    def forward(self, x, rois):
        parts = [
            spp_ext.spatial_pyramid_pool(x, (*PYRAMIDS[0], *PYRAMIDS[2])),
            ops.adaptive_max_pool2d(x, (3, 7)).flatten(1),
            ops.adaptive_max_pool2d(x, (3, None)).amax(3).flatten(1),
            ops.multi_kernel_max_pool2d(x, (5, 3)).amax((2, 3)),
            ops.SPPF(3, 2)(x).amin((2, 3)),
            ops.roi_pool(x, rois, (7, 3), 0.3)[:1].flatten(1).expand(2, -1),
        ]
        return torch.cat(parts, 1)
