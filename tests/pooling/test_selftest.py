"""The self-test draws every public op in all it can be asked for, and reports whatever is planted in any of them."""

import functools
import inspect

import pytest
import torch
from support import CONVENTIONS, DTYPES, assert_same

import spp_ext
from spp_ext import reference
from spp_ext.cli import selftest

NOT_POOLS = {"num_bins", "split_levels", "replace_pooling", "restore_pooling"}
NAMES = [f"{op.module.__name__}.{op.op}" for op in selftest.OPS]


@pytest.fixture(autouse=True)
def pytests_own_faulthandler(monkeypatch):
    """The self-test would move it to a file that pytest closes after the test."""
    monkeypatch.setattr(selftest.faulthandler, "enable", lambda: None)


@functools.cache
def drawn(count, seed=0):
    return [selftest.draw_case(seed, index) for index in range(count)]


def cases_of(op, count=5):
    """The first cases of an op that have a result in which a fault can show."""
    cases = (case for case in drawn(300) if type(case) is op)
    pooled = (case for case in cases if getattr(reference, case.op)(case.input(), **case.arguments).numel() > 1)
    return [case for case, _ in zip(pooled, range(count), strict=False)]


# ---- what is drawn ----


def test_every_public_pool_is_drawn():
    public = {
        f"{module.__name__}.{name}"
        for module in (spp_ext, spp_ext.ops)
        for name in module.__all__
        if name.islower() and callable(getattr(module, name)) and name not in NOT_POOLS
    }
    assert {f"{case.module.__name__}.{case.op}" for case in drawn(200)} == public


@pytest.mark.parametrize("op", selftest.OPS, ids=NAMES)
def test_every_op_is_drawn_in_every_dtype_and_layout_and_without_images(op):
    cases = [case for case in drawn(2000) if type(case) is op]
    assert {case.inputs[0].dtype for case in cases} == set(DTYPES)
    assert {layout for case in cases for layout in case.layouts} == set(selftest.LAYOUTS)
    assert {case.values for case in cases} == set(selftest.VALUES)
    assert any(case.inputs[0].dim() == 4 and len(case.inputs[0]) == 0 for case in cases)
    assert any(case.inputs[0].dim() == 3 for case in cases) == op.takes_one_image


