"""A broken installation is reported at the first use, not at import."""

import shutil
import textwrap
from pathlib import Path

import pytest
import torch
from support import run_python

import spp_ext
from spp_ext._torch import library as _library


def broken_package(folder, damage):
    """Makes a copy of the package whose op library is damaged."""
    source = Path(spp_ext.__file__).parent
    shutil.copytree(source, folder / "spp_ext", ignore=shutil.ignore_patterns("__pycache__", "libspp_ext_*"))
    damage(folder / "spp_ext" / "libspp_ext_cpu.so")


@pytest.mark.parametrize(
    "damage",
    [lambda library: None, lambda library: library.write_text("no library"), lambda library: library.mkdir()],
    ids=["missing", "no library", "a folder"],
)
def test_a_broken_installation_is_reported_at_the_first_use(damage, tmp_path):
    broken_package(tmp_path, damage)
    script = """
        import runpy, sys, torch, spp_ext
        assert spp_ext.Bins([(0, 0, 1, 1)], 1).bins == 1
        spp_ext.reference.spatial_pyramid_pool(torch.zeros(1, 1, 2, 2))
        for _ in range(2):
            try:
                spp_ext.spatial_pyramid_pool(torch.zeros(1, 1, 2, 2))
            except RuntimeError as error:
                print(error)
        sys.argv = ["spp_ext", "info"]
        runpy.run_module("spp_ext", run_name="__main__")
    """
    result = run_python("-c", textwrap.dedent(script), PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    *lines, info = result.stdout.split("\n", 2)
    assert lines[0] == lines[1]
    assert lines[0].startswith("spp_ext: the op library libspp_ext_cpu.so did not load (")
    assert lines[0].endswith(
        f"); reinstall spp_ext for this torch, {torch.__version__}, or see `python -m spp_ext info`"
    )
    assert "libspp_ext_cpu.so" in info


def test_this_installation_is_whole():
    assert _library.load_error() is None
    assert _library.library_path().exists()
