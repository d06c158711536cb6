"""Swaps the pooling modules of a model for this package's, and says what was done and what was not."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from spp_ext._torch import library
from spp_ext.ops.adaptive import AdaptiveMaxPool2d
from spp_ext.ops.roi import RoIPool
from spp_ext.ops.yolo import SPP, SPPF
from spp_ext.swap import calls, fuse
from spp_ext.swap.restore import give_class, own_class

_OURS = (AdaptiveMaxPool2d, RoIPool, SPP, SPPF)
_ALREADY = "it is spp_ext's already"
_ADVICE = {calls.ROI_POOL: "called as a function, for which spp_ext.ops.roi_pool can be called"}


@dataclass(frozen=True)
class Row:
    """A module that `replace_pooling` looked at, or a function that a module calls."""

    name: str  # of the module, as in model.named_modules()
    kind: str  # its class before, or the function with "()"
    replacement: str | None  # its class now, None if it was left alone
    note: str  # what was fused, or why it was left alone


@dataclass
class Replacements:
    """What `replace_pooling` did. Printed, it is a table."""

    model: nn.Module  # the model given, or its copy
    rows: list[Row] = field(default_factory=list)

    @property
    def swapped(self) -> list[Row]:
        """The modules that were swapped."""
        return [row for row in self.rows if row.replacement is not None]

    @property
    def left_alone(self) -> list[Row]:
        """The modules that pool, or look as if they did, and were left as they are."""
        return [row for row in self.rows if row.replacement is None]

    def undo(self) -> None:
        """Gives the modules that were swapped their own classes back, as `restore_pooling` does for a whole model."""
        for row in self.swapped:
            module = self.model.get_submodule(row.name)
            if (own := own_class(module)) is not None:
                give_class(module, own)

    def __str__(self) -> str:
        heading = f"{type(self.model).__name__}: {len(self.swapped)} swapped, {len(self.left_alone)} left alone"
        cells = [(row.name or "(model)", row.kind, row.replacement or "left alone", row.note) for row in self.rows]
        if not cells:
            return heading
        cells.insert(0, ("module", "was", "is now", "note"))
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in cells]
        return "\n".join([heading, *lines])

    def __repr__(self) -> str:
        return f"<Replacements {str(self).splitlines()[0]}>"


def replace_pooling(model: nn.Module, *, inplace: bool = True) -> Replacements:
    """Swaps the pooling inside a model for this package's; outputs and gradients of the model stay as they are.

    Swapped are

    - ``torch.nn.AdaptiveMaxPool2d``, for `AdaptiveMaxPool2d`;
    - ``torchvision.ops.RoIPool``, for `RoIPool` (the README lists where its results differ on purpose);
    - YOLO's blocks SPP, SPPF, SPPCSPC, SPPELAN and whatever else pools like them: any module that pools one map with
      stride-1 max pools of odd sizes that keep its size, side by side or in cascade, and concatenates the map and the
      results over channels;
    - SPP layers written by hand: any module that flattens adaptive max pools of one map and concatenates them, which
      becomes one `spatial_pyramid_pool`.

    The pools of the last two may be modules or functions, ``F.max_pool2d`` and ``F.adaptive_max_pool2d``. They are
    found by tracing the forward, not by name; before the swap a copy is tried on small maps against the original,
    outputs and gradients.

    A swapped module stays the same object: name, parameters, buffers, hooks, attributes, mode and ``state_dict`` are
    kept, only its class changes (for a block, to a subclass of its own). The forward of a block is fixed by this: what
    it reads from its attributes, such as a number of repeats, no longer follows when they change.

    Subclasses of the classes above are left alone, as are blocks whose pools have hooks or whose forward cannot be
    traced. A pool that a forward still calls as a function has a row in the report, named after the function.

    The training of ultralytics builds a model anew, without the swap: see `spp_ext.swap.replace_pooling_in_training`.

    Args:
        model: any module, also one of the above itself.
        inplace: whether to change ``model``; otherwise a deep copy of it is changed.

    Returns:
        A report: ``model``, ``swapped`` and ``left_alone``, a row for each pooling module with the reason, and a table
        when printed.

    Raises:
        TypeError: ``model`` is not a module.
        RuntimeError: the kernels this model needs are not available.

    Example::

        >>> print(replace_pooling(nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(6))))
        Sequential: 1 swapped, 1 left alone
        module  was                is now             note
        1       MaxPool2d          left alone         a stride of 2 does not keep the size of the map
        2       AdaptiveMaxPool2d  AdaptiveMaxPool2d  6
    """
    op = "spp_ext.replace_pooling"
    if not isinstance(model, nn.Module):
        raise TypeError(f"{op}: expected model to be a torch.nn.Module, got {type(model).__name__}")
    _check_kernels(op, model)
    report = Replacements(model if inplace else copy.deepcopy(model))
    replacement_of = _replacements()
    fused_pools: set[nn.Module] = set()  # no row of their own: that of their block speaks for them
    reasons: dict[nn.Module, str] = {}  # why the block of a max pool was left alone
    for name, module in list(report.model.named_modules()):
        kind = type(module).__name__
        pools = [] if _is_list(module) else list(_max_pools(module))
        if isinstance(module, fuse.Fused):
            fused_pools.update(pools)
            report.rows.append(Row(name, kind, None, _ALREADY))
        elif any(fuse.is_fusible(pool) for pool in pools) or calls.pools_in_code(module):
            report.rows += _rows_of_forward(name, module, pools, fused_pools, reasons)
        elif module in fused_pools:
            pass
        elif type(module) in replacement_of and "forward" not in vars(module):
            module.__class__ = replacement_of[type(module)]
            report.rows.append(Row(name, kind, type(module).__name__, str(module.output_size)))
        elif _pools(module, replacement_of):
            report.rows.append(Row(name, kind, None, _why_left_alone(module, reasons, replacement_of)))
    return report


def restore_pooling(model: nn.Module, *, inplace: bool = True) -> Replacements:
    """The way back from `replace_pooling`: gives the swapped modules of a model their own classes back.

    What it pools with is torch's and torchvision's again, so that a model that is pickled now can be loaded where there
    is no spp_ext. The modules stay the same objects, with their names, parameters, hooks and attributes, all but
    ``reuse_output``. `AdaptiveMaxPool2d` and `RoIPool` of `spp_ext.ops` become torch's and torchvision's however they
    came into the model; what has no class of its own to go back to, such as `SpatialPyramidPool`, stays.

    Args:
        model: any module, also a swapped one itself.
        inplace: whether to change ``model``; otherwise a deep copy of it is changed.

    Returns:
        A report, as that of `replace_pooling`.

    Raises:
        TypeError: ``model`` is not a module.

    Example::

        >>> model = nn.Sequential(nn.AdaptiveMaxPool2d(6))
        >>> replace_pooling(model)
        <Replacements Sequential: 1 swapped, 0 left alone>
        >>> type(restore_pooling(model).model[0])
        <class 'torch.nn.modules.pooling.AdaptiveMaxPool2d'>
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"spp_ext.restore_pooling: expected model to be a torch.nn.Module, got {type(model).__name__}")
    report = Replacements(model if inplace else copy.deepcopy(model))
    for name, module in list(report.model.named_modules()):
        kind = type(module).__name__
        try:
            own = own_class(module)
        except ImportError:
            report.rows.append(Row(name, kind, None, "its own class is torchvision's, which is not installed"))
        else:
            if own is not None:
                give_class(module, own)
                report.rows.append(Row(name, kind, own.__name__, f"of {own.__module__}"))
    return report


