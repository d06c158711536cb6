"""The pictures of the demo and the README: the photo with its pyramid, and what each region convention does.

Windows and bins are drawn from `spp_ext._core`, the very functions that the kernels call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from spp_ext import _core

WIDTH = 16.0  # inches; at DPI this is 1600 pixels
DPI = 100
MARGIN = 0.4  # inches, left and right

BOX = "#d1340a"
WINDOW = "#0b3d91"
BIN = "#1f77d0"
EMPTY = "#6b6b6b"
INK = "#222222"
FAINT = "#8a8a8a"
OUTSIDE = "#e9e6df"
LEVEL_COLOURS = ("#d1340a", "#b07d00", "#11823b", "#6a3fb5")

CONVENTIONS = {
    "roi_pool": "both ends rounded to the nearest cell, that cell\nincluded; what leaves the map is cut off (default)",
    "spp_net": "the cells the box touches, less the last row and\ncolumn; moved into the map, so never empty",
    "outer": "every cell the box touches;\nwhat leaves the map is cut off",
}


class Window(NamedTuple):
    """A half-open rectangle of feature cells, rows ``[y0, y1)`` and columns ``[x0, x1)``."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The same as a box, ``(x1, y1, x2, y2)``."""
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True)
class Region:
    """A box of the conventions picture, and what its panels show."""

    name: str
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in feature cells
    view: tuple[float, float, float, float]  # y0, y1, x0, x1 in feature cells, 3 high to 4 wide


@dataclass(frozen=True)
class Scene:
    """A photo and the size of its feature map. Everything is drawn in feature cells."""

    photo: np.ndarray  # uint8 [rows, columns, 3]
    stride: int  # pixels per cell
    height: int
    width: int

    def show(self, axes: Axes, keep: float = 1.0) -> None:
        """Draws the photo where its cells are, faded towards white so that lines over it stand out."""
        faded = (255 - keep * (255 - self.photo.astype(np.float32))).astype(np.uint8)
        rows, columns = self.photo.shape[0] / self.stride, self.photo.shape[1] / self.stride
        axes.imshow(faded, extent=(0, columns, rows, 0), interpolation="bilinear", aspect="equal")
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))

    def fit(self, width: float, height: float) -> tuple[float, float]:
        """Width and height, in inches, of the largest panel with the map's shape in this much room."""
        cell = min(width / self.width, height / self.height)
        return cell * self.width, cell * self.height


def bins_of(window: Window, divisions: int, scene: Scene) -> list[tuple[Window, Window]]:
    """The ``divisions x divisions`` bins of a window, row-major: each as asked for, and as clipped."""
    bins = []
    for row in range(divisions):
        top, bottom = _core.bin_span(row, row + 1, divisions, window.y1 - window.y0)
        for column in range(divisions):
            left, right = _core.bin_span(column, column + 1, divisions, window.x1 - window.x0)
            asked = Window(window.y0 + top, window.y0 + bottom, window.x0 + left, window.x0 + right)
            y0, y1 = (min(max(y, 0), scene.height) for y in (asked.y0, asked.y1))
            x0, x1 = (min(max(x, 0), scene.width) for x in (asked.x0, asked.x1))
            bins.append((asked, Window(y0, y1, x0, x1)))
    return bins


def _is_empty(window: Window) -> bool:
    return window.y0 >= window.y1 or window.x0 >= window.x1


def rectangle(box: Sequence[float], inset: float = 0.0, **style: Any) -> Rectangle:
    """The outline of a box ``(x1, y1, x2, y2)``, or of a smaller one inside it; a ``facecolor`` fills it."""
    x1, y1, x2, y2 = box
    return Rectangle(
        (x1 + inset, y1 + inset), x2 - x1 - 2 * inset, y2 - y1 - 2 * inset, **{"facecolor": "none", **style}
    )


