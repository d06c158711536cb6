"""A classifier that takes images of any size: no resizing, no cropping, one weight matrix.

Trains a small network to tell horizontal from vertical stripes on images of a new size every batch, and tests it on
sizes it never saw. ``python examples/any_size_classifier.py`` takes a few seconds.
"""

import torch
from torch import Tensor, nn

import spp_ext


def striped(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Noisy images ``[N, 1, H, W]`` of stripes, and 1 where they run down."""
    vertical = torch.randint(2, (count,))
    along = torch.where(vertical[:, None, None] == 1, torch.arange(width), torch.arange(height)[:, None])
    phase, period = torch.rand(count, 1, 1) * 6.3, 4 + 4 * torch.rand(count, 1, 1)
    return ((along * 6.3 / period + phase).sin() + 0.5 * torch.randn(count, height, width))[:, None], vertical


def main() -> None:
    torch.manual_seed(0)
    pool = spp_ext.SpatialPyramidPool((1, 2, 3))
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5),
        nn.ReLU(),
        pool,
        nn.Linear(16 * pool.bins, 2),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(120):
        height, width = torch.randint(24, 65, (2,)).tolist()
        images, labels = striped(32, height, width)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 0:
            print(f"step {step}, {height} x {width}: loss {loss.item():.3f}")

    with torch.no_grad():
        for height, width in ((24, 24), (31, 90), (150, 40), (200, 200)):
            images, labels = striped(64, height, width)
            accuracy = (model(images).argmax(1) == labels).float().mean().item()
            print(f"{height} x {width}: {accuracy:.0%} right")
            assert accuracy > 0.8, "the classifier should have learned this"


if __name__ == "__main__":
    main()
