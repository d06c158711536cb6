"""What is made of the measurements: a row of JSON, a table, a chart, a comparison, the README's section."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .cases import FRESH, READS, REUSED, SCALING, SCALING_SECONDS, Case, Target, cases

Row = dict[str, Any]
Result = dict[str, Any]

PEERS = ("peer", "engine")  # roles of those whom a user has instead
OTHER_TERMS = ("values only", "float32", "64th")  # on which spp_ext is measured too
FLOORS = ("read", "fresh", "refill", "copy")

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
        times: contender -> what `timing.spread` says, in seconds.
        roles: contender -> `baselines.Contender.role`.
        sampled: contender -> the share of the work it did, if not all.
    """
    times = dict(times)
    reads = [name for name in READS if name in times]
    if reads:
        times["read"] = min((times[name] for name in reads), key=lambda time: time["median"])
    ours = times[FRESH]["median"]
    floor = case.floor(device)
    row = {
        "case": case.name,
        **{name: value for name, value in asdict(case).items() if name != "targets"},
        "threads": threads,
        "bytes": case.bytes,
        "times": times,  # seconds
        "roles": dict(roles) | ({"read": "floor"} if reads else {}),
        "sampled": dict(sampled),
        "ratios": {name: ratio(times, name) for name in times if name != FRESH},  # a contender's time / ours
        "floor": floor,
        "floor_fraction": ratio(times, floor),
        "gigabytes_per_second": round(case.bytes / ours / 1e9, 3),
        "targets": [],
        "memory": {},
        "omitted": {},
    }
    judge(row, case)
    return row


def ratio(times: Mapping[str, Mapping[str, float]], name: str, ours: str = FRESH) -> float:
    """A contender's time / ours."""
    return round(times[name]["median"] / times[ours]["median"], 4)


def judge(row: Row, case: Case) -> None:
    """Sets a row's targets, each with the ratio that was reached, as far as both its sides were measured."""
    times = row["times"]
    own = {target.against for target in case.targets if target.ours == FRESH}
    # Nobody uses an op that is slower than what it replaces, so that is every case's target.
    targets = [Target(name, 1) for name, role in row["roles"].items() if role in PEERS and name not in own]
    targets += case.targets
    if "1 thread" in times and times["1 thread"]["median"] > SCALING_SECONDS:
        targets.append(SCALING)
    row["targets"] = [
        asdict(target) | {"ratio": ratio(times, target.against, target.ours)}
        for target in targets
        if target.against in times and target.ours in times
    ]


def judge_again(result: Result) -> None:
    """Holds the rows of a result to the targets, and gives them the reasons, that `cases` has now."""
    known = {case.name: case for case in cases(result["device"])}
    for row in result["rows"]:
        if row["case"] in known:
            judge(row, known[row["case"]])


def missed(row: Row) -> list[dict[str, Any]]:
    """The targets that a row misses."""
    return [target for target in row["targets"] if target["ratio"] < target["least"]]


# ---- the table ---------------------------------------------------------------------------------------------


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.4g}" if seconds < 1e-3 else f"{seconds * 1e3:.2f}"


def _factor(ratio: float) -> str:
    return f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:,.0f}x"


def _star(row: Row, name: str, ours: str = FRESH) -> str:
    return "*" * any((target["against"], target["ours"]) == (name, ours) for target in missed(row))


def _ratio(row: Row, name: str) -> str:
    """The ratio to our fresh result, and of an engine to our reused one too."""
    if name not in row["ratios"]:
        return "-"
    text = ("~" if name in row["sampled"] else "") + _factor(row["ratios"][name]) + _star(row, name)
    if row["roles"][name] == "engine" and REUSED in row["times"]:
        text += f" ({_factor(ratio(row['times'], name, REUSED))}{_star(row, name, REUSED)})"
    return text


def _floor(row: Row, name: str) -> str:
    """How much of our time a floor takes; a refill, of the time with a reused result."""
    ours = REUSED if name == "refill" else FRESH
    if not {name, ours} <= set(row["times"]) or name not in (row["floor"], "refill"):
        return "-"
    return f"{ratio(row['times'], name, ours):.0%}{_star(row, name, ours)}"


