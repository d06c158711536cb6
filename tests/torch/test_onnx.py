"""Export to ONNX, run in onnxruntime: equal to eager for every size, level and convention; or a clear error."""

import logging

import pytest
import torch
from support import CONVENTIONS, assert_same, integers, random_rois

import spp_ext
import spp_ext.onnx
import spp_ext.ops

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
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        Call(function).eval(),
        arguments,
        dynamo=True,
        dynamic_shapes=(dynamic,),
        custom_translation_table=spp_ext.onnx.translations(),
        verbose=False,
    )
    import onnxruntime  # among the packages of make test-integration

    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(*tensors):
        named = {node.name: tensor.numpy() for node, tensor in zip(session.get_inputs(), tensors, strict=True)}
        return torch.from_numpy(session.run(None, named)[0])

    return run


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
    run = export(pool, (torch.randn(2, 3, 9, 8), rois[:5], rois[5:11]), ({2: ANY, 3: ANY}, BOXES, BOXES))
    x = torch.randn(2, 3, 12, 7)
    assert_same(run(x, rois[:13], rois[13:]), pool(x, rois[:13], rois[13:]))


def test_the_drop_ins():
    def regions(x, rois):
        return spp_ext.ops.roi_pool(x, rois, (7, 3), 0.3)

    run = export(regions, (torch.randn(2, 3, 9, 8), random_rois(4, 2, 9, 8)), (MAP, BOXES))
    x, rois = -torch.rand(2, 3, 60, 58) - 1, random_rois(200, 2, 60, 58, scale=0.3)
    assert_same(run(x, rois), regions(x, rois))
    for function in (
        lambda x: spp_ext.ops.adaptive_max_pool2d(x, (3, 7)),
        lambda x: spp_ext.ops.multi_kernel_max_pool2d(x, (3, 9, 5)),
        spp_ext.ops.SPPF(),
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
        (lambda x: spp_ext.ops.roi_pool(x, torch.zeros(1, 5).double(), 2), torch.float32, "boxes of float32 for ONNX"),
    ],
)
def test_what_onnx_cannot_express_is_refused(function, dtype, message):
    with pytest.raises(Exception, match=message):
        export(function, (torch.randn(2, 3, 9, 8, dtype=dtype),), (MAP,))
