"""Pictures to learn from: scikit-learn's handwritten digits, written over pieces of its two photographs.

A picture holds one digit that fills most of it, a scene a few of many sizes with their boxes. The digits come from
13 people and the photographs are two, so training and testing share neither a digit nor a piece of photograph: the
first three quarters of the digits (in the order in which people wrote them) and the left three fifths of each
photograph are for training, the rest is for testing.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

from spp_ext.models import Truth, box_iou

CLASSES = 10
TRAINING_DIGITS, TRAINING_COLUMNS = 0.75, 0.6


@dataclass
class Sources:
    """The digits and photographs that the pictures of one split are made of."""

    digits: list[Tensor]  # the ink of each, 0 to 1, [rows, columns], cropped to the digit
    labels: Tensor  # [N]
    photographs: list[Tensor]  # [3, rows, columns], 0 to 1


def _sharpened(digit: Tensor) -> Tensor:
    """Enlarges a digit of 8 x 8 eight times, gives its ink a sharp edge and cuts off the margins."""
    digit = F.pad(digit, (1, 1, 1, 1))
    ink = F.interpolate(digit[None, None], scale_factor=8, mode="bicubic", align_corners=False)[0, 0]
    ink = ((ink - 0.35) * 4).clamp(0, 1)
    rows, columns = (ink > 0.5).any(1).nonzero(), (ink > 0.5).any(0).nonzero()
    return ink[rows[0, 0] : rows[-1, 0] + 1, columns[0, 0] : columns[-1, 0] + 1]


def sources(training: bool) -> Sources:
    digits = load_digits()
    first = int(len(digits.images) * TRAINING_DIGITS)
    part = slice(None, first) if training else slice(first, None)
    images = torch.from_numpy(digits.images[part]).float().div(16)
    photographs = []
    for photograph in load_sample_images().images:
        columns = int(photograph.shape[1] * TRAINING_COLUMNS)
        half = photograph[:, :columns] if training else photograph[:, columns:]
        photographs.append(torch.from_numpy(np.ascontiguousarray(half)).permute(2, 0, 1).float().div(255))
    return Sources([_sharpened(image) for image in images], torch.from_numpy(digits.target[part]).long(), photographs)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _background(source: Sources, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A piece of a photograph, enlarged up to twice, at random mirrored, ``[3, height, width]``."""
    photograph = source.photographs[int(torch.randint(len(source.photographs), (), generator=generator))]
    rows, columns = photograph.shape[1:]
    shrink = min(1.0, rows / height, columns / width) * _uniform(generator, 0.5, 1).item()
    h, w = int(height * shrink), int(width * shrink)
    top = int(torch.randint(rows - h + 1, (), generator=generator))
    left = int(torch.randint(columns - w + 1, (), generator=generator))
    piece = photograph[None, :, top : top + h, left : left + w]
    piece = F.interpolate(piece, (height, width), mode="bilinear", align_corners=False)[0]
    piece = piece * _uniform(generator, 0.3, 0.8).item()  # so that it is darker than the ink
    return piece.flip(2) if torch.rand((), generator=generator) < 0.5 else piece


def _write(
    canvas: Tensor, digit: Tensor, tall: int, generator: torch.Generator, avoid: Tensor | None = None
) -> Tensor | None:
    """Writes a digit ``tall`` pixels high somewhere over ``canvas [3, H, W]``, and returns its box ``[1, 4]``.

    None, and nothing written, if it would come to lie over one of the boxes to avoid.
    """
    stretch = _uniform(generator, 0.85, 1.2).item()
    wide = min(canvas.shape[2], max(4, round(tall * stretch * digit.shape[1] / digit.shape[0])))
    left = int(torch.randint(canvas.shape[2] - wide + 1, (), generator=generator))
    top = int(torch.randint(canvas.shape[1] - tall + 1, (), generator=generator))
    box = torch.tensor([[left, top, left + wide, top + tall]], dtype=torch.float32)
    if avoid is not None and len(avoid) and box_iou(box, avoid).max() > 0.02:
        return None
    ink = F.interpolate(digit[None, None], (tall, wide), mode="bilinear", align_corners=False, antialias=True)[0]
    under = canvas[:, top : top + tall, left : left + wide]
    colour = _uniform(generator, 0.6, 1, 3, 1, 1)
    under += _uniform(generator, 0.6, 1).item() * ink * (colour - under)
    return box


def _finish(canvas: Tensor, generator: torch.Generator) -> Tensor:
    noisy = canvas + 0.03 * torch.randn(canvas.shape, generator=generator)
    return noisy.clamp(0, 1).mul(255).round().to(torch.uint8)


def pictures(source: Sources, count: int, height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of one digit each, uint8 ``[count, 3, height, width]``, and which digit it is.

    A digit is 75 to 100% as high as the picture's shorter side.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat(
        [torch.randperm(len(source.digits), generator=generator) for _ in range(-(-count // len(source.digits)))]
    )
    images = torch.empty(count, 3, height, width, dtype=torch.uint8)
    for image, index in zip(images, order, strict=False):
        canvas = _background(source, height, width, generator)
        tall = int(min(height, width) * _uniform(generator, 0.75, 1).item())
        _write(canvas, source.digits[index], tall, generator)
        image.copy_(_finish(canvas, generator))
    return images, source.labels[order[:count]]


def normalised(images: Tensor) -> Tensor:
    """Pixels 0 to 255 as a network takes them: float32, with a mean near 0 and a deviation near 1."""
    return images.float().sub(120).div(60)


# ---- scenes ------------------------------------------------------------------------------------------------


def scenes(source: Sources, count: int, height: int, width: int, seed: int) -> tuple[list[Tensor], list[Truth]]:
    """Scenes of two to five digits that overlap little, uint8 ``[3, height, width]`` each, and where they are.

    A digit is 1/6 to 2/3 as high as the scene, small ones and large ones alike often.
    """
    generator = torch.Generator().manual_seed(seed)
    images, truths = [], []
    for _ in range(count):
        canvas = _background(source, height, width, generator)
        boxes, labels = torch.empty(0, 4), []
        wanted = int(torch.randint(2, 6, (), generator=generator))
        for _ in range(50):  # a digit that would cover another one is not written, so give up at some time
            if len(labels) == wanted:
                break
            tall = int(height / 6 * 4 ** _uniform(generator, 0, 1).item())
            index = int(torch.randint(len(source.digits), (), generator=generator))
            box = _write(canvas, source.digits[index], tall, generator, avoid=boxes)
            if box is not None:
                boxes = torch.cat([boxes, box])
                labels.append(int(source.labels[index]))
        images.append(_finish(canvas, generator))
        truths.append(Truth(boxes, torch.tensor(labels)))
    return images, truths
