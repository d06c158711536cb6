"""``python -m spp_ext {info,selftest,demo,bench}``.

Only the command that was asked for is imported, so `info` can still say what is wrong on a machine where the
rest does not load.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from spp_ext._boxes import Convention
from spp_ext._checks import DTYPES


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _index(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text}")
    return value


def _sizes(text: str) -> tuple[int, ...]:
    """The numbers of ``2x256x38x50``."""
    return tuple(_count(word) for word in text.split("x"))


def _shape(text: str) -> tuple[int, ...]:
    sizes = _sizes(text)
    if len(sizes) != 4:
        raise argparse.ArgumentTypeError(f"expected N, C, H and W like 2x256x38x50, got {text}")
    return sizes


def _levels(text: str) -> tuple[int | tuple[int, ...], ...]:
    levels = [_sizes(word) for word in text.split(",")]
    if any(len(level) > 2 for level in levels):
        raise argparse.ArgumentTypeError(f"expected levels like 1,2,4x3, got {text}")
    return tuple(level if len(level) == 2 else level[0] for level in levels)


def _threads(text: str) -> list[int]:
    return [_count(word) for word in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spp_ext",
        description="Spatial pyramid max pooling for PyTorch: what is installed, is it right, what it does, how fast.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{info,selftest,demo,bench}")

    commands.add_parser(
        "info",
        help="versions, what was built and why, the instruction set in use",
        description="Prints what a bug report needs. Never fails: what does not load is named, and why.",
    )

    selftest = commands.add_parser(
        "selftest",
        help="about a minute of random cases against the pure-Python reference",
        description="Compares the library with the pure-Python reference, bit for bit, on random cases.",
    )
    amount = selftest.add_mutually_exclusive_group()
    amount.add_argument(
        "--cases", type=_count, default=2000, metavar="N", help="how many cases to run (default: %(default)s)"
    )
    amount.add_argument("--seconds", type=float, metavar="S", help="run as many cases as fit into S seconds instead")
    amount.add_argument("--case", type=_index, metavar="I", help="run only case I of the seed, and describe it")
    selftest.add_argument("--seed", type=int, default=0, help="the cases are drawn from it (default: %(default)s)")

    demo = commands.add_parser(
        "demo",
        help="pool a photograph and 2,000 of its regions; check, time and draw it",
        description="Pools a photograph and many of its regions: checks the results, times them, draws them.",
    )
    demo.add_argument("image", nargs="?", help="any image file (default: a photograph that scikit-learn ships)")
    demo.add_argument(
        "--output",
        default="spp_ext_demo.png",
        metavar="PATH",
        help="where the picture goes (default: %(default)s)",
    )
    demo.add_argument(
        "--regions", type=_count, default=2000, metavar="K", help="how many regions (default: %(default)s)"
    )
    demo.add_argument("--seed", type=int, default=0, help="of the network and the regions (default: %(default)s)")
    demo.add_argument(
        "--conventions",
        metavar="PATH",
        help="only write the picture of the three region conventions, to PATH",
    )

    bench = commands.add_parser(
        "bench",
        help="time a call of yours beside a function of yours",
        description="Times spp_ext beside baselines, in turn, after checking that their results are equal.",
        epilog="A baseline is a function of (input [N, C, H, W], levels), or with --regions of (input, boxes [K, 5], "
        "levels, spatial_scale). It returns [N, C * B] or [K, C * B], as spp_ext does.",
    )
    bench.add_argument("--shape", type=_shape, default=(1, 256, 38, 50), metavar="NxCxHxW", help="default: 1x256x38x50")
    bench.add_argument("--levels", type=_levels, default=(1, 2, 3, 6), metavar="1,2,4x3", help="default: 1,2,3,6")
    bench.add_argument("--regions", type=_count, metavar="K", help="pool K regions (default: whole maps)")
    bench.add_argument("--convention", choices=get_args(Convention), default="roi_pool", help="of regions")
    bench.add_argument("--dtype", choices=sorted(str(dtype)[6:] for dtype in DTYPES), default="float32")
    bench.add_argument("--layout", choices=("contiguous", "channels_last"), default="contiguous")
    bench.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    bench.add_argument("--threads", type=_threads, metavar="1,2", help="of torch (default: as many as torch uses)")
    bench.add_argument("--backward", action="store_true", help="time forward and backward together")
    bench.add_argument(
        "--baseline",
        action="append",
        metavar="MODULE:FUNCTION",
        help="what to compare with; may repeat (default: torch, its own ops)",
    )
    bench.add_argument("--turns", type=_count, default=15, help="of each contender (default: %(default)s)")
    bench.add_argument(
        "--seconds", type=float, default=2.0, help="for each number of threads, roughly (default: %(default)s)"
    )
    bench.add_argument("--seed", type=_index, default=0, help="of map and boxes (default: %(default)s)")
    bench.add_argument("--json", metavar="PATH", help="write the result there too")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, or 1 if a check failed or something is missing."""
    options = _parser().parse_args(arguments)
    if options.command == "info":
        from .cli import info

        return info.run()
    if options.command == "selftest":
        from .cli import selftest

        return selftest.run(options.cases, options.seconds, options.seed, options.case)
    if options.command == "bench":
        from .cli import bench

        names = ("shape", "levels", "regions", "convention", "dtype", "layout", "device", "backward", "seed")
        call = bench.Call(**{name: getattr(options, name) for name in names})
        baselines = options.baseline or [bench.TORCH]
        return bench.run(call, baselines, options.threads, options.turns, options.seconds, options.json)
    from .cli import demo

    return demo.run(options.image, options.output, options.regions, options.seed, options.conventions)


if __name__ == "__main__":
    sys.exit(main())
