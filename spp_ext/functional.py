"""The public functions: each parses its arguments, asks for the pooling, and returns what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, SupportsFloat, overload

from torch import Tensor

from spp_ext import _checks
from spp_ext._boxes import Convention, as_map_indices, as_rois, warn_if_all_miss
from spp_ext._calls import pool_as
from spp_ext._checks import DTYPES
from spp_ext._images import images_of_maps, parts_of_images, request_of_images
from spp_ext._requests import request_of_maps, request_of_regions
from spp_ext._torch.captures import recorded_call, refuses_script, stands_in
from spp_ext._torch.choose_path import pool, pool_into
from spp_ext._torch.errors import as_indices
from spp_ext._torch.op_table import IMAGES
from spp_ext._torch.outs import check_apart, check_out, indices_beside_out
from spp_ext.levels import Level


@overload
def spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = ...,
    *,
    sizes: Tensor | None = ...,
    return_indices: Literal[False] = ...,
    out: Tensor | None = ...,
) -> Tensor: ...
@overload
def spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = ...,
    *,
    sizes: Tensor | None = ...,
    return_indices: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = ...,
    *,
    sizes: Tensor | None = ...,
    return_indices: bool,
) -> Tensor | tuple[Tensor, Tensor]: ...
@refuses_script("spp_ext.spatial_pyramid_pool")
def spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = (1, 2, 3, 6),
    *,
    sizes: Tensor | None = None,
    return_indices: bool = False,
    out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Max-pools a feature map over a spatial pyramid of bins: a vector of one length for a map of any size.

    The spatial pyramid pooling layer of He et al. 2014 (arXiv:1406.4729), and exactly
    ``torch.cat([F.adaptive_max_pool2d(input, level).flatten(1) for level in levels], 1)``, in one pass.

    Args:
        input: feature map ``[N, C, H, W]`` or ``[C, H, W]``, contiguous or channels_last (other strides are copied);
            float32, float64, float16 or bfloat16. Or a list of them, of one number of channels, dtype and device, each
            of its own height, width, memory format and number of images.
        levels: one item per level, ``n`` for n x n bins, ``(rows, cols)``, or a `Bins` of arbitrary rectangles.
        sizes: of a batch of images that were padded to one size, the rows and columns of each that are valid: integers
            ``[N, 2]``, from 1 to H and W. Image n is pooled as ``input[n, :, :rows, :cols]`` would be, whatever the
            padding holds. On CUDA sizes are checked only if the environment variable SPP_EXT_VALIDATE is 1, because
            that waits for the device; else an image of a bad size pools to NaN.
        return_indices: also return where each maximum lies.
        out: the tensor to write into and return, of the result's shape, dtype and device; without gradient and without
            ``return_indices``. Of any strides: a slice such as ``features[:, 256:]`` saves a ``torch.cat``, though only
            contiguous memory is written directly, other by way of a copy. It is never resized.

    Returns:
        ``[N, C * B]`` (``[C * B]`` for a 3-D input), where B is the number of bins over all levels: level after level,
        within a level channel by channel, within a channel the bins row by row. `split_levels` takes it apart. Of a
        list, a row for every image of every map, in order. With ``return_indices`` also an int64 tensor of the same
        shape, ``row * W + column`` of each maximum in its plane, which has the W of its own map, padding included.

        Of equal values the first in row-major order is the maximum. A NaN in a bin is its maximum, as in torch.

    Raises:
        TypeError: ``input`` is not a floating-point tensor or a list of them, ``levels`` not a sequence of levels, or
            ``sizes`` not a tensor of integers.
        ValueError: ``input`` has another rank or no rows or columns, a level is not positive, maps of a list do not fit
            together, ``sizes`` do not fit ``input`` or come with a list, or ``out`` does not fit, overlaps ``input`` or
            itself in memory, or comes with ``return_indices``.
        NotImplementedError: a map of a list is a DTensor, or any tensor where ``out`` is given; or a tensor is nested,
            sparse or mkldnn.
        RuntimeError: a derivative is asked for beside ``out``.

    Example::

        >>> spp_ext.spatial_pyramid_pool(torch.randn(2, 256, 13, 17)).shape      # 50 bins
        torch.Size([2, 12800])
        >>> spp_ext.spatial_pyramid_pool([torch.randn(256, 13, 17), torch.randn(256, 38, 50)]).shape
        torch.Size([2, 12800])
        >>> sizes = torch.tensor([[13, 17], [9, 11]])
        >>> spp_ext.spatial_pyramid_pool(torch.randn(2, 256, 13, 17), sizes=sizes).shape
        torch.Size([2, 12800])
    """
    op = "spp_ext.spatial_pyramid_pool"
    if type(input) is not Tensor or input.dtype not in DTYPES:  # spares most calls a function
        if stands_in(input):
            return recorded_call(
                spatial_pyramid_pool, input, levels, sizes=sizes, return_indices=return_indices, out=out
            )
        if isinstance(input, (list, tuple)):
            return _pool_images(op, input, levels, sizes, return_indices, out)
        input = _checked_map(op, input)
    if sizes is not None:
        return _pool_images(op, input, levels, sizes, return_indices, out)
    if input.dim() != 4:
        if input.dim() != 3:
            raise ValueError(
                f"{op}: expected input of shape [N, C, H, W] or [C, H, W], got {_checks.shape_shown(input.shape)}"
            )
        if out is not None:
            bins = sum(request_of_maps(op, levels).level_bins)
            row = check_out(op, out, input, (input.shape[0] * bins,)).unsqueeze(0)
            spatial_pyramid_pool(input.unsqueeze(0), levels, return_indices=return_indices, out=row)  # type: ignore[call-overload]
            return out
        pooled = spatial_pyramid_pool(input.unsqueeze(0), levels, return_indices=return_indices)
        return pooled.squeeze(0) if isinstance(pooled, Tensor) else (pooled[0].squeeze(0), pooled[1].squeeze(0))
    request = request_of_maps(op, levels)
    if out is not None:
        if return_indices:
            raise indices_beside_out(op)
        return pool_into(out, (input,), IMAGES, request)
    output, argmax = pool((input,), IMAGES, request, return_indices)
    if not return_indices:
        return output
    assert argmax is not None
    return output, as_indices(op, argmax)


