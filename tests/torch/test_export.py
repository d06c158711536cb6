"""torch.export: one program for every size, saved and loaded, that can still be trained; and compiled ahead of time."""

import io

import pytest
import torch
from pooling_models import SPPF, Detector
from support import assert_same, random_rois
from torch.export import Dim

import spp_ext
import spp_ext.ops

pytestmark = pytest.mark.cpu_only  # programs call the CPU's ops themselves

LEVELS = (1, 2, spp_ext.Bins([(0, 0, 1, 2), (1, 0, 2, 2)], 2), (2, 1))
ANY = Dim.DYNAMIC


class Maps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 4, 3)
        self.pool = spp_ext.SpatialPyramidPool(LEVELS)
        self.head = torch.nn.Linear(4 * self.pool.bins, 2)

    def forward(self, x):
        return self.head(self.pool(self.features(x)))


class Regions(Maps):
    def __init__(self):
        super().__init__()
        self.pool = spp_ext.RoISpatialPyramidPool(LEVELS, 0.5, "outer")

    def forward(self, x, rois):
        return self.head(self.pool(self.features(x), rois))


class Lists(Regions):
    def forward(self, x, first, second):
        return self.head(self.pool(self.features(x), [first, second]))


class Scales(Regions):
    """Every region at the scale of its own: from the features of the image, or of one twice as large."""

    def __init__(self):
        super().__init__()
        self.pool = spp_ext.RoISpatialPyramidPool(LEVELS, (0.5, 1.0), "outer")

    def forward(self, x, rois):
        maps = [self.features(x), self.features(torch.nn.functional.interpolate(x, scale_factor=2))]
        return self.head(self.pool(maps, rois, torch.arange(rois.shape[0]) % 2))


class Images(Maps):
    """A list of maps, of one number of images."""

    def forward(self, x):
        return self.head(self.pool([self.features(x), self.features(x.mT)]))


class Parts(Maps):
    """Of a padded batch."""

    def forward(self, x, sizes):
        return self.head(self.pool(self.features(x), sizes))


def inputs(model, images, height, width, count):
    x, rois = torch.randn(images, 3, height, width), random_rois(count, images, height, width)
    if isinstance(model, Lists):
        # Copies: torch's own guards on views of larger tensors do not survive run_decompositions.
        return x[:2].clone(), rois[:-3, 1:].clone(), rois[-3 - images :, 1:].clone()
    if isinstance(model, Parts):
        sizes = torch.arange(2 * images).view(images, 2) % (min(height, width) - 2) + 1  # features are 2 smaller
        return x, sizes
    return (x, rois) if isinstance(model, Regions) else (x,)


def dynamic(model):
    images = {} if isinstance(model, Lists) else {0: ANY}
    return (
        {**images, 2: ANY, 3: ANY},
        *({0: ANY},) * {Maps: 0, Images: 0, Parts: 1, Regions: 1, Scales: 1, Lists: 2}[type(model)],
    )


def gradients(module, arguments, model):
    model.zero_grad()
    module(*arguments).square().sum().backward()
    return [parameter.grad.clone() for _, parameter in sorted(module.named_parameters())]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", [Maps, Images, Parts, Regions, Lists, Scales])
def test_an_exported_program_takes_any_size_and_trains(kind, strict):
    torch.manual_seed(0)
    model = kind()
    program = torch.export.export(model, inputs(model, 2, 9, 8, 9), dynamic_shapes=dynamic(model), strict=strict)
    decomposed = program.run_decompositions()
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    program = torch.export.load(file)
    targets = [str(node.target) for node in program.graph.nodes]
    several = "roi_spatial_pyramid_pool_of_maps"
    op = {Maps: "spatial_pyramid_pool", Images: several, Scales: several}.get(kind, "roi_spatial_pyramid_pool")
    assert f"spp_ext.{op}.default" in targets  # and no argmax
    module = program.module()
    for images, height, width, count in ((2, 9, 8, 9), (5, 17, 12, 23), (3, 5, 30, 11)):
        arguments = inputs(model, images, height, width, count)
        assert_same(module(*arguments).detach(), model(*arguments).detach())
        for got, expected in zip(gradients(module, arguments, module), gradients(model, arguments, model), strict=True):
            assert_same(got, expected)
    assert_same(decomposed.module()(*arguments).detach(), model(*arguments).detach())


class ListOfMaps(torch.nn.Module):
    def forward(self, maps):
        return spp_ext.spatial_pyramid_pool(maps, LEVELS)


