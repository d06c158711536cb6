"""The table of ops: what is registered, from which kernels, fakes, derivatives, shardings and translations follow.

The schemas are in csrc/torch/ops.h, the table of the C++ side; a test compares the two. Also what a call of an op is
made of: its maps, its rows and its request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

NAMESPACE = "spp_ext"


class Rows(NamedTuple):
    """What the rows of an output are: images in order, regions, or regions of several maps."""

    rois: Tensor | None = None  # [K, 5]; None: row n is image n
    map_indices: Tensor | None = None  # [K], int64; None: there is one map


IMAGES = Rows()  # whole maps: row n is image n


class Pooling(NamedTuple):
    """``name(maps, [rois, [map_indices]], *arguments)``, and two other forms.

    ``name_with_argmax`` gives the argmax beside the values, and ``name.out(..., *, out)`` writes them into ``out``.
    """

    name: str
    with_argmax: str
    into: str
    spoken: str  # the public op whose name its errors bear
    of_regions: bool = False
    of_maps: bool = False  # takes a list of maps; such an op is one of regions
    of_blocks: bool = False  # gives [N, L * C, H, W], not [rows, C * B]: stride-1 pools, whose bins are cells

    def split(self, inputs: Sequence[Any]) -> tuple[tuple[Tensor, ...], Rows, tuple[Any, ...]]:
        """The maps, the rows and the other arguments of a call of the registered op."""
        if self.of_maps:
            return tuple(inputs[0]), Rows(*inputs[1:3]), tuple(inputs[3:])
        rows = int(self.of_regions)
        return (inputs[0],), Rows(*inputs[1 : 1 + rows]), tuple(inputs[1 + rows :])

    def join(
        self, maps: Sequence[Tensor], rows: tuple[Tensor | None, Tensor | None], arguments: Sequence[Any]
    ) -> tuple[Any, ...]:
        """The way back from `split`."""
        if self.of_maps:
            return (list(maps), *rows, *arguments)
        return (maps[0], rows[0], *arguments) if self.of_regions else (maps[0], *arguments)


class Linear(NamedTuple):
    """gather or scatter: ``name(maps or grad_output, argmax, rois, [map_indices], level_bins, ...)``."""

    name: str
    is_gather: bool
    of_maps: bool = False


def _pooling(name: str, spoken: str | None = None, **kind: bool) -> Pooling:
    return Pooling(name, f"{name}_with_argmax", f"{name}.out", spoken or name, **kind)


MAPS = _pooling("spatial_pyramid_pool")
REGIONS = _pooling("roi_spatial_pyramid_pool", of_regions=True)
REGIONS_OF_MAPS = _pooling("roi_spatial_pyramid_pool_of_maps", REGIONS.name, of_regions=True, of_maps=True)
STRIDE1 = _pooling("multi_kernel_max_pool2d", of_blocks=True)
POOLINGS = (MAPS, REGIONS, REGIONS_OF_MAPS, STRIDE1)

GATHER = Linear("gather", is_gather=True)
GATHER_OF_MAPS = Linear("gather_of_maps", is_gather=True, of_maps=True)
SCATTER = Linear("scatter", is_gather=False)
SCATTER_OF_MAPS = Linear("scatter_of_maps", is_gather=False, of_maps=True)
LINEAR = (GATHER, GATHER_OF_MAPS, SCATTER, SCATTER_OF_MAPS)

# Every registered op that takes a tensor, and those overloads that write into one.
NAMES = (*(name for op in POOLINGS for name in (op.name, op.with_argmax)), *(op.name for op in LINEAR))
OUT_NAMES = tuple(op.into for op in POOLINGS)

# The public op that a registered one speaks for, by its name without the overload.
SPOKEN = {name.partition(".")[0]: op.spoken for op in POOLINGS for name in (op.name, op.with_argmax, op.into)}


def overload(ops: Any, name: str) -> Any:
    """The overload of ``torch.ops.<namespace>`` that a name of these means."""
    packet, _, chosen = name.partition(".")
    return getattr(getattr(ops, packet), chosen or "default")


class Request(NamedTuple):
    """What is asked of the maps and rows of a call."""

    op: Pooling
    arguments: tuple[Any, ...]  # of the registered op after the tensors: levels, and for regions scale and convention
    level_bins: Sequence[int]  # bins of each level: how the numbers of a row are laid out


# Of each map that a gradient is for, [N, C, H, W] and whether it is channels_last.
Shapes: TypeAlias = Sequence[tuple[Sequence[int], bool]]
