"""The detector pools each region once, at the right scale, and its parts do what they say."""

import math

import pytest
import torch

import spp_ext
from spp_ext import models
from spp_ext.models import boxes as box_functions
from spp_ext.models import proposals, windows

NARROW = 1 / 16
MAPPINGS = ["appendix_a", "released"]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.sppnet_zf5(3, width=NARROW).eval()


def detector(network, scales, **options):
    torch.manual_seed(1)
    return models.SPPDetector(network, 3, scales, **{"region_size": 96, **options})


def random_boxes(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height])
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


# ---- scales and windows ----


def test_the_papers_scales():
    assert models.ONE_SCALE == (688,) and models.FIVE_SCALES == (480, 576, 688, 864, 1200)


def test_the_shorter_side_becomes_the_scale(network):
    found = detector(network, (128, 200)).image_maps(torch.randn(3, 100, 150))
    assert found.factors == [1.28, 2.0]
    assert [list(each.shape[2:]) for each in found.maps] == [
        [models.sppnet.map_size(128), models.sppnet.map_size(192)],
        [models.sppnet.map_size(200), models.sppnet.map_size(300)],
    ]


def test_a_region_takes_the_scale_that_brings_its_area_closest_to_the_size_of_training(network):
    five = detector(network, models.FIVE_SCALES, region_size=224)
    factors = [scale / 375 for scale in models.FIVE_SCALES]
    # On a 375 x 500 image a square of side x has area 224 x 224 at scale 224 * 375 / x.
    sides = torch.tensor([500.0, 224 * 375 / 480, 224 * 375 / 576, 224 * 375 / 688, 224 * 375 / 864, 70.0, 3.0])
    boxes = torch.stack([torch.zeros(7), torch.zeros(7), sides, sides], 1)
    assert five.choose_maps(boxes, factors).tolist() == [0, 0, 1, 2, 3, 4, 4]
    for box, chosen in zip(boxes := random_boxes(200, 375, 500), five.choose_maps(boxes, factors), strict=True):
        area = float((box[2] - box[0]) * (box[3] - box[1]))
        distances = [abs(area * factor**2 - 224**2) for factor in factors]
        assert distances[chosen] == pytest.approx(min(distances))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_regions_are_pooled_once_and_as_if_alone(network, mapping):
    image, boxes = torch.randn(3, 100, 150), random_boxes(200, 100, 150)
    one = detector(network, (128,), mapping=mapping)
    found = one.image_maps(image)
    pooled, inverse = one.pool_regions(found, boxes)
    factor = torch.full((200,), 1.28, dtype=torch.float64)
    sizes = torch.tensor([found.maps[0].shape[2:]]).expand(200, 2)
    cells = windows.windows(boxes, factor, sizes, mapping)
    assert len(pooled) == len(cells.unique(dim=0)) < 200
    for (x1, y1, x2, y2), row in zip(cells.tolist(), inverse.tolist(), strict=True):
        window = found.maps[0][:, :, y1 : y2 + 1, x1 : x2 + 1]
        assert torch.equal(pooled[row], spp_ext.spatial_pyramid_pool(window, network.levels)[0])


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_one_scale_of_the_images_own_size_is_the_networks_region_features(network, mapping):
    image, boxes = torch.randn(3, 100, 150), random_boxes(50, 100, 150)
    one = detector(network, (100,), mapping=mapping)
    expected = network.region_features(image[None], [boxes], mapping=mapping).detach()
    assert torch.allclose(one.features(image, boxes), expected, atol=1e-5)  # batches of other sizes sum in other orders


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_several_maps_are_pooled_in_one_call_as_each_by_itself(network, mapping):
    image, boxes = torch.randn(3, 100, 150), random_boxes(300, 100, 150)
    three = detector(network, (128, 200, 320), mapping=mapping)
    found = three.image_maps(image)
    pooled, inverse = three.pool_regions(found, boxes)
    chosen = three.choose_maps(boxes, found.factors)
    assert chosen.unique().tolist() == [0, 1, 2]
    for index in range(3):
        own = (chosen == index).nonzero().flatten()
        single = detector(network, three.scales[index : index + 1], mapping=mapping)
        expected, rows = single.pool_regions(single.image_maps(image), boxes[own])
        assert torch.equal(pooled[inverse[own]], expected[rows])


