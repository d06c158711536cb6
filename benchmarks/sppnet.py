"""``python -m benchmarks sppnet``: R-CNN against SPP-net, per image, as in table 10 of He et al. 2014.

The network is ZF-5 at its full width with random weights, the image has 500 x 375 pixels and 2,000 proposals.

    R-CNN      conv1 to conv5 of every proposal, warped to 227 x 227; on the CPU of a sample, its time scaled up
    SPP-net    conv1 to conv5 of the image at one scale (688) or at five; then the pyramids of the proposals, with the
               choice of a scale for each and the search for those that cover the same cells
    both       fc6 and fc7 of 2,000 regions, which the paper counts alike for both

Times are of what begins and ends on the device: neither warping nor resizing is counted, as in the paper. The choice of
scales waits for the GPU, so a step's time there runs from the call to the end of its work, the host's part included.
The paper does not tell the time of pooling; here it has a row of its own, and ratios are given without it and with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spp_ext import models
from spp_ext._progress import progress
from spp_ext.cli.composition import propose_regions
from spp_ext.cli.tables import as_text
from spp_ext.cli.timing import interleaved_samples, spread
from spp_ext.models.detector import Maps

from . import measure, report
from .report import Result

ROWS, COLUMNS, REGIONS, WARPED = 375, 500, 2000, 227
BATCH = {"cpu": 16, "cuda": 200}  # warped regions that the network takes in one call
SAMPLED = {"cpu": 32, "cuda": REGIONS}  # warped regions that are measured, of REGIONS
SCALES = {"1 scale": models.ONE_SCALE, "5 scales": models.FIVE_SCALES}

RCNN, FC = "R-CNN, conv", "fc"
PAPER = {RCNN: 14.37, "1 scale, conv": 0.053, "5 scales, conv": 0.293, FC: 0.089}  # seconds on a GeForce GTX Titan
PAPER_RATIOS = {"1 scale, conv": 270, "5 scales, conv": 49, "1 scale, conv + fc": 102, "5 scales, conv + fc": 38}


def ratios(times: Mapping[str, float]) -> dict[str, float]:
    """R-CNN's time / SPP-net's: of the convolutions, with fc, and with fc and pooling, where R-CNN has none."""
    found = {}
    for name in SCALES:
        conv, pooling = times[f"{name}, conv"], times.get(f"{name}, pooling")
        found[f"{name}, conv"] = times[RCNN] / conv
        found[f"{name}, conv + fc"] = (times[RCNN] + times[FC]) / (conv + times[FC])
        if pooling is not None:
            found[f"{name}, conv + pooling + fc"] = (times[RCNN] + times[FC]) / (conv + pooling + times[FC])
    return found


def resized(scale: int) -> tuple[int, int]:
    """The image's height and width when its shorter side is a scale."""
    return round(ROWS * scale / min(ROWS, COLUMNS)), round(COLUMNS * scale / min(ROWS, COLUMNS))


