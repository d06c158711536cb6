"""Finds spatial pyramid pooling written by hand: flattened adaptive max pools of one map, concatenated.

The pools are modules or functions. They are flattened by ``flatten``, ``nn.Flatten``, ``view`` or ``reshape``, and
concatenated at once or one after the other:

    [N, C * rows * cols] of each level, along dimension 1    the layout of `spatial_pyramid_pool`
    [N, C, rows * cols] of each level, along dimension 2     its numbers, put in order by one copy
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from spp_ext._checks import DTYPES, MAX_DIVISIONS
from spp_ext._torch.captures import recorded_call, stands_in
from spp_ext.functional import spatial_pyramid_pool
from spp_ext.levels import split_levels
from spp_ext.swap.calls import LeaveAlone, called_module, concatenation, has_hooks, pool_of, pooled_by

_Size: TypeAlias = int | tuple[int, int]


# ---- what a rewritten forward calls ----


def concatenated_levels(input: Tensor, levels: Sequence[_Size], dims: int, sizes: Sequence[Any]) -> Tensor:
    """The flattened pools of a map, concatenated along their last dimension, as a rewritten forward calls it.

    Args:
        input: ``[N, C, H, W]``.
        levels: the output sizes of the pools.
        dims: 2 for pools flattened to ``[N, C * rows * cols]``, 3 for ``[N, C, rows * cols]``.
        sizes: where the forward views its pools to sizes that need not be N, or N and C: those, None for one that is.
    """
    if type(input) is not Tensor and stands_in(input):
        return recorded_call(concatenated_levels, input, levels, dims, sizes)
    is_flattened = all(given in (None, size) for size, given in zip(input.shape, sizes, strict=False))
    if input.dim() == 4 and is_flattened and input.dtype in DTYPES:
        output = spatial_pyramid_pool(input, levels)
        return output if dims == 2 else torch.cat([level.flatten(2) for level in split_levels(output, levels)], 2)
    # A 3-D map, integers, or other sizes: as the forward did it.
    viewed = [size if given is None else given for size, given in zip(input.shape, sizes, strict=False)]
    pools = [F.adaptive_max_pool2d(input, level) for level in levels]
    return torch.cat([pool.reshape(*viewed, -1) if sizes else pool.flatten(dims - 1) for pool in pools], dims - 1)


# ---- the pyramid of a forward ----


class _Level(NamedTuple):
    flats: tuple[fx.Node, ...]  # what flattens it: one node, or more of which only the first changes anything
    pool: fx.Node
    dims: int  # of the result, 2 or 3
    sizes: tuple[Any, ...]  # to which it is viewed, without the last; none where it is flattened


def fuse_levels(module: nn.Module, graph: fx.Graph, node: fx.Node) -> str | None:
    """Replaces the concatenation ``node`` if it is a pyramid; says what it was, or None if it has no adaptive pools.

    Raises:
        LeaveAlone: it has, but is no pyramid.
    """
    parts, joins, dim = _parts(node)
    found = [_level(module, part) for part in parts]
    levels = [level for level in found if level is not None]
    if not levels:
        return None
    if len(levels) < len(parts):
        raise LeaveAlone("its pools are concatenated with more than pools")
    flats, pools = [flat for level in levels for flat in level.flats], [level.pool for level in levels]
    base, *others = dict.fromkeys(map(pooled_by, pools))
    assert isinstance(base, fx.Node)
    if others:
        raise LeaveAlone("its pools are of more than one map")
    output_sizes = tuple(_output_size(module, pool) for pool in pools)
    dims = levels[0].dims
    if any(level.dims != dims for level in levels) or dim not in (dims - 1, -1):
        raise LeaveAlone(f"its flattened pools are concatenated along dimension {dim}, which is not their last")
    if any(not _leads_only_to(flats, pool) for pool in pools) or any(
        not _leads_only_to([*joins, *flats], flat) for flat in flats
    ):
        raise LeaveAlone("its results are used for more than the concatenation")
    nodes = list(graph.nodes)
    on_the_way = nodes[min(map(nodes.index, pools)) : nodes.index(node)]
    if any(user in on_the_way and user not in pools and _read_from(user) is None for user in base.users):
        raise LeaveAlone("the map it pools is used on the way, where it may change")
    sizes = _sizes(levels, {base, *pools})

    with graph.inserting_before(node):
        pooled = graph.call_function(concatenated_levels, (base, output_sizes, dims, sizes))
    node.replace_all_uses_with(pooled)
    for dead in nodes[::-1]:
        if not dead.users and (dead in joins or dead in flats or dead in pools or _read_from(dead) is not None):
            graph.erase_node(dead)
    return "levels " + ", ".join(f"{n}" if isinstance(n, int) else f"{n[0]} x {n[1]}" for n in output_sizes)


def _parts(node: fx.Node) -> tuple[list[fx.Node], list[fx.Node], Any]:
    """What is concatenated in the end, level after level, and the concatenations that do it, and their dimension."""
    maps, dim = concatenation(node) or ([], None)
    parts, joins = [], [node]
    for map in maps:
        inner = concatenation(map)
        if inner is not None and inner[1] == dim and set(map.users) == {node} and maps.count(map) == 1:
            inner_parts, inner_joins, _ = _parts(map)
            parts += inner_parts
            joins += inner_joins
        else:
            parts.append(map)
    return parts, joins, dim


def _level(module: nn.Module, node: fx.Node) -> _Level | None:
    """The level that ``node`` flattens, or None."""
    flattened = _flattened(module, node)
    source = node.args[0] if node.args else None
    if flattened is None or not isinstance(source, fx.Node):
        return None
    dims, sizes = flattened
    if isinstance(pool_of(module, source), nn.AdaptiveMaxPool2d):
        return _Level((node,), source, dims, sizes)
    inner = _level(module, source)
    if inner is None or not inner.dims == dims == 2 or sizes not in ((), inner.sizes):
        return None
    return inner._replace(flats=(*inner.flats, node))


def _flattened(module: nn.Module, node: fx.Node) -> tuple[int, tuple[Any, ...]] | None:
    """To how many dimensions ``node`` flattens, and to which sizes but for the last, if it is a view; or None."""
    arguments = node.args[1:]
    start: Any = None
    end: Any = -1
    if node.op == "call_module":
        flatten = called_module(module, node)
        if type(flatten) is nn.Flatten and not has_hooks(flatten):
            start, end = flatten.start_dim, flatten.end_dim
    elif node.target in ("flatten", torch.flatten):
        given = dict(zip(("start_dim", "end_dim"), arguments, strict=False)) | node.kwargs
        start, end = given.get("start_dim", 0), given.get("end_dim", -1)
    elif node.target in ("view", "reshape", torch.reshape) and not node.kwargs:
        sizes = tuple(arguments[0]) if arguments and isinstance(arguments[0], (list, tuple)) else tuple(arguments)
        # What the last size may be follows from the others.
        if len(sizes) in (2, 3) and all(isinstance(size, fx.Node) or size != -1 for size in sizes[:-1]):
            return len(sizes), sizes[:-1]
    return (start + 1, ()) if start in (1, 2) and end == -1 else None


def _output_size(module: nn.Module, node: fx.Node) -> _Size:
    pool = pool_of(module, node)
    assert isinstance(pool, nn.AdaptiveMaxPool2d)
    size: Any = pool.output_size
    pair = size if isinstance(size, tuple) else (size, size)
    if len(pair) != 2 or not all(type(n) is int and 0 < n <= MAX_DIVISIONS for n in pair):
        raise LeaveAlone(f"an output size of {size} is no level of a pyramid")
    if pool.return_indices:
        raise LeaveAlone("it returns indices")
    return size


def _sizes(levels: Sequence[_Level], known: Iterable[object]) -> tuple[Any, ...]:
    """The sizes of views, None where it is surely that of the map; none at all if all are."""
    sizes = {
        tuple(None if _size_read(size, axis) in known else size for axis, size in enumerate(level.sizes))
        for level in levels
    }
    unsure = {given for given in sizes if any(size is not None for size in given)}
    if len(unsure) > 1 or (unsure and unsure != sizes):
        raise LeaveAlone("its pools are viewed in more than one way")
    return unsure.pop() if unsure else ()


def _leads_only_to(targets: Sequence[fx.Node], node: fx.Node) -> bool:
    return all(user in targets or (_read_from(user) and _leads_only_to(targets, user)) for user in node.users)


# ---- shapes in a graph ----


def _read_from(node: fx.Node) -> fx.Node | None:
    """The tensor of which ``node`` reads the shape, or part of it; None if it does something else."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return None
    if (node.op == "call_method" and node.target == "size") or (node.target is getattr and node.args[1] == "shape"):
        return source
    return _read_from(source) if node.target is operator.getitem else None


def _size_read(node: object, axis: int) -> fx.Node | None:
    """The tensor of which ``node`` reads the size along ``axis``."""
    if not isinstance(node, fx.Node) or len(node.args) != 2 or node.args[1] != axis or node.kwargs:
        return None
    shape = node.args[0]
    while isinstance(shape, fx.Node) and shape.target is operator.getitem:
        part = shape.args[1]
        if not isinstance(part, slice) or part.start not in (None, 0) or part.step is not None:
            return None
        shape = shape.args[0]
    return _read_from(node)
