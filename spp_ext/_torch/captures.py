"""Who is looking: the tools that write calls down instead of only running them, or while they run them.

    torch.compile, torch.export    `is_compiling`, `is_exporting`
    torch.jit.trace                `is_traced`
    an export to ONNX              `to_onnx`, beside one of the others
    torch.fx                       `stands_in`: it calls with arguments that are no tensors
    torch.jit.script               reads the source of what it is given, and is told so by `refuses_script`

`choose_path` says what each of them gets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from spp_ext._torch import private

is_compiling = torch.compiler.is_dynamo_compiling
is_exporting = torch.compiler.is_exporting
is_traced = private.is_traced

Function = TypeVar("Function", bound=Callable[..., Any])


def to_onnx() -> bool:
    """Whether a model is being exported to ONNX. Who does that has imported torch.onnx, which takes its time."""
    onnx = sys.modules.get("torch.onnx")
    return onnx is not None and onnx.is_in_onnx_export()


def stands_in(*arguments: Any) -> bool:
    """Whether one of the arguments, or of the items of a list, is no tensor but wants to be told of calls.

    Such is torch.fx's Proxy. What wants to be told has ``__torch_function__``, as torch's own functions ask of it.
    """
    for argument in arguments:
        for part in argument if isinstance(argument, (list, tuple)) else (argument,):
            if not isinstance(part, Tensor) and has_torch_function((part,)):
                return True
    return False


def recorded_call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Tells what `stands_in` among the arguments of the call of ``function``; returns what stands for its result."""
    given = (*arguments, *keywords.values())
    relevant = [part for value in given for part in (value if isinstance(value, (list, tuple)) else [value])]
    return handle_torch_function(function, relevant, *arguments, **keywords)


def refuses_script(name: str) -> Callable[[Function], Function]:
    """A decorator of a public function: torch.jit.script, which cannot compile it, says so in one sentence."""

    def decorate(function: Function) -> Function:
        function.__prepare_scriptable__ = lambda: refuse_script(name)  # type: ignore[attr-defined]
        return function

    return decorate


def refuse_script(name: str, instead: str = "torch.jit.trace") -> NoReturn:
    """Raises what torch.jit.script is to say of the function or module called ``name``."""
    raise NotImplementedError(f"{name}: expected {instead}, got torch.jit.script")
