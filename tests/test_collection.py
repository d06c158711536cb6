"""Every folder of tests is looked into: pytest leaves out some names of its own accord, "build" among them."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu_only

TESTS = Path(__file__).parent


def test_no_folder_of_tests_is_left_out(pytestconfig):
    folders = {folder for path in TESTS.rglob("test_*.py") for folder in path.relative_to(TESTS).parents} - {Path()}
    assert Path("build") in folders
    left_out = pytestconfig.getini("norecursedirs")
    assert [folder for folder in folders if any(fnmatch(folder.name, pattern) for pattern in left_out)] == []