@pytest.mark.parametrize("strict", [False, True])
def test_a_list_of_maps_is_exported_with_a_size_for_each(strict):
    def maps(*sizes):
        return [torch.randn(4, *sizes[0]), torch.randn(1, 4, *sizes[1]), torch.randn(4, *sizes[2])]

    dynamic = [
        {len(shape): Dim(f"h{m}", max=500), len(shape) + 1: Dim(f"w{m}", max=500)}
        for m, shape in enumerate(((4,), (1, 4), (4,)))
    ]
    program = torch.export.export(
        ListOfMaps(), (maps((9, 8), (7, 6), (5, 4)),), dynamic_shapes=(dynamic,), strict=strict
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    module = torch.export.load(file).module()
    for sizes in (((9, 8), (7, 6), (5, 4)), ((3, 30), (21, 2), (17, 11))):
        leaves = [[x.requires_grad_() for x in maps(*sizes)]] * 2
        outputs = [module(leaves[0]), ListOfMaps()(leaves[1])]
        assert_same(*(output.detach() for output in outputs))
        assert_same(*(torch.autograd.grad(o.sum(), x) for o, x in zip(outputs, leaves, strict=True)))


@pytest.mark.integration
@pytest.mark.parametrize("kind", [Maps, Images, Parts, Regions, Scales])
def test_a_package_compiled_ahead_of_time_runs_from_python(kind, tmp_path):
    torch.manual_seed(0)
    model = kind().eval()
    program = torch.export.export(model, inputs(model, 2, 9, 8, 9), dynamic_shapes=dynamic(model))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    run = torch._inductor.aoti_load_package(package)
    for images, height, width, count in ((2, 9, 8, 9), (5, 17, 12, 23)):
        arguments = inputs(model, images, height, width, count)
        with torch.no_grad():
            torch.testing.assert_close(run(*arguments), model(*arguments))


class Into(torch.nn.Module):
    def forward(self, x, rois, out, four):
        spp_ext.roi_spatial_pyramid_pool(x, rois, LEVELS, 0.5, out=out)
        return spp_ext.ops.roi_pool(x, rois, 2, 0.5, out=four[..., 1:-1])


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_writes_into_what_it_is_given(strict):
    def inputs(images, height, width, count):
        x, rois = torch.randn(images, 4, height, width), random_rois(count, images, height, width)
        return x, rois, torch.zeros(count, 4 * Maps().pool.bins), torch.zeros(count, 4, 2, 4)

    dynamic = ({0: ANY, 2: ANY, 3: ANY}, *({0: ANY},) * 3)
    program = torch.export.export(Into(), inputs(2, 9, 8, 9), dynamic_shapes=dynamic, strict=strict)
    for module in (program.module(), program.run_decompositions().module()):
        for size in ((2, 9, 8, 9), (5, 17, 12, 23)):
            arguments = inputs(*size)
            expected = [argument.clone() for argument in arguments]
            assert_same(module(*arguments), Into()(*expected))
            assert_same(arguments, expected)


def test_a_swapped_model_is_exported():
    torch.manual_seed(0)
    model = Detector(SPPF(8, 8)).eval()
    spp_ext.replace_pooling(model)
    x = torch.randn(2, 3, 24, 20)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: ANY, 2: ANY, 3: ANY},))
    assert "spp_ext.multi_kernel_max_pool2d.default" in [str(node.target) for node in program.graph.nodes]
    for shape in ((2, 3, 24, 20), (3, 3, 32, 44)):
        x = torch.randn(shape)
        assert_same(program.module()(x).detach(), model(x).detach())


class Chosen(Scales):
    """Regions, and a map for each, that masks choose: how many there are is known only when the program runs."""

    def forward(self, x, rois, chosen, other):
        maps, map_indices = [self.features(x), self.features(x[..., :-1])], torch.arange(rois.shape[0]) % 2
        return self.head(self.pool(maps, rois[chosen], map_indices[other]))


def test_a_number_of_regions_that_the_data_decides():
    model, rois = Chosen(), random_rois(6, 2, 9, 11)
    x, chosen = torch.randn(2, 3, 12, 14), torch.tensor([True, False, True, True, False, True])
    program = torch.export.export(model, (x, rois, chosen, chosen.flip(0)), strict=False).module()
    for mask in (chosen, ~chosen, torch.zeros(6, dtype=torch.bool)):
        inputs = (x, rois, mask, mask.flip(0))
        torch.testing.assert_close(program(*inputs), model(*inputs))
    with pytest.raises(ValueError, match=r"expected map_indices of shape \[4\], one for each of the boxes, got \[2\]"):
        program(x, rois, chosen, ~chosen)
