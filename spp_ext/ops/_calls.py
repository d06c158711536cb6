"""What the drop-ins share: one way to ask for a pooling, so that errors name the op that the user called."""

from __future__ import annotations

from torch import Tensor

from spp_ext._torch.choose_path import pool, pool_into
from spp_ext._torch.errors import spoken_by
from spp_ext._torch.op_table import Request


def pool_as(
    name: str,  # of the public op, on whose behalf errors speak
    input: Tensor,  # [N, C, H, W]
    rois: Tensor | None,  # [K, 5]
    request: Request,
    with_argmax: bool = False,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`pool`, or `pool_into`; what a kernel refuses is refused in the name of the public op."""
    try:
        if out is not None:
            return pool_into(out, (input,), (rois, None), request), None
        return pool((input,), (rois, None), request, with_argmax)
    except Exception as error:
        spoken = spoken_by(error, request.op.spoken, name)
        if spoken is error:
            raise
        raise spoken from None