def test_regions_are_drawn_in_every_form():
    cases = [case for case in drawn(400) if type(case) is selftest.RoISpatialPyramidPool]
    arguments = [case.arguments for case in cases]
    forms = {(drawn["convention"], "map_indices" in drawn, isinstance(drawn["boxes"], list)) for drawn in arguments}
    assert forms == {(convention, *form) for convention in CONVENTIONS for form in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    several = [case for case in cases if len(case.inputs) > 1]
    assert any(len(set(case.layouts)) > 1 and len(set(case.arguments["spatial_scale"])) > 1 for case in several)


def test_maps_are_drawn_in_every_form():
    cases = [case for case in drawn(400) if type(case) is selftest.SpatialPyramidPool]
    forms = {(len(case.inputs) > 1, case.inputs[0].dim(), "sizes" in case.arguments) for case in cases}
    assert forms == {(False, 3, False), (False, 4, False), (False, 4, True), (True, 4, False)}


def test_both_gradients_of_several_kernels_are_drawn():
    cases = [case for case in drawn(200) if type(case) is selftest.MultiKernelMaxPool2d]
    assert {case.arguments["cascade"] for case in cases} == {False, True}


def test_a_case_is_drawn_from_its_seed_and_number_alone():
    case = selftest.draw_case(3, 137)
    selftest.draw_case(4, 5)
    torch.rand(1)
    again = selftest.draw_case(3, 137)
    assert again.describe() == case.describe() and again.grad_seed == case.grad_seed
    assert_same(again.inputs, case.inputs)
    others = {selftest.draw_case(*other).describe() for other in [(3, 138), (4, 137)]}
    assert case.describe() not in others and len(others) == 2


# ---- what is found ----


def changed(x):
    """The same but for one element, the last, if there is any."""
    x, last = x.detach().clone(), (-1,) * x.dim()
    if x.numel():
        x[last] = 77 if x[last] != 77 else 0
    return x


class Changed(torch.autograd.Function):
    """The last value changed on the way forward, or the last gradient on the way back."""

    @staticmethod
    def forward(ctx, x, way):
        ctx.way = way
        return changed(x) if way == "forward" else x.clone()

    @staticmethod
    def backward(ctx, grad):
        return (grad if ctx.way == "forward" else grad + 1), None


def plant(monkeypatch, op, fault):
    """Makes the public op wrong in one of the results that the self-test looks at."""
    right = getattr(op.module, op.op)

    @functools.wraps(right)  # the self-test looks at the parameters
    def wrong(input, **arguments):
        result = right(input, **arguments)
        if arguments.get("return_indices"):
            values, indices = result
            return {
                "values, asked for with indices": (changed(values), indices),
                "indices": (values, changed(indices)),
            }.get(fault, result)
        if not result.requires_grad:
            return changed(result) if fault == "values" else result
        ways = {"values, asked for with a gradient": "forward", "gradient": "back"}
        return Changed.apply(result, ways[fault]) if fault in ways else result

    monkeypatch.setattr(op.module, op.op, wrong)


def has_indices(op):
    return "return_indices" in inspect.signature(getattr(op.module, op.op)).parameters


FAULTS = ["values", "values, asked for with a gradient", "gradient"]
FAULTS_WITH_INDICES = ["values, asked for with indices", "indices"]


@pytest.mark.parametrize(
    ("op", "fault"),
    [(op, fault) for op in selftest.OPS for fault in FAULTS + FAULTS_WITH_INDICES * has_indices(op)],
    ids=lambda value: value if isinstance(value, str) else value.op,
)
def test_a_wrong_result_of_any_op_is_found(monkeypatch, op, fault):
    cases = cases_of(op)
    assert len(cases) == 5 and all(selftest.check(case) is None for case in cases)
    plant(monkeypatch, op, fault)
    for case in cases:
        assert selftest.check(case).startswith(f"{fault}: ")


@pytest.mark.parametrize("op", selftest.OPS, ids=NAMES)
def test_a_mismatch_is_reported_with_the_call_and_the_way_to_see_it_again(monkeypatch, capsys, op):
    plant(monkeypatch, op, "values")
    index = next(i for i in range(300) if selftest.check(selftest.draw_case(0, i)) is not None)
    assert selftest.run(index + 1, None, 0, None) == 1
    printed = capsys.readouterr().out
    assert f"MISMATCH in case {index} of seed 0\n  values: " in printed
    assert f"  op            {op.module.__name__}.{op.op}\n" in printed
    assert f"python -m spp_ext selftest --seed 0 --case {index}\n" in printed
    assert f"{index + 1} cases, 1 mismatches" in printed
    assert selftest.run(1, None, 0, index) == 1
    assert capsys.readouterr().out.startswith(f"MISMATCH in case {index} of seed 0\n")


def test_an_error_is_a_mismatch(monkeypatch):
    def fails(*arguments, **options):
        raise MemoryError("none left")

    monkeypatch.setattr(spp_ext.ops, "roi_pool", fails)
    assert selftest.check(cases_of(selftest.RoIPool, 1)[0]) == "raised MemoryError: none left"


def test_integer_edges_in_place_of_torchvisions_are_found(monkeypatch):
    def with_integer_edges(input, boxes, output_size, spatial_scale):
        rows, cols = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
        pooled = spp_ext.roi_spatial_pyramid_pool(input, boxes, [(rows, cols)], spatial_scale)
        return pooled.view(len(pooled), input.shape[1], rows, cols)

    cases = [case for case in drawn(2000) if type(case) is selftest.RoIPool]  # as many as are run unless asked
    monkeypatch.setattr(spp_ext.ops, "roi_pool", with_integer_edges)
    assert any(selftest.check(case) is not None for case in cases)


def test_no_mismatch_is_found_as_it_is(capsys):
    assert selftest.run(60, None, 7, None) == 0
    assert "60 cases, 0 mismatches" in capsys.readouterr().out
    assert selftest.run(1, None, 7, 3) == 0
    assert capsys.readouterr().out.startswith("case 3 of seed 7: equal\nop ")