def multiply_adds() -> dict[str, float]:
    """What each step computes, counted by torch on tensors without memory."""

    def count(run: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return counter.get_total_flops() / 2

    with torch.device("meta"):
        network = models.sppnet_zf5(1000).eval()
        found = {RCNN: REGIONS * count(lambda: network.convolutions(torch.empty(1, 3, WARPED, WARPED)))}
        for name, scales in SCALES.items():
            images = [torch.empty(1, 3, *resized(scale)) for scale in scales]
            found[f"{name}, conv"] = count(lambda images=images: [network.convolutions(image) for image in images])
        found[FC] = count(lambda: network.head(torch.empty(REGIONS, network.fc6.in_features)))
    return found


def _steps(device: str) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Name -> function, and the share of a step's work that one call does where that is not all of it."""
    torch.manual_seed(0)
    network = models.sppnet_zf5(1000).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    warped = torch.randn(SAMPLED[device], 3, WARPED, WARPED, generator=generator).to(device)
    boxes = propose_regions(REGIONS, ROWS, COLUMNS, seed=0)[:, 1:].to(device)
    pooled = torch.randn(REGIONS, network.fc6.in_features, generator=generator).to(device)

    def rcnn() -> list[Tensor]:
        return [network.convolutions(part) for part in warped.split(BATCH[device])]

    steps: dict[str, Callable[[], object]] = {RCNN: rcnn}
    for name, scales in SCALES.items():
        detector = models.SPPDetector(network, 20, scales)
        images = [torch.randn(1, 3, *resized(scale), generator=generator).to(device) for scale in scales]
        maps = Maps([network.features(image) for image in images], [scale / ROWS for scale in scales])
        steps[f"{name}, conv"] = lambda images=images: [network.features(image) for image in images]
        steps[f"{name}, pooling"] = lambda detector=detector, maps=maps: detector.pool_regions(maps, boxes)
    steps[FC] = lambda: network.head(pooled)
    return steps, {RCNN: SAMPLED[device] / REGIONS}


def run(about: Result, device: str, threads: int | None, turns: int, seconds: float, folder: Path) -> int:
    """Measures, prints the table and writes the JSON.

    Args:
        about: what the result says of the machine.
        device: "cpu" or "cuda".
        threads: of torch; None on a GPU.
        turns: of each step.
        seconds: for all of them together, at least.
        folder: where the JSON goes.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    # By default a GPU computes convolutions in TF32 and matrix products in float32, whose times do not compare.
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        progress(0, 2, "warming up")
        steps, shares = _steps(device)
        progress(1, 2, "R-CNN and SPP-net in turn")
        samples = interleaved_samples(steps, turns=turns, seconds=seconds, turn=measure.WAITING_TURNS[device])
    progress(2, 2, "")
    times = {name: spread(samples[name], shares.get(name, 1.0)) for name in steps}
    medians = {name: time["median"] for name, time in times.items()}
    result = about | {
        "benchmark": "sppnet",
        "threads": threads,
        "image": [ROWS, COLUMNS],
        "regions": REGIONS,
        "sampled": shares if device == "cpu" else {},
        "times": times,  # seconds
        "ratios": {name: round(ratio, 2) for name, ratio in ratios(medians).items()},
        "multiply_adds": multiply_adds(),
    }
    print(f"{as_text(table([result]))}\n\nresults  {report.save(result, folder, prefix='sppnet-')}")
    return 0


# ---- the table ---------------------------------------------------------------------------------------------


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x"


def table(results: Sequence[Result]) -> list[list[str]]:
    """A heading and rows of cells: the paper's numbers, what arithmetic alone would give, and each result's."""
    adds = results[0]["multiply_adds"]
    labels = {
        RCNN: "R-CNN: conv of 2,000 warped regions",
        "1 scale, conv": "SPP-net, 1 scale: conv of the image",
        "1 scale, pooling": "SPP-net, 1 scale: pooling of 2,000 regions",
        "5 scales, conv": "SPP-net, 5 scales: conv of the image",
        "5 scales, pooling": "SPP-net, 5 scales: pooling of 2,000 regions",
        FC: "either: fc6 and fc7 of 2,000 regions",
    }
    lines = [["per image", "paper", "multiply-adds", *(result["hardware"] for result in results)]]
    for name, label in labels.items():
        cells = []
        for result in results:
            time = result["times"].get(name)
            cells.append(("~" if name in result["sampled"] else "") + _time(time and time["median"]))
        work = f"{adds[name] / 1e9:,.0f} G" if name in adds else "-"
        lines.append([label, _time(PAPER.get(name)), work, *cells])
    arithmetic = ratios(adds)
    for name in ratios({**PAPER, "1 scale, pooling": 0, "5 scales, pooling": 0}):
        scale, _, parts = name.partition(", ")
        cells = [_ratio(result["ratios"].get(name)) for result in results]
        label = f"R-CNN / SPP-net, {scale}: {parts}"
        lines.append([label, _ratio(PAPER_RATIOS.get(name)), _ratio(arithmetic.get(name)), *cells])
    return lines


def readme_section(results: Sequence[Result]) -> str:
    """The section of R-CNN against SPP-net: the table, where it was measured, what it means."""
    machines = "\n".join(report.machine(result, result["threads"]) for result in results)
    legend = (
        "Medians. ZF-5 at full width in float32, an image of 500 x 375, regions of 227 x 227 for R-CNN. The paper's "
        "times are of its GPU (table 10). \\~: measured on a sample of the regions and scaled up. Multiply-adds: what "
        "the ratio would be if each took the same time everywhere."
    )
    return f"{report.as_markdown(table(results))}\n\n{machines}\n\n{legend}"


def demo_section(demo: Result) -> str:
    """The section of the demo: its table, and what its detector found."""
    lines = [["proposals", "objects within reach", *(f"mAP, {name}" for name in SCALES)]]
    for method, found in demo["detection"].items():
        lines.append([method, *(f"{100 * share:.1f}" for share in (found["recall"], *found["mAP"].values()))])
    about = (
        f"% right, mean of {len(demo['settings']['seeds'])} seeds (lowest to highest); chance is 10. Below, %: objects "
        "that a proposal overlaps by half are within reach, and detections that overlap one by half count as right. "
        f"{demo['hardware']}, torch {demo['torch']}, {demo['seconds'] / 60:.0f} minutes."
    )
    return f"{report.as_markdown(demo['table'])}\n\n{about}\n\n{report.as_markdown(lines)}"


def sections(folder: Path) -> dict[str, str]:
    """Name -> section of the README, of those that ``folder`` has a result for."""
    found = {}
    if results := report.load(folder, "multiply_adds"):
        found["sppnet"] = readme_section(list(results.values()))
    if (demo := folder / "sppnet-demo.json").exists():
        found["sppnet-demo"] = demo_section(json.loads(demo.read_text()))
    return found
