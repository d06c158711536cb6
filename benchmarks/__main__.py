"""``python -m benchmarks``: measures, reports, compares, and writes the README's section."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from spp_ext._progress import progress
from spp_ext.cli import bench
from spp_ext.cli.tables import as_text
from spp_ext.cli.timing import TURNS, interleaved_samples, settle_malloc, spread

from . import measure, overhead, report, sppnet
from .baselines import contenders
from .cases import FRESH, WITH_BACKWARD, Case, cases
from .commit import commit, is_exact

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"  # the committed ones
INSTRUCTIONS = (  # `instructions` counts the cases whose names end so
    "overhead: 1x1x8x8 forward",
    "224 px: 1x256x13x13 forward",
    "16x256x13x13 forward + backward",
    "1x256x40x60 forward, channels_last",
    "1x256x38x50 K=300 forward",
)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _about(device: str) -> report.Result:
    """What a result says besides its rows."""
    result = bench.about(device)
    result["versions"] |= {package: _version(package) for package in ("torchvision", "openvino", "onnxruntime")}
    return result | {"commit": commit()}


def _measure(case: Case, device: str, threads: int | None, options: argparse.Namespace) -> report.Row:
    found, omitted = contenders(case, device, options.compile)
    functions = {name: it.run for name, it in found.items()}
    samples = interleaved_samples(functions, turns=options.turns, seconds=options.seconds, turn=TURNS[device])
    times = {name: spread(samples[name], it.share) for name, it in found.items()}
    roles = {name: it.role for name, it in found.items()}
    row = report.make_row(
        case, device, threads, times, roles, {name: it.share for name, it in found.items() if it.share != 1}
    )
    row["omitted"] = omitted
    if device == "cuda" and case.kind != WITH_BACKWARD:
        row["memory"] = measure.memory(case, device, found)
    return row


def _add_scaling(row: report.Row, alone: report.Row, case: Case) -> None:
    """Sets the time of one thread beside that of two."""
    row["times"]["1 thread"], row["roles"]["1 thread"] = alone["times"][FRESH], "own"
    row["ratios"]["1 thread"] = report.ratio(row["times"], "1 thread")
    report.judge(row, case)


def _rows_so_far(result: report.Result, folder: Path) -> list[report.Row]:
    """What an earlier run measured of the same commit in the same way."""
    path = report.path_of(result, folder)
    earlier = json.loads(path.read_text()) if path.exists() else {}
    same = all(earlier.get(key) == value for key, value in result.items() if key != "date")
    return earlier["rows"] if same and is_exact(result["commit"]) else []


def run(options: argparse.Namespace) -> int:
    """Measures, prints the table, writes JSON and chart; returns 1 if a case failed."""
    device = options.device
    chosen = [
        case
        for case in cases(device, options.quick)
        if not options.filter or any(word in case.name for word in options.filter)
    ]
    if not chosen:
        print(f"benchmarks: no case has any of {options.filter} in its name", file=sys.stderr)
        return 1
    if device == "cpu":
        settle_malloc()
    every_threads: list[Any] = [None] if device == "cuda" else options.threads
    result = _about(device) | {"turns": options.turns, "seconds": options.seconds, "threads": every_threads}
    result["compile"] = options.compile
    result["rows"] = _rows_so_far(result, options.output) if options.resume else []
    done = {row["case"] for row in result["rows"]}
    failed: dict[str, str] = {}
    result["failed"] = failed
    for number, case in enumerate(chosen):
        progress(number, len(chosen), case.name)
        if case.name in done:
            continue
        alone = None
        for threads in every_threads:
            if threads is not None:
                torch.set_num_threads(threads)
            try:
                row = _measure(case, device, threads, options)
            except Exception as error:  # the other cases are still worth having
                failed[case.name] = f"{type(error).__name__}: {error}"
                continue
            if threads == 1:
                alone = row
            elif threads == 2 and alone is not None:
                _add_scaling(row, alone, case)
            result["rows"].append(row)
        report.save(result, options.output)  # a run that is cut off has measured something
    progress(len(chosen), len(chosen), "measuring memory" if device == "cpu" else "")
    if device == "cpu":
        found = measure.cpu_memory(max(every_threads), options.quick, options.filter)
        for row in result["rows"]:
            row["memory"] = found.get(row["case"], {})

    print(f"{result['hardware']}; torch {torch.__version__}; commit {result['commit']}\n")
    if result["rows"]:
        print(f"{as_text(report.table(result['rows']))}\n\n{report.LEGEND}\n")
    for line in report.misses(result["rows"]):
        print(f"* {line}")
    noisy = sum(any(time["p90"] > 3 * time["p10"] for time in row["times"].values()) for row in result["rows"])
    if noisy:
        print(f"In {noisy} of {len(result['rows'])} rows times varied threefold: other programs are busy here.")
    for name, error in failed.items():
        print(f"FAILED {name}: {error}")
    path = report.save(result, options.output)
    print(f"\nresults  {path}")
    try:
        report.chart(path.with_suffix(".png"), [result])
        print(f"chart    {path.with_suffix('.png')}")
    except ImportError:
        print("chart    none: matplotlib is not installed")
    return 1 if failed else 0


def instructions(options: argparse.Namespace) -> int:
    """Prints how many instructions a call of spp_ext runs, counted by valgrind's callgrind, which no noise moves."""
    from torch.utils.benchmark import Timer

    # valgrind cannot run AVX-512. Its child is the `python` of PATH, and starts in another folder.
    os.environ["SPP_EXT_INSTRUCTION_SET"] = "avx2"
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    chosen = [case for case in cases("cpu") if case.name.endswith(INSTRUCTIONS)]
    print("instructions per call, one thread, avx2")
    for number, case in enumerate(chosen):
        progress(number, len(chosen), case.name)
        setup = (
            "from benchmarks import baselines, cases\n"
            f"case = next(case for case in cases.cases('cpu') if case.name == {case.name!r})\n"
            "call = baselines.step(case, baselines.ours(case, baselines.boxes(case, 'cpu')), 'cpu')\ncall()"
        )
        timer = Timer("call()", setup=setup, num_threads=1)
        stats = timer.collect_callgrind(number=options.calls, collect_baseline=False)
        print(f"{stats.counts(denoise=True) // options.calls:>15,}  {case.name}", flush=True)
    progress(len(chosen), len(chosen), "")
    return 0


