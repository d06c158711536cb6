"""The functions as ``torch.nn`` modules, without parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, SupportsFloat

from torch import Tensor, nn

from spp_ext._boxes import Convention, convention_number
from spp_ext._checks import items_of, scale, shown, whole_number
from spp_ext._reuse import ReusesOutput, shapes_of
from spp_ext.functional import roi_spatial_pyramid_pool, spatial_pyramid_pool
from spp_ext.levels import Level, num_bins, plain_levels


class _OfLevels(ReusesOutput, nn.Module):
    _op: ClassVar[str]  # on whose behalf errors speak

    def __init__(self, levels: Sequence[Level], reuse_output: bool) -> None:
        super().__init__()
        self.levels = plain_levels(self._op, levels)
        self.bins = num_bins(self.levels)
        self.reuse_output = reuse_output

    def out_features(self, channels: int) -> int:
        """How long a pooled row is: the ``in_features`` of a layer behind this one, for maps of so many channels."""
        what = f"{self._op}.out_features: expected channels, an int of at least 0"
        if (count := whole_number(channels, what)) < 0:
            raise ValueError(f"{what}, got {shown(channels)}")
        return count * self.bins


class SpatialPyramidPool(_OfLevels):
    """`spatial_pyramid_pool` with fixed levels: ``[N, C, H, W]`` to ``[N, C * bins]``, whatever H and W.

    Also of a list of maps that differ in size, or of padded images with their ``sizes``.

    Args:
        levels: one item per level, ``n``, ``(rows, cols)`` or a `Bins`.
        reuse_output: in inference, where nothing requires grad, write each result into the memory of the last, as long
            as shape, dtype and device stay. The next call then overwrites this result: clone what must outlive it.

    Example::

        >>> pool = SpatialPyramidPool((6, 3, 2, 1))
        >>> head = nn.Sequential(pool, nn.Linear(pool.out_features(256), 4096))
    """

    _op = "spp_ext.SpatialPyramidPool"

    def __init__(self, levels: Sequence[Level] = (1, 2, 3, 6), *, reuse_output: bool = False) -> None:
        super().__init__(levels, reuse_output)

    def forward(self, input: Tensor | Sequence[Tensor], sizes: Tensor | None = None) -> Tensor:
        """Pools ``[N, C, H, W]`` or ``[C, H, W]``, the part of it that ``sizes`` say, or a list of maps."""
        pool = partial(spatial_pyramid_pool, input, self.levels, sizes=sizes)
        if not self.reuse_output:
            return pool()
        return self._reuse(pool, input, lambda _: ([shape[:-2] for shape in shapes_of(input)], self.levels))

    def extra_repr(self) -> str:  # noqa: D102
        return f"levels={self.levels}{self._shown()}"


class RoISpatialPyramidPool(_OfLevels):
    """`roi_spatial_pyramid_pool` with fixed levels, scale and convention: regions of a map to ``[K, C * bins]``.

    Args:
        levels: one item per level, ``n``, ``(rows, cols)`` or a `Bins`.
        spatial_scale: feature cells per image pixel, or for several maps a sequence of one for each.
        convention: how a box becomes a window, ``"roi_pool"``, ``"spp_net"`` or ``"outer"``.
        reuse_output: as in `SpatialPyramidPool`, as long as the number of regions stays too.
    """

    _op = "spp_ext.RoISpatialPyramidPool"

    def __init__(
        self,
        levels: Sequence[Level] = (1, 2, 3, 6),
        spatial_scale: SupportsFloat | Sequence[SupportsFloat] = 1.0,
        convention: Convention = "roi_pool",
        *,
        reuse_output: bool = False,
    ) -> None:
        super().__init__(levels, reuse_output)
        scales = items_of(spatial_scale)
        self.spatial_scale: float | tuple[float, ...] = (
            scale(self._op, spatial_scale) if scales is None else tuple([scale(self._op, each) for each in scales])
        )
        convention_number(self._op, convention)  # which checks it
        self.convention: Convention = convention

    def forward(
        self,
        input: Tensor | Sequence[Tensor],
        boxes: Tensor | Sequence[Tensor],
        map_indices: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Pools the ``boxes`` (``[K, 5]``, or a list of ``[L, 4]``) of ``input [N, C, H, W]``, or of several maps."""
        pool = partial(
            roi_spatial_pyramid_pool,
            *(input, boxes, self.levels, self.spatial_scale),
            convention=self.convention,
            map_indices=map_indices,
        )
        if not self.reuse_output:
            return pool()
        return self._reuse(pool, input, lambda map: (map.shape[:2], shapes_of(boxes), self.levels))

    def extra_repr(self) -> str:  # noqa: D102
        shown = f"levels={self.levels}, spatial_scale={self.spatial_scale}, convention={self.convention!r}"
        return f"{shown}{self._shown()}"
