"""What each of two processes runs for test_distributed.py: ``python distributed_cases.py RANK FILE``."""

import copy
import os
import sys

import torch
import torch.distributed as dist
from pooling_models import SPPF, Detector
from support import assert_same, gaussian, integers, random_rois
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import spp_ext
import spp_ext.ops

BINS = spp_ext.Bins([(0, 0, 1, 2), (1, 0, 2, 2)], 2)
PYRAMIDS = [(1, 2, 3, 6), (2,), (BINS,), (BINS, (1, 3))]
SHARDS = {"all": Replicate(), "images": Shard(0), "channels": Shard(1), "rows": Shard(2), "columns": Shard(3)}


def check(pool, x, mesh, placement, expected_placement=None):
    """Values, indices and gradient of a sharded map are those of the whole one."""
    expected, indices = pool(x.requires_grad_(), return_indices=True)
    grad = integers(expected.shape, x.dtype)  # sums of these are exact, in whatever order
    (expected_grad,) = torch.autograd.grad(expected, x, grad)

    sharded = distribute_tensor(x.detach(), mesh, [placement]).requires_grad_()
    got, got_indices = pool(sharded, return_indices=True)
    assert isinstance(got, DTensor)
    if expected_placement is not None:
        assert got.placements == (expected_placement,), got.placements
    assert_same(got.full_tensor().detach(), expected.detach())
    assert_same(got_indices.full_tensor(), indices)
    assert_same(pool(sharded.detach()).full_tensor(), expected.detach())
    (got_grad,) = torch.autograd.grad(got, sharded, distribute_tensor(grad, mesh, got.placements), create_graph=True)
    assert_same(got_grad.full_tensor(), expected_grad)
    if placement == expected_placement:
        assert got_grad.placements == (placement,), got_grad.placements
        assert got_grad.stride() == sharded.stride()
    return got_grad


def maps(mesh):
    for shape in ((4, 6, 7, 5), (3, 6, 7, 5), (1, 5, 7, 5)):
        for levels in PYRAMIDS:
            for layout in (torch.contiguous_format, torch.channels_last):
                x = gaussian(shape, torch.float32).contiguous(memory_format=layout)
                for name, placement in SHARDS.items():
                    kept = name == "all" or (name == "images" and shape[0] > 1)
                    kept |= name == "channels" and len(levels) == 1 and shape[1] == 6
                    check(
                        lambda x, levels=levels, **options: spp_ext.spatial_pyramid_pool(x, levels, **options),
                        x.clone(memory_format=torch.preserve_format),
                        mesh,
                        placement,
                        placement if kept else None,
                    )


def regions(mesh):
    for images, count in ((4, 9), (3, 1)):
        x, rois = gaussian((images, 6, 7, 5), torch.float32), random_rois(count, images, 7, 5)
        for levels in PYRAMIDS:
            for boxes in (
                rois,
                distribute_tensor(rois, mesh, [Shard(0)]),
                distribute_tensor(rois, mesh, [Replicate()]),
            ):
                for name, placement in SHARDS.items():

                    def pool(x, levels=levels, boxes=boxes, rois=rois, **options):
                        own = boxes if isinstance(x, DTensor) else rois
                        return spp_ext.roi_spatial_pyramid_pool(x, own, levels, 0.8, convention="outer", **options)

                    grad = check(pool, x.clone(), mesh, placement)
                    if isinstance(boxes, DTensor) and boxes.placements == (Shard(0),) and name == "all" and count > 1:
                        assert grad.placements == (Partial(),), grad.placements

    plain, sharded = torch.zeros(2, 6, 7, 5), distribute_tensor(torch.zeros(2, 6, 7, 5), mesh, [Shard(0)])
    out = torch.zeros(2, 6)
    for x, given in ((sharded, out), (plain, distribute_tensor(out, mesh, [Shard(0)]))):
        try:
            spp_ext.spatial_pyramid_pool(x, (1,), out=given)
        except NotImplementedError as error:
            assert str(error) == "spp_ext.spatial_pyramid_pool: expected no DTensor where out is given, got one"
        else:
            raise AssertionError("a DTensor went through")
    for maps in ([plain, sharded], [sharded]):
        try:
            spp_ext.roi_spatial_pyramid_pool(maps, torch.zeros(1, 5), map_indices=torch.zeros(1).long())
        except NotImplementedError as error:
            assert str(error).endswith(f"expected a DTensor to be the only map, got one of {len(maps)}"), error
        else:
            raise AssertionError("a DTensor among several maps was expected to be refused")


