"""The detector's linear SVMs, trained as in R-CNN and SPP-net: one per class, with hard negatives.

Training needs scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from spp_ext.models.boxes import Truth, box_iou

NORM = 20.0  # what features are scaled to on average, so that one C suits every network (R-CNN)


def class_overlaps(boxes: Tensor, truth: Truth, num_classes: int) -> Tensor:
    """The largest intersection over union of each box with an object of each class, ``[K, num_classes]``."""
    overlaps = box_iou(boxes, truth.boxes)
    best = [
        overlaps[:, truth.labels == label].amax(1) if (truth.labels == label).any() else overlaps.new_zeros(len(boxes))
        for label in range(num_classes)
    ]
    return torch.stack(best, 1)


def fit_svms(
    svms: nn.Linear,
    features: Sequence[Tensor],
    overlaps: Sequence[Tensor],
    *,
    positive: float = 1.0,
    negative: float = 0.3,
    cost: float = 1e-3,
    rounds: int = 2,
    first_negatives: int = 2000,
    seed: int = 0,
) -> None:
    """Trains the SVM of every class on the regions of many images, and writes it into a row of ``svms``.

    Positive examples of a class are regions that overlap an object of it by ``positive``, which with 1 are the objects'
    own boxes; negative ones overlap all of them by less than ``negative``. Training begins with a random sample of the
    negatives and goes on, ``rounds`` times, with those that the SVM of the round before finds hard: in or beyond its
    margin; the paper goes on once, and drops negatives that overlap one another by more than 0.7. Loss and weights are
    those of the released code: hinge loss, positives twice. All features are held in memory at once, in float32.

    Args:
        svms: ``Linear(D, num_classes)``.
        features: for each image ``[K, D]``.
        overlaps: for each image ``[K, num_classes]``, of `class_overlaps`.
        positive: least overlap of a positive example.
        negative: overlap that a negative example stays below.
        cost: the SVM's C, of features scaled to a norm of 20 on average.
        rounds: of hard negatives.
        first_negatives: how many to begin with.
        seed: of the sample.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: a class has no positive or no negative example.
    """
    from sklearn.svm import LinearSVC

    every, overlap = torch.cat(list(features)).cpu(), torch.cat(list(overlaps)).cpu()
    scale = NORM / every.norm(dim=1).mean().item()
    examples = (every.float() * scale).numpy()
    draw = np.random.default_rng(seed)
    for label in range(svms.out_features):
        positives = (overlap[:, label] >= positive).nonzero().flatten().numpy()
        negatives = (overlap[:, label] < negative).nonzero().flatten().numpy()
        if not len(positives) or not len(negatives):
            counts = f"{len(positives)} and {len(negatives)}"
            raise ValueError(f"spp_ext.models: expected positive and negative examples of class {label}, got {counts}")
        chosen = draw.choice(negatives, min(first_negatives, len(negatives)), replace=False)
        for round in range(rounds + 1):
            machine = LinearSVC(
                C=cost,
                loss="hinge",
                class_weight={True: 2.0},
                intercept_scaling=10.0,
                max_iter=20000,
                random_state=seed,
            )
            rows = np.concatenate([positives, chosen])
            machine.fit(examples[rows], np.arange(len(rows)) < len(positives))
            if round < rounds:
                hard = negatives[machine.decision_function(examples[negatives]) > -1]
                chosen = np.union1d(chosen, hard)
        with torch.no_grad():
            svms.weight[label] = torch.from_numpy(machine.coef_[0] * scale)
            svms.bias[label] = float(machine.intercept_[0])
