"""Finds the pools of a block in its forward, whatever the block is called, and fuses them.

A block's forward is traced with `torch.fx`, every module it calls left whole. In the graph a concatenation over
channels of a map and stride-1 max pools of it (SPP), or of a chain of such pools (SPPF), becomes one call, and so does
one of flattened adaptive max pools (`pyramids`). Pools may be modules or functions (`calls`). The block
stays the object that it was, with its parameters, hooks and attributes; only its class changes, to a subclass of its
own with the rewritten forward.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from spp_ext._checks import DTYPES
from spp_ext._torch.captures import recorded_call, refuse_script, stands_in
from spp_ext._torch.compositions import stride1_pools
from spp_ext.ops.yolo import multi_kernel_max_pool2d, reorder_blocks
from spp_ext.swap.calls import (
    HOOKS,
    LeaveAlone,
    called_module,
    concatenation,
    has_hooks,
    is_flattened_pool,
    pool_of,
    pooled_by,
)
from spp_ext.swap.pyramids import fuse_levels

NOT_CONCATENATED = "its results are not concatenated with the map they pool"


# ---- what a fused forward calls ----


def concatenated_pools(
    input: Tensor, kernel_sizes: Sequence[int], cascade: bool, blocks: Sequence[int] | None = None
) -> Tensor:
    """A map and its pools, concatenated along dimension 1, as a fused forward calls it.

    Args:
        input: ``[N, C, H, W]``.
        kernel_sizes: ascending; in a cascade total sizes.
        cascade: whether each pool reads the result of the one before.
        blocks: which blocks make up the result, 0 for the input and i for the i-th size; None for all in order.
    """
    if type(input) is not Tensor and stands_in(input):
        return recorded_call(concatenated_pools, input, kernel_sizes, cascade, blocks)
    if input.dim() == 4 and input.dtype in DTYPES:
        output = multi_kernel_max_pool2d(input, kernel_sizes, cascade=cascade)
        return output if blocks is None else reorder_blocks(output, blocks, input.shape[1])
    # A 3-D map, of which dimension 1 is not the channels, or integers: as the block did it.
    maps = stride1_pools(input, kernel_sizes, cascade)
    return torch.cat([maps[block] for block in blocks or range(len(maps))], 1)


# ---- the pools of a forward ----


def why_not_same_size(pool: nn.MaxPool2d) -> str | None:
    """None if ``pool`` is a stride-1 pool of an odd square that keeps the size of a map, else what it is instead."""
    kernel, stride, padding, dilation = (
        value if isinstance(value, tuple) else (value, value)
        for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    if stride != (1, 1):
        return f"a stride of {pool.stride} does not keep the size of the map"
    if kernel[0] != kernel[1] or kernel[0] % 2 == 0:
        return f"a kernel of {pool.kernel_size} is not an odd square"
    if padding != (kernel[0] // 2, kernel[0] // 2):
        return f"a padding of {pool.padding} does not keep the size of the map"
    if dilation != (1, 1):
        return f"a dilation of {pool.dilation} leaves holes in the window"
    if pool.return_indices:
        return "it returns indices"
    return None


def _kernel_of(module: nn.Module, node: fx.Node) -> int:
    pool = pool_of(module, node)
    assert isinstance(pool, nn.MaxPool2d)
    return pool.kernel_size if isinstance(pool.kernel_size, int) else pool.kernel_size[0]


def is_fusible(module: nn.Module | None) -> bool:
    """Whether ``module`` is a max pool that a fused forward may do without."""
    if type(module) is nn.MaxPool2d:
        return why_not_same_size(module) is None and not has_hooks(module)
    return type(module) is nn.AdaptiveMaxPool2d and not has_hooks(module)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not is_flattened_pool(module)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            self.path_of_module(m)
        except NameError:  # made by the forward itself
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def _trace(module: nn.Module, training: bool) -> fx.Graph:
    """The forward of ``module`` in one of its modes. Tracing may write to its root, so that is a shallow copy."""
    root = object.__new__(type(module))
    root.__dict__.update({name: copy.copy(value) if _mutable(value) else value for name, value in vars(module).items()})
    root.training = training
    before = {name: copy.copy(value) if _mutable(value) else value for name, value in vars(root).items()}
    try:
        graph = _Tracer().trace(root)
    except Exception as error:
        raise LeaveAlone(f"its forward cannot be traced ({_first_line(error)})") from None
    after = vars(root)
    if before.keys() != after.keys() or not all(_unchanged(before[name], after[name]) for name in before):
        raise LeaveAlone("its forward writes to its own attributes")
    return graph


def _mutable(value: object) -> bool:
    return isinstance(value, (dict, list, set))


def _unchanged(before: Any, after: Any) -> bool:
    if not _mutable(before):
        return before is after
    if isinstance(before, dict):
        return list(before) == list(after) and all(before[key] is after[key] for key in before)
    return len(before) == len(after) and all(a is b for a, b in zip(before, after, strict=True))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _source(graph: fx.Graph) -> str:
    return graph.python_code("self").src


def fused_graph(module: nn.Module) -> tuple[fx.Graph, list[str]]:
    """The rewritten forward of ``module``, and what was fused in it.

    Raises:
        LeaveAlone: there is nothing to fuse, or what was traced is not all that the forward does.
    """
    graph = traced_graph(module)
    return graph, fuse_graph(module, graph)


def traced_graph(module: nn.Module) -> fx.Graph:
    """The forward of ``module``.

    Raises:
        LeaveAlone: what was traced is not all that the forward does.
    """
    if "forward" in vars(module):
        raise LeaveAlone("its forward was replaced on the instance")
    if isinstance(module, (fx.GraphModule, torch.jit.ScriptModule)):
        raise LeaveAlone("its forward was generated by torch.fx or TorchScript")
    graph, in_training = _trace(module, False), _trace(module, True)
    if _source(graph) != _source(in_training):
        raise LeaveAlone("its forward differs between training and evaluation")
    return graph


def fuse_graph(module: nn.Module, graph: fx.Graph) -> list[str]:
    """Rewrites ``graph``, the forward of ``module``, and says what was fused in it.

    Raises:
        LeaveAlone: there is nothing to fuse.
    """
    fused, obstacle = [], None
    for node in list(graph.nodes)[::-1]:  # of concatenations in one another the outermost first
        if concatenation(node) is not None:
            try:
                what = _fuse_concatenation(module, graph, node) or fuse_levels(module, graph, node)
            except LeaveAlone as reason:
                obstacle = reason
            else:
                fused += [what] if what else []
    if not fused:
        raise obstacle or LeaveAlone(NOT_CONCATENATED)
    graph.lint()
    return fused[::-1]


def _fuse_concatenation(module: nn.Module, graph: fx.Graph, node: fx.Node) -> str | None:
    """Replaces one concatenation if it is of a map and its pools; says what it was, or None if it has no pools."""
    maps, dim = concatenation(node) or ([], None)
    source = {map: pooled_by(map) for map in maps if _is_pool(module, map)}
    if not source:
        return None
    if dim != 1:
        raise LeaveAlone(f"its results are concatenated along dimension {dim}, not 1")
    base, *others = dict.fromkeys(map for map in maps if source.get(map) not in maps)
    source.pop(base, None)  # a pool itself, of something else
    if others:
        raise LeaveAlone("its results are concatenated with more than the map they pool")

    kernel = {map: _kernel_of(module, map) for map in source}
    if all(source[map] is base for map in source):
        cascade, sizes = False, sorted(set(kernel.values()))
        block = {base: 0, **{map: 1 + sizes.index(kernel[map]) for map in source}}
    elif len(set(source.values())) == len(source):  # nobody is pooled twice: a chain
        cascade, sizes, block = True, [], {base: 0}
        after = {before: map for map, before in source.items()}
        end, total = base, 1
        while end in after:
            end = after[end]
            total += kernel[end] - 1
            sizes.append(total)
            block[end] = len(sizes)
    else:
        raise LeaveAlone("its pools are neither all of one map nor a chain")
    if any(user is not node and user not in source for map in source for user in map.users):
        raise LeaveAlone("its results are used for more than the concatenation")

    blocks = [block[map] for map in maps]
    with graph.inserting_before(node):
        arguments = (base, tuple(sizes), cascade)
        in_order = blocks == list(range(len(sizes) + 1))
        pooled = graph.call_function(concatenated_pools, arguments if in_order else (*arguments, tuple(blocks)))
    node.replace_all_uses_with(pooled)
    graph.erase_node(node)
    for map in sorted(source, key=list(graph.nodes).index, reverse=True):
        graph.erase_node(map)
    return ", ".join(str(size) for size in sizes) + (" in cascade" if cascade else "")


def _is_pool(module: nn.Module, node: fx.Node) -> bool:
    pool = pool_of(module, node)
    return isinstance(pool, nn.MaxPool2d) and is_fusible(pool)


# ---- the class of a fused block ----


class Fused(nn.Module):
    """What a fused block's class adds to its own: pickling and copying, since no module holds that class."""

    unfused: type[nn.Module]  # the class the block had

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_script("spp_ext.replace_pooling", "torch.jit.trace, or restore_pooling before torch.jit.script")

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        reduced = super().__reduce_ex__(max(2, int(protocol)))
        assert isinstance(reduced, tuple)  # a string would name a global
        _, _, *state = reduced
        return _to_be_fused, (self.unfused,), *state

    def __setstate__(self, state: Any) -> None:
        # The module is of another class from here on, which is not one that its type, Fused, has a name for.
        self.__class__ = self.unfused  # type: ignore[assignment]
        self.__setstate__(state)
        try:
            graph, _ = fused_graph(self)
        except LeaveAlone:  # its class has changed since it was saved, and knows best
            return
        self.__class__ = fused_class(self, graph)  # type: ignore[assignment]