def _bare(axes: Axes, colour: str | None = None) -> None:
    """Removes the ticks, and the frame too if no ``colour`` is given for it."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(colour is not None)
        spine.set_color(colour or INK)


class Sheet:
    """A figure 1600 pixels wide on which things are placed in inches from its top left corner."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """New axes whose upper left corner is at ``(left, top)``."""
        return self.figure.add_axes(
            (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        )

    def text(self, left: float, top: float, text: str, size: float = 12, **style: Any) -> None:
        """Text whose upper edge is at ``top``."""
        style.setdefault("va", "top")
        style.setdefault("color", INK)
        self.figure.text(left / WIDTH, 1 - top / self.height, text, fontsize=size, **style)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
        """An arrow between two points in inches."""
        points = [(x / WIDTH, 1 - y / self.height) for x, y in (start, end)]
        self.figure.add_artist(
            FancyArrowPatch(
                *points,
                transform=self.figure.transFigure,
                arrowstyle="-|>,head_length=7,head_width=4",
                linewidth=2,
                color=colour,
                shrinkA=0,
                shrinkB=0,
            )
        )

    def save(self, path: str) -> None:
        """Writes the PNG."""
        self.figure.savefig(path, dpi=DPI, format="png")


# ---- the whole map -----------------------------------------------------------------------------------------


def _telling_channel(features: np.ndarray, scene: Scene) -> int:
    """The channel of ``[C, H, W]`` worth looking at: of high contrast, and high where the photo is dark.

    Most channels of an untrained network just follow the brightness, in which the sky would win every bin.
    """
    # The pixel in the middle of each cell; the last cells may reach beyond the photo.
    rows, columns = (
        np.minimum(np.arange(cells) * scene.stride + scene.stride // 2, pixels - 1)
        for cells, pixels in zip(features.shape[1:], scene.photo.shape[:2], strict=True)
    )
    dark = -scene.photo[np.ix_(rows, columns)].mean(2)
    responses = features.reshape(features.shape[0], -1)
    return int(np.argmax((responses - responses.mean(1, keepdims=True)) @ dark.ravel()))


def _draw_photo_and_map(
    sheet: Sheet, top: float, scene: Scene, channels: int, channel: np.ndarray, colours: dict[str, Any]
) -> float:
    """Draws steps 1 and 2 from ``top`` downwards; returns where they ended, in inches."""
    width, height = scene.fit(5.0, 3.6)
    map_left = MARGIN + max(width, 3.8) + 1.75
    rows, columns = scene.photo.shape[:2]
    sheet.text(MARGIN, top, f"1   A photo of any size, here {columns} × {rows} pixels", 13)
    sheet.text(map_left, top, f"2   Its feature map: {channels} channels of {scene.height} × {scene.width} cells", 13)
    top += 0.4
    axes = sheet.axes(MARGIN, top, width, height)
    scene.show(axes)
    _bare(axes)
    for offset in (0.18, 0.09):  # two empty panels behind the map stand for the other channels
        behind = sheet.axes(map_left + offset, top + offset, width, height)
        behind.set_facecolor("#dfe5ea")
        _bare(behind, FAINT)
    axes = sheet.axes(map_left, top, width, height)
    axes.imshow(channel, interpolation="nearest", **colours)
    _bare(axes, FAINT)
    middle, centre = top + height / 2, map_left - 0.875
    sheet.arrow((map_left - 1.55, middle), (map_left - 0.2, middle))
    sheet.text(centre, middle - 0.1, "convolutions", 12, ha="center", va="bottom")
    sheet.text(centre, middle + 0.15, f"{scene.stride} × {scene.stride} pixels\n→ 1 cell", 12, ha="center")
    sheet.text(
        map_left + max(width, 4.2) + 0.5,
        top + 0.05,
        f"One of the {channels} channels is\nshown: bright cells are\nstrong responses.\n\n"
        "The map grows with the photo,\nbut a classifier needs a\nvector of fixed length.\n\n"
        "So: lay grids of bins over\nthe map and keep, from each\nbin, the largest value.",
        12.5,
        linespacing=1.35,
    )
    return top + max(height, 3.2)


def _draw_level(axes: Axes, scene: Scene, level: int, argmax: np.ndarray, colour: str) -> None:
    """Draws one grid over the photo, and a dot on the winner of each bin, ``argmax [level, level]``."""
    scene.show(axes, 0.62)
    inset = max(scene.height, scene.width) / 330
    for _, cells in bins_of(Window(0, scene.height, 0, scene.width), level, scene):
        axes.add_patch(rectangle(cells.box, inset, edgecolor=colour, linewidth=1.6))
    rows, columns = np.divmod(argmax.ravel(), scene.width)
    size = 7 if level < 5 else 6
    axes.plot(columns + 0.5, rows + 0.5, "o", ms=size, mfc=colour, mec="white", mew=1.2)
    _bare(axes)


def _draw_pyramid(
    sheet: Sheet,
    top: float,
    scene: Scene,
    features: np.ndarray,
    pooled: Sequence[tuple[np.ndarray, np.ndarray]],
) -> float:
    """Draws the steps from photo to vector from ``top`` downwards; returns where they ended, in inches."""
    channels = features.shape[0]
    index = _telling_channel(features, scene)
    channel = features[index]
    colours: dict[str, Any] = {"vmin": float(channel.min()), "vmax": float(channel.max()), "cmap": "viridis"}
    top = _draw_photo_and_map(sheet, top, scene, channels, channel, colours) + 0.5

    gap, tile = 0.35, 1.2
    column = (WIDTH - 2 * MARGIN - gap * (len(pooled) - 1)) / len(pooled)
    width, height = scene.fit(column, 3.2)
    sheet.text(
        MARGIN,
        top,
        "3   One grid of bins per level; neighbours share a row or column of cells where the map does not "
        "divide evenly. A dot marks the cell that wins its bin.",
        13,
    )
    panel_top = top + 0.78
    tile_top = panel_top + height + 0.69
    bar_top = tile_top + tile + 0.62
    left_text = "4   Keep the\n     largest\n     value of\n     each bin"
    sheet.text(MARGIN, tile_top, left_text, 12.5, linespacing=1.3)
    bins = 0
    for position, (values, argmax) in enumerate(pooled):
        colour = LEVEL_COLOURS[position % len(LEVEL_COLOURS)]
        level = values.shape[1]
        count = level * level
        bins += count
        left = MARGIN + position * (column + gap)
        centre = left + column / 2
        title = f"level {level}:  {level} × {level} = {count} bin{'s' if count > 1 else ''}"
        sheet.text(left, panel_top - 0.33, title, 12.5, color=colour)
        _draw_level(sheet.axes(centre - width / 2, panel_top, width, height), scene, level, argmax[index], colour)
        sheet.arrow((centre, panel_top + height + 0.1), (centre, tile_top - 0.08), colour)
        axes = sheet.axes(centre - tile / 2, tile_top, tile, tile)
        axes.imshow(values[index], extent=(0, level, level, 0), interpolation="nearest", **colours)
        for line in range(1, level):
            axes.axhline(line, color="white", linewidth=1)
            axes.axvline(line, color="white", linewidth=1)
        _bare(axes, colour)
        sheet.text(centre + tile / 2 + 0.15, tile_top + tile / 2, f"× {channels}\nchannels", 12, va="center")
        sheet.arrow((centre, tile_top + tile + 0.1), (centre, bar_top - 0.08), colour)
        # The bars touch, because they are pieces of one vector.
        last = position + 1 == len(pooled)
        axes = sheet.axes(left, bar_top, column if last else column + gap, 0.42)
        axes.set_facecolor(colour)
        _bare(axes, "white")
        numbers = f"{channels} × {count} = {channels * count:,}"
        sheet.text(centre, bar_top + 0.21, numbers, 12.5, color="white", ha="center", va="center")
    sheet.text(
        MARGIN,
        bar_top + 0.55,
        f"5   One vector of C × B = {channels} × {bins} = {channels * bins:,} numbers, "
        "whatever the size of the photo (bars not to scale)",
        13,
    )
    return bar_top + 1.0


# ---- the region conventions --------------------------------------------------------------------------------


def example_regions(height: int, width: int) -> list[Region]:
    """Three boxes that show where the conventions differ on a map of ``height x width`` cells."""
    x, y = width // 4, height // 4
    ordinary = Region(
        "an ordinary box,\nends on half cells",
        (x + 2.5, y + 2.5, x + 8.5, y + 7.5),
        (y + 1, y + 10, x, x + 12),
    )
    x, y = (5 * width) // 8, height // 2
    tiny = Region(
        "a box smaller\nthan a cell",
        (x + 1.3, y + 1.1, x + 1.9, y + 1.4),
        (y - 0.75, y + 3, x - 1, x + 4),
    )
    x, y = width - 6, height // 3
    outside = Region(
        "a box that leaves\nthe map",
        (x + 2.4, y + 2.3, x + 9.7, y + 6.6),
        (y, y + 9, x, x + 12),
    )
    return [ordinary, tiny, outside]


def example_boxes(height: int, width: int) -> list[tuple[float, float, float, float]]:
    """The boxes ``(x1, y1, x2, y2)`` of `example_regions`, in feature cells."""
    return [region.box for region in example_regions(height, width)]


def _remark(bins: Sequence[tuple[Window, Window]]) -> str:
    """What there is to say about a window's bins, in a few words."""
    empty = sum(_is_empty(cells) for _, cells in bins)
    if empty:
        return f"{empty} of its {len(bins)} bins are empty"
    if len(set(bins)) == 1:
        return f"all {len(bins)} bins are this cell"
    overlap = any(
        first != second
        and max(first.y0, second.y0) < min(first.y1, second.y1)
        and max(first.x0, second.x0) < min(first.x1, second.x1)
        for _, first in bins
        for _, second in bins
    )
    return "some bins share cells" if overlap else "no two bins share a cell"


