"""The types of csrc/python: geometry, plan and build information; no tensors."""

from collections.abc import Sequence

def bin_span(begin: int, end: int, divisions: int, length: int) -> tuple[int, int]: ...
def roi_window(
    convention: str,
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    spatial_scale: float,
    height: int,
    width: int,
    float64: bool = False,
) -> tuple[int, int, int, int]: ...
def conventions() -> list[str]: ...
def plan(levels: Sequence[int]) -> list[int]: ...
def build_info() -> dict[str, str]: ...
