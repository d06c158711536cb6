"""Swaps the pooling of a YOLO for this package's: `python examples/yolo_pooling.py [yolov8n.yaml]`.

With the name of a definition the model is Ultralytics' own, with random weights (`pip install ultralytics`); without,
a small network with the blocks of several YOLOs, which needs nothing. What is swapped is found by how a block pools,
not by its name, and outputs and gradients stay as they are.
"""

import sys

import torch
from torch import nn
from torch.utils.benchmark import Timer

import spp_ext


def keeps_size(kernel_size: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size, stride=1, padding=kernel_size // 2)


class SPP(nn.Module):
    """Three pools of one map, side by side, as in YOLOv3-SPP, YOLOv4 and YOLOv5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(channels, channels // 2, 1)
        self.m = nn.ModuleList([keeps_size(k) for k in (5, 9, 13)])
        self.cv2 = nn.Conv2d(channels * 2, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x] + [m(x) for m in self.m], 1))


class SPPF(nn.Module):
    """One pool three times in cascade, as in YOLOv5 to YOLO11."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(channels, channels // 2, 1)
        self.m = keeps_size(5)
        self.cv2 = nn.Conv2d(channels * 2, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = [self.cv1(x)]
        y.extend(self.m(y[-1]) for _ in range(3))
        return self.cv2(torch.cat(y, 1))


def build(definition: str | None) -> nn.Module:
    if definition is not None:
        from ultralytics.nn.tasks import DetectionModel

        return DetectionModel(definition, verbose=False)
    stem = [nn.Conv2d(3, 128, 3, stride=2, padding=1), nn.SiLU(), nn.MaxPool2d(2), nn.MaxPool2d(4)]
    return nn.Sequential(*stem, SPP(128), SPPF(128), nn.AdaptiveMaxPool2d(3))


def first_tensor(output: object) -> torch.Tensor:
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


@torch.no_grad()
def milliseconds(model: nn.Module, image: torch.Tensor) -> float:
    timer = Timer("model(image)", globals={"model": model, "image": image}, num_threads=torch.get_num_threads())
    return 1000 * timer.blocked_autorange().median


def main() -> None:
    torch.manual_seed(0)
    model = build(sys.argv[1] if len(sys.argv) > 1 else None).eval()
    report = spp_ext.replace_pooling(model, inplace=False)
    print(report)

    image = torch.rand(1, 3, 320, 320)
    before, after = first_tensor(model(image)), first_tensor(report.model(image))
    assert torch.equal(before, after), "the outputs differ"
    assert list(report.model.state_dict()) == list(model.state_dict())
    print(f"outputs {list(after.shape)} are equal, bit for bit")
    print(f"whole model: {milliseconds(model, image):.1f} ms before, {milliseconds(report.model, image):.1f} ms after")


if __name__ == "__main__":
    main()
