"""``python -m benchmarks overhead``: what a call costs beside the pooling, on a tiny map and one box, on one thread."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import spp_ext
from spp_ext.cli.composition import compose
from spp_ext.cli.timing import interleaved_samples, spread

from .cases import LEVELS

CALLS = 10  # timed together: enough to hide what reading the clock costs, few enough to be seldom interrupted


def _many(call: Callable[[], object]) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(CALLS):
            call()

    return calls


def table(turns: int, seconds: float) -> str:
    """Medians in microseconds, and as a part of torch's composition of the levels."""
    torch.set_num_threads(1)
    x, rois = torch.randn(1, 4, 6, 6), torch.tensor([[0.0, 0, 0, 5, 5]])
    leaf = x.clone().requires_grad_()
    grad = torch.ones(1, 200)
    pools: dict[str, Callable[[Tensor], Tensor]] = {
        "spatial_pyramid_pool": lambda x: spp_ext.spatial_pyramid_pool(x, LEVELS),
        "roi_spatial_pyramid_pool": lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS),
        "torch": lambda x: compose(x, LEVELS),
    }
    lines = []
    for title, call in (
        ("forward", lambda pool: pool(x)),
        ("forward + backward", lambda pool: torch.autograd.grad(pool(leaf), leaf, grad)),
    ):
        functions = {name: _many(lambda call=call, pool=pool: call(pool)) for name, pool in pools.items()}
        samples = interleaved_samples(functions, turns=turns, seconds=seconds)
        medians = {name: spread(times, CALLS)["median"] for name, times in samples.items()}
        lines.append(title)
        for name, median in medians.items():
            lines.append(f"  {name:24} {median * 1e6:6.2f} us  {median / medians['torch']:4.2f} of torch")
    return "\n".join(lines)
