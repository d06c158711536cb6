"""Features of regions for a detector: `python examples/region_features.py`.

A two-stage detector computes one feature map of an image and describes each proposed box by pooling the map under it.
Here 2,000 boxes are pooled in one call, once as Fast R-CNN does (7 x 7 bins, torchvision's `roi_pool`) and once over
the pyramid of SPP-net, and a linear head on top is trained a few steps, gradients flowing through the pooling.
"""

import torch
from torch import nn

import spp_ext


def random_boxes(count: int, width: int, height: int) -> torch.Tensor:
    corners = torch.rand(count, 2, 2) * torch.tensor([width, height])
    return torch.cat([corners.amin(1), corners.amax(1)], 1)  # x1, y1, x2, y2 in image pixels


class Detector(nn.Module):
    def __init__(self, pool: nn.Module, features_per_channel: int) -> None:
        super().__init__()
        layers = [
            nn.Conv2d(3, 16, 5, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=4, padding=2),
            nn.ReLU(),
        ]
        self.backbone = nn.Sequential(*layers)
        self.pool = pool
        self.head = nn.Linear(32 * features_per_channel, 2)

    def forward(self, images: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
        return self.head(self.pool(self.backbone(images), boxes).flatten(1))


def train(name: str, model: Detector, images: torch.Tensor, boxes: list[torch.Tensor]) -> None:
    # A made-up task that needs the region: is the box taller than wide?
    sides = torch.cat([box[:, 2:] - box[:, :2] for box in boxes])
    labels = (sides[:, 1] > sides[:, 0]).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(images, boxes), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], "the loss did not fall"
    print(f"{name}: {len(labels)} boxes, loss {losses[0]:.3f} -> {losses[-1]:.3f}")


def main() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 320, 480)
    boxes = [random_boxes(1000, 480, 320) for _ in images]  # a tensor of boxes for each image

    fast_rcnn = spp_ext.ops.RoIPool(7, spatial_scale=1 / 16)
    train("Fast R-CNN, 7 x 7 bins", Detector(fast_rcnn, 49), images, boxes)

    spp_net = spp_ext.RoISpatialPyramidPool((6, 3, 2, 1), spatial_scale=1 / 16, convention="spp_net")
    train("SPP-net, 50 bins", Detector(spp_net, 50), images, boxes)

    bfloat16 = fast_rcnn(torch.rand(2, 32, 20, 30, dtype=torch.bfloat16), boxes)  # boxes stay in float32
    print(f"features of bfloat16 maps: {list(bfloat16.shape)} {bfloat16.dtype}")


if __name__ == "__main__":
    main()