def _draw_region(axes: Axes, scene: Scene, region: Region, convention: str, level: int) -> str:
    """Draws one panel: photo, cells, box, window, bins. Returns the line of text that goes under it."""
    scene.show(axes, 0.3)
    top, bottom, left, right = region.view
    axes.set(xlim=(left, right), ylim=(bottom, top), facecolor=OUTSIDE)
    _bare(axes, FAINT)
    lines: dict[str, Any] = {"color": "#9a9a9a", "linewidth": 0.7, "zorder": 1.5}
    axes.vlines(range(scene.width + 1), 0, scene.height, **lines)
    axes.hlines(range(scene.height + 1), 0, scene.width, **lines)

    window = Window(*_core.roi_window(convention, *region.box, 1.0, scene.height, scene.width))
    bins = bins_of(window, level, scene)
    inset = (right - left) / 120  # as wide on paper in every panel, whatever its zoom
    for asked, cells in bins:
        if _is_empty(cells):
            axes.add_patch(rectangle(asked.box, inset, zorder=2, edgecolor=EMPTY, linewidth=0.9, hatch="////"))
        else:
            axes.add_patch(rectangle(cells.box, inset, zorder=2, facecolor=BIN, alpha=0.2, linewidth=0))
            axes.add_patch(rectangle(cells.box, inset, zorder=2.5, edgecolor=BIN, linewidth=1.3))
    axes.add_patch(rectangle(window.box, zorder=3, edgecolor=WINDOW, linewidth=3))
    axes.add_patch(rectangle(region.box, zorder=4, edgecolor=BOX, linewidth=2.6))
    x1, y1, x2, y2 = region.box
    rows, columns = window.y1 - window.y0, window.x1 - window.x0
    size = "1 cell" if rows * columns == 1 else f"{rows} × {columns} cells"
    if x1 >= scene.width or x2 < 0 or y1 >= scene.height or y2 < 0:
        return f"window of {size}, for a box outside the map"
    if x1 >= window.x1 or x2 < window.x0 or y1 >= window.y1 or y2 < window.y0:
        return f"window of {size}, where its crossed ends meet"
    return f"window of {size}; {_remark(bins)}"


