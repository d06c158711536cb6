"""Exports a detector's head to ONNX with any number of images and boxes of any size, and runs it in onnxruntime.

Needs ``pip install onnx onnxscript onnxruntime``. ``python examples/export_onnx.py [model.onnx]``.
"""

import sys

import torch
from torch import Tensor, nn

import spp_ext
import spp_ext.onnx


class Detector(nn.Module):
    """Scores of a whole image, and of regions of it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4, padding=1), nn.ReLU())
        self.pool_image = spp_ext.SpatialPyramidPool((1, 2, 3, 6))
        self.pool_regions = spp_ext.RoISpatialPyramidPool((1, 2, 3, 6), spatial_scale=1 / 4)
        self.head = nn.Linear(16 * 50, 20)

    def forward(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self.head(self.pool_image(features)), self.head(self.pool_regions(features, boxes))


def main() -> None:
    import onnxruntime

    torch.manual_seed(0)
    model = Detector().eval()
    path = sys.argv[1] if len(sys.argv) > 1 else "detector.onnx"
    boxes = torch.tensor([[0.0, 10, 10, 60, 50], [1, 0, 0, 95, 63]])
    any_size = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        model,
        (torch.randn(2, 3, 64, 96), boxes),
        dynamo=True,
        dynamic_shapes=({0: any_size, 2: any_size, 3: any_size}, {0: any_size}),
        custom_translation_table=spp_ext.onnx.translations(),
    )
    program.save(path)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    for images, regions in ((torch.randn(1, 3, 120, 75), boxes[:1]), (torch.randn(3, 3, 333, 500), boxes.repeat(9, 1))):
        got = session.run(None, dict(zip(names, (images.numpy(), regions.numpy()), strict=True)))
        with torch.no_grad():
            expected = model(images, regions)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(one), other, rtol=1e-4, atol=1e-4)
        print(f"{list(images.shape)}, {len(regions)} regions: the same scores as in torch")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