def _to_be_fused(unfused: type[nn.Module]) -> nn.Module:
    return object.__new__(_class(unfused, unfused.forward))


def _class(unfused: type[nn.Module], forward: Callable[..., Any]) -> type[nn.Module]:
    members = {
        "__doc__": unfused.__doc__,
        "__module__": unfused.__module__,
        "forward": forward,
        "unfused": unfused,
    }
    return type(f"Fused{unfused.__name__}", (Fused, unfused), members)


def fused_class(module: nn.Module, graph: fx.Graph) -> type[nn.Module]:
    """A subclass of the class of ``module`` whose forward is ``graph``."""
    # A GraphModule is the public way to have a graph compiled; only its function is kept.
    return _class(type(module), type(fx.GraphModule(module, graph)).forward)


# ---- proof by trial ----


def check_same_results(module: nn.Module, fused: type[nn.Module], graph: fx.Graph) -> None:
    """Runs copies of ``module``, as it is and of class ``fused``, on small maps in float64.

    Random maps and maps of two values, full of ties, in evaluation and in training. Outputs, and gradients in the
    input and in every parameter, must agree up to the rounding of sums.

    Raises:
        LeaveAlone: they do not, or the trial cannot be made.
    """
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    if device.type not in ("cpu", "cuda"):
        raise LeaveAlone(f"it cannot be tried on the {device.type} device")
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if sum(not node.args for node in inputs) != 1 or inputs[0].target.startswith("*"):
        raise LeaveAlone("it cannot be tried, since its forward does not take one map")
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
    ):
        try:
            as_is, changed = _trial_copy(module), _trial_copy(module)
            shape = _runnable_shape(as_is, inputs[0], device)
        except LeaveAlone:
            raise
        except Exception as error:
            raise LeaveAlone(f"it cannot be copied for a trial ({_first_line(error)})") from None
        # The search for a shape has run the one and not the other.
        as_is.load_state_dict(changed.state_dict())
        changed.__class__ = fused
        for training in (False, True):
            as_is.train(training)
            changed.train(training)
            # Two values alike in all channels are two values behind a layer that sees cells one by one, too.
            tied = (torch.rand(shape[0], 1, *shape[2:]) < 0.15).expand(shape)
            for map in (torch.randn(shape), tied):
                map = map.to(device, torch.float64)
                try:
                    expected, got = _results(as_is, map), _results(changed, map)
                except Exception as error:
                    raise LeaveAlone(f"its trial failed ({_first_line(error)})") from None
                if not (len(got) == len(expected) and all(_agree(a, b) for a, b in zip(got, expected, strict=True))):
                    raise LeaveAlone("its results were not the same in a trial")