def _draw_conventions(sheet: Sheet, top: float, scene: Scene, level: int) -> float:
    """Draws three boxes under three conventions from ``top`` downwards; returns where they ended."""
    label, gap = 2.15, 0.3
    width = (WIDTH - label - MARGIN - 2 * gap) / 3
    height = width * 3 / 4
    for index, (name, sentence) in enumerate(CONVENTIONS.items()):
        left = label + index * (width + gap)
        sheet.text(left, top, f'"{name}"', 14, weight="bold", family="monospace", color=WINDOW)
        sheet.text(left, top + 0.32, sentence, 12, linespacing=1.25)
    top += 1.0
    for region in example_regions(scene.height, scene.width):
        x1, y1, x2, y2 = region.box
        ends = f"x  {x1:g} to {x2:g}\ny  {y1:g} to {y2:g}\nin cells"
        sheet.text(MARGIN, top, region.name, 12, weight="bold", linespacing=1.3)
        sheet.text(MARGIN, top + 0.75, ends, 12, color="#555555", linespacing=1.35)
        for index, name in enumerate(CONVENTIONS):
            left = label + index * (width + gap)
            line = _draw_region(sheet.axes(left, top, width, height), scene, region, name, level)
            sheet.text(left, top + height + 0.07, line, 12)
        top += height + 0.6

    handles = [
        rectangle((0, 0, 1, 1), edgecolor=BOX, linewidth=2.6),
        rectangle((0, 0, 1, 1), edgecolor=WINDOW, linewidth=3),
        rectangle((0, 0, 1, 1), facecolor="#d2e4f6", edgecolor=BIN, linewidth=1.3),
        rectangle((0, 0, 1, 1), facecolor="white", edgecolor=EMPTY, linewidth=0.9, hatch="////"),
        rectangle((0, 0, 1, 1), facecolor=OUTSIDE, edgecolor=FAINT, linewidth=0.8),
    ]
    labels = [
        "the box, as given",
        "its window: whole cells",
        f"the {level} × {level} bins of level {level}\n(darker: shared cells)",
        "empty bin: value 0,\nargmax -1, no gradient",
        "outside the map",
    ]
    sheet.figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - top / sheet.height),
        ncols=5,
        frameon=False,
        fontsize=12,
        handlelength=2.2,
        handleheight=1.6,
        columnspacing=2.2,
    )
    return top + 0.75