def test_bad_input_is_named(network):
    one = detector(network, (128,))
    image = torch.zeros(3, 100, 150)
    with pytest.raises(ValueError, match=r"boxes of shape \[K, 4\] .* got \[3, 5\]"):
        one(image, torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"finite boxes, got \[0.0, 0.0, inf, 9.0\] in row 1"):
        one(image, torch.tensor([[0.0, 0, 5, 5], [0, 0, math.inf, 9]]))
    with pytest.raises(ValueError, match=r"at least one scale, .* got \[\]"):
        detector(network, ())
    with pytest.raises(ValueError, match=r"of 64 pixels or more, got \[128, 48\]"):
        detector(network, (128, 48))
    with pytest.raises(ValueError, match="expected layer to be one of .* got 'conv5'"):
        detector(network, (128,), layer="conv5")
    with pytest.raises(ValueError, match=r"an image of shape \[3, H, W\] .* got \[3, 100, 150\], torch.uint8"):
        one(image.byte(), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"an image of shape \[3, H, W\] .* got \[1, 3, 100, 150\]"):
        one(image[None], torch.zeros(3, 4))
    with pytest.raises(ValueError, match='"appendix_a" or "released", got \'caffe\''):
        detector(network, (128,), mapping="caffe")


def test_no_boxes_no_detections(network):
    found = detector(network, (128,))(torch.zeros(3, 100, 150), torch.zeros(0, 4))
    assert [len(column) for column in found] == [0, 0, 0]


def test_the_network_stays_without_dropout(network):
    one = detector(network, (128,)).train()
    assert one.training and not any(module.training for module in network.modules())


# ---- suppression and detections ----


def test_overlaps():
    one = torch.tensor([[0.0, 0, 10, 10], [0, 0, 0, 0]])
    other = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [0, 0, 0, 0]])
    assert torch.equal(models.box_iou(one, other), torch.tensor([[1.0, 50 / 150, 0, 0], [0, 0, 0, 0]]))


@pytest.mark.parametrize("suppress", [models.nms, box_functions._nms])
def test_a_box_suppresses_those_it_overlaps_by_more_than_the_threshold(suppress):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [5, 0, 15, 10], [40, 40, 50, 50], [9, 0, 19, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.95])
    # 4 suppresses 2 (6/14); 0 suppresses 1, and overlaps 4 by 1/19 alone.
    assert suppress(boxes, scores, 0.3).tolist() == [4, 0, 3]
    assert suppress(boxes, scores, 0.95).tolist() == [4, 0, 1, 2, 3]
    assert suppress(boxes[:0], scores[:0], 0.3).tolist() == []


@pytest.mark.parametrize("suppress", [models.nms, box_functions._nms])
def test_boxes_and_scores_may_be_of_two_types(suppress):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]], dtype=torch.float64)
    assert suppress(boxes, torch.tensor([0.5, 0.75]), 0.3).tolist() == [1]


def test_detections_are_per_class_and_sorted(network):
    one = detector(network, (128,), score_threshold=0.0, max_detections=3)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [40, 40, 50, 50]])
    with torch.no_grad():
        one.svms.weight.zero_()
        one.svms.weight[:, :3] = torch.eye(3)
        one.svms.bias.zero_()
    features = torch.zeros(3, one.svms.in_features)
    features[:, :3] = torch.tensor([[3.0, 1, -1], [2, 4, -1], [0.5, -1, -1]])  # box by class
    found = one.detect(boxes, features)
    assert found.scores.tolist() == [4.0, 3.0, 0.5] and found.labels.tolist() == [1, 0, 0]
    assert torch.equal(found.boxes, boxes[[1, 0, 2]])


