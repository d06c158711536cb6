"""The private parts of torch that this package needs, each under a public name, with the reason for it.

Nothing else in the package reaches for a name of torch that begins with an underscore, but for the hooks of modules
(`swap.fuse`). All are there from torch 2.11,
the oldest that is supported, on.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

# Whether a torch.func transform is open: its levels are known to Functions with setup_context alone.
transforms_are_open: Callable[[], bool] = torch._C._are_functorch_transforms_active

# torch.jit.is_tracing without two Python functions.
is_traced: Callable[[], bool] = torch._C._is_tracing

# A context in which the dispatcher passes over Autograd. The derivatives of a registered op are a Python function,
# which costs as much as the op.
below_autograd: Callable[[], Any] = torch._C._AutoDispatchBelowAutograd

# The same, and passes over what counts the versions of a tensor that is written to: whoever uses it counts himself.
below_versions: Callable[[], Any] = torch._C._AutoDispatchBelowADInplaceOrView

# torch.autograd.graph.increment_version without the Python function: so that a graph that has kept a tensor for its
# backward pass notices that it was overwritten.
increment_versions: Callable[[tuple[torch.Tensor]], None] = torch._C._increment_version


# The innermost level of forward-mode differentiation, -1 if none is open. While one is, it is for torch to find out
# whether a tensor carries a tangent: skipping the question would drop the tangent silently.
forward_level: Callable[[], int] = functools.partial(operator.attrgetter("_current_level"), forward_ad)


# ``unpack_dual(tensor, level=0).tangent`` is the tangent that ``tensor`` carries, or None. `forward_level` cannot tell
# in a registered op: a graph opens levels that only C++ knows of.
unpack_dual: Callable[..., Any] = torch._VF._unpack_dual

# The dispatch keys that come after Autograd, for a kernel that hands a call on.
after_autograd: torch._C.DispatchKeySet = torch._C._after_autograd_keyset
after_versions: torch._C.DispatchKeySet = torch._C._after_ADInplaceOrView_keyset


def bound_op(op: Callable[..., Any]) -> Callable[..., Any]:
    """What calling an overload of an op calls, which spares a Python function."""
    return getattr(op, "_op", op)


def set_sharding_cache_key(op: Any) -> None:
    """Has DTensor cache the shardings of ``op`` by all of its arguments, lists of ints included.

    Without this they are cached by the tensors alone, and the rules of this package depend on the levels.
    """
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._op_schema import RuntimeSchemaInfo

    DTensor._op_dispatcher.sharding_propagator.op_to_schema_info[op] = RuntimeSchemaInfo(static_argnum=1)


def set_sharded_size_argument(op: Any, argument: int) -> None:
    """Has DTensor give ``op`` the size of a shard where a caller gave that of the whole result."""
    from torch.distributed.tensor import DTensor

    DTensor._op_dispatcher.sharding_propagator.op_to_shape_and_stride_idx[op] = argument
