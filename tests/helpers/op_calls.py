"""Calls of every registered op, for torch.library.opcheck."""

import torch
from support import OUTER, gaussian, random_rois

ops = torch.ops.spp_ext
LEVELS = [1, 1, 2, 3, -2, 2, 2, 0, 0, 1, 2, 1, 0, 2, 2]  # 1, (2, 3) and a Bins of two
LEVEL_BINS = [1, 6, 2]


def calls(x, gradient):
    """Every op with arguments that fit ``x``, on its device, as (op, arguments)."""
    images, channels, height, width = x.shape
    channels_last = not x.is_contiguous()
    rois = random_rois(4 if images else 0, max(images, 1), height, width).to(x.device)
    input = x.detach().requires_grad_(gradient)
    yield ops.spatial_pyramid_pool, (input, LEVELS)
    yield ops.spatial_pyramid_pool_with_argmax, (input, LEVELS)
    region_arguments = (input, rois, LEVELS, 0.5, OUTER, False)
    yield ops.roi_spatial_pyramid_pool, region_arguments
    yield ops.roi_spatial_pyramid_pool_with_argmax, region_arguments
    yield ops.multi_kernel_max_pool2d, (input, [3, 5], True)
    yield ops.multi_kernel_max_pool2d_with_argmax, (input, [3, 5], True)
    of_map = ops.spatial_pyramid_pool_with_argmax(x, LEVELS)[1], None, LEVEL_BINS
    of_regions = ops.roi_spatial_pyramid_pool_with_argmax(x, *region_arguments[1:])[1], rois, LEVEL_BINS
    of_kernels = ops.multi_kernel_max_pool2d_with_argmax(x, [3, 5], True)[1], None, [height * width] * 3
    for linear in (of_map, of_regions, of_kernels):
        yield ops.gather, (input, *linear)
        grad = torch.ones_like(linear[0], dtype=x.dtype).requires_grad_(gradient)
        yield ops.scatter, (grad, *linear, [images, channels, height, width], channels_last)
    other = gaussian((images, channels, 4, 7), x.dtype, seed=1).to(x.device)
    rows = (rois, torch.tensor([1, 0, 0, 1], device=x.device)[: len(rois)])
    others = (LEVELS, [0.5, 1.0], OUTER, False)
    maps = [input, other.requires_grad_(gradient)]
    yield ops.roi_spatial_pyramid_pool_of_maps, (maps, *rows, *others)
    yield ops.roi_spatial_pyramid_pool_of_maps_with_argmax, (maps, *rows, *others)
    argmax = ops.roi_spatial_pyramid_pool_of_maps_with_argmax([x, other.detach()], *rows, *others)[1]
    yield ops.gather_of_maps, (maps, argmax, *rows, LEVEL_BINS)
    grad = torch.ones_like(argmax, dtype=x.dtype).requires_grad_(gradient)
    sizes = [*x.shape, *other.shape]
    yield ops.scatter_of_maps, (grad, argmax, *rows, LEVEL_BINS, sizes, [channels_last, False])


def out_calls(x):
    """Every op that writes into a tensor, as (overload, arguments, values)."""
    for op, arguments in calls(x, False):
        if "out" in op.overloads():
            yield op.out, arguments, op(*arguments)
