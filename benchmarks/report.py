"""What is made of the measurements: a row of JSON, a table, a chart, a comparison, the README's section."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .cases import Case

Row = dict[str, Any]
Result = dict[str, Any]

NOISE = 0.05  # `compare` ignores a smaller change, however narrow the spread


def make_row(
    case: Case,
    device: str,
    threads: int | None,
    times: Mapping[str, Mapping[str, float]],
    roles: Mapping[str, str],
    sampled: Mapping[str, float],
) -> Row:
    """One case, measured.

    Args:
        case: which.
        device: "cpu" or "cuda".
        threads: of torch; None on a GPU.
        times: contender -> what `measure.spread` says, in seconds.
        roles: contender -> `baselines.Contender.role`.
        sampled: contender -> the share of the work it did, if not all.
    """
    ours = times["spp_ext"]["median"]
    ratios = {name: round(time["median"] / ours, 4) for name, time in times.items() if name != "spp_ext"}
    # Nobody uses an op that is slower than what it replaces, so that is every case's target.
    targets = {name: 1.0 for name, role in roles.items() if role == "peer"} | dict(case.targets)
    floor = case.floor(device)
    return {
        "case": case.name,
        **{name: value for name, value in asdict(case).items() if name != "targets"},
        "threads": threads,
        "bytes": case.bytes,
        "times": dict(times),  # seconds
        "roles": dict(roles),
        "sampled": dict(sampled),
        "ratios": ratios,  # a contender's time / ours
        "floor": floor,
        "floor_fraction": ratios[floor],
        "gigabytes_per_second": round(case.bytes / ours / 1e9, 3),
        "targets": targets,  # least ratios
        "missed": [name for name, least in targets.items() if name in ratios and ratios[name] < least],
        "memory": {},
        "omitted": {},
    }


# ---- the table ---------------------------------------------------------------------------------------------


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.4g}" if seconds < 1e-3 else f"{seconds * 1e3:.2f}"


def _factor(ratio: float) -> str:
    return f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:,.0f}x"


def _ratio(row: Row, name: str) -> str:
    if name not in row["ratios"]:
        return "-"
    return ("~" if name in row["sampled"] else "") + _factor(row["ratios"][name]) + "*" * (name in row["missed"])


def peers(rows: Iterable[Row]) -> list[str]:
    """The peers of all rows, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name, role in row["roles"].items() if role == "peer"))


def table(rows: Sequence[Row]) -> list[list[str]]:
    """A heading and one line of cells for each row."""
    names = peers(rows)
    lines = [["case", "threads", "ms", *names, "1 thread", "floor", "of floor", "GB/s", "extra MB"]]
    for row in rows:
        extra = row["memory"].get("spp_ext", {}).get("extra")
        fraction = f"{row['floor_fraction']:.0%}{'*' if set(row['missed']) - {*names, '1 thread'} else ''}"
        cells = [row["case"], str(row["threads"] or "-"), _time(row["times"]["spp_ext"]["median"])]
        cells += [_ratio(row, name) for name in [*names, "1 thread"]]
        cells += [row["floor"], fraction, f"{row['gigabytes_per_second']:.3g}"]
        lines.append([*cells, "-" if extra is None else f"{extra / 1e6:.2f}"])
    return lines


def _place(row: Row) -> str:
    return row["case"] + (f", on {row['threads']} thread{'s' * (row['threads'] > 1)}" if row["threads"] else "")


def misses(rows: Iterable[Row]) -> list[str]:
    """One sentence for each target that a row misses."""
    return [
        f"{_place(row)}: {name!r} takes {_factor(row['ratios'][name])} our time, the target is {_factor(least)}"
        for row in rows
        for name, least in row["targets"].items()
        if name in row["missed"]
    ]


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same cells as a table of a README."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in [lines[0], rule, *lines[1:]])


def _escaped(text: str) -> str:
    """Text in which Markdown sees no emphasis and nothing struck through."""
    return text.replace("*", "\\*").replace("~", "\\~")


