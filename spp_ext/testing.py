"""Checks for a test suite of yours: a call against `spp_ext.reference` by equality, and numerical derivatives.

``python -m spp_ext selftest`` and this package's own tests are built on it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import spp_ext
from spp_ext import ops, reference
from spp_ext.levels import Level

__all__ = ["check_against_reference", "first_difference", "gradcheck", "random_boxes", "tie_free_map"]


# ---- against the reference ----


def check_against_reference(
    op: str,
    input: Tensor | Sequence[Tensor],
    *arguments: Any,
    function: Callable[..., Any] | None = None,
    seed: int = 0,
    **keywords: Any,
) -> None:
    """Compares a call with `spp_ext.reference` by equality: values, values with indices, and the gradient.

    The reference visits every cell in Python: some million cells of bins take seconds.

    Args:
        op: the name of a pooling function of `spp_ext.reference`, such as ``"roi_spatial_pyramid_pool"``.
        input: as the op takes it, on any device: ``[N, C, H, W]`` of any layout and floating-point dtype (where the op
            does, also ``[C, H, W]`` or a sequence of maps).
        arguments, keywords: what the op takes beside ``input``, by place or by name: levels, boxes and the like.
        function: what is checked, with the op's parameters; default: the op of `spp_ext` or `spp_ext.ops`. Indices are
            compared where it has a parameter ``return_indices``.
        seed: of the gradient that is sent back: whole numbers, so that no order of summation matters.

    Raises:
        AssertionError: something differs; the first difference, in words.
        ValueError: there is no such op, or ``return_indices`` is given, which is tried both ways. Whatever the call or
            the reference raises is raised as it is.

    Example::

        >>> features, boxes = torch.randn(2, 8, 13, 17), random_boxes(20, 2, 13, 17)
        >>> check_against_reference("roi_spatial_pyramid_pool", features, boxes, (1, 2, 3, 6), convention="outer")
    """
    modules = [module for module in (spp_ext, ops) if op in module.__all__]
    specification = getattr(reference, op, None)
    if not modules or not inspect.isfunction(specification):
        raise ValueError(f"spp_ext.testing.check_against_reference: expected the name of a pooling op, got {op!r}")
    if function is None:
        function = getattr(modules[0], op)
    bound = inspect.signature(specification).bind(input, *arguments, **keywords)
    bound.apply_defaults()
    named = dict(bound.arguments)
    if named.pop("return_indices"):
        raise ValueError(
            "spp_ext.testing.check_against_reference: expected no return_indices, got it: both are compared"
        )
    maps = [input] if isinstance(input, Tensor) else list(input)
    values, argmax = specification(**named, return_indices=True)
    generator = torch.Generator().manual_seed(seed)
    grad_output = torch.randint(-3, 4, values.shape, generator=generator).to(values)
    gradients = _reference_gradients(maps, named, grad_output, argmax)

    def call(inputs: Sequence[Tensor], **options: Any) -> Any:
        given = inputs[0] if isinstance(input, Tensor) else inputs
        return function(given, *arguments, **keywords, **options)

    _require_equal("values", call(maps), values)
    if "return_indices" in inspect.signature(function).parameters:
        with_indices = call(maps, return_indices=True)
        _require_equal("values, asked for with indices", with_indices[0], values)
        _require_equal("indices", with_indices[1], argmax)
    leaves = [map.detach().requires_grad_() for map in maps]
    output = call(leaves)
    _require_equal("values, asked for with a gradient", output.detach(), values)
    for got, gradient in zip(torch.autograd.grad(output, leaves, grad_output), gradients, strict=True):
        _require_equal("gradient", got, gradient)


def _require_equal(what: str, got: Tensor, expected: Tensor) -> None:
    difference = first_difference(got, expected)
    if difference is not None:
        raise AssertionError(f"{what}: {difference}")


def first_difference(got: Tensor, expected: Tensor) -> str | None:
    """None if the tensors have one shape, one dtype and equal elements (NaN equals NaN), else a sentence."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"expected {list(expected.shape)} {expected.dtype}, got {list(got.shape)} {got.dtype}"
    places = ((got != expected) & ~(got.isnan() & expected.isnan())).nonzero()
    if not len(places):
        return None
    place = tuple(places[0].tolist())
    return (
        f"{len(places)} of {got.numel()} elements differ, first at {list(place)}: "
        f"expected {expected[place].item()}, got {got[place].item()}"
    )


