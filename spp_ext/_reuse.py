"""Modules that write each result into the memory of the last one, on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from spp_ext._torch.captures import is_traced, refuse_script
from spp_ext._torch.private import forward_level, transforms_are_open


class ReusesOutput:
    """What modules with ``reuse_output`` share. It stands before `torch.nn.Module` among their bases.

    The kept tensor is in no state_dict, and copies and pickles of a module have none.
    """

    reuse_output: bool = False
    _last: tuple[Any, Tensor] | None = None  # what decided shape and layout, and the result

    def _reuse(self, pool: Callable[..., Tensor], maps: Any, decides: Callable[[Tensor], Any]) -> Tensor:
        """``pool(out=...)`` with the last result as ``out``, where it fits and nobody differentiates or traces.

        Args:
            pool: pools ``maps``.
            maps: a map, or several.
            decides: of the first map, if it is a tensor, what shape and layout of the result depend on.
        """
        tensors = list(maps) if isinstance(maps, (list, tuple)) else [maps]
        if not tensors or not _is_plain_inference(tensors):
            return pool()
        first = tensors[0]
        # A tensor that was made in inference mode must not be written to outside of it.
        key = (decides(first), first.dtype, first.device, torch.is_inference_mode_enabled())
        if self._last is not None and self._last[0] == key:
            return pool(out=self._last[1])
        self._last = None  # whose memory may serve for the next
        output = pool()
        self._last = key, output
        return output

    def _shown(self) -> str:
        return ", reuse_output=True" if self.reuse_output else ""

    def __prepare_scriptable__(self) -> NoReturn:
        package = "spp_ext.ops" if type(self).__module__.startswith("spp_ext.ops.") else "spp_ext"
        refuse_script(f"{package}.{type(self).__name__}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_last"}


def shapes_of(boxes: Any) -> list[Any]:
    """The shape of boxes, or of each in a list; None of what is no tensor."""
    return [getattr(image, "shape", None) for image in (boxes if isinstance(boxes, (list, tuple)) else [boxes])]


def _is_plain_inference(maps: list[Any]) -> bool:
    if torch.compiler.is_compiling() or is_traced() or transforms_are_open() or forward_level() >= 0:
        return False
    differentiates = torch.is_grad_enabled()
    return all(type(map) is Tensor and not map.is_nested and not (differentiates and map.requires_grad) for map in maps)