def _replacements() -> dict[type[nn.Module], type[nn.Module]]:
    """The classes that are swapped by themselves. A model that holds a class of torchvision's has imported it."""
    classes: dict[type[nn.Module], type[nn.Module]] = {nn.AdaptiveMaxPool2d: AdaptiveMaxPool2d}
    torchvision_ops = sys.modules.get("torchvision.ops")
    if torchvision_ops is not None and hasattr(torchvision_ops, "RoIPool"):
        classes[torchvision_ops.RoIPool] = RoIPool
    return classes


def _check_kernels(op: str, model: nn.Module) -> None:
    if (error := library.load_error()) is not None:
        raise RuntimeError(f"{op}: expected the kernels of spp_ext, got none ({error})")
    if any(tensor.is_cuda for tensor in model.parameters()) and library.cuda_status() != "loaded":
        raise RuntimeError(f"{op}: expected CUDA kernels for a model on CUDA, got: {library.cuda_status()}")


def _pools(module: nn.Module, replacement_of: Mapping[type[nn.Module], type[nn.Module]]) -> bool:
    """Whether ``module`` is a pooling of any kind, as far as its class tells."""
    known: tuple[type[nn.Module], ...] = (nn.MaxPool2d, *replacement_of, *_OURS)
    return isinstance(module, known) or ("Pool" in type(module).__name__ and not list(module.children()))


