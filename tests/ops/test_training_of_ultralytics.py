"""A swap is kept through the training of ultralytics, and changes neither the weights nor the checkpoints."""

import types

import numpy as np
import pytest
import torch
from pooling_models import SPPF, Detector
from torch import nn

from spp_ext.swap import replace_pooling_in_training


class Wrapper:
    """What a wrapper and a trainer of ultralytics do with callbacks."""

    def __init__(self):
        self.callbacks = {}

    def add_callback(self, event, callback):
        self.callbacks.setdefault(event, []).append(callback)

    def train(self, model):
        for callback in self.callbacks["on_pretrain_routine_end"]:
            callback(types.SimpleNamespace(model=model))
        return model


def test_the_model_to_be_trained_is_swapped():
    wrapper, reports = Wrapper(), []
    replace_pooling_in_training(wrapper, reports.append)
    parameters = [*(model := Detector(SPPF(8, 8))).parameters()]
    wrapper.train(model)
    assert type(model.neck).__name__ == "FusedSPPF" and [row.name for row in reports[0].swapped] == ["neck"]
    assert all(now is before for now, before in zip(model.parameters(), parameters, strict=True))
    replace_pooling_in_training(wrapper)  # twice does no harm
    assert type(wrapper.train(Detector(SPPF(8, 8))).neck).__name__ == "FusedSPPF"


def test_what_takes_no_callback_is_refused():
    op = "spp_ext.swap.replace_pooling_in_training"
    with pytest.raises(TypeError, match=f"^{op}: expected yolo to be an ultralytics.YOLO, got Linear$"):
        replace_pooling_in_training(nn.Linear(1, 1))
    with pytest.raises(TypeError, match=f"^{op}: expected report to be a function, got 3$"):
        replace_pooling_in_training(Wrapper(), 3)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_yolo_trains_as_before(tmp_path, monkeypatch):
    import cv2
    import ultralytics

    monkeypatch.chdir(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / "data" / "images" / f"{i}.png"), picture)
        (tmp_path / "data" / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}/data\ntrain: images\nval: images\nnames: [thing]\n")

    def train(name, swap):
        yolo, reports = ultralytics.YOLO("yolov8n.yaml"), []
        if swap:
            replace_pooling_in_training(yolo, reports.append)
        yolo.train(
            **{"data": str(tmp_path / "data.yaml"), "project": str(tmp_path), "name": name, "seed": 0, "device": "cpu"},
            **{
                "epochs": 1,
                "imgsz": 32,
                "batch": 2,
                "workers": 0,
                "amp": False,
                "plots": False,
                "verbose": False,
                "optimizer": "SGD",
            },
        )
        return yolo, reports

    plain, _ = train("plain", False)
    swapped, (report,) = train("swapped", True)
    assert [(row.kind, row.replacement) for row in report.swapped] == [("SPPF", "FusedSPPF")]
    assert type(report.model.model[9]).__name__ == "FusedSPPF" and report.model is swapped.trainer.model
    assert type(swapped.model.model[9]).__name__ == "SPPF"  # loaded from the checkpoint, which needs no spp_ext
    for ours, theirs in zip(swapped.trainer.model.parameters(), plain.trainer.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
