"""Multi-size training alternates sizes with shared weights, and a run that was stopped goes on bit for bit."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from spp_ext import models


class Noise(Dataset):
    """Images that depend on every global generator, as augmented ones do; stops the program where it is told."""

    def __init__(self, stop_after=None):
        self.served, self.stop_after = 0, stop_after

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if self.served == self.stop_after:
            raise KeyboardInterrupt
        self.served += 1
        shift = random.random() + np.random.rand() + torch.rand(()).item()
        image = torch.randn(3, 80, 80, generator=torch.Generator().manual_seed(index))
        return image + shift, index % 3


class Sized(torch.nn.Module):
    """A network that remembers the sizes of what it saw."""

    def __init__(self):
        super().__init__()
        self.network, self.sizes = models.sppnet_zf5(3, width=1 / 32), []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        return self.network(images)


def trainer(stop_after=None, **options):
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    network = Sized()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=12)
    settings = {"batch_size": 4, "seed": 1, **options}
    return models.MultiSizeTrainer(network, Noise(stop_after), (80, 64), optimizer, scheduler, **settings)


def disturb():
    """What another program does between two runs."""
    random.random(), np.random.rand(3), torch.rand(7)


def assert_same_run(one, other):
    assert one.losses == other.losses and (one.epoch, one.batch) == (other.epoch, other.batch)
    for a, b in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    momenta = [list(each.optimizer.state.values()) for each in (one, other)]
    for a, b in zip(*momenta, strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
    assert one.scheduler.get_last_lr() == other.scheduler.get_last_lr()


@pytest.fixture(scope="module")
def whole():
    run = trainer()
    run.train(4)
    return run


def test_sizes_alternate_by_epoch(whole):
    assert whole.network.sizes == [(size, size) for size in (80, 64, 80, 64) for _ in range(3)]
    assert len(whole.losses) == 4


def test_a_seed_decides_the_run(whole):
    again = trainer()
    again.train(4)
    assert_same_run(again, whole)
    other = trainer(seed=2)
    other.train(4)
    assert other.losses != whole.losses


def test_two_epochs_and_two_more_are_four(whole, tmp_path):
    first = trainer(checkpoint=tmp_path / "run.pt")
    first.train(2)
    disturb()
    second = trainer(checkpoint=tmp_path / "run.pt")
    assert second.resume()
    assert (second.epoch, second.batch) == (2, 0)
    second.train(4)
    assert_same_run(second, whole)


@pytest.mark.parametrize("examples, position", [(9, (0, 2)), (15, (1, 1)), (31, (3, 0))])
def test_a_run_stopped_in_an_epoch_loses_nothing(whole, tmp_path, examples, position):
    first = trainer(examples, checkpoint=tmp_path / "run.pt", save_every=1)
    with pytest.raises(KeyboardInterrupt):
        first.train(4)
    disturb()
    second = trainer(checkpoint=tmp_path / "run.pt")
    assert second.resume()
    assert (second.epoch, second.batch) == position
    second.train(4)
    assert_same_run(second, whole)


def test_a_run_that_is_done_does_nothing(whole):
    before = [weight.clone() for weight in whole.network.state_dict().values()]
    losses = list(whole.losses)
    assert whole.train(4) == losses
    assert all(torch.equal(a, b) for a, b in zip(before, whole.network.state_dict().values(), strict=True))


def test_without_a_checkpoint_a_run_begins(tmp_path):
    assert not trainer().resume()
    assert not trainer(checkpoint=tmp_path / "none.pt").resume()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trainer().save(tmp_path / "run.pt")
    with pytest.raises(ValueError, match="expected a checkpoint of .sizes, batch_size, seed, examples."):
        trainer(seed=7).resume(tmp_path / "run.pt")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run = trainer(checkpoint=tmp_path / "run.pt")
    run.train(1)
    before = (tmp_path / "run.pt").read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        run.train(2)
    assert (tmp_path / "run.pt").read_bytes() == before


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="expected at least one size"):
        models.MultiSizeTrainer(torch.nn.Linear(1, 1), Noise(), (), None)
    with pytest.raises(ValueError, match="got sizes=.80., 0 examples and batch_size=128"):
        models.MultiSizeTrainer(torch.nn.Linear(1, 1), [], (80,), None)


def test_progress_is_shown(capfd):
    trainer(progress=True).train(1)
    assert "epoch 1 at 80 px" in capfd.readouterr().err