def _pool_images(
    op: str, input: Any, levels: Sequence[Level], sizes: Any, return_indices: bool, out: Tensor | None
) -> Tensor | tuple[Tensor, Tensor]:
    """Images of any size: a list of maps, or a batch of which ``sizes`` are valid."""
    rows: tuple[Tensor, Tensor | None]
    if isinstance(input, (list, tuple)):
        if sizes is not None:
            raise ValueError(f"{op}: expected sizes only with one batch [N, C, H, W], got them with a list of maps")
        maps, rows = images_of_maps(_parse_list(op, input))
        request = request_of_images(op, levels, len(maps))
    else:
        if input.dim() != 4:
            raise ValueError(
                f"{op}: expected input of shape [N, C, H, W] where sizes are given, got {list(input.shape)}"
            )
        maps, rows = (input,), (parts_of_images(op, sizes, input), None)
        request = request_of_images(op, levels)
    if out is not None and return_indices:
        raise indices_beside_out(op)
    output, argmax = pool_as(op, maps, rows, request, return_indices, out)
    if not return_indices:
        return output
    assert argmax is not None
    return output, as_indices(op, argmax)


def _parse_list(op: str, input: Sequence[Any]) -> tuple[Tensor, ...]:
    """The maps of a list, each ``[N, C, H, W]``."""
    if not input:
        raise ValueError(f"{op}: expected at least one map in input, got none")
    for m, map in enumerate(input):
        name = f"input[{m}]"
        _checks.check_tensor(op, map, name)
        if map.dim() not in (3, 4):
            raise ValueError(f"{op}: expected {name} of shape [N, C, H, W] or [C, H, W], got {list(map.shape)}")
        for what, first, its in (
            ("number of channels", input[0].shape[-3], map.shape[-3]),
            ("dtype", input[0].dtype, map.dtype),
            ("device", input[0].device, map.device),
        ):
            if its != first:
                raise ValueError(f"{op}: expected maps of one {what}, got {first} of input[0] and {its} of {name}")
    return tuple([map if map.dim() == 4 else map.unsqueeze(0) for map in input])


