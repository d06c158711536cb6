"""Pyramid levels: what a caller may write, and the flat list of integers the kernels read.

A pyramid is a sequence of levels. A level is a grid, written ``n`` (n x n bins) or ``(rows, cols)``, or a `Bins`
object that lists arbitrary rectangles. Everything here is plain Python: no tensor is touched except in `split_levels`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor

from spp_ext import _checks
from spp_ext._checks import MAX_DIVISIONS, items_of, shape_shown, shown, whole_number

MAX_BINS = 2**31 - 1


class Grid(NamedTuple):
    """A level of ``rows x cols`` equal bins, row-major."""

    rows: int
    cols: int

    @property
    def bins(self) -> int:
        """How many bins the level has."""
        return self.rows * self.cols


@dataclass(frozen=True)
class Bins:
    """A pyramid level of arbitrary, possibly overlapping bins.

    Args:
        rectangles: ``(top, left, bottom, right)`` of each bin, whole numbers of ``divisions``-ths of the window; half
            open, so ``bottom`` and ``right`` are not part of the bin.
        divisions: into how many parts the window's height and width are divided, an int or ``(rows, cols)``.

    In a window of ``h`` rows, a bin covers rows ``floor(top * h / rows)`` up to but excluding
    ``ceil(bottom * h / rows)``, and columns alike. An ``n x n`` grid is the case of unit cells with ``divisions=n``.

    Raises:
        TypeError: a rectangle is not four whole numbers.
        ValueError: there is no rectangle, or one is empty or leaves ``[0, divisions]``.

    Example::

        >>> halves = Bins([(0, 0, 1, 2), (1, 0, 2, 2)], divisions=2)   # upper half, lower half
        >>> centre = Bins([(1, 1, 3, 3)], divisions=4)                 # the middle quarter of the area
    """

    rectangles: tuple[tuple[int, int, int, int], ...]
    divisions: tuple[int, int]

    def __init__(self, rectangles: Iterable[Sequence[int]], divisions: int | tuple[int, int]) -> None:
        rows, cols = _checks.divisions(
            divisions, f"spp_ext.Bins: expected divisions, an int or a pair, between 1 and {MAX_DIVISIONS}"
        )
        if not isinstance(rectangles, Iterable):
            raise TypeError(
                f"spp_ext.Bins: expected a sequence of rectangles (top, left, bottom, right), got {shown(rectangles)}"
            )
        checked = []
        for rectangle in rectangles:
            what = (
                "spp_ext.Bins: expected rectangles (top, left, bottom, right) of whole numbers with "
                f"0 <= top < bottom <= {rows} and 0 <= left < right <= {cols}"
            )
            edges = items_of(rectangle)
            if edges is None:
                raise TypeError(f"{what}, got {shown(rectangle)}")
            if len(edges) != 4:
                raise ValueError(f"{what}, got {shown(rectangle)}")
            try:
                top, left, bottom, right = (whole_number(edge, what) for edge in edges)
            except TypeError:
                raise TypeError(f"{what}, got {shown(rectangle)}") from None
            if not (0 <= top < bottom <= rows and 0 <= left < right <= cols):
                raise ValueError(f"{what}, got {shown(rectangle)}")
            checked.append((top, left, bottom, right))
        if not checked:
            raise ValueError("spp_ext.Bins: expected at least one rectangle, got none")
        object.__setattr__(self, "rectangles", tuple(checked))
        object.__setattr__(self, "divisions", (rows, cols))

    @property
    def bins(self) -> int:
        """How many bins the level has."""
        return len(self.rectangles)


Level: TypeAlias = int | tuple[int, int] | Bins
ParsedLevel: TypeAlias = Grid | Bins


def parse_levels(op: str, levels: Sequence[Level]) -> tuple[ParsedLevel, ...]:
    """Checks ``levels`` as given to the public op called ``op`` and returns a `Grid` or a `Bins` for each."""
    items = items_of(levels)
    if items is None:
        raise TypeError(
            f"{op}: expected levels, a sequence of ints, (rows, cols) pairs or spp_ext.Bins, got {shown(levels)}"
        )
    if not items:
        raise ValueError(f"{op}: expected at least one level, got none")
    parsed: list[ParsedLevel] = []
    for level in items:
        if isinstance(level, Bins):
            parsed.append(level)
        else:
            what = (
                f"{op}: expected every level to be an int, a (rows, cols) pair (each from 1 to {MAX_DIVISIONS}) "
                "or spp_ext.Bins"
            )
            parsed.append(Grid(*_checks.divisions(level, what)))
    total = sum(level.bins for level in parsed)
    if total > MAX_BINS:
        raise ValueError(f"{op}: expected at most {MAX_BINS} bins over all levels, got {total}")
    return tuple(parsed)


def encoded_grid(rows: int, cols: int) -> list[int]:
    """A pyramid of one grid, as `encode_levels` gives it."""
    return [rows, cols]


def encode_levels(levels: Sequence[ParsedLevel]) -> list[int]:
    """The pyramid as the registered ops take it, one flat list of ints.

    A grid is ``rows, cols``. A `Bins` level is ``-count, row_divisions, col_divisions`` and then ``top, left, bottom,
    right`` of each rectangle; the sign of its first number tells the two apart.
    """
    flat: list[int] = []
    for level in levels:
        if isinstance(level, Grid):
            flat.extend(encoded_grid(*level))
        else:
            flat.extend((-level.bins, *level.divisions))
            for rectangle in level.rectangles:
                flat.extend(rectangle)
    return flat


def decode_levels(op: str, encoded: Sequence[int]) -> list[ParsedLevel]:
    """The levels that `encode_levels` made ``encoded`` of, with the sentences of the decoder in core/pyramid.h."""
    levels: list[ParsedLevel] = []
    numbers, bins = iter(encoded), 0

    def following() -> int:
        number = next(numbers, None)
        if number is None:
            raise ValueError(f"{op}: expected levels encoded as whole levels, got a truncated list")
        return number

    def checked(number: int) -> int:
        if not 0 < number <= MAX_DIVISIONS:
            raise ValueError(f"{op}: expected level divisions from 1 to {MAX_DIVISIONS}, got {number}")
        return number

    def check_total(bins: int) -> None:
        if bins > MAX_BINS:
            raise ValueError(f"{op}: expected at most {MAX_BINS} bins over all levels")

    for head in numbers:
        if head >= 0:
            levels.append(Grid(checked(head), checked(following())))
        else:
            check_total(-head)
            rows, cols = checked(following()), checked(following())
            rectangles = []
            for _ in range(-head):
                top, left, bottom, right = following(), following(), following(), following()
                if not (0 <= top < bottom <= rows and 0 <= left < right <= cols):
                    raise ValueError(
                        f"{op}: expected bins with 0 <= top < bottom and 0 <= left < right inside their divisions"
                    )
                rectangles.append((top, left, bottom, right))
            levels.append(Bins(rectangles, (rows, cols)))
        bins += levels[-1].bins
        check_total(bins)
    if not levels:
        raise ValueError(f"{op}: expected at least one level, got none")
    return levels


class Pyramid(NamedTuple):
    """A parsed pyramid in the two forms that the Python layer passes on."""

    encoded: list[int]  # what the pooling ops take; see encode_levels
    level_bins: list[int]  # bins of each level, which is all that gather and scatter need to know


def pyramid(op: str, levels: Sequence[Level]) -> Pyramid:
    """`parse_levels` and `encode_levels` in one."""
    parsed = parse_levels(op, levels)
    return Pyramid(encode_levels(parsed), [level.bins for level in parsed])


def plain_levels(op: str, levels: Sequence[Level]) -> tuple[Level, ...]:
    """``levels`` as they are written with ints, pairs of ints and `Bins` alone, which nobody can change."""
    pairs = zip(parse_levels(op, levels), items_of(levels) or (), strict=True)
    return tuple(
        parsed if isinstance(parsed, Bins) else parsed.rows if items_of(written) is None else (parsed.rows, parsed.cols)
        for parsed, written in pairs
    )


def num_bins(levels: Sequence[Level]) -> int:
    """How many bins a pyramid has over all its levels: the B of an output ``[N, C * B]``.

    Raises:
        TypeError: ``levels`` is not a sequence of levels.
        ValueError: there is no level, or one is not positive.

    Example::

        >>> num_bins((1, 2, 3, 6))
        50
    """
    return sum(level.bins for level in parse_levels("spp_ext.num_bins", levels))


def split_levels(output: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Splits a pooled feature vector back into its levels.

    Args:
        output: ``[*, C * B]`` as returned by `spatial_pyramid_pool` or `roi_spatial_pyramid_pool` (or their indices),
            where ``B`` is the number of bins over all levels.
        levels: the same levels the output was pooled with.

    Returns:
        One view per level, ``[*, C, rows, cols]`` for a grid and ``[*, C, 1, bins]`` for `Bins`. No data is copied.

    Raises:
        ValueError: the last dimension is not a multiple of ``B``.
    """
    op = "spp_ext.split_levels"
    if not isinstance(output, Tensor):
        raise TypeError(f"{op}: expected output to be a Tensor, got {type(output).__name__}")
    parsed = parse_levels(op, levels)
    total = sum(level.bins for level in parsed)
    if output.dim() == 0 or output.shape[-1] % total != 0:
        raise ValueError(
            f"{op}: expected output of shape [*, C * {total}] for {total} bins, got {shape_shown(output.shape)}"
        )
    channels = output.shape[-1] // total
    views = []
    start = 0
    for level in parsed:
        rows, cols = level if isinstance(level, Grid) else (1, level.bins)
        width = channels * level.bins
        views.append(output.narrow(-1, start, width).unflatten(-1, (channels, rows, cols)))
        start += width
    return views
