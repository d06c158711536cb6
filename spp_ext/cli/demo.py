"""``python -m spp_ext demo``: pools a photograph and thousands of its regions, checks, times and draws it.

The features come from a small untrained network: the op cares about their shape, not about their meaning.
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import spp_ext
from spp_ext import reference
from spp_ext._torch import library as _library

from .composition import STRIDE, compose, compose_indices, loop_over_slices, propose_regions
from .tables import as_text
from .timing import interleaved_samples

CHANNELS = 256
LEVELS = (1, 2, 3, 6)
LARGEST_SIDE = 1280  # pixels; larger photos are shrunk, to keep the demo short
PHOTO = "china.jpg"  # one of the two that scikit-learn ships

# The reference is slow, so the checks compare only so many regions and channels with it.
SAMPLED_REGIONS = 100
SAMPLED_CHANNELS = 16


class Unable(Exception):
    """The demo cannot go on; the message says why, in one sentence."""


# ---- inputs ------------------------------------------------------------------------------------------------


def require(*modules: str) -> None:
    """Raises `Unable` with the remedy if one of the demo's own dependencies is missing."""
    packages = {"matplotlib": "matplotlib", "PIL": "pillow", "sklearn": "scikit-learn"}
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            message = f"the demo needs {packages[module]}, which does not import ({error})"
            raise Unable(f"{message}: pip install 'spp_ext[demo]' brings it.") from error


def load_photo(path: str | None) -> tuple[str, np.ndarray]:
    """The name and the pixels, uint8 ``[rows, columns, 3]``, of a file or of scikit-learn's photograph."""
    require("PIL")
    from PIL import Image

    if path is None:
        require("sklearn")
        from sklearn.datasets import load_sample_image

        return PHOTO, np.array(load_sample_image(PHOTO))
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise Unable(f"the image could not be read: {error}.") from error
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return os.path.basename(path), np.array(image)


def extract_features(photo: np.ndarray, seed: int) -> Tensor:
    """``[1, CHANNELS, H, W]`` from an untrained stack of four convolutions, a cell for 16 x 16 pixels."""
    widths = [3, 32, 64, 128, CHANNELS]
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for narrow, wide in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.ReLU()]
    image = torch.from_numpy(photo).permute(2, 0, 1).float().div(255).sub(0.5).div(0.25)
    with torch.no_grad():
        return nn.Sequential(*layers)(image[None])


# ---- checks ------------------------------------------------------------------------------------------------