@overload
def roi_spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = ...,
    spatial_scale: SupportsFloat | Sequence[SupportsFloat] = ...,
    *,
    convention: Convention = ...,
    return_indices: Literal[False] = ...,
    validate: bool | None = ...,
    map_indices: Tensor | Sequence[Tensor] | None = ...,
    out: Tensor | None = ...,
) -> Tensor: ...
@overload
def roi_spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = ...,
    spatial_scale: SupportsFloat | Sequence[SupportsFloat] = ...,
    *,
    convention: Convention = ...,
    return_indices: Literal[True],
    validate: bool | None = ...,
    map_indices: Tensor | Sequence[Tensor] | None = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def roi_spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = ...,
    spatial_scale: SupportsFloat | Sequence[SupportsFloat] = ...,
    *,
    convention: Convention = ...,
    return_indices: bool,
    validate: bool | None = ...,
    map_indices: Tensor | Sequence[Tensor] | None = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...
@refuses_script("spp_ext.roi_spatial_pyramid_pool")
def roi_spatial_pyramid_pool(
    input: Tensor | Sequence[Tensor],
    boxes: Tensor | Sequence[Tensor],
    levels: Sequence[Level] = (1, 2, 3, 6),
    spatial_scale: SupportsFloat | Sequence[SupportsFloat] = 1.0,
    *,
    convention: Convention = "roi_pool",
    return_indices: bool = False,
    validate: bool | None = None,
    map_indices: Tensor | Sequence[Tensor] | None = None,
    out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Max-pools every region of interest over a spatial pyramid of bins, all regions of a batch in one call.

    The feature extraction of the SPP-net detector (He et al. 2014, section 4). With one level and the default
    convention it is ``torchvision.ops.roi_pool``, flattened.

    Args:
        input: feature map ``[N, C, H, W]``, contiguous or channels_last (other strides are copied); float32, float64,
            float16 or bfloat16. Or a sequence of M of them, alike but for height, width and memory format, such as the
            maps of one batch at several image scales.
        boxes: ``[K, 5]``, rows of (batch_index, x1, y1, x2, y2), or a list of N tensors ``[L, 4]``, the boxes of each
            image. In image coordinates, of any floating-point dtype whatever the input's: coordinates are computed in
            float32, or float64 if the boxes are float64.
        levels: as in `spatial_pyramid_pool`; a level divides the region's window.
        spatial_scale: feature cells per image pixel. With a network of stride 16 it is 1/16: a box from x = 32 to 96
            covers columns 2 to 6 of the map. For several maps one number for all, or a sequence of M: boxes are in
            the coordinates of one image, however large the images were that the maps were computed from. Numbers of
            NumPy's are numbers too, and so are tensors without dimensions, which are read: that waits for a GPU and
            breaks a graph of torch.compile.
        convention: how a box becomes a window of feature cells: ``"roi_pool"`` rounds both ends and includes them (Fast
            R-CNN, torchvision); ``"spp_net"`` is Appendix A of the paper; ``"outer"`` is the smallest window that
            covers the box. The README has a picture of the three.
        return_indices: also return where each maximum lies.
        validate: on CUDA, whether to check the contents of ``boxes``, which waits for the device; without it a bad row
            pools to NaN. On the CPU boxes are always checked. On both, whether to warn if no box reaches its map, as
            where ``spatial_scale`` was forgotten. Default: the environment variable SPP_EXT_VALIDATE,
            read when spp_ext is imported.
        map_indices: with several maps, which one each region is pooled from: integers ``[K]`` in ``[0, M)``, or where
            ``boxes`` is a list a list of N tensors ``[L]``. Checked as boxes are.
        out: the tensor to write into and return, as in `spatial_pyramid_pool`.

    Returns:
        ``[K, C * B]``, each row ordered as in `spatial_pyramid_pool`. With ``return_indices`` also an int64 tensor
        of the same shape, ``row * W + column`` of each maximum in its plane of the map. A bin that lies outside the
        map is 0, has index -1 and passes no gradient; ``"spp_net"`` has none, since it moves windows into the map.

    Raises:
        TypeError: an argument has the wrong type, or a tensor is not floating-point.
        ValueError: a shape does not fit, a coordinate is not finite, the scale is not positive and finite, or ``out``
            does not fit, overlaps an argument or itself in memory, or comes with ``return_indices``.
        IndexError: a batch index lies outside ``[0, N)``, or a map index outside ``[0, M)``; the row and the value are
            named.
        NotImplementedError: one of several maps is a DTensor, or any tensor where ``out`` is given; or a tensor is
            nested, sparse or mkldnn.
        RuntimeError: a derivative is asked for beside ``out``.

    Example::

        >>> features = torch.randn(2, 256, 38, 50)
        >>> boxes = torch.tensor([[0.0, 32, 48, 200, 300], [1.0, 0, 0, 799, 599]])
        >>> spp_ext.roi_spatial_pyramid_pool(features, boxes, spatial_scale=1 / 16).shape
        torch.Size([2, 12800])
        >>> twice_as_large = torch.randn(2, 256, 75, 100)
        >>> maps, scales, map_indices = [features, twice_as_large], [1 / 16, 1 / 8], torch.tensor([1, 0])
        >>> spp_ext.roi_spatial_pyramid_pool(maps, boxes, spatial_scale=scales, map_indices=map_indices).shape
        torch.Size([2, 12800])
    """
    op = "spp_ext.roi_spatial_pyramid_pool"
    if (type(input) is not Tensor or type(boxes) is not Tensor) and stands_in(input, boxes, map_indices):
        return recorded_call(
            roi_spatial_pyramid_pool,
            *(input, boxes, levels, spatial_scale),
            convention=convention,
            return_indices=return_indices,
            validate=validate,
            map_indices=map_indices,
            out=out,
        )
    maps: tuple[Tensor, ...]
    if type(input) is Tensor and input.dtype in DTYPES and input.dim() == 4:  # which spares most calls a function
        several, maps = False, (input,)
    else:
        several, maps = _parse_maps(op, input)
    rois = as_rois(op, boxes, maps[0])
    validate = _checks.VALIDATES if validate is None else bool(validate)
    rows: tuple[Tensor, Tensor | None]
    if several:
        rows = (rois, as_map_indices(op, map_indices, boxes, rois))
        request = request_of_regions(op, levels, spatial_scale, convention, validate, len(maps))
    elif map_indices is None:
        rows = (rois, None)
        request = request_of_regions(op, levels, spatial_scale, convention, validate)
    else:
        raise ValueError(f"{op}: expected map_indices only with a sequence of maps, got them with one map")
    if out is not None:
        if return_indices:
            raise indices_beside_out(op)
        if rois is not boxes:
            check_apart(op, out, "boxes", boxes)
        if map_indices is not None:
            check_apart(op, out, "map_indices", map_indices)
        output, argmax = pool_into(out, maps, rows, request), None
    else:
        output, argmax = pool(maps, rows, request, return_indices)
    if validate:
        scales = request.arguments[1]
        warn_if_all_miss(op, maps, rois, rows[1], scales if several else [scales])
    if not return_indices:
        return output
    assert argmax is not None
    return output, as_indices(op, argmax)


def _parse_maps(op: str, input: Any) -> tuple[bool, tuple[Tensor, ...]]:
    """Whether there may be several maps, and the maps."""
    several = isinstance(input, (list, tuple))
    maps = tuple(input) if several else (_checked_map(op, input),)
    if not maps:
        raise ValueError(f"{op}: expected at least one map in input, got none")
    for m, map in enumerate(maps):
        if type(map) is Tensor and map.dtype in DTYPES and map.dim() == 4:
            continue
        name = f"input[{m}]" if several else "input"
        _checks.check_tensor(op, map, name)
        if map.dim() != 4:
            raise ValueError(f"{op}: expected {name} of shape [N, C, H, W], got {_checks.shape_shown(map.shape)}")
    return several, maps


def _checked_map(op: str, input: Any) -> Tensor:
    if isinstance(input, Mapping):
        got = type(input).__name__
        raise TypeError(f"{op}: expected input to be a Tensor or a list such as list(input.values()), got {got}")
    _checks.check_tensor(op, input)
    return input
