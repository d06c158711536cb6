"""What a call costs beside the pooling: CPU time on a tiny map, against torch's composition of four levels.

``python -m benchmarks.overhead``. The candidates take turns, so that a busy machine
slows them alike; medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

import spp_ext

LEVELS = (1, 2, 3, 6)
ROUNDS, CALLS = 41, 500


def composition(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([F.adaptive_max_pool2d(x, level).flatten(1) for level in LEVELS], 1)


def medians(candidates: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Microseconds of CPU time of one call of each."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round in range(ROUNDS + 1):
        for name, call in candidates.items():
            begin = time.process_time()
            for _ in range(CALLS):
                call()
            if round > 0:  # the first warms up
                times[name].append((time.process_time() - begin) / CALLS * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    torch.set_num_threads(1)
    x, rois = torch.randn(1, 4, 6, 6), torch.tensor([[0.0, 0, 0, 5, 5]])
    leaf = x.clone().requires_grad_()
    grad = torch.ones(1, 200)

    def train(pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
        torch.autograd.grad(pool(leaf), leaf, grad)

    def regions(x: torch.Tensor) -> torch.Tensor:
        return spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS)

    def compare(title: str, own: dict[str, Callable[[], object]], torchs: Callable[[], object]) -> None:
        found = medians({**own, "torch's composition": torchs})
        floor = found["torch's composition"]
        print(title)
        for name, time_of in found.items():
            print(f"  {name:34} {time_of:6.2f} us  {time_of / floor:5.2f} of torch's")

    compare(
        "no gradient",
        {
            "spatial_pyramid_pool": lambda: spp_ext.spatial_pyramid_pool(x, LEVELS),
            "roi_spatial_pyramid_pool": lambda: regions(x),
        },
        lambda: composition(x),
    )
    compare(
        "forward and backward",
        {
            "spatial_pyramid_pool": lambda: train(lambda x: spp_ext.spatial_pyramid_pool(x, LEVELS)),
            "roi_spatial_pyramid_pool": lambda: train(regions),
        },
        lambda: train(composition),
    )


if __name__ == "__main__":
    main()
