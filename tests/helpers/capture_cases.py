"""Models that the tools capturing models are tried on: every function, module and kind of swapped block."""

import torch
from pooling_models import SPP, Detector, NewerSPPF, SPPNet
from support import TABLE_BINS, assert_same, random_rois
from torch import nn

import spp_ext
from spp_ext import ops, replace_pooling

LEVELS = (1, 3, TABLE_BINS, (2, 3))


class Pools(nn.Module):
    """Pools, in its own way, the features that parameters with a gradient give."""

    def __init__(self, pool):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)
        self.pool = pool

    def forward(self, x, rois):
        return self.pool(self.features(x), rois)


class OfMaps(nn.Module):
    """A module of maps among those of regions."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x, rois):
        return self.pool(x)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = spp_ext.RoISpatialPyramidPool(LEVELS, (0.5, 0.25))

    def forward(self, x, rois):
        return self.pool([x, x[:, :, 1:]], rois, (rois[:, 1] > 3).long())


def _swapped(model):
    replace_pooling(model)
    return OfMaps(model.eval())


FUNCTIONS = {
    "maps": lambda x, rois: spp_ext.spatial_pyramid_pool(x, LEVELS),
    "indices": lambda x, rois: spp_ext.spatial_pyramid_pool(x, LEVELS, return_indices=True)[1],
    "regions": lambda x, rois: spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS, 0.5, convention="outer"),
    "lists of boxes": lambda x, rois: spp_ext.roi_spatial_pyramid_pool(x, [rois[:2, 1:], rois[2:, 1:]], LEVELS),
    "several maps": lambda x, rois: spp_ext.roi_spatial_pyramid_pool(
        [x, x[:, :, 1:]], rois, (1, 2), map_indices=(rois[:, 1] > 3).long()
    ),
    "adaptive_max_pool2d": lambda x, rois: ops.adaptive_max_pool2d(x, (3, 2)),
    "adaptive_max_pool2d, None": lambda x, rois: ops.adaptive_max_pool2d(x, (3, None)),
    "adaptive_max_pool2d, sizes of the input": lambda x, rois: ops.adaptive_max_pool2d(x, (x.size(2) // 2, x.size(3))),
    "adaptive_max_pool2d, indices": lambda x, rois: ops.adaptive_max_pool2d(x, 2, True)[1],
    "roi_pool": lambda x, rois: ops.roi_pool(x, rois, (3, 2), 0.5),
    "multi_kernel_max_pool2d": lambda x, rois: ops.multi_kernel_max_pool2d(x, (7, 3)),
    "multi_kernel_max_pool2d, cascade": lambda x, rois: ops.multi_kernel_max_pool2d(x, (3, 5), cascade=True),
    "multi_kernel_max_pool2d of one image": lambda x, rois: ops.multi_kernel_max_pool2d(x[0]),
}
MODULES = {
    "SpatialPyramidPool": lambda: OfMaps(spp_ext.SpatialPyramidPool(LEVELS)),
    "SpatialPyramidPool, reuse_output": lambda: OfMaps(spp_ext.SpatialPyramidPool(LEVELS, reuse_output=True)),
    "RoISpatialPyramidPool": lambda: spp_ext.RoISpatialPyramidPool(LEVELS, 0.5),
    "RoISpatialPyramidPool of several maps": Several,
    "AdaptiveMaxPool2d": lambda: OfMaps(ops.AdaptiveMaxPool2d((None, 2))),
    "RoIPool": lambda: ops.RoIPool(2, 0.5),
    "SPP": lambda: OfMaps(ops.SPP((3, 5))),
    "SPPF": lambda: OfMaps(ops.SPPF(3, repeats=2)),
}
SWAPPED = {
    "SPP": lambda: _swapped(Detector(SPP(8, 8))),
    "SPPF": lambda: _swapped(Detector(NewerSPPF(8, 8, shortcut=True))),
    "SPPNet": lambda: _swapped(SPPNet()),
}


def models():
    """Each case by its name: ``(kind, make)``, where kind is the column of the table in docs/captured_by.md."""
    return {
        **{f"function {name}": ("functions", lambda pool=pool: Pools(pool)) for name, pool in FUNCTIONS.items()},
        **{f"module {name}": ("modules", lambda make=make: Pools(make())) for name, make in MODULES.items()},
        **{f"swapped {name}": ("swapped models", make) for name, make in SWAPPED.items()},
    }


def make(name):
    """The model of a case, the same weights at every call."""
    torch.manual_seed(0)
    return models()[name][1]().double()


def inputs(height=24, width=30, count=5, images=2):
    """A picture for every model, and regions."""
    rois = random_rois(count, images, height - 2, width - 2, seed=height)
    return torch.randn(images, 3, height, width, dtype=torch.float64), rois


OTHER_SIZES = [(24, 30, 5), (41, 33, 8)]


def assert_same_program(program, model, sizes=OTHER_SIZES):
    """Values are equal; gradients are sums, which torch's own ops add up in another order."""
    for size in sizes:
        arguments = inputs(*size)
        output, expected = program(*arguments), model(*arguments)
        assert_same(output.detach(), expected.detach())
        if expected.is_floating_point():
            weight = torch.randn(expected.shape, dtype=expected.dtype)
            grads, expected_grads = (
                torch.autograd.grad((result * weight).sum(), list(module.parameters()))
                for result, module in ((output, program), (expected, model))
            )
            torch.testing.assert_close(grads, expected_grads, rtol=1e-9, atol=1e-9)
