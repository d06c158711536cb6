"""Models of ultralytics and torchvision compute the same after `replace_pooling`."""

import pytest
import torch
from pooling_models import save_and_load
from support import assert_same, integers
from torch import nn

import spp_ext
from spp_ext import replace_pooling

pytestmark = pytest.mark.peers

YOLOS = {
    "yolov3-spp.yaml": "SPP",
    "yolov5n.yaml": "SPPF",
    "yolov8n.yaml": "SPPF",
    "yolov9t.yaml": "SPPELAN",
    "yolo11n.yaml": "SPPF",
}


@pytest.mark.parametrize("definition", YOLOS)
def test_a_real_yolo_computes_the_same(definition):
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(definition, verbose=False)
    report = replace_pooling(model, inplace=False)
    assert [row.kind for row in report.swapped] == [YOLOS[definition]]
    assert list(report.model.state_dict()) == list(model.state_dict())
    x = torch.rand(1, 3, 128, 160)
    for swapped, original in zip(head(report.model, x), head(model, x), strict=True):
        assert_same(swapped, original)
    assert_same(report.model.eval()(x)[0], model.eval()(x)[0])
    again = save_and_load(report.model)
    assert_same(again(x)[0], model(x)[0])

    small = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    for module in (model.double().train(), report.model.double().train()):
        sum(part.square().sum() for part in head(module, small)).backward()
    for ours, theirs in zip(report.model.parameters(), model.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-8 * float(theirs.grad.abs().max()))


def head(model, x):
    """What the heads of a model in training return, as a list of tensors."""
    found = []

    def collect(value):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            for item in value.values():
                collect(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                collect(item)

    training = model.training
    collect(model.train()(x))
    model.train(training)
    return found


def test_a_torchvision_roi_pool_is_swapped():
    import torchvision

    model = nn.ModuleDict({"pool": torchvision.ops.RoIPool(7, 1 / 16)})
    x = integers([2, 3, 38, 50], torch.float32)
    boxes = [torch.tensor([[32.0, 48, 200, 300]]), torch.tensor([[0.0, 0, 799, 599]])]
    expected = model["pool"](x, boxes)
    assert len(replace_pooling(model).swapped) == 1
    assert type(model["pool"]) is spp_ext.ops.RoIPool
    assert_same(model["pool"](x, boxes), expected)