def _is_list(module: nn.Module) -> bool:
    """Whether ``module`` only holds others. A plain nn.Module does: torch.fx makes such."""
    return type(module) in (nn.ModuleList, nn.ModuleDict, nn.Module)


def _max_pools(module: nn.Module) -> Iterator[nn.Module]:
    """The max pools among the children of ``module`` and in its lists of modules, which nobody else can call."""
    for child in module.children():
        if _is_list(child) or calls.is_flattened_pool(child):
            yield from _max_pools(child)
        elif isinstance(child, (nn.MaxPool2d, nn.AdaptiveMaxPool2d)):
            yield child


def _rows_of_forward(
    name: str, module: nn.Module, pools: list[nn.Module], fused_pools: set[nn.Module], reasons: dict[nn.Module, str]
) -> list[Row]:
    """Fuses what the forward of ``module`` pools if that can be. Its row, and rows of the functions it still calls."""
    kind, rows = type(module).__name__, []
    functions: dict[Any, tuple[str, str | None]] = {
        name: (name, _ADVICE.get(name)) for name in calls.pools_in_code(module)
    }
    try:
        graph = fuse.traced_graph(module)
        functions = {node: (name, _why_no_function(module, node, name)) for node, name in calls.functions_of(graph)}
        note = _fuse(module, graph, pools, fused_pools)
    except calls.LeaveAlone as refusal:
        reason = str(refusal)
        reasons.update(dict.fromkeys(pools, reason))
    else:
        reason = fuse.NOT_CONCATENATED
        rows.append(Row(name, kind, type(module).__name__, note))
        functions = {node: functions[node] for node in graph.nodes if node in functions}
    for called, own in dict.fromkeys(functions.values()):
        is_alone = reason == fuse.NOT_CONCATENATED and called == "adaptive_max_pool2d"
        why = own or ("its results are not flattened and concatenated" if is_alone else reason)
        rows.append(Row(name, f"{called}()", None, why))
    return rows


def _why_no_function(module: nn.Module, node: fx.Node, name: str) -> str | None:
    """Why the pool that ``node`` calls as a function cannot be swapped, as far as its arguments tell."""
    if name in _ADVICE:
        return _ADVICE[name]
    pool = calls.pool_of(module, node)
    if pool is None:
        return "its arguments are known only when it is called"
    return fuse.why_not_same_size(pool) if isinstance(pool, nn.MaxPool2d) else None


def _fuse(module: nn.Module, graph: fx.Graph, pools: list[nn.Module], fused_pools: set[nn.Module]) -> str:
    what = fuse.fuse_graph(module, graph)
    fused = fuse.fused_class(module, graph)
    fuse.check_same_results(module, fused, graph)
    still_called = {calls.called_module(module, node) for node in graph.nodes if node.op == "call_module"}
    try:
        module.__class__ = fused
    except TypeError as error:
        raise calls.LeaveAlone(f"its class cannot be changed ({error})") from None
    fused_pools.update(pool for pool in pools if pool not in still_called)
    return "; ".join(what)


def _why_left_alone(
    module: nn.Module,
    reasons: Mapping[nn.Module, str],
    replacement_of: Mapping[type[nn.Module], type[nn.Module]],
) -> str:
    if isinstance(module, _OURS):
        return _ALREADY
    if type(module) is nn.MaxPool2d:
        if (difference := fuse.why_not_same_size(module)) is not None:
            return difference
        if calls.has_hooks(module):
            return "it has hooks, which a fused forward would not run"
        return reasons.get(module, fuse.NOT_CONCATENATED)
    if type(module) in replacement_of:
        return "its forward was replaced on the instance"
    if isinstance(module, (nn.MaxPool2d, *replacement_of)):
        return "a subclass may pool in its own way"
    return "not one of the poolings that spp_ext has"
