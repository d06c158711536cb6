"""Multi-size training (paper, section 2.3): the size of the images changes from epoch to epoch, the weights do not.

An epoch is trained at one size, the next at the next, in turn: the paper has 224 and 180. A picture of the smaller size
is the larger one resized, not cropped, so the two differ in resolution and not in content.

A run is a function of its seeds. The order of an epoch's examples is drawn from ``(seed, epoch)`` alone; everything
else random (dropout, augmentation) from the global generators, whose states are part of a checkpoint. So a run that was
stopped, even in the middle of an epoch, goes on from its last checkpoint as if it had never been stopped.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from spp_ext._checks import shown
from spp_ext._progress import progress as show_progress

Loss = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int, str], None]


class Examples(Protocol):
    """What a trainer takes as a data set: a `torch.utils.data.Dataset` that knows its length, or a list."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...  # an image and its label


def resized(images: Tensor, size: int) -> Tensor:
    """Images ``[N, 3, H, W]`` as ``[N, 3, size, size]``, bilinear, smoothed where they shrink."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


class MultiSizeTrainer:
    """Trains a network at several sizes in turn, and stops and goes on without a trace.

    Args:
        network: takes images ``[N, 3, size, size]`` of every size; its parameters say the device.
        dataset: pairs of an image ``[3, H, W]`` and a label, all images of one size.
        sizes: in pixels, one per epoch, in turn. One size is ordinary training.
        optimizer: of the network's parameters.
        scheduler: of the learning rate, stepped after every batch; None for none.
        batch_size: how many examples a batch has; the last of an epoch may have fewer.
        loss: of scores and labels.
        seed: of the order of the examples.
        checkpoint: where to save; None to save only when `save` is called.
        save_every: batches from one checkpoint to the next, beside the one after each epoch; 0 for none.
        progress: whether to show a bar on stderr, or a function that is told the batches done, of how many, and a text.

    Raises:
        ValueError: there is no size or no example, or the batches are empty.

    Example::

        >>> network = sppnet_zf5(10, width=1 / 8)
        >>> optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
        >>> trainer = MultiSizeTrainer(network, dataset, (224, 180), optimizer, checkpoint="run.pt")
        >>> trainer.resume()  # where there is a checkpoint
        >>> trainer.train(epochs=70)
    """

    def __init__(
        self,
        network: nn.Module,
        dataset: Examples,
        sizes: Sequence[int],
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        *,
        batch_size: int = 128,
        loss: Loss = F.cross_entropy,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        save_every: int = 0,
        progress: bool | Progress = False,
    ) -> None:
        if not sizes or batch_size < 1 or not len(dataset):
            raise ValueError(
                "spp_ext.models: expected at least one size, one example and a batch_size of at least 1, "
                f"got sizes={shown(list(sizes))}, {len(dataset)} examples and batch_size={batch_size}"
            )
        self.network, self.dataset, self.sizes = network, dataset, tuple(sizes)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.batch_size, self.loss, self.seed = batch_size, loss, seed
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.save_every = save_every
        self.progress = progress if callable(progress) else show_progress if progress else None
        self.epoch = self.batch = 0  # of the batch that comes next
        self.losses: list[float] = []  # the mean of each finished epoch
        self._sum = 0.0  # of this epoch's losses, each times its examples

    @property
    def batches(self) -> int:
        """Batches in an epoch, which a scheduler's total of steps is a multiple of."""
        return -(-len(self.dataset) // self.batch_size)

    def train(self, epochs: int) -> list[float]:
        """Trains until so many epochs are done, those before a checkpoint included, and returns their mean losses."""
        self.network.train()
        while self.epoch < epochs:
            self._train_epoch(epochs)
            if self.checkpoint is not None:
                self.save(self.checkpoint)
        return self.losses

    def _train_epoch(self, epochs: int) -> None:
        size = self.sizes[self.epoch % len(self.sizes)]
        order = torch.randperm(len(self.dataset), generator=self._order_generator()).tolist()
        device = next(self.network.parameters()).device
        while self.batch < self.batches:
            chosen = order[self.batch * self.batch_size : (self.batch + 1) * self.batch_size]
            images, labels = default_collate([self.dataset[index] for index in chosen])
            loss = self.loss(self.network(resized(images.to(device), size)), labels.to(device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
            self._sum += loss.item() * len(chosen)
            self.batch += 1
            if self.checkpoint is not None and self.save_every and self.batch % self.save_every == 0:
                self.save(self.checkpoint)
            if self.progress is not None:
                done = self.epoch * self.batches + self.batch
                if done % max(1, self.batches // 4) == 0 or self.batch == self.batches:
                    what = f"epoch {self.epoch + 1} at {size} px, loss {loss.item():.3f}"
                    self.progress(done, epochs * self.batches, what)
        self.losses.append(self._sum / len(self.dataset))
        self.epoch, self.batch, self._sum = self.epoch + 1, 0, 0.0

    def _order_generator(self) -> torch.Generator:
        # One stream per epoch, however the seeds of two runs lie: the hash of a tuple of ints is not random.
        words = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(words[0] >> 1))

    # ---- checkpoints ----

    def state(self) -> dict[str, Any]:
        """All that a run consists of beside its data and its settings; `torch.load` needs no pickled code for it."""
        numpy_state = np.random.get_state(legacy=False)
        numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "position": (self.epoch, self.batch, self._sum, list(self.losses)),
            "settings": (self.sizes, self.batch_size, self.seed, len(self.dataset)),
            "random": {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "python": random.getstate(),
                "numpy": numpy_state,
            },
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a checkpoint, in one step: whoever stops the program leaves the old one or the new one."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        torch.save(self.state(), part)
        os.replace(part, path)

    def resume(self, path: str | os.PathLike[str] | None = None) -> bool:
        """Goes to where a checkpoint was saved; returns whether there is one.

        Args:
            path: of the checkpoint; None for the trainer's own.

        Raises:
            ValueError: it is of a run with other sizes, batches, seed or number of examples.
        """
        path = self.checkpoint if path is None else Path(path)
        if path is None or not path.exists():
            return False
        state = torch.load(path, map_location="cpu", weights_only=True)
        settings = (self.sizes, self.batch_size, self.seed, len(self.dataset))
        if tuple(state["settings"]) != settings:
            names = "(sizes, batch_size, seed, examples)"
            raise ValueError(f"spp_ext.models: expected a checkpoint of {names} = {settings}, got {state['settings']}")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.batch, self._sum, self.losses = state["position"]
        generators = state["random"]
        torch.set_rng_state(generators["torch"])
        for device, generator in zip(range(torch.cuda.device_count()), generators["cuda"], strict=False):
            torch.cuda.set_rng_state(generator, device)
        random.setstate(generators["python"])
        numpy_state = generators["numpy"]
        numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], np.uint32)
        np.random.set_state(numpy_state)
        return True
