"""CONTRIBUTING.md says where things are added: its rows name files that exist, and every list they name is complete."""

import re
from pathlib import Path

import pytest
import torch
from support import CONVENTIONS, DTYPES

from spp_ext import _boxes, _checks, reference
from spp_ext._torch import onnx
from spp_ext._torch.op_table import POOLINGS
from spp_ext.cli import picture, selftest

pytestmark = pytest.mark.cpu_only

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# The files that a row says to touch, by what is added. Words in brackets say which part of a file.
ROWS = {
    cells[1].strip(): re.findall(r"`([\w./]+)`", re.sub(r"\([^)]*\)", "", cells[2]))
    for cells in (line.split("|") for line in TEXT.splitlines() if re.match(r"\| (an?|its) ", line))
}
C_NAMES = {torch.float32: "kFloat32", torch.float64: "kFloat64", torch.float16: "kFloat16", torch.bfloat16: "kBFloat16"}


def words_of(path):
    return set(re.findall(r"\w+", (ROOT / path).read_text()))


def test_there_is_a_row_for_each_thing():
    things = {"a convention for boxes", "a pooling op", "its kernel", "its public function", "a dtype", "a layout"}
    assert things <= {*ROWS}


@pytest.mark.parametrize("thing", ROWS)
def test_every_file_of_a_row_exists(thing):
    assert ROWS[thing]
    assert [path for path in ROWS[thing] if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", ROWS["a convention for boxes"])
def test_every_convention_is_in_every_file_of_its_row(path):
    assert {*_boxes.CONVENTIONS} <= words_of(path)


def test_every_list_of_conventions_is_complete():
    assert list(_boxes.CONVENTIONS) == CONVENTIONS == list(picture.CONVENTIONS) == list(reference.CONVENTIONS)


@pytest.mark.parametrize("path", [path for path in ROWS["a pooling op"] if path != "spp_ext/_torch/onnx.py"])
def test_every_op_is_in_every_file_of_its_row(path):
    assert {op.name for op in POOLINGS} <= words_of(path)


def test_every_op_is_translated_to_onnx_or_refused():
    assert {*onnx._TRANSLATIONS} == {*POOLINGS}


def test_every_list_of_dtypes_is_complete():
    assert _checks.DTYPES == {*DTYPES} == {*selftest.DTYPES}
    assert re.findall(r"\w+", _checks.DTYPE_NAMES.replace(" or ", ", ")) == [str(dtype)[6:] for dtype in DTYPES]


@pytest.mark.parametrize("path", [path for path in ROWS["a dtype"] if path != "spp_ext/reference.py"])
def test_every_dtype_is_in_every_file_of_its_row(path):
    words = words_of(path)
    for dtype in DTYPES:
        python, cpp = str(dtype)[6:], C_NAMES[dtype]
        storage = {"float16": "Half", "bfloat16": "BFloat16", "float64": "double", "float32": "float"}[python]
        assert {python, cpp, storage} & words, f"{path} does not know {dtype}"
