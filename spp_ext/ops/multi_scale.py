"""`torchvision.ops.MultiScaleRoIAlign` with max pooling: each region from the map of a feature pyramid that fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from spp_ext import _checks
from spp_ext._boxes import TORCHVISION, as_rois, warn_if_all_miss, widened
from spp_ext._calls import pool_as
from spp_ext._reuse import ReusesOutput, shapes_of
from spp_ext._torch.op_table import REGIONS_OF_MAPS, Request
from spp_ext._torch.outs import check_apart, check_out
from spp_ext.levels import encoded_grid

_OP = "spp_ext.ops.MultiScaleRoIPool"


class MultiScaleRoIPool(ReusesOutput, nn.Module):
    """Pools every region from one map of a feature pyramid: `torchvision.ops.MultiScaleRoIAlign` with `roi_pool`.

    The level of a region is ``floor(canonical_level + log2(sqrt(area) / canonical_scale))``, equation 1 of Lin et al.
    2017 (arXiv:1612.03144), held to the levels that have a map; one of ``1 / 2**k`` of the image's size is of level k.
    All regions of all maps are pooled in one call.

    torchvision's detectors take only their own class in the constructor; afterwards they take this one::

        model.roi_heads.box_roi_pool = MultiScaleRoIPool(["0", "1", "2", "3"], output_size=7)

    Args:
        featmap_names: the names of the maps to pool from; other maps are left alone.
        output_size: ``n`` for n x n bins, or ``(rows, cols)``.
        canonical_scale: the width and height, in image pixels, of a region of the canonical level.
        canonical_level: the level of a region of canonical scale.
        reuse_output: as in `RoIPool`.

    Example::

        >>> maps = {"0": torch.randn(2, 256, 200, 256), "1": torch.randn(2, 256, 100, 128)}
        >>> boxes = [torch.tensor([[32.0, 48, 90, 100]]), torch.tensor([[0.0, 0, 799, 599]])]
        >>> MultiScaleRoIPool(["0", "1"], 7)(maps, boxes, [(800, 1024), (768, 1000)]).shape
        torch.Size([2, 256, 7, 7])
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
        reuse_output: bool = False,
    ) -> None:
        super().__init__()
        what = f"{_OP}: expected output_size, an int or a pair, between 1 and {_checks.MAX_DIVISIONS}"
        self.featmap_names = featmap_names
        self.output_size = _checks.divisions(output_size, what)
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level
        self.reuse_output = reuse_output

    def forward(
        self, x: Mapping[str, Tensor], boxes: Tensor | Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Pools the boxes of every image.

        Args:
            x: maps ``[N, C, H, W]`` by name, from the largest to the smallest.
            boxes: the boxes ``[L, 4]`` of each image, or all as ``[K, 5]``, as in `roi_pool`; in image coordinates.
            image_shapes: rows and columns of each image in the batch that the maps were computed from.

        Returns:
            ``[K, C, rows, cols]``, of the dtype of the first map.

        Raises:
            TypeError: an argument has the wrong type, or a tensor is not floating-point.
            ValueError: no map has one of the names, there is no image, a shape does not fit, or a coordinate is not
                finite.
            IndexError: a batch index lies outside ``[0, N)``. The contents of boxes are checked as in `roi_pool`.
        """
        if not isinstance(x, Mapping):
            raise TypeError(f"{_OP}: expected x to be a dict of maps, got {type(x).__name__}")
        maps = [map for name, map in x.items() if name in self.featmap_names]
        if not maps:
            raise ValueError(
                f"{_OP}: expected maps named {_checks.shown(self.featmap_names)}, got {_checks.shown([*x])}"
            )
        for map in maps:
            _checks.check_tensor(_OP, map, "every map")
            if map.dim() != 4:
                raise ValueError(f"{_OP}: expected every map of shape [N, C, H, W], got {list(map.shape)}")
        pool = partial(
            self._pool, [map.to(maps[0].dtype) for map in maps], boxes, image_shapes
        )  # autocast mixes dtypes
        if not self.reuse_output:
            return pool()
        return self._reuse(pool, maps, lambda map: (map.shape[:2], shapes_of(boxes), self.output_size))

    def _pool(
        self,
        maps: Sequence[Tensor],
        boxes: Tensor | Sequence[Tensor],
        image_shapes: Sequence[tuple[int, int]],
        out: Tensor | None = None,
    ) -> Tensor:
        rows, cols = self.output_size
        levels = _levels_of_maps(maps, image_shapes)
        scales = [2.0**-level for level in levels]
        rois = as_rois(_OP, boxes, maps[0])
        map_indices = self._maps_of(rois, levels)
        validate = _checks.VALIDATES
        request = Request(REGIONS_OF_MAPS, (encoded_grid(rows, cols), scales, TORCHVISION, validate), [rows * cols])
        if out is not None:
            check_apart(_OP, out, "boxes", boxes)
            check_out(_OP, out, maps[0], (*rois.shape[:1], maps[0].shape[1], rows, cols))
        output, _ = pool_as(_OP, tuple(maps), (rois, map_indices), request, out=out)
        if validate:
            warn_if_all_miss(_OP, maps, rois, map_indices, scales)
        return output if out is not None else output.view(output.shape[0], maps[0].shape[1], rows, cols)

    def _maps_of(self, rois: Tensor, levels: Sequence[int]) -> Tensor:
        """The map of each of the ``rois``, where maps have these levels. In torchvision's arithmetic, step by step."""
        x1, y1, x2, y2 = widened(rois[:, 1:]).unbind(1)
        size = ((x2 - x1) * (y2 - y1)).sqrt()
        level = (self.canonical_level + (size / self.canonical_scale).log2() + 1e-6).floor()
        # Without a size, as an inverted box or one that will be refused, a region is of the first map.
        last = min(max(levels[-1] - levels[0], 0), len(levels) - 1)
        return (level - levels[0]).nan_to_num(0.0).clamp(0, last).long()

    def extra_repr(self) -> str:  # noqa: D102
        return f"featmap_names={self.featmap_names}, output_size={self.output_size}{self._shown()}"


def _levels_of_maps(maps: Sequence[Tensor], image_shapes: Sequence[tuple[int, int]]) -> list[int]:
    """How often the rows of the images, padded to the greatest, were halved to be those of each map; rounded."""
    image_rows = max([rows for rows, _ in image_shapes], default=0)
    if image_rows < 1:
        raise ValueError(f"{_OP}: expected image_shapes, rows and columns of each image, got {image_shapes}")
    return [_halvings(map.shape[2], image_rows) for map in maps]


def _halvings(rows: int, image_rows: int) -> int:
    """-log2(rows / image_rows), rounded: in integers, so that one graph serves all sizes of one answer."""
    twice_squared = 2 * max(rows, 1) ** 2  # half a halving is a factor of the square root of 2
    halvings = 0
    while twice_squared * 4**halvings < image_rows**2:
        halvings += 1
    while halvings <= 0 and twice_squared >= 4 ** (1 - halvings) * image_rows**2:
        halvings -= 1
    return halvings
