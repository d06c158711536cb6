"""Models of torchvision and ultralytics are captured after a swap as before: the same tools, the same values."""

from pathlib import Path

import pytest
import torch
from support import assert_same
from torch import nn

from spp_ext import replace_pooling, restore_pooling

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # of the exporters, about themselves
]

SIZE = 64


def test_features_of_a_swapped_resnet():
    import torchvision
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.manual_seed(0)
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.randn(2, 3, SIZE, 96)
    model.avgpool = nn.AdaptiveMaxPool2d(1)
    nodes = ["layer3", "avgpool", "fc"]
    expected = create_feature_extractor(model, nodes)(x)
    assert len(replace_pooling(model).swapped) == 1
    features = create_feature_extractor(model, nodes)(x)
    assert_same([features[node] for node in nodes], [expected[node] for node in nodes])


def yolo(file):
    """ultralytics' YOLOv8, of the same weights at every call, as if it came from ``file``: exports lie beside it."""
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO("yolov8n.yaml", verbose=False)
    model.model.pt_path = str(file)
    return model


def run_onnx(file, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def run_openvino(folder, x):
    import openvino

    (file,) = folder.glob("*.xml")
    return openvino.Core().compile_model(file, "CPU")(x.numpy())[0]


def run_torchscript(file, x):
    return torch.jit.load(file)(x).detach().numpy()


RUN = {"onnx": run_onnx, "openvino": run_openvino, "torchscript": run_torchscript}


@pytest.mark.parametrize("format", RUN)
def test_a_swapped_yolo_is_exported_as_before(format, tmp_path):
    x = torch.rand(1, 3, SIZE, SIZE)
    results = []
    for name in ("before", "after"):
        model = yolo(tmp_path / f"{name}.pt")
        if name == "after":
            (row,) = replace_pooling(model.model).swapped
            assert row.kind == "SPPF"
        file = Path(model.export(format=format, imgsz=SIZE, **({"simplify": False} if format == "onnx" else {})))
        assert file.is_relative_to(tmp_path)
        results.append(torch.from_numpy(RUN[format](file, x)))
    assert_same(results[1], results[0])


def test_openvino_converts_a_swapped_model():
    import openvino
    from ultralytics.nn.modules import SPPF

    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Conv2d(3, 8, 3), SPPF(8, 8), nn.AdaptiveMaxPool2d((3, 2))).eval(),
        torch.rand(1, 3, 40, 36),
    )
    expected = openvino.compile_model(openvino.convert_model(model, example_input=x), "CPU")(x.numpy())[0]
    assert len(replace_pooling(model).swapped) == 2
    got = openvino.compile_model(openvino.convert_model(model, example_input=x), "CPU")(x.numpy())[0]
    assert (got == expected).all()
    with pytest.raises(RuntimeError, match="restore_pooling before torch.jit.script"):
        openvino.convert_model(model)  # which compiles the model where it has no example


def test_a_roi_pool_of_torchvision_is_exported_as_before(tmp_path):
    import torchvision

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = torchvision.ops.RoIPool((3, 2), 0.5)

        def forward(self, x, rois):
            return self.pool(x, rois)

    import onnxruntime

    model = Head()
    x, rois = torch.randn(2, 3, 20, 24), torch.tensor([[0.0, 1, 2, 30, 31], [1, 4, 0, 9, 47], [1, 100, 0, 110, 9]])
    results = [model(x, rois)]
    for swapped in (False, True):
        if swapped:
            assert len(replace_pooling(model).swapped) == 1
        file = tmp_path / f"{swapped}.onnx"
        torch.onnx.export(model, (x, rois), file, dynamo=False, input_names=["x", "rois"])
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        results.append(torch.from_numpy(session.run(None, {"x": x.numpy(), "rois": rois.numpy()})[0]))
    assert_same(results[1:], results[:1] * 2)
    restore_pooling(model)
    assert type(model.pool) is torchvision.ops.RoIPool
