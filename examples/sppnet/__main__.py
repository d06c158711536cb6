"""SPP-net on two cores: ``make sppnet-demo``, or ``python examples/sppnet``.

Trains ZF-5 at an eighth of its width, with and without a pyramid, at one size and at two in turn, on digits written
over photographs; prints a table and draws a plot of accuracy against size; then detects digits in scenes, and draws
what it found. Nothing is downloaded. `data.py` makes the pictures, `classify.py` and `detect.py` are the two
experiments, `figures.py` draws; the network, its training and the detector are `spp_ext.models`.
"""

import argparse
import datetime
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import classify
import detect
import figures
import torch

from spp_ext.cli.info import describe_cpu
from spp_ext.cli.tables import as_text
from spp_ext.models.proposals import has_selective_search

NAMES = {"grid": "a grid", "selective_search": "Selective Search"}


def _cell(values: list[float]) -> str:
    low, high, mean = 100 * min(values), 100 * max(values), 100 * sum(values) / len(values)
    return f"{mean:.1f}" + (f" ({low:.1f} to {high:.1f})" if len(values) > 1 else "")


def table(results: dict) -> list[list[str]]:
    """Percent right: the mean over the seeds, and the lowest and the highest."""
    first = next(iter(results.values()))[0]
    parts = {"square": "{0} x {0}", "wide": "{0} x {1}", "svm": "SVM, {0} x {1}"}
    lines = [["pictures, pixels", *results]]
    for part, heading in parts.items():
        for size in first[part]:
            cells = [_cell([result[part][size] for result in seeds]) for seeds in results.values()]
            lines.append([heading.format(size, round(classify.WIDE * int(size))), *cells])
    return lines


def methods(choice: str) -> list[str]:
    """The methods of proposing boxes that were chosen."""
    if choice != "all":
        return [choice]
    return ["grid", "selective_search"] if has_selective_search() else ["grid"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python examples/sppnet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and fewer pictures: about a minute")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="networks of each kind (default: 3)")
    parser.add_argument("--epochs", type=int, metavar="N", help="of training (default: 12, quick: 8)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="networks to train at once (default: 2)")
    parser.add_argument("--output", type=Path, default=Path("build/sppnet"), help="a folder (default: build/sppnet)")
    parser.add_argument("--resume", action="store_true", help="go on where training was stopped")
    parser.add_argument(
        "--proposals",
        choices=("all", "grid", "selective_search"),
        default="all",
        help="default: the grid and, where OpenCV's contrib modules are installed, Selective Search",
    )
    options = parser.parse_args()

    settings = classify.Settings(
        seeds=tuple(range(options.seeds)), workers=options.workers, folder=options.output, resume=options.resume
    )
    detection = detect.Settings()
    if options.quick:
        settings, detection = classify.quick(settings), detect.quick(detection)
    if options.epochs:
        settings = replace(settings, epochs=options.epochs)

    start = time.perf_counter()
    results = classify.run(settings)
    print(f"\n% right, chance is 10; mean of {len(settings.seeds)} seeds (lowest to highest)\n")
    print(as_text(table(results)))
    figures.accuracy(options.output / "accuracy.png", results)

    network = classify.network("SPP, two sizes").eval()
    checkpoint = options.output / "SPP-two-sizes-0.pt"
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["network"])
    found = {method: detect.run(network, replace(detection, method=method)) for method in methods(options.proposals)}
    print("\ndetection, % mAP")
    for method, result in found.items():
        print(f"  {NAMES[method]}, {100 * result.recall:.1f}% of the objects within reach")
        for name, precision in result.precision.items():
            print(f"    {name}: {100 * precision:.1f}, {result.windows[name]:.2f} windows pooled for each region")
    figures.detections(options.output / "detections.jpg", list(found.values())[-1])

    record = {
        "hardware": describe_cpu(),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "seconds": round(time.perf_counter() - start),
        "settings": {"seeds": settings.seeds, "epochs": settings.epochs, "quick": options.quick},
        "accuracy": results,
        "table": table(results),
        "detection": {
            NAMES[method]: {"recall": result.recall, "mAP": result.precision, "windows": result.windows}
            for method, result in found.items()
        },
    }
    (options.output / "sppnet-demo.json").write_text(json.dumps(record, indent=1) + "\n")
    names = ("accuracy.png", "detections.jpg", "sppnet-demo.json")
    print(f"\nwritten after {record['seconds']} s: " + ", ".join(str(options.output / name) for name in names))


if __name__ == "__main__":
    main()
