"""A classifier that takes images of any size: no resizing, no cropping, one weight matrix.

First a classifier that was trained at one size, and takes no other, is turned into one of any size: the pool before its
fully-connected layer becomes a pyramid of as many bins. Nothing is trained again, and at the old size nothing changes.
Then one is trained with a pyramid from the start, on images of a new size every batch.

Both tell horizontal from vertical stripes. ``python examples/any_size_classifier.py`` takes a few seconds.
"""

import copy

import torch
from torch import Tensor, nn

import spp_ext

SIZE = 32  # pixels of a side, for the classifier that takes one size
OTHERS = ((24, 24), (31, 90), (150, 40), (200, 200))


def striped(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Noisy images ``[N, 1, H, W]`` of stripes, and 1 where they run down."""
    vertical = torch.randint(2, (count,))
    along = torch.where(vertical[:, None, None] == 1, torch.arange(width), torch.arange(height)[:, None])
    phase, period = torch.rand(count, 1, 1) * 6.3, 4 + 4 * torch.rand(count, 1, 1)
    return ((along * 6.3 / period + phase).sin() + 2 * torch.randn(count, height, width))[:, None], vertical


def train(model: nn.Module, smallest: int, largest: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(120):
        height, width = torch.randint(smallest, largest + 1, (2,)).tolist()
        images, labels = striped(32, height, width)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 0:
            print(f"  step {step}, {height} x {width}: loss {loss.item():.3f}")


@torch.no_grad()
def test(model: nn.Module, height: int, width: int) -> None:
    images, labels = striped(64, height, width)
    accuracy = (model(images).argmax(1) == labels).float().mean().item()
    print(f"  {height} x {width}: {accuracy:.0%} right")
    assert accuracy > 0.8, "the classifier should have learned this"


def convolutions() -> list[nn.Module]:
    return [nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU()]


def main() -> None:
    torch.manual_seed(0)
    print(f"a classifier for {SIZE} x {SIZE} pixels: 12 x 12 cells, pooled to 6 x 6, flattened")
    fixed = nn.Sequential(*convolutions(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 6 * 6, 2))
    train(fixed, SIZE, SIZE)
    test(fixed, SIZE, SIZE)

    # On 12 x 12 cells, 6 x 6 bins equal MaxPool2d(2), and the module flattens as Flatten does.
    print("the same weights behind 6 x 6 bins")
    any_size = copy.deepcopy(fixed)
    any_size[5] = spp_ext.SpatialPyramidPool((6,))
    any_size[6] = nn.Identity()

    images, _ = striped(64, SIZE, SIZE)
    assert torch.equal(any_size(images), fixed(images)), "at the size of training nothing should change"
    try:
        fixed(striped(1, 24, 24)[0])
    except RuntimeError as error:
        print(f"  24 x 24 before: {str(error).splitlines()[0]}")
    for height, width in OTHERS:
        test(any_size, height, width)

    print("a classifier with a pyramid from the start")
    pool = spp_ext.SpatialPyramidPool((1, 2, 3))
    model = nn.Sequential(*convolutions(), pool, nn.Linear(16 * pool.bins, 2))
    train(model, 24, 64)
    for height, width in OTHERS:
        test(model, height, width)


if __name__ == "__main__":
    main()
