"""A compact set of calls for compute-sanitizer, which is a hundred times slower: each kernel, each policy once."""

import torch

import spp_ext


def main():
    """Runs every kernel on small maps, in every dtype and layout, forward and backward."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            for shape in ((2, 9, 13, 11), (1, 3, 70, 90), (1, 1, 150, 151)):
                x = torch.randn(shape).to("cuda", dtype).contiguous(memory_format=memory_format).requires_grad_()
                corners = torch.rand(6, 4, device="cuda") * 120 - 10
                rois = torch.cat([torch.randint(0, shape[0], (6, 1), device="cuda"), corners], 1)
                for levels in ((1, 2, 3, 6), (180,)):  # the second has more bins than shared memory holds
                    output = torch.cat(
                        [
                            spp_ext.spatial_pyramid_pool(x, levels),
                            spp_ext.roi_spatial_pyramid_pool(x, rois, levels, 0.5),
                        ]
                    )
                    grad = torch.ones_like(output).requires_grad_()
                    (scattered,) = torch.autograd.grad(output, x, grad, create_graph=True)
                    torch.autograd.grad(scattered.sum(), grad)  # gathers
                    with torch.no_grad():
                        spp_ext.spatial_pyramid_pool(x, levels)
                        spp_ext.roi_spatial_pyramid_pool(x, rois, levels, 0.5)
                # YOLO's sizes, and one whose tiles do not fit in shared memory.
                for sizes in ([5, 9, 13], [3, 101]):
                    for cascade in (False, True):
                        torch.ops.spp_ext.multi_kernel_max_pool2d_with_argmax(x.detach(), sizes, cascade)
                        torch.ops.spp_ext.multi_kernel_max_pool2d(x.detach(), sizes, cascade)
    torch.cuda.synchronize()
    print("all calls returned")


if __name__ == "__main__":
    main()
