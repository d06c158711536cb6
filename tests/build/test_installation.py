"""A broken installation is reported at the first use, not at import."""

import shutil
import subprocess
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


def compiled(source):
    """Damage: in place of the library another, of this source, where VERSION is ours."""

    def damage(library):
        version = f'-DVERSION="{spp_ext.__version__}"'
        command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", library, version]
        subprocess.run(command, input=source, text=True, check=True)

    return damage


MARK = 'extern const char mark[] = "spp_ext version " {};'
DAMAGES = {
    "missing": (lambda library: None, "No such file or directory: "),
    "no library": (lambda library: library.write_text("no library"), "; build"),
    "a folder": (lambda library: library.mkdir(), "; build"),
    "older": (compiled("int nothing;"), f"is of an older version, not {spp_ext.__version__}; build"),
    "of another version": (compiled(MARK.format('"0.0.9"')), f"is of 0.0.9, not {spp_ext.__version__}; build"),
    "of another build": (
        compiled(MARK.format("VERSION")),
        "is of an older build and has no spp_ext::spatial_pyramid_pool; build",
    ),
    "for another torch": (
        compiled(MARK.format("VERSION") + "int there(); int here() { return there(); }"),
        "undefined symbol: _Z5therev; build",
    ),
}
USE = """
    import torch, spp_ext, spp_ext.cli.info
    assert spp_ext.Bins([(0, 0, 1, 1)], 1).bins == 1
    spp_ext.reference.spatial_pyramid_pool(torch.zeros(1, 1, 2, 2))
    for _ in range(2):
        try:
            spp_ext.spatial_pyramid_pool(torch.zeros(1, 1, 2, 2))
        except RuntimeError as error:
            print(error)
    spp_ext.cli.info.run()
"""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_installation_is_reported_at_the_first_use(damage, tmp_path):
    damage, reason = DAMAGES[damage]
    broken_package(tmp_path, damage)
    result = run_python("-c", textwrap.dedent(USE), PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    first, second, *info = result.stdout.splitlines()
    assert first == second
    assert first.startswith("spp_ext: the op library libspp_ext_cpu.so did not load: ")
    assert first.endswith(
        f" spp_ext for this torch, {torch.__version__}, with `pip install --no-build-isolation .` in the folder of its "
        "source; `python -m spp_ext info` says more"
    )
    (line,) = (line for line in info if line.startswith("op library"))
    for text in (first, line):
        assert reason in text and "libspp_ext_cpu.so" in text and "`pip install" in text


def test_a_second_copy_in_a_process_is_refused(tmp_path):
    """Two libraries that define the same ops would end the process."""
    source = Path(spp_ext.__file__).parent
    shutil.copytree(source, tmp_path / "spp_ext", ignore=shutil.ignore_patterns("__pycache__", "*cuda*"))
    script = f"""
        import sys, torch, spp_ext
        first = spp_ext
        for name in [name for name in sys.modules if name.partition(".")[0] == "spp_ext"]:
            del sys.modules[name]
        sys.path.insert(0, {str(tmp_path)!r})
        import spp_ext
        assert spp_ext is not first
        print(first.spatial_pyramid_pool(torch.ones(1, 1, 2, 2), (1,)).item())
        try:
            spp_ext.spatial_pyramid_pool(torch.ones(1, 1, 2, 2))
        except RuntimeError as error:
            print(error)
    """
    result = run_python("-c", textwrap.dedent(script))
    assert result.returncode == 0, result.stderr
    pooled, refused = result.stdout.splitlines()
    assert pooled == "1.0"
    assert f"this process has loaded another copy already, {source.resolve()}/libspp_ext_cpu.so; import one" in refused


def test_this_installation_is_whole():
    assert _library.load_error() is None
    assert _library.library_path().exists()
