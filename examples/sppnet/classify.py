"""Accuracy against the size of the image: a pyramid trained at one size, one trained at two in turn, and none.

Sections 2.3, 3.1 and 3.3 of the paper on small pictures. Every network is ZF-5 at an eighth of its width. Without a
pyramid a network takes one size, so pictures of others are stretched to it, wide ones too.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from data import CLASSES, normalised, pictures, sources
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.utils.data import Dataset

from spp_ext import models
from spp_ext._progress import progress

WIDTH = 1 / 8
LARGE, SMALL = 112, 80  # pixels, where the paper has 224 and 180
LARGEST = 160  # the pictures' own size; smaller ones are resized from it
WIDE = 3 / 2  # width / height of the wide pictures
KINDS = {"no SPP": (LARGE,), "SPP, one size": (LARGE,), "SPP, two sizes": (LARGE, SMALL)}


@dataclass(frozen=True)
class Settings:
    """How much is trained and tested; the defaults are those of the full demo."""

    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 12
    training: int = 2600  # pictures
    testing: int = 400  # pictures of each kind
    svm_training: int = 600  # wide pictures
    sizes: tuple[int, ...] = (64, 80, 96, 112, 128, 144, 160)
    svm_sizes: tuple[int, ...] = (80, 112, 144)  # heights
    workers: int = 2
    folder: Path = Path("build/sppnet")
    resume: bool = False


class Pictures(Dataset):
    def __init__(self, settings: Settings) -> None:
        self.images, self.labels = pictures(sources(training=True), settings.training, LARGE, LARGE, seed=0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return normalised(self.images[index]), self.labels[index]


def network(kind: str) -> nn.Module:
    return models.zf5(CLASSES, LARGE, WIDTH) if kind == "no SPP" else models.sppnet_zf5(CLASSES, width=WIDTH)


def train(kind: str, seed: int, settings: Settings, report) -> nn.Module:
    torch.manual_seed(seed)
    model = network(kind)
    dataset = Pictures(settings)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    batches = -(-len(dataset) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=settings.epochs * batches)
    checkpoint = settings.folder / f"{kind.replace(', ', '-').replace(' ', '-')}-{seed}.pt"
    trainer = models.MultiSizeTrainer(
        model,
        dataset,
        KINDS[kind],
        optimizer,
        schedule,
        batch_size=32,
        seed=seed,
        checkpoint=checkpoint,
        progress=report,
    )
    if settings.resume:
        trainer.resume()
    trainer.train(settings.epochs)
    return model.eval()


# ---- testing a network on pictures of any size ----


def resized(images: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True)


def as_taken(model: nn.Module, images: Tensor) -> Tensor:
    """Images as they are, or stretched to the size of a network that takes only one."""
    return images if model.size is None else resized(images, model.size, model.size)


@torch.no_grad()
def represent(model: nn.Module, images: Tensor, height: int, width: int) -> Tensor:
    """The outputs of fc7 for pictures that are resized to ``height x width``."""
    parts = [as_taken(model, resized(normalised(part), height, width)) for part in images.split(64)]
    return torch.cat([model.represent(part) for part in parts])


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, height: int, width: int) -> float:
    with torch.no_grad():
        scores = model.fc8(represent(model, images, height, width))
    return (scores.argmax(1) == labels).double().mean().item()


def svm_accuracy(
    model: nn.Module, height: int, training: tuple[Tensor, Tensor], testing: tuple[Tensor, Tensor]
) -> float:
    """Accuracy of a linear SVM on fc7 of wide pictures, whole, which the network was not trained on."""
    width = round(WIDE * height)
    # As in section 3.3: features of length 1, C = 1.
    features = [normalize(represent(model, images, height, width).numpy()) for images, _ in (training, testing)]
    machine = LinearSVC(C=1.0, random_state=0).fit(features[0], training[1].numpy())
    return float(machine.score(features[1], testing[1].numpy()))


def examine(model: nn.Module, settings: Settings) -> dict[str, dict[str, float]]:
    test, side, wide = sources(training=False), LARGEST, round(WIDE * LARGEST)
    square = pictures(test, settings.testing, side, side, seed=1)
    oblong = pictures(test, settings.testing, side, wide, seed=2)
    oblong_training = pictures(sources(training=True), settings.svm_training, side, wide, seed=3)
    sizes = {str(size): accuracy(model, *square, size, size) for size in settings.sizes}
    return {
        "square": sizes,
        "wide": {str(LARGE): accuracy(model, *oblong, LARGE, round(WIDE * LARGE))},
        "svm": {str(height): svm_accuracy(model, height, oblong_training, oblong) for height in settings.svm_sizes},
    }


# ---- training and testing all networks, several at once ----


def _start(counters) -> None:
    global _counters
    _counters = counters
    torch.set_num_threads(1)  # one network on each core is faster than one network on all cores


def _job(number: int, kind: str, seed: int, settings: Settings) -> dict[str, dict[str, float]]:
    def report(done: int, total: int, what: str) -> None:
        _counters[number] = done

    return examine(train(kind, seed, settings, report), settings)


def run(settings: Settings) -> dict[str, list[dict[str, dict[str, float]]]]:
    """Trains every network; returns kind -> what `examine` returns for each seed. Checkpoints are in the folder."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    jobs = [(kind, seed) for seed in settings.seeds for kind in KINDS]
    context = multiprocessing.get_context("spawn")
    counters = context.Array("i", len(jobs))
    total = len(jobs) * settings.epochs * -(-settings.training // 32)
    with ProcessPoolExecutor(settings.workers, context, _start, (counters,)) as pool:
        futures = [pool.submit(_job, number, *job, settings) for number, job in enumerate(jobs)]
        while not all(future.done() for future in futures):
            time.sleep(1 if sys.stderr.isatty() else 15)
            done = sum(future.done() for future in futures)
            progress(min(sum(counters), total - 1), total, f"batches; {done} of {len(jobs)} networks are done")
        results = [future.result() for future in futures]
    progress(total, total, "batches")
    return {kind: [result for (name, _), result in zip(jobs, results, strict=True) if name == kind] for kind in KINDS}


def quick(settings: Settings) -> Settings:
    """The settings of a run that takes about a minute."""
    return replace(settings, seeds=(0,), epochs=8, training=1300, testing=250, svm_training=300, svm_sizes=(LARGE,))
