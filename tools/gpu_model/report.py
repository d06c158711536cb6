"""The table and the JSON of predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .gpus import GPUS
from .predict import DRAM_SHARE, ISSUE_SHARE

Row = dict[str, Any]

ABOUT = (
    "These times are predicted, not measured: no GPU was at hand. The compiled kernels' PTX is run on the CPU, with "
    "the plan and the data of the full-size call, for a sample of its blocks, whose results are compared with the "
    "CPU's; warp instructions, memory sectors and passes of shared memory are counted, and a scoreboard tells when "
    "each register of a warp is ready. A launch takes as long as its scarcest resource: DRAM at "
    f"{DRAM_SHARE:.0%} of a copy's rate, L2, L1 and shared memory, issue at {ISSUE_SHARE:.0%} of the slots, one part "
    "of a multiprocessor, or latency: the waves of blocks, each as long as its warps would take with the "
    "multiprocessor to themselves; each launch costs 2.5 us more. Good to about 35 %. Of floor: the bytes that must "
    "move, as fast as a copy moves them, / our time. Naive / ours: one thread an output, a launch a level and a copy "
    "together (forward), zeros and atomic additions (backward), through the same model."
)


def table(rows: Iterable[Row], gpus: Sequence[str]) -> list[list[str]]:
    """A heading and a line of cells for each row; a row with a backward pass has a line for that alone."""
    lines = [["case", *(word for key in gpus for word in _heading(GPUS[key].name))]]
    for row in rows:
        lines.append([row["case"], *_cells(row["gpus"], gpus, None)])
        if any("scatter" in found["calls"] for found in row["gpus"].values()):
            lines.append([f"{row['case']}: the backward alone", *_cells(row["gpus"], gpus, "scatter")])
    return lines


def _heading(name: str) -> list[str]:
    return [f"{name}, predicted: us", "bound by", "of floor", "naive / ours"]


def _cells(found: Mapping[str, Any], gpus: Sequence[str], call: str | None) -> list[str]:
    cells = []
    for key in gpus:
        if key not in found:
            cells += ["-"] * 4
            continue
        whole = found[key] if call is None else found[key]["calls"][call]
        ratio = whole["naive_seconds"] / whole["seconds"]
        cells += [f"{whole['seconds'] * 1e6:.3g}", whole["resource"], f"{whole['floor_fraction']:.0%}", f"{ratio:.3g}x"]
    return cells


def section(rows: Sequence[Row], gpus: Sequence[str], as_markdown: Any) -> str:
    """What stands between the README's markers."""
    table_ = as_markdown(table(rows, gpus))
    return f"{ABOUT}\n\n<details><summary>All predictions</summary>\n\n{table_}\n\n</details>"


def save(rows: Sequence[Row], path: Path, commit: str | None = None) -> None:
    """Writes the JSON. It has no part named "rows", by which benchmarks.report knows what was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"predicted": True, "about": ABOUT, "commit": commit, "predictions": list(rows)}
    path.write_text(json.dumps(result, indent=1) + "\n")
