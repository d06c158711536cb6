"""The types that are shipped: a user's program that mypy checks also runs, and leaves no public name out."""

import ast
import re
from pathlib import Path

import pytest
from support import run_python

import spp_ext
from spp_ext import _core

PUBLIC = [spp_ext, spp_ext.ops, spp_ext.models, spp_ext.onnx, spp_ext.testing]
CONSUMER = Path(__file__).parents[1] / "types" / "consumer.py"


def test_the_consumer_runs():
    done = run_python(CONSUMER)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
def test_every_public_name_is_in_the_consumer(module):
    nodes = list(ast.walk(ast.parse(CONSUMER.read_text())))
    uses = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = {node.module: {alias.name for alias in node.names} for node in imports}
    local = module.__name__.removeprefix("spp_ext.") if module is spp_ext.ops else module.__name__
    missing = [
        name for name in module.__all__ if f"{local}.{name}" not in uses and name not in names.get(module.__name__, ())
    ]
    assert missing == []


def test_the_stub_of_the_compiled_module_has_its_functions_and_parameters():
    tree = ast.parse(Path(spp_ext.__file__).with_name("_core.pyi").read_text())
    stub = {node.name: [each.arg for each in node.args.args] for node in tree.body if isinstance(node, ast.FunctionDef)}
    functions = {name: value for name, value in vars(_core).items() if callable(value) and not name.startswith("_")}
    # pybind11 writes a signature into the first line of a docstring.
    compiled = {name: re.findall(r"(\w+): ", value.__doc__.splitlines()[0]) for name, value in functions.items()}
    assert stub == compiled


# ---- what the package itself has ----


def test_dir_shows_what_is_public():
    shown = [name for name in dir(spp_ext) if not name.startswith("_")]
    assert sorted([*shown, "__version__"]) == sorted([*spp_ext.__all__, "models", "onnx", "swap", "testing"])
    assert all(hasattr(spp_ext, name) for name in dir(spp_ext))


def test_a_part_is_imported_when_it_is_asked_for():
    program = """
import sys
import spp_ext
for name in ("models", "onnx", "testing"):
    assert f"spp_ext.{name}" not in sys.modules
    assert getattr(spp_ext, name) is sys.modules[f"spp_ext.{name}"]
"""
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["model", "torch_", "_none"])
def test_an_unknown_attribute_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"^module 'spp_ext' has no attribute '{name}'$"):
        getattr(spp_ext, name)