LEGEND = (
    "ms: median of spp_ext. Under a peer's name: its time / ours, both medians of one interleaved run; ~ where it ran "
    "on a sample of the regions. 1 thread: our time on one / ours here. Of floor: the floor's time / ours. GB/s: the "
    "bytes that must move / our time. Extra MB: held at the peak of a call beyond its results. *: a target is missed, "
    "as said below."
)


# ---- the chart ---------------------------------------------------------------------------------------------


def fullest(rows: Iterable[Row]) -> list[Row]:
    """The rows with the most threads of each case."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["case"] not in best or (row["threads"] or 0) >= (best[row["case"]]["threads"] or 0):
            best[row["case"]] = row
    return list(best.values())


def chart(path: Path, results: Sequence[Result]) -> None:
    """Writes a PNG: for each result the times of all cases, spp_ext's joined to its fastest peer's by a line.

    Raises:
        ImportError: there is no matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(result, fullest(result["rows"])) for result in results]
    heights = [len(rows) + 4 for _, rows in panels]
    figure, every = pyplot.subplots(
        len(panels), 1, squeeze=False, figsize=(11, 0.21 * sum(heights)), height_ratios=heights, layout="constrained"
    )
    names = peers(row for _, rows in panels for row in rows)
    labels = {}
    for axes, (result, rows) in zip(every[:, 0], panels, strict=True):
        for y, row in enumerate(rows):
            times = {name: time["median"] * 1e3 for name, time in row["times"].items()}
            theirs = [times[name] for name in names if name in times] or [times["spp_ext"]]
            axes.plot([times["spp_ext"], min(theirs)], [y, y], color="0.8", zorder=1)
            (labels["floor"],) = axes.plot(times[row["floor"]], y, "|", color="black", markersize=9)
            for index, name in enumerate(names):
                if name in times:
                    (labels[name],) = axes.plot(times[name], y, "sD^v<>"[index % 6], color=f"C{index + 1}")
            (labels["spp_ext"],) = axes.plot(times["spp_ext"], y, "o", color="C0")
            end = max(theirs + [times["spp_ext"], times[row["floor"]]])
            axes.annotate("   " + _factor(min(theirs) / times["spp_ext"]), (end, y), va="center", fontsize=7)
        threads = f", {rows[0]['threads']} threads" if rows and rows[0]["threads"] else ""
        axes.set_title(f"{result['hardware']}{threads}", fontsize=10)
        axes.set(xscale="log", xlabel="milliseconds, with the fastest peer's time / ours", ylim=(len(rows), -1))
        axes.set_yticks(range(len(rows)), [row["case"] for row in rows], fontsize=7)
        axes.margins(x=0.08)
        axes.grid(axis="x", color="0.93")
    figure.legend(labels.values(), labels.keys(), loc="outside upper right", ncols=len(labels), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


# ---- comparing two results ---------------------------------------------------------------------------------


def compare(before: Result, after: Result) -> tuple[list[str], int]:
    """What got faster or slower beyond noise, one line each, and how many got slower.

    A change counts where each median lies outside the other's p10 to p90, by more than `NOISE`, unless the row's floor
    changed as much, because then it was the machine that changed.
    """
    key = lambda row: (row["case"], row["threads"])  # noqa: E731
    old = {key(row): row for row in before["rows"]}
    both = [(old[key(row)], row) for row in after["rows"] if key(row) in old]
    lines, slower = [], 0
    for a, b in both:
        ours_a, ours_b = a["times"]["spp_ext"], b["times"]["spp_ext"]
        change = ours_b["median"] / ours_a["median"]
        machine = b["times"][b["floor"]]["median"] / a["times"][a["floor"]]["median"]
        apart = not ours_a["p10"] <= ours_b["median"] <= ours_a["p90"]
        apart &= not ours_b["p10"] <= ours_a["median"] <= ours_b["p90"]
        if not apart or not (min(change, change / machine) > 1 + NOISE or max(change, change / machine) < 1 - NOISE):
            continue
        slower += change > 1
        lines.append(
            f"{'SLOWER' if change > 1 else 'faster'}  {_time(ours_a['median'])} -> {_time(ours_b['median'])} ms, "
            f"{change:.2f}x (its floor {machine:.2f}x)  {_place(b)}"
        )
    alone = len(before["rows"]) + len(after["rows"]) - 2 * len(both)
    lines.append(
        f"{len(both)} rows compared, {slower} slower, {len(lines) - slower} faster; {alone} in one result only"
    )
    return lines, slower


# ---- the README --------------------------------------------------------------------------------------------


def path_of(result: Result, folder: Path, prefix: str = "") -> Path:
    """Where a result is kept: under the name of its hardware."""
    name = re.sub(r"[^a-z0-9]+", "-", result["hardware"].lower()).strip("-")
    return folder / f"{prefix}{name}.json"


def save(result: Result, folder: Path, prefix: str = "") -> Path:
    """Writes a result as JSON and returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(result, folder, prefix)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def load(folder: Path, part: str = "rows") -> dict[str, Result]:
    """Device -> its newest result in a folder, the CPU first. Reports without such a part are of another kind."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    results = sorted((result for result in found if part in result), key=lambda result: result["date"])
    newest = {result["device"]: result for result in results}
    return {device: newest[device] for device in sorted(newest)}


def machine(result: Result, threads: int | None = None) -> str:
    """What a result was measured on, and when."""
    return (
        f"- {result['hardware']}{f', {threads} threads' if threads else ''}, torch {result['versions']['torch']}, "
        f"{result['date'][:10]}, commit {result['commit']}"
    )


def _gpu_cell(row: Row | None) -> str:
    if row is None:
        return "-"
    against = "".join(f", {_ratio(row, name)} {name}" for name in peers([row]))
    starred = "*" if set(row["missed"]) - set(peers([row])) else ""
    return (
        f"{_time(row['times']['spp_ext']['median'])}{against}, {row['floor_fraction']:.0%}{starred} of {row['floor']}"
    )


def readme_section(results: Mapping[str, Result], picture: str) -> str:
    """What stands between the README's markers.

    Args:
        results: of `load`.
        picture: the chart's path, as the README links it.
    """
    if "cpu" not in results:
        raise ValueError("there is no result of a CPU to write about")
    cpu, gpu = results["cpu"], results.get("cuda")
    rows = fullest(cpu["rows"])
    gpu_rows = {row["case"]: row for row in gpu["rows"]} if gpu else {}
    lines = table(rows)
    lines[0].append("GPU: ms" if gpu else "GPU")
    for line, row in zip(lines[1:], rows, strict=True):
        line.append(_gpu_cell(gpu_rows.pop(row["case"], None)) if gpu else "not yet measured")
    blank = ["-"] * (len(lines[0]) - 2)
    lines += [[name, *blank, _gpu_cell(row)] for name, row in gpu_rows.items()]
    missed = misses(list(cpu["rows"]) + list(gpu["rows"] if gpu else []))
    return "\n\n".join(
        [
            f"![Times of spp_ext, its peers and the floors]({picture})",
            "\n".join(map(machine, results.values())),
            f"<details><summary>All numbers</summary>\n\n{as_markdown(lines)}\n\n</details>",
            _escaped(LEGEND),
            "\n".join(f"- {line}" for line in missed) if missed else "No row misses its target.",
        ]
    )


def write_sections(readme: Path, sections: Mapping[str, str]) -> None:
    """Puts each section between its two markers in ``readme``.

    Raises:
        ValueError: the markers of one are missing. Nothing is written then.
    """
    text = readme.read_text()
    for name, section in sections.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{readme} has no place for the section: {begin} and {end}, each once")
        text = f"{text.split(begin)[0]}{begin}\n\n{section}\n\n{end}{text.split(end)[1]}"
    readme.write_text(text)
