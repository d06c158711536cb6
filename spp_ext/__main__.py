"""``python -m spp_ext {info,selftest,demo}``.

Only the command that was asked for is imported, so `info` can still say what is wrong on a machine where the
rest does not load.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spp_ext",
        description="Spatial pyramid max pooling for PyTorch: what is installed, is it right, what it does.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{info,selftest,demo}")

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
    from .cli import demo

    return demo.run(options.image, options.output, options.regions, options.seed, options.conventions)


if __name__ == "__main__":
    sys.exit(main())
