"""A bar on stderr for what takes minutes."""

from __future__ import annotations

import os
import sys


def progress(done: int, total: int, what: str) -> None:
    """A bar on stderr, or a line for each step where nobody watches it move."""
    filled = 24 * done // max(total, 1)
    bar = f"[{'#' * filled}{'.' * (24 - filled)}] {done}/{total}"
    if sys.stderr.isatty():
        print(
            f"\r\033[K{bar} {what}"[: 5 + max(40, os.get_terminal_size(2).columns)], end="", file=sys.stderr, flush=True
        )
        if done == total:
            print(file=sys.stderr)
    else:
        print(f"{bar} {what}", file=sys.stderr, flush=True)
