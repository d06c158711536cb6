"""One way to ask for a pooling in the name of the public op that the user called, whichever registered op does it."""

from __future__ import annotations

from torch import Tensor

from spp_ext._torch.choose_path import pool, pool_into
from spp_ext._torch.errors import spoken_by
from spp_ext._torch.op_table import Request


def pool_as(
    name: str,  # of the public op, on whose behalf errors speak
    maps: tuple[Tensor, ...],  # each [N, C, H, W]
    rows: tuple[Tensor | None, Tensor | None],  # the fields of Rows
    request: Request,
    with_argmax: bool = False,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`pool`, or `pool_into`; what a kernel refuses is refused in the name of the public op."""
    try:
        if out is not None:
            return pool_into(out, maps, rows, request), None
        return pool(maps, rows, request, with_argmax)
    except Exception as error:
        spoken = spoken_by(error, request.op.spoken, name)
        if spoken is error:
            raise
        raise spoken from None