def kernels(mesh):
    """With channels sharded the output's blocks are not, so the map is gathered and only images stay as they are."""
    for shape in ((4, 6, 7, 5), (3, 6, 7, 5), (1, 5, 7, 5)):
        for sizes, cascade in (((3,), False), ((5, 9, 13), True), ((9, 3), False)):
            for layout in (torch.contiguous_format, torch.channels_last):
                for name, placement in SHARDS.items():

                    def pool(x, sizes=sizes, cascade=cascade):
                        return spp_ext.ops.multi_kernel_max_pool2d(x, sizes, cascade=cascade)

                    x = integers(shape, torch.float32).contiguous(memory_format=layout).requires_grad_()
                    expected = pool(x)
                    grad = integers(expected.shape, x.dtype, seed=1)
                    (expected_grad,) = torch.autograd.grad(expected, x, grad)

                    sharded = distribute_tensor(x.detach(), mesh, [placement]).requires_grad_()
                    got = pool(sharded)
                    assert_same(got.full_tensor().detach(), expected.detach())
                    assert_same(pool(sharded.detach()).full_tensor(), expected.detach())
                    whole = distribute_tensor(grad, mesh, got.placements)
                    (got_grad,) = torch.autograd.grad(got, sharded, whole, create_graph=True)
                    assert_same(got_grad.full_tensor(), expected_grad)
                    if name == "all" or (name == "images" and shape[0] > 1):
                        assert got.placements == got_grad.placements == (placement,), (got, got_grad)
                        assert got_grad.stride() == sharded.stride()


def second_derivatives(mesh):
    for placement in (Shard(0), Shard(1)):
        for levels in ((2,), (1, 2)):
            x = gaussian((4, 6, 7, 5), torch.float64)
            found = []
            for leaf in (x.clone(), distribute_tensor(x, mesh, [placement])):
                leaf.requires_grad_()
                (grad,) = torch.autograd.grad(
                    spp_ext.spatial_pyramid_pool(leaf, levels).pow(3).sum(), leaf, create_graph=True
                )
                (second,) = torch.autograd.grad(grad.pow(2).sum(), leaf)
                found.append(second.full_tensor() if isinstance(second, DTensor) else second)
            assert_same(found[1], found[0])


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 4, 3)
        self.pool = spp_ext.SpatialPyramidPool((1, 2))
        self.pool_regions = spp_ext.RoISpatialPyramidPool((2,))
        self.head = torch.nn.Linear(4 * (self.pool.bins + self.pool_regions.bins), 2)

    def forward(self, x, boxes):
        features = self.features(x)
        return self.head(torch.cat([self.pool(features), self.pool_regions(features, boxes)], 1))


def ddp(_):
    torch.manual_seed(0)
    whole, mine = Model().double(), Model().double()
    mine.load_state_dict(whole.state_dict())
    parallel = DistributedDataParallel(mine)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (whole, mine)]
    rank = dist.get_rank()
    for step in range(5):
        x = gaussian((4, 3, 9 + step, 8), torch.float64, step)
        boxes = [gaussian((1, 4), torch.float64, step + i).abs() * 3 for i in range(4)]
        part = slice(2 * rank, 2 * rank + 2)
        for model, optimizer, batch in ((whole, optimizers[0], slice(None)), (parallel, optimizers[1], part)):
            optimizer.zero_grad()
            model(x[batch], boxes[batch]).square().mean().backward()
            optimizer.step()
        for got, expected in zip(mine.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def fsdp(mesh):
    """A swapped model, its block sharded by itself: torch gives both a class of its own, above that of the swap."""
    torch.manual_seed(0)
    whole = Detector(SPPF(8, 8)).double().eval()  # its normalization has the statistics of no batch
    spp_ext.replace_pooling(whole)
    mine = copy.deepcopy(whole)
    for part in (mine.neck, mine):
        fully_shard(part, mesh=mesh)
    assert type(mine.neck).__name__ == "FSDPFusedSPPF"
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (whole, mine)]
    rank = dist.get_rank()
    for step in range(3):
        x = gaussian((4, 3, 12 + step, 16), torch.float64, step)
        part = slice(2 * rank, 2 * rank + 2)
        for model, optimizer, batch in ((whole, optimizers[0], slice(None)), (mine, optimizers[1], part)):
            optimizer.zero_grad()
            model(x[batch]).square().mean().backward()
            optimizer.step()
        for got, expected in zip(mine.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(got.full_tensor(), expected, rtol=1e-12, atol=1e-12)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[1]), world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for case in (maps, regions, kernels, second_derivatives, ddp, fsdp):
        case(mesh)
        print(f"{case.__name__} passed", flush=True)
    dist.barrier()
    dist.destroy_process_group()
    # All is checked. An ordinary exit sometimes aborts in gloo, whose threads may still run.
    os._exit(0)
