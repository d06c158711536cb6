"""Fixtures that run a test over every dtype, layout and kind of data, and hypothesis' settings."""

import os

import backend
import hypothesis
import pytest
import torch
from support import DTYPES, KINDS, LAYOUTS

# Examples are tensors, so few of them say much; and on a busy machine no time limit is fair. With CI=true every run
# draws the same examples.
hypothesis.settings.register_profile("default", deadline=None, max_examples=60)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=60, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")

# torch wakes its threads for the smallest pooling, and beside other work on the machine each wait for them takes
# milliseconds. Tests of maps large enough for threads ask for `two_threads`.
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--backend", choices=backend.BACKENDS, default="cpu", help="whose kernels to test")


def pytest_configure(config):
    backend.use(config.getoption("--backend"))


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request):
    return request.param


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def deterministic():
    """torch refuses what is not deterministic, and fills fresh memory with NaN: what is not written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def two_threads():
    """Enough that large calls are cut into parts and run in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