def _threads(text: str) -> list[int]:
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"expected numbers of threads like 1,2, got {text}")
    return numbers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="only the small cases")
    parser.add_argument("--threads", type=_threads, default=sorted({1, torch.get_num_threads()}), metavar="1,2")
    parser.add_argument(
        "--compile",
        type=float,
        nargs="?",
        default=0.0,
        const=3600.0,
        metavar="SECONDS",
        help="also torch.compile of the peers, which takes minutes; of no further one after so long",
    )
    parser.add_argument("--filter", action="append", default=[], metavar="WORD", help="only cases named so; may repeat")
    parser.add_argument("--resume", action="store_true", help="keep what --output has of this commit, measure the rest")
    parser.add_argument("--turns", type=int, default=15, help="of each function (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each case, roughly (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "benchmarks", metavar="DIR", help="default: build/benchmarks"
    )
    commands = parser.add_subparsers(dest="command", metavar="{compare,readme,instructions,overhead,sppnet}")
    comparing = commands.add_parser("compare", help="what got faster or slower beyond noise; status 1 if slower")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    writing = commands.add_parser("readme", help="write the README's table and chart from committed results")
    writing.add_argument("--readme", type=Path, default=ROOT / "README.md")
    writing.add_argument("--results", type=Path, default=RESULTS)
    writing.add_argument("--chart", type=Path, help="default: docs/benchmarks.png beside the README")
    counting = commands.add_parser("instructions", help="instructions per call, counted by valgrind's callgrind")
    counting.add_argument("--calls", type=int, default=10)
    commands.add_parser("overhead", help="what a call costs beside the pooling, on a tiny map")
    commands.add_parser("sppnet", help="R-CNN against SPP-net, per image, beside the paper's numbers")
    commands.add_parser("memory")  # not for users: `measure.cpu_memory` runs it in a process of its own
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "compare":
        before, after = (json.loads(path.read_text()) for path in (options.before, options.after))
        lines, slower = report.compare(before, after)
        print("\n".join(lines))
        return 1 if slower else 0
    if options.command == "readme":
        picture = options.chart or options.readme.parent / "docs" / "benchmarks.png"
        try:
            results = report.load(options.results)
            for result in results.values():
                report.judge_again(result)
            section = report.readme_section(results, os.path.relpath(picture, options.readme.parent))
            report.chart(picture, list(results.values()))
            for result in results.values():
                report.save(result, options.results)
            report.write_sections(options.readme, {"benchmarks": section, **sppnet.sections(options.results)})
        except (ValueError, ImportError, OSError) as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 1
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks: torch finds no GPU", file=sys.stderr)
        return 1
    if options.command == "sppnet":
        threads = None if options.device == "cuda" else max(options.threads)
        seconds = max(options.seconds, 20.0)
        return sppnet.run(_about(options.device), options.device, threads, options.turns, seconds, options.output)
    if options.command == "instructions":
        return instructions(options)
    if options.command == "overhead":
        print(overhead.table(options.turns, options.seconds))
        return 0
    if options.command == "memory":
        print(json.dumps(measure.cpu_memory_here(max(options.threads), options.quick, options.filter)))
        return 0
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
