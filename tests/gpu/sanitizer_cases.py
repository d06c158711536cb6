"""A compact set of calls for compute-sanitizer, which is a hundred times slower: each kernel, each policy once.

``python sanitizer_cases.py cpu`` makes the same calls of the CPU's kernels; a test counts them.
"""

import sys

import torch

import spp_ext
from spp_ext import ops

# [N, C, H, W]: channels that fill no warp; a plane that a block stages; one too large for shared memory.
SHAPES = ((2, 9, 13, 11), (1, 3, 70, 90), (1, 1, 150, 151))
LEVELS = (1, 2, 3, 6)
MANY_BINS = (180,)  # more than shared memory holds


def both_ways(pool, *maps):
    """Values alone, then with an argmax, its gradient, and the gradient of that."""
    with torch.no_grad():
        pool(*maps)
    leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in maps]
    output = pool(*leaves)
    grad = torch.ones_like(output).requires_grad_()
    scattered = torch.autograd.grad(output, leaves, grad, create_graph=True)
    torch.autograd.grad(sum(part.sum() for part in scattered), grad)  # gathers


def main(device="cuda"):
    """Runs every kernel on small maps, in every dtype and layout, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            maps = [
                torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=memory_format).to(device)
                for shape in (*SHAPES, (2, 9, 40, 7))
            ]
            for x in maps[:3]:
                images = torch.randint(0, len(x), (6, 1), generator=generator)
                rois = torch.cat([images, torch.rand(6, 4, generator=generator) * 120 - 10], 1).to(device)
                for levels in (LEVELS, MANY_BINS) if dtype == torch.float32 else (LEVELS,):
                    both_ways(lambda y, levels=levels: spp_ext.spatial_pyramid_pool(y, levels), x)
                    both_ways(
                        lambda y, rois=rois, levels=levels: spp_ext.roi_spatial_pyramid_pool(y, rois, levels, 0.5), x
                    )
                # YOLO's sizes, as SPP and as SPPF have them, and one whose tiles do not fit in shared memory.
                for sizes in ([5, 9, 13], [3, 101]):
                    for cascade in (False, True):
                        torch.ops.spp_ext.multi_kernel_max_pool2d(x, sizes, cascade)
                        torch.ops.spp_ext.multi_kernel_max_pool2d_with_argmax(x, sizes, cascade)
            # The drop-ins, several maps at once, and many regions of some images.
            x, other = maps[0], maps[3]
            corners = torch.rand(40, 4, generator=generator) * 12
            rois = torch.cat([torch.arange(40)[:, None] * 7 % 2, corners], 1).to(device)
            which = (torch.arange(40) * 5 % 3 % 2).to(device)
            both_ways(lambda y: ops.adaptive_max_pool2d(y, (7, 5)), x)
            both_ways(lambda y, rois=rois: ops.roi_pool(y, rois, 7, 0.9), x)
            both_ways(lambda y: ops.multi_kernel_max_pool2d(y, (5, 9, 13)), x)
            both_ways(
                lambda y, z, rois=rois, which=which: spp_ext.roi_spatial_pyramid_pool(
                    [y, z], rois, LEVELS, (1.0, 0.5), map_indices=which
                ),
                *(x, other),
            )
    if device == "cuda":
        torch.cuda.synchronize()
    print("all calls returned")


if __name__ == "__main__":
    main(*sys.argv[1:])
