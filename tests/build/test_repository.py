"""What the Makefile and the documents name is there, in the repository and in the source archive made of it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_PACKED = {".gitignore"}
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
PATH = re.compile(r"(?<![\w./$-])(?:benchmarks|cmake|csrc|docs|examples|spp_ext|tests|tools)/[\w./-]*")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The files that ``setup.py sdist`` would pack, as setuptools finds them from pyproject.toml and MANIFEST.in."""
    from setuptools import Distribution
    from setuptools.command.egg_info import manifest_maker

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        distribution = Distribution({"script_name": "setup.py"})
        distribution.parse_config_files()
        # Files that an earlier build noted in the folder of its metadata must not count, so that folder is elsewhere.
        folder = tmp_path_factory.mktemp("metadata")
        distribution.get_command_obj("egg_info").egg_base = str(folder)
        maker = manifest_maker(distribution)
        maker.manifest = str(folder / "SOURCES.txt")
        maker.run()
    return set(maker.filelist.files)


def test_the_archive_holds_every_tracked_file(packed):
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a checkout: an unpacked archive, which has neither, does not say what is tracked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    assert sorted(tracked - packed - NOT_PACKED) == []
    assert tracked >= NOT_PACKED


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/ci.md", "docs/cpp.md"])
def test_links_lead_to_files(document):
    links = LINK.findall((ROOT / document).read_text())
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("file", ["Makefile", "README.md", "CHANGELOG.md"])
def test_named_paths_exist(file):
    paths = {path.rstrip(".") for path in PATH.findall((ROOT / file).read_text())}
    assert paths
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_the_checks_of_the_ci_recipe_pass():
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE | re.DOTALL)
    names = {}
    exec(program, names)
    checks = [value for name, value in names.items() if name.startswith("test_")]
    assert len(checks) == 3
    for check in checks:
        check()
