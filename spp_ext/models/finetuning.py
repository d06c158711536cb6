"""Fine-tuning for detection (paper, section 4.1): the fully-connected layers, on pooled regions of images.

The convolutions stay as they are, so every region is pooled once, before training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spp_ext.models.sppnet import SPPNet


def sample_regions(
    overlaps: Tensor,
    *,
    positive: float = 0.5,
    negative: tuple[float, float] = (0.0, 0.5),
    max_per_kind: int = 256,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Regions of one image to learn from, and what they show.

    Args:
        overlaps: ``[K, num_classes]``, of `class_overlaps`.
        positive: least overlap with an object of a region that shows it.
        negative: least overlap, and the overlap to stay below, of a region that shows background; the paper's are
            (0.1, 0.5).
        max_per_kind: how many positive ones, and how many negative ones, at most; drawn at random.
        seed: of the draw.

    Returns:
        Indices ``[R]`` and labels ``[R]``, ``num_classes`` for background.
    """
    generator = torch.Generator().manual_seed(seed)
    best, label = overlaps.max(1)
    label = torch.where(best >= positive, label, overlaps.shape[1])
    chosen = []
    for kind in (best >= positive, (best >= negative[0]) & (best < negative[1])):
        rows = kind.nonzero().flatten()
        chosen.append(rows[torch.randperm(len(rows), generator=generator).to(rows.device)[:max_per_kind]])
    indices = torch.cat(chosen)
    return indices, label[indices]


def fine_tune(
    network: SPPNet,
    pooled: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    steps: int = 1000,
    batch_size: int = 128,
    positives: float = 0.25,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """Trains fc6 and fc7 of the network, under a new last layer, to tell objects of each class and background apart.

    A quarter of a batch shows objects, as in the paper, which trains by stochastic gradient descent.

    Args:
        network: its fc6 and fc7 are changed, its fc8 and the convolutions are not.
        pooled: ``[R, C * B]``, what pool5 says of regions.
        labels: ``[R]``, ``num_classes`` for background.
        num_classes: without the background.
        steps: batches to train.
        batch_size: regions of a batch.
        positives: share of a batch that shows objects.
        learning_rate: of AdamW, which falls to zero along a cosine.
        seed: of the last layer, the batches and dropout.

    Returns:
        The loss of every batch.

    Raises:
        ValueError: no region shows an object, or none background.
    """
    background = (labels == num_classes).nonzero().flatten()
    objects = (labels != num_classes).nonzero().flatten()
    if not len(background) or not len(objects):
        counts = f"{len(objects)} and {len(background)}"
        raise ValueError(f"spp_ext.models: expected regions of objects and of background, got {counts}")
    was_training, losses = network.training, []
    with torch.random.fork_rng(devices=[pooled.device] if pooled.is_cuda else []):
        torch.manual_seed(seed)
        last = nn.Linear(network.fc7.out_features, num_classes + 1).to(pooled.device)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        parameters = [*network.fc6.parameters(), *network.fc7.parameters(), *last.parameters()]
        optimizer = torch.optim.AdamW(parameters, learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        network.train()
        of_objects = round(positives * batch_size)
        for _ in range(steps):
            drawn = [
                rows[torch.randint(len(rows), (count,)).to(rows.device)]
                for rows, count in ((objects, of_objects), (background, batch_size - of_objects))
            ]
            rows = torch.cat(drawn)
            loss = F.cross_entropy(last(network.head(pooled[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    network.train(was_training)
    return losses
