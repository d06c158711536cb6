"""How the ops act on DTensors: which shardings they keep, and what is gathered where they cannot.

    sharded along      whole maps                         regions
    images             kept                               the map is gathered: any box may name any image
    boxes              -                                  kept; the gradients of the shards are added up
    channels           kept with one level; with more, each level is pooled from its shard and only the
                       outputs, which are small, are gathered: level after level is not an even split
    rows, columns      the map is gathered

Of stride-1 pools images are kept, and for anything else the map is gathered: their channels come in blocks, one for
each size, which is not an even split either.

Regions of several maps take no DTensor.

The public functions import this when they meet a DTensor. It needs no call by a user, except for one who calls
``torch.ops.spp_ext.*`` with DTensors directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
from torch.distributed.tensor.experimental import register_sharding

_propagator = DTensor._op_dispatcher.sharding_propagator

_IMAGES = _ROWS = Shard(0)
_CHANNELS = Shard(1)
_ALL = Replicate()

# Placements of an op's results, and of its tensors: (map, rois) or (map or grad_output, argmax, rois).
_Rule = tuple[list[Any], list[Any]]


def shards_channels(tensor: Tensor) -> bool:
    """Whether ``tensor [N, C, H, W]`` is a DTensor of which every device has some channels."""
    return isinstance(tensor, DTensor) and _CHANNELS in tensor.placements


def beside(rois: Tensor, input: DTensor) -> DTensor:
    """``rois`` as a DTensor; those that are none are taken to be the same on every device."""
    if isinstance(rois, DTensor):
        return rois
    mesh = input.device_mesh
    return DTensor.from_local(rois, mesh, [_ALL] * mesh.ndim, run_check=False)


def _even_channels(map: Any, levels: int) -> bool:
    return levels == 1 and map.shape[1] % map.mesh.size() == 0


def _levels(encoded: Sequence[int]) -> int:
    from spp_ext._torch.registration import level_bins

    return len(level_bins(encoded))


def _map_rules(results: int) -> Callable[..., list[_Rule]]:
    def rules(input: Any, levels: Sequence[int]) -> list[_Rule]:
        found = [([_ALL] * results, [_ALL]), ([_ROWS] * results, [_IMAGES])]
        if _even_channels(input, _levels(levels)):
            found.append(([_CHANNELS] * results, [_CHANNELS]))
        return [(out, [*tensors, None]) for out, tensors in found]

    return rules


def _region_rules(results: int) -> Callable[..., list[_Rule]]:
    def rules(input: Any, rois: Any, levels: Sequence[int], *others: Any) -> list[_Rule]:
        found = [([_ALL] * results, [_ALL, _ALL]), ([_ROWS] * results, [_ALL, _ROWS])]
        if _even_channels(input, _levels(levels)):
            found.append(([_CHANNELS] * results, [_CHANNELS, _ALL]))
        return [(out, [*tensors, None, *(None for _ in others)]) for out, tensors in found]

    return rules


def _kernel_rules(results: int) -> Callable[..., list[_Rule]]:
    def rules(input: Any, *others: Any) -> list[_Rule]:
        nothing = [None] * len(others)
        return [([_ALL] * results, [_ALL, *nothing]), ([_ROWS] * results, [_IMAGES, *nothing])]

    return rules


def _linear_rules(rows_of_regions: tuple[Any, Any]) -> Callable[..., list[_Rule]]:
    """Of gather and scatter. Regions that are sharded turn (the tensor's, the result's) placement into that given."""

    def rules(tensor: Any, argmax: Any, rois: Any, level_bins: Sequence[int], *others: Any) -> list[_Rule]:
        boxes = None if rois is None else _ALL
        found = [([_ALL], [_ALL, _ALL, boxes])]
        if rois is None:
            found.append(([_ROWS], [_ROWS, _ROWS, None]))
        else:
            of_tensor, of_result = rows_of_regions
            found.append(([of_result], [of_tensor, _ROWS, _ROWS]))
        # A row's columns are level after level, so shards of it are shards of channels only where there is one.
        if len(level_bins) == 1 and argmax.shape[1] // level_bins[0] % argmax.mesh.size() == 0:
            found.append(([_CHANNELS], [_CHANNELS, _CHANNELS, boxes]))
        return [(out, [*tensors, None, *(None for _ in others)]) for out, tensors in found]

    return rules


def _register(name: str, rules: Callable[..., list[_Rule]]) -> None:
    op = getattr(torch.ops.spp_ext, name).default
    register_sharding(op)(rules)
    # Results are cached by what they depend on, and these depend on all arguments; lists of ints are taken as they are.
    _propagator.op_to_schema_info[op] = RuntimeSchemaInfo(static_argnum=1)


_register("spatial_pyramid_pool", _map_rules(1))
_register("spatial_pyramid_pool_with_argmax", _map_rules(2))
_register("roi_spatial_pyramid_pool", _region_rules(1))
_register("roi_spatial_pyramid_pool_with_argmax", _region_rules(2))
_register("multi_kernel_max_pool2d", _kernel_rules(1))
_register("multi_kernel_max_pool2d_with_argmax", _kernel_rules(2))
_register("gather", _linear_rules((_ALL, _ROWS)))
_register("scatter", _linear_rules((_ROWS, Partial())))
# The sizes that scatter is given are those of the whole gradient; a shard needs its own.
_propagator.op_to_shape_and_stride_idx[torch.ops.spp_ext.scatter.default] = 4
