"""The two pictures: accuracy against size, and what the detector found."""

from pathlib import Path

from classify import KINDS, LARGE, SMALL
from detect import Result
from matplotlib.figure import Figure

from spp_ext import models
from spp_ext.cli.picture import rectangle

COLOURS = dict(zip(KINDS, ("#6b6b6b", "#d1340a", "#0b3d91"), strict=True))
RIGHT, WRONG = "#18c94f", "#ff3b1f"


def accuracy(path: Path, results: dict) -> None:
    """Mean accuracy over the seeds, with the lowest and the highest as a band."""
    figure = Figure((11, 4.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for kind, seeds in results.items():
        for axes, name in ((left, "square"), (right, "svm")):
            sizes = [int(size) for size in seeds[0][name]]
            columns = list(zip(*(result[name].values() for result in seeds), strict=True))
            means = [100 * sum(column) / len(column) for column in columns]
            axes.plot(sizes, means, "o-", color=COLOURS[kind], label=kind)
            low, high = ([100 * end(column) for column in columns] for end in (min, max))
            axes.fill_between(sizes, low, high, color=COLOURS[kind], alpha=0.15, linewidth=0)
    trained = {LARGE: "trained at", SMALL: "... and, two sizes, at"}
    for size, text in trained.items():
        left.axvline(size, color="0.85", zorder=0)
        left.annotate(f"{text} {size}", (size, 2), rotation=90, color="0.55", ha="right", fontsize=8)
    left.set(title="Classification of square pictures", xlabel="pixels of a side", ylabel="% right")
    right.set(title="Linear SVM on whole wide pictures, no fine-tuning", xlabel="pixels of the shorter side")
    left.set_ylim(0, 100)
    for axes in (left, right):
        axes.grid(axis="y", color="0.93")
    right.legend(frameon=False, loc="lower right")
    figure.savefig(path, metadata={"Software": None})


def detections(path: Path, result: Result, certain: float = 0.0) -> None:
    """Six scenes with every detection beyond the SVM's boundary."""
    figure = Figure((12, 6.6), dpi=100, layout="constrained")
    for index, axes in enumerate(figure.subplots(2, 3).flat):
        image, truth, found = result.images[index], result.truths[index], result.found[index]
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.axis("off")
        for box in truth.boxes.tolist():
            axes.add_patch(rectangle(box, edgecolor="white", linewidth=1, linestyle="--"))
        for box, score, label in zip(*found, strict=True):
            if score < certain:
                continue
            overlaps = models.box_iou(box[None], truth.boxes[truth.labels == label])
            colour = RIGHT if overlaps.numel() and overlaps.max() >= 0.5 else WRONG
            axes.add_patch(rectangle(box.tolist(), edgecolor=colour, linewidth=2))
            axes.text(
                *box[:2].tolist(),
                f"{int(label)}",
                color="white",
                fontsize=9,
                weight="bold",
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
            )
    figure.suptitle("Scenes of the test: objects dashed; detections green where right, red where not", fontsize=11)
    figure.savefig(path, pil_kwargs={"quality": 88})
