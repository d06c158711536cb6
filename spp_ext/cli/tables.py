"""A table as the commands, ``benchmarks/`` and the examples print it."""

from __future__ import annotations

from collections.abc import Sequence


def as_text(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Cells in columns, the first ``left`` of them to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([*map(str.ljust, line[:left], widths[:left]), *map(str.rjust, line[left:], widths[left:])]).rstrip()
        for line in lines
    )
