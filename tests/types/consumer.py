"""What a user of the package writes, in which every public name occurs: checked by mypy, and run once by a test.

`assert_type` says what mypy must know of a result. Calls of modules have no type, for torch says `Any` of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import spp_ext
from spp_ext import Bins, Convention, Level, ops, reference
from spp_ext.swap import Replacements, Row, replace_pooling_in_training

# ---- the functions ----

x = torch.randn(2, 8, 13, 17, requires_grad=True)
boxes = torch.tensor([[0.0, 32, 48, 180, 200], [1.0, 0, 0, 271, 207]])
levels: list[Level] = [1, (2, 3), Bins([(0, 0, 1, 2), (1, 0, 2, 2)], divisions=2)]
convention: Convention = "outer"


def asked() -> bool:
    return True


assert_type(spp_ext.__version__, str)
assert_type(spp_ext.spatial_pyramid_pool(x).shape, torch.Size)
assert_type(spp_ext.spatial_pyramid_pool(x, levels, return_indices=False), Tensor)
assert_type(spp_ext.spatial_pyramid_pool(x, (1, 2), return_indices=asked()), Tensor | tuple[Tensor, Tensor])
vector = torch.empty(8 * 50)
assert_type(spp_ext.spatial_pyramid_pool(x[0].detach(), out=vector), Tensor)
values, indices = spp_ext.spatial_pyramid_pool(x, return_indices=True)
assert_type(spp_ext.spatial_pyramid_pool([x, x[0, :, 1:]]), Tensor)
sizes = torch.tensor([[13, 17], [9, 11]])
assert_type(spp_ext.spatial_pyramid_pool(x, sizes=sizes, return_indices=True), tuple[Tensor, Tensor])
assert_type((values, indices), tuple[Tensor, Tensor])

assert_type(spp_ext.roi_spatial_pyramid_pool(x, boxes, levels, 1 / 16, convention=convention).shape, torch.Size)
assert_type(spp_ext.roi_spatial_pyramid_pool(x, boxes, (1, 2), 1, return_indices=True), tuple[Tensor, Tensor])
assert_type(spp_ext.roi_spatial_pyramid_pool(x, [boxes[:1, 1:], boxes[1:, 1:]], validate=True), Tensor)
assert_type(
    spp_ext.roi_spatial_pyramid_pool(x, boxes, convention="spp_net", return_indices=asked()),
    Tensor | tuple[Tensor, Tensor],
)
rows_of_two = torch.empty(2, 8 * 50)
assert_type(spp_ext.roi_spatial_pyramid_pool(x.detach(), boxes, out=rows_of_two), Tensor)
maps = [x, torch.randn(2, 8, 26, 34)]
map_indices = torch.tensor([1, 0])
several = spp_ext.roi_spatial_pyramid_pool(maps, boxes, levels, [1 / 16, 1 / 8], map_indices=map_indices)
assert_type(several, Tensor)
assert_type(spp_ext.split_levels(several, levels), list[Tensor])
several.sum().backward()

bins = Bins(((0, 0, 1, 1), [0, 1, 1, 2]), (1, 2))
assert_type(bins.bins, int)
assert_type(bins.divisions, tuple[int, int])
assert_type(bins.rectangles, tuple[tuple[int, int, int, int], ...])

# ---- mistakes: mypy would say so if one of these were none ----

mistakes: list[Callable[[], object]] = [
    lambda: spp_ext.spatial_pyramid_pol,  # type: ignore[attr-defined]
    lambda: spp_ext.spatial_pyramid_pool(x, "123"),  # type: ignore[arg-type]
    lambda: spp_ext.roi_spatial_pyramid_pool(x, boxes, convention="align"),  # type: ignore[call-overload]
    lambda: spp_ext.spatial_pyramid_pool(x, sizes=[(13, 17)]),  # type: ignore[call-overload]
    lambda: spp_ext.spatial_pyramid_pool(x, return_indices=True).shape,  # type: ignore[attr-defined]
    lambda: spp_ext.spatial_pyramid_pool(x, return_indices=True, out=vector),  # type: ignore[call-overload]
    lambda: spp_ext.replace_pooling(ops.roi_pool),  # type: ignore[arg-type]
]
for mistake in mistakes:
    try:
        mistake()
    except (AttributeError, TypeError, ValueError):
        continue
    raise AssertionError("a mistake went through")

# ---- the modules ----

pyramid = spp_ext.SpatialPyramidPool((1, bins))
assert_type(spp_ext.SpatialPyramidPool((1,), reuse_output=True).reuse_output, bool)
assert_type(pyramid.bins, int)
assert_type(pyramid.out_features(4), int)
assert_type(spp_ext.num_bins(range(1, 4)), int)
assert_type(pyramid.levels, tuple[Level, ...])
assert_type(pyramid.forward(x), Tensor)
classifier = nn.Sequential(nn.Conv2d(8, 4, 1), pyramid, nn.Linear(pyramid.out_features(4), 10))
assert classifier(x).shape == (2, 10)

regions = spp_ext.RoISpatialPyramidPool(levels, spatial_scale=1 / 16, convention=convention)
assert_type(regions.convention, Convention)
assert_type(regions.forward(x, boxes), Tensor)
assert_type(
    spp_ext.RoISpatialPyramidPool(levels, [1 / 16, 1 / 8], reuse_output=True).forward(maps, boxes, map_indices), Tensor
)

# ---- drop-ins ----

assert_type(ops.adaptive_max_pool2d(x, (7, None)), Tensor)
grids = torch.empty(2, 8, 7, 7)
assert_type(ops.adaptive_max_pool2d(x.detach(), 7, out=grids), Tensor)
assert_type(ops.roi_pool(x.detach(), boxes, 7, out=grids), Tensor)
assert_type(ops.multi_kernel_max_pool2d(x.detach(), (3,), out=torch.empty(2, 16, 13, 17)), Tensor)
assert_type(ops.adaptive_max_pool2d(x, 6, return_indices=True), tuple[Tensor, Tensor])
assert_type(ops.adaptive_max_pool2d(x, [6, 6], asked()), Tensor | tuple[Tensor, Tensor])
assert_type(
    ops.AdaptiveMaxPool2d((2, 3), return_indices=True, reuse_output=True).forward(x), Tensor | tuple[Tensor, Tensor]
)
assert_type(ops.roi_pool(x, boxes, 7, spatial_scale=np.float32(1 / 16)), Tensor)
assert_type(ops.roi_pool(x, boxes, 7, spatial_scale=torch.tensor(1 / 16)), Tensor)
assert_type(ops.RoIPool((7, 7), 1 / 16, reuse_output=True).forward(x, boxes), Tensor)
pooler = ops.MultiScaleRoIPool(["0", "1"], 7, canonical_scale=112)
assert_type(pooler.forward({"0": x, "1": x[:, :, ::2, ::2]}, [boxes[:1, 1:], boxes[1:, 1:]], [(208, 272)] * 2), Tensor)
assert_type(ops.multi_kernel_max_pool2d(x, [3, 5], cascade=True), Tensor)
assert_type(ops.SPP((3, 5), reuse_output=True).forward(x), Tensor)
assert_type(ops.SPPF(3, repeats=2, reuse_output=True).forward(x), Tensor)
block = nn.Sequential(nn.Conv2d(8, 4, 1), ops.SPPF(kernel_size=5), nn.Conv2d(16, 8, 1))
assert block(x).shape == x.shape

report = spp_ext.replace_pooling(nn.Sequential(nn.AdaptiveMaxPool2d(6), nn.MaxPool2d(2)), inplace=False)
assert_type(report, Replacements)
assert_type(report.model, nn.Module)
assert_type(report.rows, list[Row])
report.undo()
assert_type(spp_ext.restore_pooling(report.model), Replacements)
assert_type(report.swapped, list[Row])
for row in report.left_alone:
    assert_type((row.name, row.kind, row.note), tuple[str, str, str])
    assert_type(row.replacement, str | None)

register: Callable[[Any, Callable[[Replacements], object]], None] = replace_pooling_in_training  # needs ultralytics

# ---- the reference: tensors for tensors, arrays for arrays ----

array = np.random.default_rng(0).standard_normal((1, 2, 5, 6))
assert_type(reference.spatial_pyramid_pool(x[:, :1], (1, 2)), Tensor)
assert_type(reference.spatial_pyramid_pool(x[:, :1], return_indices=True), tuple[Tensor, Tensor])
assert_type(reference.spatial_pyramid_pool(array), np.ndarray)
assert_type(reference.spatial_pyramid_pool([x[:, :1], x[0, :1]]), Tensor)
assert_type(reference.spatial_pyramid_pool(x[:, :1], sizes=sizes, return_indices=True), tuple[Tensor, Tensor])
pooled, argmax = reference.spatial_pyramid_pool(array, (1, 2), return_indices=True)
assert_type((pooled, argmax), tuple[np.ndarray, np.ndarray])
assert_type(reference.spatial_pyramid_pool(array, return_indices=asked()), np.ndarray | tuple[np.ndarray, np.ndarray])
assert_type(reference.scatter(pooled, argmax, (1, 2), array.shape), np.ndarray)
assert_type(reference.gather(array, argmax, (1, 2)), np.ndarray)
assert_type(reference.adaptive_max_pool2d(x[:, :1], (2, None)), Tensor)
assert_type(reference.adaptive_max_pool2d(array, 2, return_indices=True), tuple[np.ndarray, np.ndarray])
assert_type(reference.roi_spatial_pyramid_pool(x[:, :1], boxes, (1, 2), 1 / 16), Tensor)
assert_type(
    reference.roi_spatial_pyramid_pool(
        [map[:, :1] for map in maps], boxes, (1,), [1 / 16, 1 / 8], return_indices=True, map_indices=[0, 1]
    ),
    tuple[Tensor, Tensor],
)
assert_type(reference.roi_pool(x[:, :1], boxes, (2, 2), 1 / 16, return_indices=True), tuple[Tensor, Tensor])
assert_type(reference.roi_pool(array, boxes[:1].numpy(), 2), np.ndarray)
assert_type(reference.multi_kernel_max_pool2d(array, (3, 5), cascade=True), np.ndarray)
assert_type(reference.multi_kernel_max_pool2d(array, return_indices=True), tuple[np.ndarray, np.ndarray])

# ---- checks for a test suite ----

drawn = spp_ext.testing.tie_free_map(2, 3, 5, 4)
few = spp_ext.testing.random_boxes(3, 2, 5, 4, scale=0.5)
spp_ext.testing.check_against_reference("roi_spatial_pyramid_pool", drawn, few, (1, 2), 0.5, convention="outer")
assert_type(spp_ext.testing.first_difference(drawn, drawn + 1), str | None)
assert spp_ext.testing.gradcheck(pyramid.forward, (1, 1, 3, 3), second_order=False)

# ---- SPP-net, and ONNX ----

network = spp_ext.models.sppnet_zf5(10, levels=(2, 1), width=1 / 64)
assert_type(network, spp_ext.models.SPPNet)
assert_type(network.levels, tuple[Level, ...])
image = torch.rand(3, 96, 128)
proposals = spp_ext.models.propose((255 * image).byte(), 20, method="grid")
assert_type(proposals, Tensor)
assert_type(network.represent(image[None], "fc6"), Tensor)
assert_type(network.region_features(image[None], [proposals], mapping="released"), Tensor)
assert_type(spp_ext.models.zf5(10, size=64, width=1 / 64), spp_ext.models.ZF5)

examples = [(torch.rand(3, 64, 64), label) for label in range(4)]
optimizer = torch.optim.SGD(network.parameters(), 0.01)
with tempfile.TemporaryDirectory() as folder:
    trainer = spp_ext.models.MultiSizeTrainer(
        network, examples, (64, 80), optimizer, batch_size=2, checkpoint=Path(folder, "run.pt")
    )
    assert_type(trainer.resume(), bool)
    assert_type(trainer.train(epochs=1), list[float])

detector = spp_ext.models.SPPDetector(network, num_classes=2, scales=(96,), score_threshold=-1e9)
assert spp_ext.models.ONE_SCALE[0] in spp_ext.models.FIVE_SCALES
truth = spp_ext.models.Truth(proposals[:2], torch.tensor([0, 1]))
overlaps = spp_ext.models.class_overlaps(proposals, truth, 2)
rows, labels = spp_ext.models.sample_regions(overlaps)
described = network.region_features(image[None], [proposals[rows]], "pool5").detach()
assert_type(spp_ext.models.fine_tune(network, described, labels, 2, steps=1), list[float])
fit: Callable[..., None] = spp_ext.models.fit_svms  # needs scikit-learn
detections = detector.forward(image, proposals)
assert_type(detections, spp_ext.models.Detections)
found_boxes, scores, found_labels = detections
assert_type((found_boxes, scores, found_labels), tuple[Tensor, Tensor, Tensor])
assert_type(spp_ext.models.nms(found_boxes, scores, 0.3), Tensor)
assert_type(spp_ext.models.box_iou(found_boxes, proposals), Tensor)
assert_type(spp_ext.models.average_precision([detections], [truth], 0), float)
assert_type(spp_ext.models.mean_average_precision([detections], [truth], 2), float)

translations: Callable[[], dict[Callable[..., Any], Callable[..., Any]]] = spp_ext.onnx.translations  # needs onnxscript