# ---- average precision ----


def truth(boxes, labels):
    return models.Truth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64)
    )


def found(boxes, scores, labels):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return models.Detections(boxes, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


A, B, ELSEWHERE = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]


@pytest.mark.parametrize(
    "boxes, scores, expected",
    [
        ([A, B], [0.9, 0.8], 1.0),
        ([A], [0.9], 0.5),
        ([A, A, B], [0.9, 0.8, 0.7], 0.5 + 0.5 * 2 / 3),  # the second claims what is taken
        ([ELSEWHERE, A, B], [0.9, 0.8, 0.7], 2 / 3),  # precision at a recall is the best at that recall or beyond
        ([ELSEWHERE], [0.9], 0.0),
        ([], [], 0.0),
    ],
)
def test_average_precision_of_small_cases(boxes, scores, expected):
    detections = found(boxes, scores, [0] * len(boxes))
    assert models.average_precision([detections], [truth([A, B], [0, 0])], 0) == pytest.approx(expected)


def test_mean_average_precision_is_over_classes_that_occur():
    truths = [truth([A, B], [0, 1]), truth([A], [0])]
    detections = [found([A, B], [0.9, 0.8], [0, 2]), found([A], [0.3], [0])]
    assert models.mean_average_precision(detections, truths, 4) == pytest.approx(0.5)  # 1 of class 0, 0 of class 1
    assert math.isnan(models.average_precision(detections, truths, 3))


# ---- SVMs ----


def test_svms_separate_what_can_be_separated():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (400,), generator=generator)  # 3 is background
    features = torch.randn(400, 6, generator=generator) * 0.1
    features[:, :4] += torch.eye(4)[labels] * 5
    overlaps = torch.eye(4)[labels][:, :3]
    svms = torch.nn.Linear(6, 3)
    models.fit_svms(svms, features.split(100), overlaps.split(100), first_negatives=20)
    assert torch.equal(svms(features) > 0, overlaps == 1)
    again = torch.nn.Linear(6, 3)
    models.fit_svms(again, features.split(100), overlaps.split(100), first_negatives=20)
    assert torch.equal(svms.weight, again.weight) and torch.equal(svms.bias, again.bias)


def test_hard_negatives_are_found():
    # A rare kind of background looks much like the object; few of a random sample are of it.
    generator = torch.Generator().manual_seed(0)
    common, rare, objects = torch.tensor([0.0, 1]), torch.tensor([1.0, 0.3]), torch.tensor([1.0, 0])
    features = torch.cat([common.expand(1000, 2), rare.expand(30, 2), objects.expand(30, 2)])
    features = features + 0.02 * torch.randn(1060, 2, generator=generator)
    overlaps = torch.tensor([[0.0]] * 1030 + [[1.0]] * 30)
    wrong = []
    for rounds in (0, 2):
        svms = torch.nn.Linear(2, 1)
        models.fit_svms(svms, [features], [overlaps], rounds=rounds, first_negatives=5, cost=1.0)
        wrong.append(int((svms(features[:1030]) > 0).sum()))
    assert wrong[0] >= 25 and wrong[1] <= 2


def test_a_class_without_examples_is_named():
    with pytest.raises(ValueError, match="examples of class 1, got 0 and 2"):
        models.fit_svms(torch.nn.Linear(2, 2), [torch.eye(2)], [torch.tensor([[1.0, 0], [0, 0]])])


def test_class_overlaps():
    boxes = torch.tensor([A, B, ELSEWHERE], dtype=torch.float32)
    overlaps = models.class_overlaps(boxes, truth([A, [0, 0, 10, 5]], [1, 2]), 3)
    assert torch.equal(overlaps, torch.tensor([[0.0, 1, 0.5], [0, 0, 0], [0, 0, 0]]))


# ---- proposals ----