def peers(rows: Iterable[Row]) -> list[str]:
    """The peers and engines of all rows, in the order in which they first appear, the peers first."""
    return [
        name
        for role in PEERS
        for name in dict.fromkeys(name for row in rows for name, its in row["roles"].items() if its == role)
    ]


def table(rows: Sequence[Row]) -> list[list[str]]:
    """A heading and one line of cells for each row."""
    names = peers(rows)
    floors = [name for name in FLOORS if any(_floor(row, name) != "-" for row in rows)]
    lines = [["case", "threads", "ms", "out= ms", *names, "1 thread", "other terms", *floors, "GB/s", "extra MB"]]
    for row in rows:
        extra = row["memory"].get(FRESH, {}).get("extra")
        cells = [row["case"], str(row["threads"] or "-")]
        cells += [_time(row["times"][name]["median"]) if name in row["times"] else "-" for name in (FRESH, REUSED)]
        cells += [_ratio(row, name) for name in [*names, "1 thread"]]
        cells += [", ".join(f"{_ratio(row, name)} {name}" for name in OTHER_TERMS if name in row["times"]) or "-"]
        cells += [_floor(row, name) for name in floors]
        cells += [f"{row['gigabytes_per_second']:.3g}", "-" if extra is None else f"{extra / 1e6:.2f}"]
        lines.append(cells)
    return lines


def _place(row: Row) -> str:
    return row["case"] + (f", on {row['threads']} thread{'s' * (row['threads'] > 1)}" if row["threads"] else "")


def misses(rows: Iterable[Row]) -> list[str]:
    """One sentence for each target that a row misses, with the reason."""
    return [
        f"{_place(row)}: {target['against']!r} takes {_factor(target['ratio'])} our time"
        f"{' with out=' * (target['ours'] == REUSED)}, the target is {_factor(target['least'])}"
        f"{': ' * bool(target['reason'])}{target['reason']}"
        for row in rows
        for target in missed(row)
    ]


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same cells as a table of a README."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in [lines[0], rule, *lines[1:]])


def _escaped(text: str) -> str:
    """Text in which Markdown sees no emphasis and nothing struck through."""
    return text.replace("*", "\\*").replace("~", "\\~")


LEGEND = (
    "ms: median of spp_ext, its result in fresh memory; out= ms: in a tensor that is there. Under another's name: its "
    "time / ours, all medians of one interleaved run; ~ where it ran on a sample of the regions. In brackets, of an "
    "engine, which keeps its output: its time / ours with out=. 1 thread: our time on one / ours here. Other terms: "
    "our time without an argmax, in float32 or on a 64th of the work, scaled up, / ours. Floors, as part of our time, "
    "refill of that with out=: read is the quickest read of every cell, fresh and refill write the output once, copy "
    "moves as many bytes. GB/s: the bytes that must move / our time. Extra MB: held at the peak of a call beyond its "
    "results. *: a target is missed, as said below."
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
            theirs = [times[name] for name in names if name in times] or [times[FRESH]]
            axes.plot([times[FRESH], min(theirs)], [y, y], color="0.8", zorder=1)
            (labels["floor"],) = axes.plot(times[row["floor"]], y, "|", color="black", markersize=9)
            for index, name in enumerate(names):
                if name in times:
                    (labels[name],) = axes.plot(times[name], y, "sD^v<>"[index % 6], color=f"C{index + 1}")
            (labels[FRESH],) = axes.plot(times[FRESH], y, "o", color="C0")
            end = max(theirs + [times[FRESH], times[row["floor"]]])
            axes.annotate("   " + _factor(min(theirs) / times[FRESH]), (end, y), va="center", fontsize=7)
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
        ours_a, ours_b = a["times"][FRESH], b["times"][FRESH]
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
    of_floor = f"{row['floor_fraction']:.0%}{_star(row, row['floor'])} of {row['floor']}"
    return f"{_time(row['times'][FRESH]['median'])}{against}, {of_floor}"


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