class Checks:
    """Prints one line per check and remembers whether all were ok."""

    def __init__(self) -> None:
        self.ok = True

    def add(self, what: str, got: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """Compares tensors by equality."""
        ok = all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        self.ok &= ok
        print(f"  {'ok      ' if ok else 'MISMATCH'}  {what}")


def check_map(checks: Checks, features: Tensor, values: Tensor, argmax: Tensor) -> None:
    """The photo's own map against torch's composition, everywhere."""
    count = f"{values.numel():,}"
    checks.add(f"whole map: {count} values equal torch's composition", [values], [compose(features, LEVELS)])
    expected = compose_indices(features, LEVELS)
    checks.add(f"whole map: {count} argmax equal torch's composition", [argmax], [expected])


def check_regions(checks: Checks, features: Tensor, boxes: Tensor) -> None:
    """All regions, under every convention, against the reference on a sample of them."""
    count = min(SAMPLED_REGIONS, len(boxes))
    rows = torch.linspace(0, len(boxes) - 1, count).long()
    channels = torch.arange(0, CHANNELS, CHANNELS // SAMPLED_CHANNELS)
    few = features[:, channels]
    for name in reference.CONVENTIONS:
        pooled = spp_ext.roi_spatial_pyramid_pool(
            features, boxes, LEVELS, 1 / STRIDE, convention=name, return_indices=True
        )
        got = []
        for tensor in pooled:
            levels = spp_ext.split_levels(tensor[rows], LEVELS)
            got.append(torch.cat([level[:, channels].flatten(1) for level in levels], 1))
        expected = reference.roi_spatial_pyramid_pool(
            few, boxes[rows], LEVELS, 1 / STRIDE, convention=name, return_indices=True
        )
        what = f"values and argmax of {count} regions x {len(channels)} channels equal the reference"
        checks.add(f'regions, "{name}": {what}', got, expected)


# ---- times -------------------------------------------------------------------------------------------------


class Times:
    """Checks and times op and composition side by side, and collects the rows of a table."""

    def __init__(self, checks: Checks) -> None:
        self.checks = checks
        self.rows = [("", "N x C x H x W", "spp_ext", "torch", "speed-up", "floor", "to floor")]
        self.noisy = False

    def _add(self, name: str, shape: Sequence[int], samples: dict[str, list[float]]) -> None:
        ours, theirs, floor = (statistics.median(samples[who]) for who in ("spp_ext", "torch", "floor"))
        self.noisy |= any(statistics.median(times) > 3 * min(times) for times in samples.values())
        row = (f"{ours * 1e3:.3f}", f"{theirs * 1e3:.3f}", f"{theirs / ours:.1f} x")
        self.rows.append((name, _by(shape), *row, f"{floor * 1e3:.3f}", f"{ours / floor:.1f} x"))

    def add_map(self, name: str, input: Tensor) -> None:
        """The whole map ``[N, C, H, W]``."""
        got, expected = spp_ext.spatial_pyramid_pool(input, LEVELS), compose(input, LEVELS)
        self.checks.add(f"the timed {_by(input.shape)} equals torch's composition", [got], [expected])
        functions = {
            "spp_ext": lambda: spp_ext.spatial_pyramid_pool(input, LEVELS),
            "torch": lambda: compose(input, LEVELS),
            "floor": lambda: input.amax((2, 3)),
        }
        self._add(name, input.shape, interleaved_samples(functions, turns=21, seconds=0.6))

    def add_regions(self, input: Tensor, count: int, seed: int) -> None:
        """``count`` regions of ``input [1, C, H, W]``."""
        height, width = input.shape[2:]
        boxes = propose_regions(count, height * STRIDE, width * STRIDE, seed)
        # "outer" windows of boxes inside the image are slices of the map: both sides compute the same.
        windows = [
            reference.roi_window(box, 1 / STRIDE, "outer", height, width, np.float32) for box in boxes[:, 1:].numpy()
        ]

        def pool() -> Tensor:
            return spp_ext.roi_spatial_pyramid_pool(input, boxes, LEVELS, 1 / STRIDE, convention="outer")

        expected = loop_over_slices(input, windows, LEVELS)
        size = tuple(expected.shape)
        self.checks.add(f"the timed {count:,} regions equal looping torch slices", [pool()], [expected])
        del expected
        functions = {
            "spp_ext": pool,
            "torch": lambda: loop_over_slices(input, windows, LEVELS),
            "floor": lambda: torch.full(size, 1.0),
        }
        self._add(f"{count:,} regions of", input.shape, interleaved_samples(functions, turns=5, seconds=0.15))

    def print(self) -> None:
        """The table, and what its columns mean."""
        threads = torch.get_num_threads()
        print(f"\ntimes in milliseconds, medians of interleaved runs, torch.get_num_threads() = {threads}")
        print(f"float32, contiguous, levels {LEVELS}, no gradient")
        print(textwrap.indent(as_text(self.rows, left=2), "  "))
        print("  torch     maps: F.adaptive_max_pool2d at each level, cat; regions: the same, slice by slice")
        print("  speed-up  torch / spp_ext")
        print("  floor     maps: input.amax((2, 3)), one read; regions: torch.full of the output, one write")
        print("  to floor  spp_ext / floor")
        if self.noisy:
            print("  The times varied much: other programs are busy here. Run it again when they are done.")


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def take_times(checks: Checks, features: Tensor, regions: int, seed: int) -> Times:
    """The photo's map, two fixed maps, and regions of a third."""
    generator = torch.Generator().manual_seed(seed)
    times = Times(checks)
    times.add_map("map of this photo", features)
    for shape in ((1, CHANNELS, 40, 60), (8, 512, 32, 32)):
        times.add_map("map", torch.randn(shape, generator=generator))
    times.add_regions(torch.randn(1, CHANNELS, 38, 50, generator=generator), regions, seed)
    return times


# ---- the command -------------------------------------------------------------------------------------------


def _numpy_levels(tensor: Tensor) -> list[np.ndarray]:
    """One image's pooled vector as a list of ``[C, n, n]``."""
    return [level[0].numpy() for level in spp_ext.split_levels(tensor, LEVELS)]


def _demonstrate(image: str | None, output: str, regions: int, seed: int) -> bool:
    from . import picture

    name, photo = load_photo(image)
    rows, columns = photo.shape[:2]
    features = extract_features(photo, seed)
    height, width = features.shape[2:]
    # The picture's three boxes come first, so that they are among those that are pooled and checked.
    examples = [[0.0, *box] for box in picture.example_boxes(height, width)]
    proposals = propose_regions(regions, rows, columns, seed)
    boxes = torch.cat([torch.tensor(examples) * STRIDE, proposals])[:regions]

    values, argmax = spp_ext.spatial_pyramid_pool(features, LEVELS, return_indices=True)
    pooled = spp_ext.roi_spatial_pyramid_pool(features, boxes, LEVELS, 1 / STRIDE)
    bins = sum(level * level for level in LEVELS)
    print(f"photo      {name}, {columns} x {rows} pixels")
    print(f"features   {list(features.shape)}, stride {STRIDE}, from an untrained network")
    print(f"whole map  levels {LEVELS}, {bins} bins: {list(features.shape)} -> {list(values.shape)}")
    print(f"regions    {regions:,} boxes of the photo: {list(boxes.shape)} -> {list(pooled.shape)}")

    print("\nchecks, all by equality")
    checks = Checks()
    check_map(checks, features, values, argmax)
    check_regions(checks, features, boxes)
    take_times(checks, features, regions, seed).print()

    levels = list(zip(_numpy_levels(values), _numpy_levels(argmax), strict=True))
    picture.demo_figure(output, photo, features[0].numpy(), levels, STRIDE)
    print(f"\npicture    {output}")
    if not checks.ok:
        print("\nMISMATCH: at least one check above failed.", file=sys.stderr)
    return checks.ok


def run(image: str | None, output: str, regions: int, seed: int, conventions: str | None) -> int:
    """Runs the demo and returns its exit status: 0, or 1 if a check failed or something is missing.

    Args:
        image: the photo's path; None for the one that scikit-learn ships.
        output: the path of the picture.
        regions: how many regions.
        seed: of the network, the regions and the timed inputs.
        conventions: if given, only the picture of the region conventions is written, to this path.
    """
    try:
        path = output if conventions is None else conventions
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise Unable(f"there is no folder to write {path} into.")
        require("matplotlib")
        try:
            from . import picture
        except ImportError as error:
            raise Unable(f"spp_ext's built module, which the pictures need, is missing: {error}.") from error

        if conventions is not None:
            _, photo = load_photo(image)
            picture.conventions_figure(path, photo, STRIDE)
            print(f"picture    {path}")
            return 0
        failure = _library.load_error()
        if failure is not None:
            raise Unable(f"the op library did not load. {' '.join(str(failure).split())}")
        with torch.no_grad():
            return 0 if _demonstrate(image, path, regions, seed) else 1
    except (Unable, OSError) as problem:
        print(f"spp_ext demo: {problem}", file=sys.stderr)
    return 1
