"""torch.fx: symbolic tracing keeps the public functions as nodes, for feature extractors, fusion and quantization."""

import copy

import pytest
import torch
from capture_cases import FUNCTIONS, LEVELS, Pools, assert_same_program, inputs, make, models
from pooling_models import SPPF, Detector, save_and_load
from support import assert_same
from torch.fx.experimental import optimization

import spp_ext
from spp_ext import ops, replace_pooling


@pytest.mark.parametrize("name", models())
def test_a_symbolic_trace_pools_at_any_size(name):
    model = make(name)
    traced = torch.fx.symbolic_trace(model)
    for program in (traced, save_and_load(traced), copy.deepcopy(traced)):
        assert_same_program(program, model)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("maps", spp_ext.spatial_pyramid_pool),
        ("several maps", spp_ext.roi_spatial_pyramid_pool),
        ("adaptive_max_pool2d, sizes of the input", ops.adaptive_max_pool2d),
        ("roi_pool", ops.roi_pool),
        ("multi_kernel_max_pool2d", ops.multi_kernel_max_pool2d),
    ],
)
def test_the_graph_calls_the_public_function(name, function):
    graph = torch.fx.symbolic_trace(Pools(FUNCTIONS[name])).graph
    assert function in [node.target for node in graph.nodes]


@pytest.mark.parametrize("symbolic", ["boxes", "map_indices"])
def test_regions_of_a_map_that_is_a_constant(symbolic):
    x, rois = inputs()
    x.requires_grad_(False)
    map_indices = torch.arange(len(rois)) % 2

    def boxes(given):
        return spp_ext.roi_spatial_pyramid_pool(x, given, LEVELS)

    def indices(given):
        return spp_ext.roi_spatial_pyramid_pool([x, x], rois, LEVELS, map_indices=given)

    function, argument = (boxes, rois) if symbolic == "boxes" else (indices, map_indices)
    assert_same(torch.fx.symbolic_trace(function)(argument), function(argument))


def swapped_detector():
    torch.manual_seed(0)
    model = Detector(SPPF(8, 8)).eval()
    replace_pooling(model)
    return model


def test_convolutions_of_a_swapped_model_are_fused():
    model, x = swapped_detector(), torch.randn(1, 3, 32, 40)
    fused = optimization.fuse(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    torch.testing.assert_close(fused(x), model(x))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of its quantization
def test_a_swapped_model_is_quantized():
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    x = torch.randn(1, 3, 32, 40)
    models = swapped_detector(), Detector(SPPF(8, 8)).eval()
    models[1].load_state_dict(models[0].state_dict())
    results = []
    for model in models:
        prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))
        prepared(x)
        results.append(convert_fx(prepared)(x))
    torch.testing.assert_close(results[0], models[0](x), rtol=0, atol=0.2)
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0.1)