def demo_figure(
    path: str,
    photo: np.ndarray,
    features: np.ndarray,
    pooled: Sequence[tuple[np.ndarray, np.ndarray]],
    stride: int,
) -> None:
    """Writes the whole explanation as a PNG 1600 pixels wide.

    Args:
        path: where to.
        photo: uint8 ``[rows, columns, 3]``.
        features: ``[C, H, W]``, the photo's feature map, one cell for ``stride x stride`` pixels.
        pooled: the values and the argmax, ``[C, n, n]`` each, of every level of the whole map.
        stride: pixels per cell.
    """
    scene = Scene(photo, stride, *features.shape[1:])

    def draw(sheet: Sheet) -> float:
        sheet.text(MARGIN, 0.25, "Spatial pyramid max pooling of a whole feature map", 19, weight="bold")
        top = _draw_pyramid(sheet, 0.85, scene, features, pooled)
        sheet.text(MARGIN, top + 0.15, "... and of regions: which cells belong to a box?", 19, weight="bold")
        sheet.text(
            MARGIN,
            top + 0.55,
            "A box from the photo rarely ends on cell borders. Three conventions turn it into a window of "
            "whole cells, which the pyramid's bins then divide.",
            12.5,
        )
        return _draw_conventions(sheet, top + 1.05, scene, level=3)

    _write(path, draw)


def conventions_figure(path: str, photo: np.ndarray, stride: int) -> None:
    """Writes only the picture of the region conventions, 1600 pixels wide.

    Args:
        path: where to.
        photo: uint8 ``[rows, columns, 3]``.
        stride: pixels per feature cell.
    """
    scene = Scene(photo, stride, -(-photo.shape[0] // stride), -(-photo.shape[1] // stride))
    _write(path, lambda sheet: _draw_conventions(sheet, 0.3, scene, level=3))


def _write(path: str, draw: Callable[[Sheet], float]) -> None:
    """Draws twice: once to learn how tall the sheet must be, once for good."""
    sheet = Sheet(draw(Sheet(10.0)))
    draw(sheet)
    sheet.save(path)
