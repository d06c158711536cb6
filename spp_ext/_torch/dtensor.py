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

The public functions import this when they meet a DTensor. Whoever calls ``torch.ops.spp_ext.*`` with DTensors directly
imports `spp_ext.distributed` first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.experimental import register_sharding

from spp_ext._torch.op_table import LINEAR, NAMESPACE, POOLINGS, Linear, Pooling, Request, Rows
from spp_ext._torch.private import set_sharded_size_argument, set_sharding_cache_key
from spp_ext.levels import decode_levels, encode_levels

_IMAGES = _ROWS = Shard(0)
_CHANNELS = Shard(1)
_ALL = Replicate()

# Placements of an op's results, and of its tensors: (map, rois) or (map or grad_output, argmax, rois).
_Rule = tuple[list[Any], list[Any]]


def prepare(maps: Sequence[Tensor], rows: Rows, request: Request) -> tuple[Rows, list[Request]]:
    """The rows as DTensors, and the request, cut into one for each level where channels are sharded."""
    op, (encoded, *others), level_bins = request
    if op.of_maps:
        raise NotImplementedError(f"spp_ext.{op.spoken}: expected a DTensor to be the only map, got one of {len(maps)}")
    (input,) = maps
    assert isinstance(input, DTensor)
    if rows.rois is not None and not isinstance(rows.rois, DTensor):  # then they are the same on every device
        mesh = input.device_mesh
        rows = rows._replace(rois=DTensor.from_local(rows.rois, mesh, [_ALL] * mesh.ndim, run_check=False))
    if op.of_blocks or len(level_bins) == 1 or _CHANNELS not in input.placements:
        return rows, [request]
    levels = decode_levels(f"spp_ext.{op.spoken}", encoded)
    return rows, [Request(op, (encode_levels([level]), *others), [level.bins]) for level in levels]


def _even_channels(map: Any, levels: int) -> bool:
    return levels == 1 and map.shape[1] % map.mesh.size() == 0


def _pooling_rules(op: Pooling, results: int) -> Callable[..., list[_Rule]]:
    def rules(*inputs: Any) -> list[_Rule]:
        (input,), _, (first, *others) = op.split(inputs)
        found: list[tuple[Any, list[Any]]] = [
            (_ALL, [_ALL, _ALL]),
            (_ROWS, [_ALL, _ROWS] if op.of_regions else [_IMAGES]),
        ]
        if not op.of_blocks and _even_channels(input, len(decode_levels(f"spp_ext.{op.spoken}", first))):
            found.append((_CHANNELS, [_CHANNELS, _ALL]))
        tensors, nothing = 1 + op.of_regions, [None] * (1 + len(others))
        return [([out] * results, [*placements[:tensors], *nothing]) for out, placements in found]

    return rules


def _linear_rules(op: Linear) -> Callable[..., list[_Rule]]:
    # Where regions are sharded, gather reads from a whole map, and the gradients of scatter are parts of a sum.
    of_tensor, of_result = (_ALL, _ROWS) if op.is_gather else (_ROWS, Partial())

    def rules(tensor: Any, argmax: Any, rois: Any, level_bins: Sequence[int], *others: Any) -> list[_Rule]:
        boxes = None if rois is None else _ALL
        found: list[_Rule] = [([_ALL], [_ALL, _ALL, boxes])]
        if rois is None:
            found.append(([_ROWS], [_ROWS, _ROWS, None]))
        else:
            found.append(([of_result], [of_tensor, _ROWS, _ROWS]))
        # A row's columns are level after level, so shards of it are shards of channels only where there is one.
        if len(level_bins) == 1 and argmax.shape[1] // level_bins[0] % argmax.mesh.size() == 0:
            found.append(([_CHANNELS], [_CHANNELS, _CHANNELS, boxes]))
        return [(out, [*tensors, None, *(None for _ in others)]) for out, tensors in found]

    return rules


def _register(name: str, rules: Callable[..., list[_Rule]]) -> Any:
    op = getattr(getattr(torch.ops, NAMESPACE), name).default
    register_sharding(op)(rules)
    set_sharding_cache_key(op)
    return op


for _pooling in POOLINGS:
    if not _pooling.of_maps:
        _register(_pooling.name, _pooling_rules(_pooling, 1))
        _register(_pooling.with_argmax, _pooling_rules(_pooling, 2))
for _linear in LINEAR:
    if not _linear.of_maps:
        _op = _register(_linear.name, _linear_rules(_linear))
        if not _linear.is_gather:
            set_sharded_size_argument(_op, 4)