def _reference_gradients(
    maps: Sequence[Tensor], arguments: dict[str, Any], grad_output: Tensor, argmax: Tensor
) -> list[Tensor]:
    """The reference's gradient of each map."""
    if maps[0].dim() == 3:
        grad_output, argmax = grad_output[None], argmax[None]
    # Of whole maps, the rows are image after image, map after map.
    count = len(argmax) // len(maps)
    images = list(range(count)) * len(maps)
    map_of_row = torch.arange(len(maps)).repeat_interleave(count)
    if "boxes" in arguments:
        images, _ = reference.split_boxes("reference", arguments["boxes"], maps[0].shape[0])
    indices = arguments.get("map_indices")
    if indices is not None:
        map_of_row = (indices if isinstance(indices, Tensor) else torch.cat(list(indices))).cpu()
    # Where the op has no levels, its result is [rows, blocks * C, H, W]: a grid for each block of channels.
    blocks = max(1, argmax.shape[1] // max(1, maps[0].shape[-3]))
    levels: Sequence[Level] = (
        arguments["levels"] if "levels" in arguments else [(argmax.shape[2], argmax.shape[3])] * blocks
    )
    gradients = []
    for m, map in enumerate(maps):
        rows = (map_of_row == m).nonzero().flatten()
        shape = map.shape if map.dim() == 4 else (1, *map.shape)
        here = [images[row] for row in rows]
        gradient = reference.scatter(grad_output[rows], argmax[rows], levels, tuple(shape), here)
        gradients.append(gradient.reshape(map.shape))
    return gradients


# ---- derivatives ----


def gradcheck(
    function: Callable[..., Tensor],
    shape: Sequence[int] = (2, 3, 5, 4),
    *,
    boxes: int | None = None,
    spatial_scale: float = 1.0,
    forward_mode: bool = True,
    second_order: bool = True,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> bool:
    """Compares derivatives of a function that pools with finite differences, by torch's gradcheck and gradgradcheck.

    The map is one whose cells are far apart, for at a tie a maximum has no derivative; gradients of batches are checked
    too. Every element costs two calls or more, so the map should be small.

    Args:
        function: ``function(input)``, or with ``boxes`` ``function(input, boxes)``; returns a tensor. It may do more
            than pool, as long as it is smooth and passes float64 on.
        shape: of the map that is drawn, ``[N, C, H, W]`` or whatever the function takes; float64.
        boxes: if given, how many are drawn, ``[boxes, 5]`` of float64, as `random_boxes` does for the map.
        spatial_scale: feature cells per image pixel, for the boxes.
        forward_mode: whether to check forward-mode derivatives too.
        second_order: whether to check second derivatives too.
        device: of the map and the boxes.
        seed: of the map and the boxes.

    Returns:
        True.

    Raises:
        RuntimeError: a derivative differs; it is torch's GradcheckError.
        ValueError: boxes are to be drawn for a shape that is not ``[N, C, H, W]``.

    Example::

        >>> gradcheck(lambda x: spp_ext.spatial_pyramid_pool(x, (1, 2)))
        True
        >>> pool = spp_ext.RoISpatialPyramidPool((1, 2), spatial_scale=0.5)
        >>> gradcheck(pool, boxes=6, spatial_scale=0.5)
        True
    """
    drawn: tuple[Tensor, ...] = (tie_free_map(*shape, seed=seed).to(device).requires_grad_(),)
    if boxes is not None:
        if len(shape) != 4:
            raise ValueError(f"spp_ext.testing.gradcheck: expected a shape [N, C, H, W] with boxes, got {list(shape)}")
        images, _, height, width = shape
        drawn += (random_boxes(boxes, images, height, width, seed, torch.float64, spatial_scale).to(device),)
    # At float64's default step, 1e-6, no cell of the map passes another.
    torch.autograd.gradcheck(function, drawn, check_forward_ad=forward_mode, check_batched_grad=True)
    if second_order:
        torch.autograd.gradgradcheck(function, drawn, check_fwd_over_rev=forward_mode, check_rev_over_rev=True)
    return True


# ---- what is drawn ----


def tie_free_map(*shape: int, seed: int = 0) -> Tensor:
    """A float64 tensor of ``shape`` with elements at least 1/7 apart: no small step changes which is the maximum."""
    numbers = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(seed))
    return numbers.reshape(shape).double() / 7


def random_boxes(
    count: int,
    images: int,
    height: int,
    width: int,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
) -> Tensor:
    """Boxes over, across and beyond a map, some of them inverted, on halves of a cell, where conventions differ most.

    Args:
        count: K, how many.
        images: N, the images that they are of.
        height, width: of the map, in cells.
        seed: of the boxes.
        dtype: of the result.
        scale: feature cells per image pixel, the ``spatial_scale`` that they are pooled with.

    Returns:
        ``[K, 5]``, rows of (batch_index, x1, y1, x2, y2) in image pixels.
    """
    g = torch.Generator().manual_seed(seed)
    index = torch.randint(images, (count, 1), generator=g).double()
    size = torch.tensor([width, height, width, height]).double()
    corners = torch.rand(count, 4, generator=g, dtype=torch.float64) * 1.6 * size - 0.3 * size
    corners = (2 * corners).round() / 2
    ordered = torch.cat(
        [torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1
    )
    keep = torch.rand(count, 1, generator=g) < 0.1
    return torch.cat([index, torch.where(keep, corners, ordered) / scale], 1).to(dtype)
