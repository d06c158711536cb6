"""The functions as ``torch.nn`` modules, without parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from spp_ext._boxes import Convention
from spp_ext._reuse import ReusesOutput, shapes_of
from spp_ext.functional import roi_spatial_pyramid_pool, spatial_pyramid_pool
from spp_ext.levels import Level, parse_levels


class SpatialPyramidPool(ReusesOutput, nn.Module):
    """`spatial_pyramid_pool` with fixed levels: ``[N, C, H, W]`` to ``[N, C * bins]``, whatever H and W.

    Also of a list of maps that differ in size, or of padded images with their ``sizes``.

    Args:
        levels: one item per level, ``n``, ``(rows, cols)`` or a `Bins`.
        reuse_output: in inference, where nothing requires grad, write each result into the memory of the last, as long
            as shape, dtype and device stay. The next call then overwrites this result: clone what must outlive it.

    Example::

        >>> head = nn.Sequential(SpatialPyramidPool((6, 3, 2, 1)), nn.Linear(256 * 50, 4096))
    """

    def __init__(self, levels: Sequence[Level] = (1, 2, 3, 6), *, reuse_output: bool = False) -> None:
        super().__init__()
        self.bins = sum(level.bins for level in parse_levels("spp_ext.SpatialPyramidPool", levels))
        self.levels = tuple(tuple(level) if isinstance(level, list) else level for level in levels)
        self.reuse_output = reuse_output

    def forward(self, input: Tensor | Sequence[Tensor], sizes: Tensor | None = None) -> Tensor:
        """Pools ``[N, C, H, W]`` or ``[C, H, W]``, the part of it that ``sizes`` say, or a list of maps."""
        pool = partial(spatial_pyramid_pool, input, self.levels, sizes=sizes)
        if not self.reuse_output:
            return pool()
        return self._reuse(pool, input, lambda _: ([shape[:-2] for shape in shapes_of(input)], self.levels))

    def extra_repr(self) -> str:  # noqa: D102
        return f"levels={self.levels}{self._shown()}"


class RoISpatialPyramidPool(ReusesOutput, nn.Module):
    """`roi_spatial_pyramid_pool` with fixed levels, scale and convention: regions of a map to ``[K, C * bins]``.

    Args:
        levels: one item per level, ``n``, ``(rows, cols)`` or a `Bins`.
        spatial_scale: feature cells per image pixel, or for several maps a sequence of one for each.
        convention: how a box becomes a window, ``"roi_pool"``, ``"spp_net"`` or ``"outer"``.
        reuse_output: as in `SpatialPyramidPool`, as long as the number of regions stays too.
    """

    def __init__(
        self,
        levels: Sequence[Level] = (1, 2, 3, 6),
        spatial_scale: float | Sequence[float] = 1.0,
        convention: Convention = "roi_pool",
        *,
        reuse_output: bool = False,
    ) -> None:
        super().__init__()
        self.bins = sum(level.bins for level in parse_levels("spp_ext.RoISpatialPyramidPool", levels))
        self.levels = tuple(tuple(level) if isinstance(level, list) else level for level in levels)
        self.spatial_scale = spatial_scale
        self.convention: Convention = convention
        self.reuse_output = reuse_output

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
