"""SPP-net's detector, from proposals to mean average precision, on scenes of digits (section 4 of the paper).

The network is the one that was trained for classification, at two sizes. Here its fully-connected layers are
fine-tuned, and SVMs trained. Its pictures were half as large as the paper's, so the scales are halved too.
"""

import copy
from dataclasses import dataclass, replace

import torch
from classify import LARGE
from data import CLASSES, normalised, scenes, sources
from torch import Tensor, nn

from spp_ext import models
from spp_ext._progress import progress

SCALES = {
    "1 scale": tuple(scale // 2 for scale in models.ONE_SCALE),
    "5 scales": tuple(scale // 2 for scale in models.FIVE_SCALES),
}
HEIGHT, WIDTH = 240, 320  # of a scene


@dataclass(frozen=True)
class Settings:
    training: int = 120  # scenes
    testing: int = 60
    proposals: int = 2000  # of a scene, at most
    method: str = "grid"
    steps: int = 1000  # of fine-tuning
    scales: tuple[str, ...] = tuple(SCALES)


@dataclass
class Result:
    recall: float  # share of objects that some proposal overlaps by half
    precision: dict[str, float]  # scales -> mean average precision
    windows: dict[str, float]  # scales -> windows pooled for each region, on average
    images: list[Tensor]  # the scenes of the test, what is in them, and what was found with the most scales
    truths: list[models.Truth]
    found: list[models.Detections]


def propose(images: list[Tensor], settings: Settings) -> list[Tensor]:
    return [models.propose(image, settings.proposals, settings.method) for image in images]


def fit(
    detector: models.SPPDetector, images: list[Tensor], truths: list[models.Truth], boxes: list[Tensor], steps: int
) -> float:
    """Fine-tunes the fully-connected layers, then trains the SVMs; returns how many windows a region needs."""
    found, overlaps, samples = [], [], []
    for index, (image, truth, proposed) in enumerate(zip(images, truths, boxes, strict=True)):
        regions = torch.cat([truth.boxes, proposed])
        overlaps.append(models.class_overlaps(regions, truth, CLASSES))
        with torch.no_grad():
            pooled, inverse = detector.pool_regions(detector.image_maps(normalised(image)), regions)
        found.append((pooled.half(), inverse))  # float16 takes half the memory
        chosen, labels = models.sample_regions(overlaps[-1], max_per_kind=64, seed=index)
        samples.append((pooled[inverse[chosen]], labels))
        progress(index + 1, len(images), "scenes to train on")
    regions, labels = (torch.cat(column) for column in zip(*samples, strict=True))
    models.fine_tune(detector.network, regions, labels, CLASSES, steps=steps)
    with torch.no_grad():
        features = [detector.network.head(pooled.float())[inverse] for pooled, inverse in found]
    # There are few objects to learn from, so proposals that overlap one by 0.7 count as positive too.
    models.fit_svms(detector.svms, features, overlaps, positive=0.7)
    return sum(len(pooled) for pooled, _ in found) / sum(len(inverse) for _, inverse in found)


def run(network: nn.Module, settings: Settings) -> Result:
    images, truths = scenes(sources(training=True), settings.training, HEIGHT, WIDTH, seed=4)
    boxes = propose(images, settings)
    test_images, test_truths = scenes(sources(training=False), settings.testing, HEIGHT, WIDTH, seed=5)
    test_boxes = propose(test_images, settings)
    best = [models.box_iou(truth.boxes, each).amax(1) for truth, each in zip(test_truths, test_boxes, strict=True)]
    recall = (torch.cat(best) >= 0.5).double().mean().item()

    precision, windows = {}, {}
    for name in settings.scales:
        torch.manual_seed(0)
        detector = models.SPPDetector(copy.deepcopy(network), CLASSES, SCALES[name], region_size=LARGE)
        windows[name] = fit(detector, images, truths, boxes, settings.steps)
        found = []
        for index, (image, proposed) in enumerate(zip(test_images, test_boxes, strict=True)):
            found.append(detector(normalised(image), proposed))
            progress(index + 1, len(test_images), f"scenes to test on, {name}")
        precision[name] = models.mean_average_precision(found, test_truths, CLASSES)
    return Result(recall, precision, windows, test_images, test_truths, found)


def quick(settings: Settings) -> Settings:
    return replace(settings, training=40, testing=20, proposals=1000, steps=300)
