"""``pytest benchmarks --benchmark-only``: the suite's small cases, each a group of ours, the best peer and a floor.

``extra_info`` says who they are, and which share of the work a loop over slices did.
"""

from functools import lru_cache

import pytest

from benchmarks.baselines import contenders
from benchmarks.cases import cases

CASES = {case.name: case for case in cases("cpu", quick=True)}


@lru_cache(maxsize=1)  # one is enough: the tests of a case run one after another
def _contenders(name):
    return contenders(CASES[name])[0]


@pytest.mark.parametrize("role", ["ours", "peer", "floor"])
@pytest.mark.parametrize("name", CASES)
def test_pooling(benchmark, name, role):
    found = _contenders(name)
    chosen = next(who for who, it in found.items() if it.role == role)
    benchmark.group = name
    benchmark.extra_info |= {"contender": chosen, "bytes": CASES[name].bytes, "share": found[chosen].share}
    benchmark(found[chosen].run)
