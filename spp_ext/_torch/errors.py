"""The exceptions of the kernels, as they are documented.

The kernels throw standard C++ exceptions whose text is one sentence, `spp_ext.<op>: expected ..., got ...`. Up to
torch 2.14 they arrive as ValueError and IndexError. Since torch 2.15 all but IndexError arrive as RuntimeError, some
with lines of torch's own behind the sentence; and a library on the stable ABI can never throw torch.OutOfMemoryError.
So types are restored here, by the sentence, and nowhere else.

Before torch 2.13 the kernels are not told why torch gave no memory. A GPU that an earlier kernel of anybody's left
broken refuses memory too, and whatever it is asked next: its own answer is raised then.

One way leads past this: a registered op that is called directly, or from a compiled program, in inference mode, where
the dispatcher skips our Python. There torch's type stays, with the same sentence.
"""

from __future__ import annotations

import re
from typing import NoReturn

import torch
from torch import Tensor

from spp_ext._checks import not_strided
from spp_ext._torch.op_table import SPOKEN

# What csrc/torch/errors.h writes: `fail` for arguments that do not fit, `fail_to_allocate` for memory.
_SENTENCE = re.compile(r"spp_ext\.\w+: (expected|could not allocate) [^\n]*")


# What the dispatcher writes, in ten lines, where an op has no kernel for one of its tensors.
_NO_KERNEL = re.compile(r"Could not run '\w+::(\w+)[.\w]*' with arguments from the '(\w+)' backend")


def as_documented(error: RuntimeError) -> Exception:
    """The exception that is documented in place of ``error``; ``error`` itself if it is not one of the kernels'."""
    if (missing := _NO_KERNEL.match(str(error))) is not None:
        op, backend = missing.groups()
        return NotImplementedError(f"spp_ext.{SPOKEN.get(op, op)}: {not_strided(f'of the {backend} backend')}")
    sentence = _SENTENCE.match(str(error)) if type(error) is RuntimeError else None
    if sentence is None:
        return error
    if sentence[1] == "expected":
        return ValueError(sentence[0])
    return _gpu_fault() or torch.OutOfMemoryError(sentence[0])


def raise_as_documented(error: RuntimeError) -> NoReturn:
    """Raises what is documented in place of ``error``, which is being handled."""
    documented = as_documented(error)
    if documented is error:
        raise
    raise documented from None


# As csrc/torch/errors.h has it: what torch says where it lacks memory.
_LACKS_MEMORY = re.compile("out of memory|allocate memory|bad_alloc|size calculation overflowed")


def raise_for_memory(op: str, what: str, error: RuntimeError) -> NoReturn:
    """Raises ``error`` of one of torch's own ops, which is being handled, in the name of ``op`` if it lacks memory."""
    if _LACKS_MEMORY.search(str(error).partition("\n")[0]) is None:
        raise
    raise torch.OutOfMemoryError(f"{op}: could not allocate the memory of {what}") from None


def as_indices(op: str, argmax: Tensor) -> Tensor:
    """An argmax of the kernels as the public op called ``op`` returns it, in int64."""
    try:
        return argmax.long()
    except RuntimeError as error:
        raise_for_memory(op, "its indices", error)


def _gpu_fault() -> Exception | None:
    """The error that the GPU answers every question with, or None if it is well or has not been used."""
    if torch.cuda.is_initialized():
        try:
            torch.cuda.mem_get_info()
        except RuntimeError as error:
            return error
    return None


def spoken_by(error: Exception, op: str, name: str) -> Exception:
    """``error`` of the op called ``op`` in the name of the public op that the user called; others are left alone."""
    text = str(error)
    return type(error)(text.replace(f"spp_ext.{op}:", f"{name}:", 1)) if text.startswith(f"spp_ext.{op}:") else error