def _trial_copy(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module).double().requires_grad_(True)
    for part in twin.modules():
        for hooks in HOOKS:
            getattr(part, hooks).clear()
    return twin


def _runnable_shape(module: nn.Module, input: fx.Node, device: torch.device) -> tuple[int, ...]:
    """The shape of a small map that ``module`` takes: the channels are those its first layers name."""
    layers = [called_module(module, user) for user in input.users if user.op == "call_module"]
    channels = dict.fromkeys(
        getattr(part, name)
        for layer in [*layers, module]
        for part in layer.modules()
        for name in ("in_channels", "num_features")
        if isinstance(getattr(part, name, None), int)
    )
    failure: Exception | None = None
    for c in [*list(channels)[:8], 4]:
        for h, w in ((9, 8), (40, 36), (100, 92)):
            try:
                module.forward(torch.zeros(2, c, h, w, dtype=torch.float64, device=device))
                return 2, c, h, w
            except Exception as error:
                failure = failure or error
    assert failure is not None
    raise LeaveAlone(f"it does not take a small map for a trial ({_first_line(failure)})")


def _results(module: nn.Module, map: Tensor) -> list[Tensor | None]:
    """The outputs of ``module`` and all gradients, the same numbers drawn each time."""
    torch.manual_seed(0)
    map = map.clone().requires_grad_()
    outputs = [output for output in _tensors(module.forward(map)) if output.is_floating_point()]
    weights = [torch.randn(output.shape, dtype=torch.float64).to(output) for output in outputs]
    leaves = [map, *module.parameters()]
    terms = [(output * weight).sum() for output, weight in zip(outputs, weights, strict=True)]
    total = sum(terms, start=map.new_zeros(()))
    return [*outputs, *torch.autograd.grad(total, leaves, allow_unused=True)]


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _agree(got: Tensor | None, expected: Tensor | None) -> bool:
    """Up to the rounding of sums in float64."""
    if got is None or expected is None:
        return got is expected
    scale = expected.detach().abs().max().item() if expected.numel() else 0.0
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-9, atol=1e-9 * max(scale, 1.0))
