"""What the tests of compiled kernels share."""

import shutil

import backend
import pytest

from tools.gpu_model import execute, record
from tools.gpu_model.table import marked_memory


@pytest.fixture(scope="session")
def nvcc():
    """Tests that compile ask for this; that a build without it has no CUDA kernels is tested in tests/build."""
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")


class Compiled:
    """Runs ops by the interpreter on what nvcc made of the kernels."""

    def __init__(self):
        self.ops = backend.load_simt()
        self.modules = execute.Modules()

    def call(self, gpu, op, *arguments, lanes=1 << 15):
        """The result of an op of which every block of every launch is run, so many threads side by side.

        Fresh memory is full of a mark, lest what no block writes be the result of the call before.
        """
        programs, launched = self.modules.ours(gpu.ptx), []

        def run(launch):
            launched.append(launch.kernel)
            step = max(1, lanes // launch.threads)
            for begin in range(0, launch.grid, step):
                execute.execute(programs, launch, range(begin, min(begin + step, launch.grid)))
            return False

        with record.launches(backend.simt_library(), gpu, run), marked_memory():
            result = getattr(self.ops, op)(*arguments)
        assert launched
        return result


@pytest.fixture(scope="session")
def compiled(nvcc):
    return Compiled()
