"""The network has the released layers, takes any size, and pools the cells that the paper says."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import spp_ext
from spp_ext import models, reference
from spp_ext.models import sppnet, windows

NARROW = 1 / 16


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.sppnet_zf5(10, width=NARROW).eval()


def boxes_in(height, width, count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height])
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def test_parameters_are_the_released_networks():
    with torch.device("meta"):
        network, fixed = models.sppnet_zf5(1000), models.zf5(1000)
    shapes = {name: tuple(weight.shape) for name, weight in network.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "convolutions.conv1.weight": (96, 3, 7, 7),
        "convolutions.conv2.weight": (256, 96, 5, 5),
        "convolutions.conv3.weight": (384, 256, 3, 3),
        "convolutions.conv4.weight": (384, 384, 3, 3),
        "convolutions.conv5.weight": (256, 384, 3, 3),
        "fc6.weight": (4096, 12800),
        "fc7.weight": (4096, 4096),
        "fc8.weight": (1000, 4096),
    }
    assert fixed.fc6.weight.shape == (4096, 256 * 6 * 6)


@pytest.mark.parametrize("pixels, cells", [(224, 13), (180, 10), (64, 3)])
def test_conv5_has_the_papers_size(network, pixels, cells):
    assert sppnet.map_size(pixels) == cells
    assert network.features(torch.zeros(1, 3, pixels, pixels)).shape[2:] == (cells, cells)


@pytest.mark.parametrize("height, width", [(64, 64), (65, 130), (180, 180), (224, 97)])
def test_any_size_from_64_up(network, height, width):
    images = torch.randn(2, 3, height, width)
    maps = network.features(images)
    assert maps.shape[2:] == (sppnet.map_size(height), sppnet.map_size(width))
    assert network(images).shape == (2, 10)
    assert network.represent(images).shape == (2, 256)
    pooled = torch.cat([F.adaptive_max_pool2d(maps, level).flatten(1) for level in (6, 3, 2, 1)], 1)
    assert torch.equal(network.represent(images, "pool5"), pooled)
    assert torch.equal(network.represent(images, "fc6"), F.relu(network.fc6(pooled)))


def test_without_a_pyramid_one_size_fits():
    fixed = models.zf5(10, 112, NARROW).eval()
    assert fixed(torch.zeros(2, 3, 112, 112)).shape == (2, 10)
    with pytest.raises(ValueError, match="112 x 112 pixels, the only size without a pyramid, got .2, 3, 96, 112"):
        fixed(torch.zeros(2, 3, 96, 112))


def test_bad_input_is_named(network):
    with pytest.raises(ValueError, match=r"H and W at least 64, got \[1, 3, 63, 64\]"):
        network(torch.zeros(1, 3, 63, 64))
    with pytest.raises(ValueError, match="expected layer to be one of .* got 'fc9'"):
        network.represent(torch.zeros(1, 3, 64, 64), "fc9")
    with pytest.raises(ValueError, match="got 'caffe'"):
        network.region_features(torch.zeros(1, 3, 64, 64), torch.zeros(1, 5), mapping="caffe")
    with pytest.raises(ValueError, match=r"boxes of shape \[K, 5\], got \[2, 4\]"):
        network.region_features(torch.zeros(1, 3, 64, 64), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="at least 64 pixels, got 32"):
        models.zf5(10, 32)


def test_normalisation_is_caffes():
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64) * 100
    got = sppnet.WithinChannelNorm()(x)
    padded = F.pad(x, (1, 1, 1, 1)).numpy()
    for n, c, i, j in np.ndindex(*x.shape):
        energy = (padded[n, c, i : i + 3, j : j + 3] ** 2).sum() / 9
        assert got[n, c, i, j].item() == pytest.approx(x[n, c, i, j].item() * (1 + 5e-5 * energy) ** -0.75)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_normalisation_of_half_precision_does_not_overflow(dtype):
    x = torch.full((1, 1, 4, 4), 1000.0, dtype=dtype)
    assert torch.equal(sppnet.WithinChannelNorm()(x), sppnet.WithinChannelNorm()(x.float()).to(dtype))
    assert sppnet.WithinChannelNorm()(x).min() > 40


def test_first_cell_sees_pixel_20_and_cells_are_16_apart(network):
    image = torch.randn(1, 3, 240, 240, requires_grad=True)
    for cell in (3, 4, 7):  # far from the edges
        maps = network.convolutions[:-1](image)  # without the last ReLU, which may stop a gradient
        (gradient,) = torch.autograd.grad(maps[0, :, cell, cell].sum(), image)
        seen = gradient[0].abs().sum((0, 1)).nonzero().flatten()
        centre = (seen[0] + seen[-1]).item() / 2
        # Max pooling picks one of its cells, so what is seen may end a little short on either side.
        assert abs(centre - (windows.FIRST_CENTRE + windows.STRIDE * cell)) <= 8


def test_receptive_fields_follow_from_the_layers(network):
    centre, jump = 0.0, 1
    for layer in network.convolutions:
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.MaxPool2d)):
            sizes = [
                size if isinstance(size, int) else size[0] for size in (layer.kernel_size, layer.stride, layer.padding)
            ]
            kernel, stride, padding = sizes
            centre += ((kernel - 1) / 2 - padding) * jump
            jump *= stride
    assert (centre, jump) == (windows.FIRST_CENTRE, windows.STRIDE)


@pytest.mark.parametrize("factor", [1.0, 0.75, 480 / 375, 1200 / 333])
def test_appendix_a_takes_the_cells_whose_centres_are_inside(factor):
    boxes = boxes_in(300, 400)
    boxes[:100] = (boxes[:100] / 16).round() * 16 + windows.SHIFT / factor  # ends on centres
    sizes = torch.tensor([[sppnet.map_size(int(300 * factor)), sppnet.map_size(int(400 * factor))]]).expand(300, 2)
    found = windows.windows(boxes, torch.full((300,), factor, dtype=torch.float64), sizes)
    moved = windows.pooling_boxes(boxes, torch.full((300,), factor, dtype=torch.float64), sizes, "appendix_a")
    for box, (x1, y1, x2, y2) in zip(moved.numpy(), found.tolist(), strict=True):
        scale = windows.pooling_scale(factor, "appendix_a")
        expected = reference.roi_window(box, scale, "spp_net", *sizes[0].tolist(), np.float32)
        assert (y1, y2 + 1, x1, x2 + 1) == expected

    if factor == 1.0:
        box = torch.tensor([[36.5, 20.0, 100.0, 52.5]])  # centres 52, 68, 84 and 36, 52; those on the edge are outside
        assert windows.windows(box, torch.ones(1).double(), sizes[:1]).tolist() == [[2, 1, 4, 2]]


def test_released_mapping_is_the_released_codes():
    boxes, factor, sizes = boxes_in(300, 400), 1.7, (20, 25)
    boxes[:50, 2:] = boxes[:50, :2] + 3  # ends that cross
    found = windows.windows(
        boxes, torch.full((300,), factor, dtype=torch.float64), torch.tensor([sizes]).expand(300, 2), "released"
    )
    crossed = 0
    for box, window in zip(boxes, found.tolist(), strict=True):
        for axis in (0, 1):
            first, last = (box[[axis, axis + 2]] * torch.tensor(factor) + 1).tolist()
            first = np.floor((first - 21 + 6.5) / 16 + 0.5) + 1
            last = np.ceil((last - 21 - 6.5) / 16 - 0.5) + 1
            crossed += first > last
            if first > last:
                first = last = np.floor((first + last) / 2)
            limit = sizes[1 - axis]
            assert window[axis] == min(max(first, 1), limit) - 1 and window[axis + 2] == min(max(last, 1), limit) - 1
    assert crossed > 20


@pytest.mark.parametrize("mapping", ["appendix_a", "released"])
def test_region_features_are_those_of_the_window(network, mapping):
    images = torch.randn(2, 3, 200, 260)
    boxes = boxes_in(200, 260, 40)
    rois = torch.cat([torch.arange(40.0)[:, None] % 2, boxes], 1)
    maps = network.features(images)
    pooled = network.region_features(images, rois, "pool5", mapping=mapping)
    size = torch.tensor([maps.shape[2:]]).expand(40, 2)
    cells = windows.windows(boxes, torch.ones(40, dtype=torch.float64), size, mapping)
    for row, (image, (x1, y1, x2, y2)) in enumerate(zip(rois[:, 0].int().tolist(), cells.tolist(), strict=True)):
        window = maps[image : image + 1, :, y1 : y2 + 1, x1 : x2 + 1]
        assert torch.equal(pooled[row], spp_ext.spatial_pyramid_pool(window, (6, 3, 2, 1))[0])
    assert torch.equal(network.region_features(images, rois, mapping=mapping), network.head(pooled))


@pytest.mark.parametrize("mapping", ["appendix_a", "released"])
def test_boxes_far_outside_take_the_cells_at_the_edge(network, mapping):
    images = torch.randn(1, 3, 100, 120)
    maps = network.features(images)
    boxes = torch.tensor([[1e30, 1e30, 3e38, 3e38], [-3e38, -1e30, -1e30, -1e9], [-3e38, -3e38, 3e38, 3e38]])
    pooled = network.region_features(images, [boxes], "pool5", mapping=mapping)
    expected = [maps[:, :, -1:, -1:], maps[:, :, :1, :1], maps]
    assert torch.equal(pooled, torch.cat([spp_ext.spatial_pyramid_pool(window, network.levels) for window in expected]))
    cells = windows.windows(boxes, torch.ones(3).double(), torch.tensor([maps.shape[2:]]).expand(3, 2), mapping)
    bottom, right = (size - 1 for size in maps.shape[2:])
    assert cells.tolist() == [[right, bottom, right, bottom], [0, 0, 0, 0], [0, 0, right, bottom]]


@pytest.mark.parametrize("mapping", ["appendix_a", "released"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_boxes_that_are_not_finite_are_refused(network, mapping, bad):
    with pytest.raises(ValueError, match="finite"):
        network.region_features(torch.zeros(1, 3, 64, 64), torch.tensor([[0, 0, 0, bad, 9.0]]), mapping=mapping)


def test_boxes_in_half_precision_are_mapped_in_float32(network):
    images, left = torch.randn(1, 3, 64, 2400), torch.arange(2048.0, 2300, 2)  # half precision counts in twos there
    rois = torch.stack([torch.zeros(126), left, torch.zeros(126), left + 40, torch.full((126,), 60.0)], 1)
    expected = network.region_features(images, rois, "pool5", mapping="released")
    assert torch.equal(network.region_features(images, rois.half(), "pool5", mapping="released"), expected)


@pytest.mark.parametrize("mapping", ["appendix_a", "released"])
def test_no_images_or_no_regions_are_fine(network, mapping):
    assert network.region_features(torch.zeros(2, 3, 64, 64), torch.zeros(0, 5), mapping=mapping).shape == (0, 256)
    assert network(torch.zeros(0, 3, 64, 64)).shape == (0, 10)


def test_region_features_take_a_list_of_boxes(network):
    images = torch.randn(2, 3, 100, 120)
    boxes = [boxes_in(100, 120, 3), boxes_in(100, 120, 2, seed=1)]
    rois = torch.cat([F.pad(each, (1, 0), value=float(index)) for index, each in enumerate(boxes)])
    assert torch.equal(network.region_features(images, boxes), network.region_features(images, rois))


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = models.sppnet_zf5(10, width=NARROW)
    images = torch.randn(2, 3, 90, 130)
    regions = network.region_features(images, [boxes_in(90, 130, 5)] * 2)
    (network(images).sum() + network.fc8(regions).sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_models_import_needs_torch_alone():
    code = (
        "import sys, spp_ext.models; sys.exit(any(m in sys.modules for m in ('sklearn', 'matplotlib', 'cv2', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
