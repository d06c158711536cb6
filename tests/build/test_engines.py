"""The benchmarks' graphs of OpenVINO and ONNX Runtime compute what spp_ext does, bit for bit."""

import importlib
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.peers, pytest.mark.cpu_only]

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2])
    baselines = importlib.import_module("benchmarks.baselines")
    engines = importlib.import_module("benchmarks.engines")
    CASES = {
        case.name: case
        for case in importlib.import_module("benchmarks.cases").cases("cpu")
        if case.has_fixed_buffers and case.layout == "contiguous"
    }


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["OpenVINO", "ONNX Runtime"])
@pytest.mark.parametrize("name", CASES)
def test_an_engine_computes_the_same_into_its_own_output(name, engine, threads):
    case = CASES[name]
    rois = baselines.boxes(case, "cpu")
    pool, ours = dict(engines.engines(case))[engine](case, rois), baselines.ours(case, rois)
    outputs = set()
    for _ in range(2):
        x = torch.randn(case.shape)
        output = pool(x)
        assert torch.equal(output, ours(x))
        assert pool(x.add_(1)) is output and torch.equal(output, ours(x))  # the map is read where it is
        outputs.add(output.data_ptr())
    assert len(outputs) == 1


def test_engines_run_where_they_have_the_same_to_do():
    cases = importlib.import_module("benchmarks.cases")
    case = cases.ZF5
    assert [name for name, _ in engines.engines(case)] == list(cases.ENGINES)
    for other in ({"dtype": "bfloat16"}, {"kind": cases.WITH_ARGMAX}, {"kind": cases.WITH_BACKWARD}):
        assert not list(engines.engines(cases.replace(case, **other)))
