"""`ops.MultiScaleRoIPool` is `ops.roi_pool` of each region's own map, chosen as torchvision's pooler chooses it."""

import pytest
import torch
from support import assert_refuses, assert_same, assert_well_written, generator, integers, run_python

import spp_ext
from spp_ext import _checks
from spp_ext.ops import MultiScaleRoIPool, roi_pool
from spp_ext.ops.multi_scale import _levels_of_maps

NAMES = ["0", "1", "2", "3"]
SHAPES = [(320, 400), (300, 380)]
OP = "spp_ext.ops.MultiScaleRoIPool"


def pyramid(dtype=torch.float32, channels=3, strides=(4, 8, 16, 32)):
    """Maps of two images of 320 x 400 pixels, and one that nobody asks for."""
    sizes = [(-(-320 // stride), -(-400 // stride)) for stride in strides]
    maps = {
        name: integers((2, channels, *size), dtype, seed)
        for seed, (name, size) in enumerate(zip(NAMES, sizes, strict=False))
    }
    return {**maps, "pool": torch.zeros(2, 7, 5, 7, dtype=dtype)}


def boxes_of(count, dtype=torch.float32, seed=0):
    """Boxes of two images, from a few pixels to larger than the image, some without an area."""
    g = generator(seed)
    corner = torch.rand(count, 2, generator=g, dtype=torch.float64) * 300
    sides = 2 ** (torch.rand(count, 2, generator=g, dtype=torch.float64) * 9.7)
    sides[::11] = 0
    boxes = torch.cat([corner, corner + sides], 1).to(dtype)
    return [boxes[: count // 3], boxes[count // 3 :]]


def fpn_level(box, first, last, scale=224, level=4):
    """Equation 1 of the paper on feature pyramids, in float64."""
    x1, y1, x2, y2 = box.double()
    size = ((x2 - x1) * (y2 - y1)).sqrt()
    return int(torch.floor(level + torch.log2(size / scale) + 1e-6).clamp(first, last))


def box_by_box(maps, boxes, output_size, strides=(4, 8, 16, 32), **canonical):
    """Every box pooled by itself from the map of its level."""
    pooled = []
    for image, of_image in enumerate(boxes):
        for box in of_image:
            m = fpn_level(box, 2, 5, **canonical) - 2
            rois = torch.cat([torch.tensor([image], dtype=box.dtype), box])[None]
            pooled.append(roi_pool(maps[NAMES[m]], rois, output_size, 1 / strides[m]))
    return torch.cat(pooled)


@pytest.mark.parametrize("output_size", [7, (3, 5), [1, 14]], ids=str)
def test_it_is_roi_pool_of_the_map_of_each_box(dtype, output_size):
    maps, boxes = pyramid(dtype), boxes_of(90)
    pool = MultiScaleRoIPool(NAMES, output_size)
    assert_same(pool(maps, boxes, SHAPES), box_by_box(maps, boxes, output_size))


def test_every_map_is_used():
    rois = torch.cat(boxes_of(90))
    assert {fpn_level(box, 2, 5) for box in rois} == {2, 3, 4, 5}


@pytest.mark.parametrize("dtype_of_boxes", [torch.float64, torch.bfloat16, torch.float16])
def test_boxes_of_any_dtype(dtype_of_boxes):
    maps, boxes = pyramid(), boxes_of(40, dtype_of_boxes)
    expected = box_by_box(maps, [b if b.dtype == torch.float64 else b.float() for b in boxes], 3)
    assert_same(MultiScaleRoIPool(NAMES, 3)(maps, boxes, SHAPES), expected)


def test_rows_of_rois_are_boxes_too():
    maps, boxes = pyramid(), boxes_of(40)
    rois = torch.cat([torch.nn.functional.pad(b, (1, 0), value=float(n)) for n, b in enumerate(boxes)])
    assert_same(MultiScaleRoIPool(NAMES, 3)(maps, rois, SHAPES), MultiScaleRoIPool(NAMES, 3)(maps, boxes, SHAPES))


def test_the_canonical_box_may_be_another():
    maps, boxes, canonical = pyramid(), boxes_of(60), {"scale": 100, "level": 3}
    pool = MultiScaleRoIPool(NAMES, 3, canonical_scale=100, canonical_level=3)
    assert_same(pool(maps, boxes, SHAPES), box_by_box(maps, boxes, 3, **canonical))


def test_a_box_at_the_edge_of_a_level_is_of_the_upper_one():
    maps, edges = pyramid(channels=1), [56.0, 112.0, 224.0]
    boxes = [
        torch.tensor([[0, 0, edge + less, edge + less] for edge in edges for less in (0, -0.5)]),
        torch.zeros(0, 4),
    ]
    rois = torch.nn.functional.pad(boxes[0], (1, 0))
    assert MultiScaleRoIPool(NAMES, 3)._maps_of(rois, [2, 3, 4, 5]).tolist() == [0, 0, 1, 0, 2, 1]
    assert_same(MultiScaleRoIPool(NAMES, 3)(maps, boxes, SHAPES), box_by_box(maps, boxes, 3))


def test_levels_follow_from_the_rows_of_the_largest_image():
    maps = [torch.zeros(1, 1, rows, 1) for rows in (200, 100, 50, 25, 13, 7)]
    assert _levels_of_maps(maps, [(500, 1), (800, 2000)]) == [2, 3, 4, 5, 6, 7]


def test_a_box_is_of_a_map_that_there_is():
    """A map alone serves all boxes; and of two that are not neighbours, the second all that are beyond the first."""
    maps, boxes = pyramid(), boxes_of(40)
    rois = torch.cat([torch.nn.functional.pad(b, (1, 0), value=float(n)) for n, b in enumerate(boxes)])
    assert_same(MultiScaleRoIPool(["1"], 3)(maps, boxes, SHAPES), roi_pool(maps["1"], rois, 3, 1 / 8))
    assert MultiScaleRoIPool(NAMES, 3)._maps_of(rois, [2, 4]).tolist() == [
        min(fpn_level(box, 2, 4) - 2, 1) for box in torch.cat(boxes)
    ]
    assert set(MultiScaleRoIPool(NAMES, 3)._maps_of(rois, [5, 5]).tolist()) == {0}


def test_maps_keep_the_order_they_come_in():
    maps, boxes = pyramid(), boxes_of(40)
    assert_same(
        MultiScaleRoIPool(NAMES[::-1], 3)(maps, boxes, SHAPES), MultiScaleRoIPool(NAMES, 3)(maps, boxes, SHAPES)
    )


def test_gradients_are_those_of_the_loop(dtype):
    boxes = boxes_of(60)
    maps = [{name: x.requires_grad_() for name, x in pyramid(dtype).items() if name != "pool"} for _ in range(2)]
    pooled, expected = MultiScaleRoIPool(NAMES, 3)(maps[0], boxes, SHAPES), box_by_box(maps[1], boxes, 3)
    upstream = integers(pooled.shape, dtype, low=-1, high=1)
    got, want = (
        torch.autograd.grad(output, list(leaves.values()), upstream)
        for output, leaves in zip((pooled, expected), maps, strict=True)
    )
    assert_same(got, want)


def test_maps_that_autocast_left_in_two_dtypes_become_one():
    maps, boxes = pyramid(), boxes_of(30)
    mixed = {**maps, "0": maps["0"].bfloat16()}
    pooled = MultiScaleRoIPool(NAMES, 3)(mixed, boxes, SHAPES)
    assert_same(pooled, box_by_box(maps, boxes, 3).bfloat16())


def test_no_boxes_give_an_empty_result():
    assert MultiScaleRoIPool(NAMES, (3, 2))(pyramid(), [torch.zeros(0, 4)] * 2, SHAPES).shape == (0, 3, 3, 2)


def test_it_shows_its_arguments():
    pool = MultiScaleRoIPool(NAMES, 7)
    assert pool.output_size == (7, 7)
    assert repr(pool) == "MultiScaleRoIPool(featmap_names=['0', '1', '2', '3'], output_size=(7, 7))"
    assert list(pool.parameters()) == [] and pool.state_dict() == {}


X, NO_BOXES = torch.zeros(1, 2, 8, 8), [torch.zeros(0, 4)]


@pytest.mark.parametrize(
    ("x", "boxes", "shapes", "error", "message"),
    [
        ([X], NO_BOXES, [(8, 8)], TypeError, "expected x to be a dict of maps, got list"),
        ({"a": X}, NO_BOXES, [(8, 8)], ValueError, "expected maps named ['0', '1', '2', '3'], got ['a']"),
        ({"0": None}, NO_BOXES, [(8, 8)], TypeError, "expected every map to be a Tensor, got NoneType"),
        ({"0": X[0]}, NO_BOXES, [(8, 8)], ValueError, "expected every map of shape [N, C, H, W], got [2, 8, 8]"),
        (
            {"0": X, "1": X[:, :1]},
            NO_BOXES,
            [(8, 8)],
            ValueError,
            "expected maps of one batch size and number of channels, got input[0] of shape [1, 2, 8, 8] and input[1] "
            "of shape [1, 1, 8, 8]",
        ),
        ({"0": X}, NO_BOXES, [], ValueError, "expected image_shapes, rows and columns of each image, got []"),
        (
            {"0": X},
            NO_BOXES,
            [(0, 8)],
            ValueError,
            "expected image_shapes, rows and columns of each image, got [(0, 8)]",
        ),
        ({"0": X}, [], [(8, 8)], ValueError, "expected one tensor of boxes for each of 1 images, got 0"),
        (
            {"0": X},
            [torch.tensor([[0, 0, float("nan"), 1]])],
            [(8, 8)],
            ValueError,
            "expected finite boxes, got x2 = nan in row 0",
        ),
        (
            {"0": X, "1": X},
            torch.tensor([[1.0, 0, 0, 1, 1]]),
            [(8, 8)],
            IndexError,
            "expected batch indices of boxes from 0 to 0, got 1 in row 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(x, boxes, shapes, error, message):
    assert_refuses(error, f"{OP}: {message}", lambda: MultiScaleRoIPool(NAMES, 3)(x, boxes, shapes))


@pytest.mark.parametrize("output_size", [0, (7, 0), (1, 2, 3), 1.5])
def test_what_is_no_size_is_refused(output_size):
    with pytest.raises((TypeError, ValueError)) as caught:
        MultiScaleRoIPool(NAMES, output_size)
    assert str(caught.value).startswith(f"{OP}: expected output_size")
    assert_well_written(str(caught.value))


# ---- boxes that miss every map ----


FAR = torch.tensor([[0.0, 100, 100, 200, 200], [0, 300, 20, 400, 60]])
MISSES = {
    "regions": (
        "spp_ext.roi_spatial_pyramid_pool",
        lambda **options: spp_ext.roi_spatial_pyramid_pool(X, FAR, **options),
    ),
    "several maps": (
        "spp_ext.roi_spatial_pyramid_pool",
        lambda: spp_ext.roi_spatial_pyramid_pool([X, X], FAR, map_indices=torch.tensor([0, 1])),
    ),
    "into": (
        "spp_ext.roi_spatial_pyramid_pool",
        lambda: spp_ext.roi_spatial_pyramid_pool(X, FAR, (1,), out=torch.empty(2, 2)),
    ),
    "roi_pool": ("spp_ext.ops.roi_pool", lambda: roi_pool(X, FAR, 2)),
    "roi_pool into": ("spp_ext.ops.roi_pool", lambda: roi_pool(X, FAR, 1, out=torch.empty(2, 2, 1, 1))),
    "MultiScaleRoIPool": (OP, lambda: MultiScaleRoIPool(["0"], 2)({"0": X}, FAR, [(8, 8)])),
}


@pytest.mark.parametrize("case", MISSES)
def test_boxes_that_all_miss_the_map_give_a_warning_on_request(case, monkeypatch, recwarn):
    op, call = MISSES[case]
    call()
    assert not recwarn.list
    monkeypatch.setattr(_checks, "VALIDATES", True)
    call()
    (warned,) = recwarn.list
    at = "1, 1" if case == "several maps" else "1"
    message = f"{op}: expected boxes that reach the map at spatial_scale {at}, got 2 outside"
    assert (warned.category, str(warned.message)) == (UserWarning, message)
    assert_well_written(message)


def test_the_environment_is_asked_at_import():
    assert run_python("-c", "import spp_ext; print(spp_ext._checks.VALIDATES)", SPP_EXT_VALIDATE="1").stdout == "True\n"


@pytest.mark.parametrize(("value", "asks"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_what_the_environment_may_say(value, asks, monkeypatch):
    monkeypatch.delenv("SPP_EXT_VALIDATE", raising=False)
    if value is not None:
        monkeypatch.setenv("SPP_EXT_VALIDATE", value)
    assert _checks.environment_validates() is asks


@pytest.mark.parametrize("corner", [(7.9, 7.9), (-50, -50)])
def test_one_box_that_reaches_the_map_is_enough(corner, monkeypatch, recwarn):
    monkeypatch.setattr(_checks, "VALIDATES", True)
    rois = torch.cat([FAR, torch.tensor([[0.0, *corner, 50, 50]])])
    spp_ext.roi_spatial_pyramid_pool(X, rois)
    spp_ext.roi_spatial_pyramid_pool(X, FAR, spatial_scale=1 / 64)
    spp_ext.roi_spatial_pyramid_pool(X, FAR[:0])
    spp_ext.roi_spatial_pyramid_pool([X, X], rois, map_indices=torch.tensor([0, 0, 1]))
    torch.vmap(lambda x: spp_ext.roi_spatial_pyramid_pool(x, FAR))(X[None])  # where nobody may look
    assert not recwarn.list
    with pytest.warns(UserWarning, match="got 2 outside"):
        spp_ext.roi_spatial_pyramid_pool(X, FAR, validate=True)


# ---- torchvision's ----


@pytest.mark.peers
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16), (16,), (32, 32)], ids=str)
@pytest.mark.parametrize("canonical", [(224, 4), (100, 3)])
def test_levels_and_scales_are_torchvisions(strides, canonical):
    from torchvision.ops.poolers import _setup_scales

    names = NAMES[: len(strides)]
    maps = {name: x for name, x in pyramid(strides=strides).items() if name in names}
    boxes = boxes_of(3000)
    scales, mapper = _setup_scales(list(maps.values()), SHAPES, *canonical)
    levels = _levels_of_maps(list(maps.values()), SHAPES)
    assert [2.0**-level for level in levels] == scales
    pool = MultiScaleRoIPool(names, 7, canonical_scale=canonical[0], canonical_level=canonical[1])
    for dtype in (torch.float32, torch.float64):
        of_dtype = [b.to(dtype) for b in boxes]
        rois = torch.nn.functional.pad(torch.cat(of_dtype), (1, 0))
        assert_same(pool._maps_of(rois, levels), mapper(of_dtype))


@pytest.mark.peers
def test_it_takes_the_arguments_of_torchvisions():
    import inspect

    import torchvision

    theirs, ours = (inspect.signature(f).parameters for f in (torchvision.ops.MultiScaleRoIAlign, MultiScaleRoIPool))
    assert [name for name in theirs if name != "sampling_ratio"] == [name for name in ours if name != "reuse_output"]
    assert all(ours[name].default == theirs[name].default for name in ours if name != "reuse_output")
    theirs, ours = (
        inspect.signature(f.forward).parameters for f in (torchvision.ops.MultiScaleRoIAlign, MultiScaleRoIPool)
    )
    assert list(theirs) == list(ours)
    maps, boxes = pyramid(), boxes_of(20)
    aligned = torchvision.ops.MultiScaleRoIAlign(NAMES, 7, 2)(maps, boxes, SHAPES)
    assert MultiScaleRoIPool(NAMES, 7)(maps, boxes, SHAPES).shape == aligned.shape


@pytest.mark.peers
def test_a_faster_rcnn_trains_and_evaluates_with_it():
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(i, o, 3, 2, 1) for i, o in ((3, 8), (8, 8), (8, 16))]
    body = torch.nn.Sequential(*layers)
    backbone = BackboneWithFPN(body, {"1": "0", "2": "1"}, [8, 16], 16)  # maps "0", "1" and "pool", of strides 4, 8, 16
    anchors = AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3)
    model = FasterRCNN(backbone, 3, rpn_anchor_generator=anchors, min_size=64, max_size=96)
    assert type(model.roi_heads.box_roi_pool).__name__ == "MultiScaleRoIAlign"
    old = model.roi_heads.box_roi_pool
    model.roi_heads.box_roi_pool = MultiScaleRoIPool(old.featmap_names, old.output_size)
    images = [torch.rand(3, 64, 80), torch.rand(3, 70, 60)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10, 50, 60], [30, 20, 70, 60]]), "labels": torch.tensor([1, 2])},
        {"boxes": torch.tensor([[5.0, 5, 50, 60]]), "labels": torch.tensor([1])},
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(4):
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.roi_heads.parameters())
        assert all(layer.weight.grad.any() for layer in layers)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        found = model.eval()(images)
    assert [set(one) for one in found] == [{"boxes", "labels", "scores"}] * 2
    assert all(one["boxes"].shape[1] == 4 for one in found)


@pytest.mark.peers
def test_bounding_boxes_of_torchvision_are_boxes_in_one_format():
    from torchvision.tv_tensors import BoundingBoxes

    maps, boxes = pyramid(), boxes_of(20)
    made = [BoundingBoxes(b, format="XYXY", canvas_size=shape) for b, shape in zip(boxes, SHAPES, strict=True)]
    assert_same(roi_pool(maps["0"], made, 3, 1 / 4), roi_pool(maps["0"], boxes, 3, 1 / 4))
    assert_same(MultiScaleRoIPool(NAMES, 3)(maps, made, SHAPES), MultiScaleRoIPool(NAMES, 3)(maps, boxes, SHAPES))
    for format in ("XYWH", "CXCYWH"):
        made[1] = BoundingBoxes(boxes[1], format=format, canvas_size=SHAPES[1])
        message = f"spp_ext.ops.roi_pool: expected boxes in the format XYXY, got {format}"
        assert_refuses(ValueError, message, lambda: roi_pool(maps["0"], made, 3))