def test_some_box_of_the_grid_overlaps_every_object_well():
    generator = torch.Generator().manual_seed(0)
    boxes = proposals.grid(240, 320, count=10**6)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 320.001).all() and (boxes[:, 3] <= 240.001).all()
    side = 40 * (200 / 40) ** torch.rand(500, generator=generator)
    stretch = (0.5 + 1.5 * torch.rand(500, generator=generator)).sqrt()
    wide, tall = (side / stretch).clamp(max=320), (side * stretch).clamp(max=240)
    left, top = torch.rand(500, generator=generator) * (320 - wide), torch.rand(500, generator=generator) * (240 - tall)
    objects = torch.stack([left, top, left + wide, top + tall], 1)
    best = models.box_iou(objects, boxes).amax(1)
    assert (best > 0.5).float().mean() > 0.99


@pytest.mark.parametrize("count", [1, 100, 300, 2000])
def test_the_grid_keeps_to_its_count(count):
    boxes = proposals.grid(100, 150, count)
    assert 0.8 * count <= len(boxes) == len(boxes.unique(dim=0)) <= count


def test_proposals_by_name():
    image = torch.zeros(3, 64, 80, dtype=torch.uint8)
    assert torch.equal(models.propose(image, 500, "grid"), proposals.grid(64, 80, 500))
    with pytest.raises(ValueError, match="got 'edge_boxes'"):
        models.propose(image, method="edge_boxes")


def test_selective_search_where_it_is_installed_else_the_grid():
    image = torch.full((3, 120, 160), 30, dtype=torch.uint8)
    image[:, 30:80, 50:120] = 220
    boxes = models.propose(image, 1000)
    if proposals.has_selective_search():
        assert torch.equal(boxes, models.propose(image, 1000, "selective_search"))
    else:
        assert torch.equal(boxes, proposals.grid(120, 160, 1000))
        with pytest.raises(ImportError, match="opencv-contrib-python-headless"):
            proposals.selective_search(image)
    assert models.box_iou(torch.tensor([[50.0, 30, 120, 80]]), boxes).max() > 0.6


# ---- fine-tuning ----


def test_fine_tuning_learns_regions_and_leaves_the_convolutions():
    torch.manual_seed(0)
    network = models.sppnet_zf5(2, width=NARROW).eval()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    labels = torch.arange(300) % 3  # 2 is background
    pooled = torch.rand(300, network.fc6.in_features)
    pooled[:, :3] += 3 * torch.eye(3)[labels]
    losses = models.fine_tune(network, pooled, labels, 2, steps=200, batch_size=32, learning_rate=3e-3)
    assert len(losses) == 200 and sum(losses[-5:]) < 0.4 * sum(losses[:5])
    changed = {name for name, weight in network.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"} and not network.training

    again = models.sppnet_zf5(2, width=NARROW).eval()
    again.load_state_dict(before)
    state = torch.get_rng_state()
    assert models.fine_tune(again, pooled, labels, 2, steps=200, batch_size=32, learning_rate=3e-3) == losses
    assert torch.equal(torch.get_rng_state(), state)


def test_fine_tuning_needs_objects_and_background():
    network = models.sppnet_zf5(2, width=1 / 32)
    with pytest.raises(ValueError, match="expected regions of objects and of background, got 0 and 4"):
        models.fine_tune(network, torch.zeros(4, network.fc6.in_features), torch.full((4,), 2), 2)


def test_sampled_regions_show_what_they_overlap():
    overlaps = torch.tensor([[0.9, 0.1], [0.2, 0.6], [0.3, 0.2], [0.0, 0.0], [0.55, 0.0], [0.05, 0.0]])
    indices, labels = models.sample_regions(overlaps, negative=(0.1, 0.5))
    assert dict(zip(indices.tolist(), labels.tolist(), strict=True)) == {0: 0, 1: 1, 4: 0, 2: 2}
    indices, labels = models.sample_regions(overlaps, max_per_kind=2)
    assert len(indices) == len(indices.unique()) == 4 and sorted(labels.tolist())[2:] == [2, 2]
