"""No kernel executes more than it did: counts of a few calls of medium size, held to tests/ptx/ceilings.json."""

import math

import backend
import pytest

from tools.gpu_model import ceilings
from tools.gpu_model.weights import Weights

pytestmark = pytest.mark.cpu_only

NUMBERS = {"instructions": 200.0, "traffic": 1.25, "conflicts": 1.0}


@pytest.mark.parametrize("name", ceilings.CASES)
def test_counts_are_at_their_ceilings(compiled, name):
    written = ceilings.read()
    if (version := ceilings.compiler()) != written["nvcc"]:
        pytest.skip(f"the ceilings are those of nvcc {written['nvcc']}, and this is {version}")
    found = ceilings.count(ceilings.CASES[name], backend.simt_library(), compiled.modules, Weights())
    assert ceilings.complaints(name, found, written["ceilings"][name]) == []


def test_every_case_has_ceilings_that_can_be():
    written = ceilings.read()["ceilings"]
    assert list(written) == list(ceilings.CASES)
    for numbers in written.values():
        assert numbers.keys() == NUMBERS.keys()
        assert all(math.isfinite(number) for number in numbers.values())
        assert numbers["instructions"] > 0
        assert numbers["traffic"] >= 0.9  # what must move, less what an estimate of it may be off by
        assert numbers["conflicts"] >= 1


@pytest.mark.parametrize("instructions, ratio", [(212, "6% above"), (168, "16% below")])
def test_a_count_that_leaves_its_ceiling_is_named(instructions, ratio):
    (sentence,) = ceilings.complaints("case", {**NUMBERS, "instructions": instructions}, NUMBERS)
    assert sentence.startswith(f"case: instructions {instructions}, and the ceiling is 200: {ratio}; ")


@pytest.mark.parametrize("instructions", [171, 200, 209])
def test_a_count_near_its_ceiling_passes(instructions):
    assert ceilings.complaints("case", {**NUMBERS, "instructions": instructions}, NUMBERS) == []
