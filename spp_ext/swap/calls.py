"""Reads what a forward calls: from its code, without running it, and from its graph.

A pool that is called as a function is read as the module of the same arguments, so that one rule judges both.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

# What torch.fx records in a graph, and how each is called.
_MAX_POOL = inspect.signature(F.max_pool2d_with_indices)
_ADAPTIVE_MAX_POOL = inspect.signature(F.adaptive_max_pool2d_with_indices)
_SIGNATURES: dict[Any, inspect.Signature] = {
    F.max_pool2d: _MAX_POOL,
    torch.max_pool2d: _MAX_POOL,
    F.max_pool2d_with_indices: _MAX_POOL,
    F.adaptive_max_pool2d: _ADAPTIVE_MAX_POOL,
    F.adaptive_max_pool2d_with_indices: _ADAPTIVE_MAX_POOL,
}
ROI_POOL = "roi_pool"
# The names by which code gives itself away. It may also make a module and call it on the spot.
_NAMES = {function.__name__ for function in _SIGNATURES} | {ROI_POOL, "MaxPool2d", "AdaptiveMaxPool2d"}
# Packages whose classes and functions `replace_pooling` knows.
_KNOWN = ("torch.", "torchvision.ops.", "spp_ext.")


class LeaveAlone(Exception):
    """A block cannot be fused; the message is the reason, fit for a report."""


# ---- code ----


def pools_in_code(module: nn.Module) -> list[str]:
    """The names of pools in the forward of ``module``, and in what it calls of its own class and of its imports."""
    names = _NAMES.intersection(_names(type(module).forward, type(module)))
    return sorted({name.removesuffix("_with_indices") for name in names})


def _names(function: object, owner: type, seen: set[object] | None = None) -> Iterator[str]:
    """The names in a function, and in the functions that these may mean."""
    if isinstance(function, (staticmethod, classmethod, MethodType)):
        function = function.__func__
    if not isinstance(function, FunctionType):
        return
    function = inspect.unwrap(function)
    seen = set() if seen is None else seen
    if not isinstance(function, FunctionType) or function in seen or (function.__module__ or "").startswith(_KNOWN):
        return
    seen.add(function)
    names = set(_names_in(function.__code__))
    yield from names
    values = [function.__globals__.get(name) for name in names]
    places = [owner, *(value for value in values if isinstance(value, ModuleType))]
    for value in [*values, *(inspect.getattr_static(place, name, None) for place in places for name in names)]:
        yield from _names(value, owner, seen)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # a comprehension, or a function inside
            yield from _names_in(constant)


# ---- graphs ----


def called_module(module: nn.Module, node: fx.Node) -> nn.Module:
    """The part of ``module`` that ``node``, a call_module, calls."""
    assert isinstance(node.target, str)  # its name
    return module.get_submodule(node.target)


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody listens to the calls of ``module``."""
    return any(getattr(module, hooks, None) for hooks in HOOKS)


def is_flattened_pool(module: nn.Module) -> bool:
    """Whether ``module`` is an nn.Sequential of an adaptive max pool and a flattening."""
    is_plain = type(module) is nn.Sequential and "forward" not in vars(module) and not has_hooks(module)
    return is_plain and [type(part) for part in module.children()] == [nn.AdaptiveMaxPool2d, nn.Flatten]


def concatenation(node: object) -> tuple[list[fx.Node], Any] | None:
    """What ``node`` concatenates and along which dimension, or None if it is no concatenation of tensors."""
    if not isinstance(node, fx.Node) or node.op != "call_function" or node.target not in _CONCATENATIONS:
        return None
    maps = node.args[0] if node.args else node.kwargs.get("tensors")
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    if not isinstance(maps, (list, tuple)):
        return None
    nodes = [map for map in maps if isinstance(map, fx.Node)]
    return (nodes, dim) if len(nodes) == len(maps) else None


def functions_of(graph: fx.Graph) -> Iterator[tuple[fx.Node, str]]:
    """The nodes that call a pool as a function, and the name of each."""
    for node in graph.nodes:
        name, home = (str(getattr(node.target, attribute, "")) for attribute in ("__name__", "__module__"))
        is_roi_pool = name == ROI_POOL and home.startswith("torchvision.ops")
        if node.op == "call_function" and (node.target in _SIGNATURES or is_roi_pool):
            yield node, name.removesuffix("_with_indices")


def pool_of(module: nn.Module, node: fx.Node) -> nn.Module | None:
    """The max pool, adaptive or not, that ``node`` calls; None if it calls none, or one that hooks listen to.

    Of a function it is a module of the same arguments, and None if they are known only when it is called.
    """
    if node.op == "call_module":
        pool = called_module(module, node)
        is_pool = type(pool) in (nn.MaxPool2d, nn.AdaptiveMaxPool2d) and "forward" not in vars(pool)
        return pool if is_pool and not has_hooks(pool) and isinstance(pooled_by(node), fx.Node) else None
    given = _arguments(node)
    if given is None or not isinstance(given.pop("input"), fx.Node):
        return None
    if any(isinstance(value, fx.Node) for size in given.values() for value in (size if _is_list(size) else [size])):
        return None
    if node.target in (F.max_pool2d_with_indices, F.adaptive_max_pool2d_with_indices):
        given["return_indices"] = True
    if "output_size" in given:
        return nn.AdaptiveMaxPool2d(**given)
    # A module has one number for a list of one, and None for the stride that torch.max_pool2d calls ().
    one = {name: value[0] if isinstance(value, tuple) and len(value) == 1 else value for name, value in given.items()}
    return nn.MaxPool2d(**one | {"stride": one["stride"] or None})


def pooled_by(node: fx.Node) -> object:
    """What the pool that ``node`` calls is given to pool."""
    if (given := _arguments(node)) is not None:
        return given["input"]
    return node.args[0] if len(node.args) == 1 and not node.kwargs else None


def _arguments(node: fx.Node) -> dict[str, Any] | None:
    signature = _SIGNATURES.get(node.target) if node.op == "call_function" else None
    if signature is None:
        return None
    bound = signature.bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    return {name: tuple(value) if _is_list(value) else value for name, value in bound.arguments.items()}


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))
