"""What the functions ask for: levels, scales and convention as users write them, parsed, checked and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from spp_ext import _checks
from spp_ext._boxes import convention_number
from spp_ext._checks import items_of
from spp_ext._torch.captures import is_compiling
from spp_ext._torch.op_table import MAPS, REGIONS, REGIONS_OF_MAPS, STRIDE1, Request
from spp_ext.levels import Bins, Level, pyramid


def _of_maps(op: str, levels: Sequence[Level]) -> Request:
    encoded, level_bins = pyramid(op, levels)
    return Request(MAPS, (encoded,), level_bins)


def _of_regions(op: str, levels: Sequence[Level], spatial_scale: Any, convention: Any, validate: bool) -> Request:
    scale, number = _checks.scale(op, spatial_scale), convention_number(op, convention)
    encoded, level_bins = pyramid(op, levels)
    return Request(REGIONS, (encoded, scale, number, validate), level_bins)


def _of_several(op: str, levels: Sequence[Level], scales: Sequence[Any], convention: Any, validate: bool) -> Request:
    numbers, number = [_checks.scale(op, scale) for scale in scales], convention_number(op, convention)
    encoded, level_bins = pyramid(op, levels)
    return Request(REGIONS_OF_MAPS, (encoded, numbers, number, validate), level_bins)


def _of_kernels(sizes: tuple[int, ...], cascade: bool, cells: int) -> Request:
    return Request(STRIDE1, (list(sizes), cascade), [cells] * (1 + len(sizes)))


# A model asks for the same few things at every call. Only what cannot change and is of these types is a key: (1, True)
# and (1, 1) hash alike, and a tensor may change. torch.compile traces through a cache and warns of it, so there it is
# not used. What is kept is shared: nobody may change its lists.
_cached_of_maps = lru_cache(maxsize=256)(_of_maps)
_cached_of_regions = lru_cache(maxsize=256)(_of_regions)
_cached_of_several = lru_cache(maxsize=256)(_of_several)
_cached_of_kernels = lru_cache(maxsize=256)(_of_kernels)
_LEVELS, _SCALES = frozenset({int, Bins}), frozenset({float})


def request_of_maps(op: str, levels: Sequence[Level]) -> Request:
    """The request of whole maps; errors speak for the public op called ``op``."""
    if type(levels) is tuple and _LEVELS.issuperset(map(type, levels)) and not is_compiling():
        return _cached_of_maps(op, levels)
    return _of_maps(op, levels)


def request_of_regions(
    op: str, levels: Sequence[Level], spatial_scale: Any, convention: str, validate: bool, maps: int | None = None
) -> Request:
    """The request of regions: of one map, or of so many ``maps`` with a scale for all or for each."""
    make: Callable[..., Request]
    if maps is None:
        make, cached, is_key = _of_regions, _cached_of_regions, type(spatial_scale) is float
    else:
        scales = None if type(spatial_scale) is float else items_of(spatial_scale)
        spatial_scale = (spatial_scale,) * maps if scales is None else scales
        if len(spatial_scale) != maps:
            raise ValueError(f"{op}: expected a spatial_scale for each of {maps} maps, got {len(spatial_scale)}")
        make, cached, is_key = _of_several, _cached_of_several, _SCALES.issuperset(map(type, spatial_scale))
    if is_key and type(convention) is str and type(levels) is tuple:
        if _LEVELS.issuperset(map(type, levels)) and not is_compiling():
            make = cached
    return make(op, levels, spatial_scale, convention, validate)


def request_of_kernels(sizes: tuple[int, ...], cascade: bool, cells: int) -> Request:
    """The request of stride-1 pools of ascending sizes, for maps of so many cells, which may be symbolic."""
    cacheable = type(cells) is int and not is_compiling()
    return (_cached_of_kernels if cacheable else _of_kernels)(sizes, cascade, cells)
