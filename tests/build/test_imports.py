"""Modules of the package know only those below them: no circle of imports."""

import ast
from pathlib import Path

import pytest

import spp_ext

pytestmark = pytest.mark.cpu_only

ROOT = Path(spp_ext.__file__).parent
MODULES = {
    ".".join(["spp_ext", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def imported_by(name):
    """The package's modules that a module imports when it is imported itself; not those within its functions."""
    found = set()
    for node in ast.parse(MODULES[name].read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spp_ext":
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (parts & {*MODULES}) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & {*MODULES}
    # A module may import its package, whose names are those that it has by then: the models and the commands do.
    return found - {"spp_ext"}


def circles(imports):
    """What is left of a graph after taking away, again and again, whatever imports nothing that is left."""
    left = dict(imports)
    while free := [name for name, needs in left.items() if not needs & {*left}]:
        for name in free:
            del left[name]
    return {name: needs & {*left} for name, needs in left.items()}


def test_there_is_no_circle():
    imports = {name: imported_by(name) for name in MODULES}
    assert len(imports["spp_ext.functional"]) > 3
    assert circles(imports) == {}


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}).keys() == {"a", "b", "c", "d"}


def test_functional_knows_neither_ops_nor_the_environment_nor_dtensor():
    nodes = ast.walk(ast.parse(MODULES["spp_ext.functional"].read_text()))
    names = {getattr(node, field, None) for node in nodes for field in ("id", "attr", "name", "module")}
    assert {"Tensor", "pool"} <= names
    assert not names & {"DTensor", "dtensor", "os", "environ", "kernels", "ops"}
