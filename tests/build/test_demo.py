"""``python -m spp_ext demo`` checks what it shows, and draws it."""

import pytest
import torch
from support import run_python

from spp_ext.__main__ import main
from spp_ext.cli import composition, demo


def test_the_demo_finds_everything_equal_and_draws_it(tmp_path):
    picture = tmp_path / "picture.png"
    done = run_python("-m", "spp_ext", "demo", "--regions", "5", "--output", str(picture))
    assert done.returncode == 0, done.stderr
    checks = [line for line in done.stdout.splitlines() if line.startswith("  ok ")]
    assert len(checks) == 9 and "MISMATCH" not in done.stdout
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("  5 regions of ")]
    assert row[3:10] == "1 x 256 x 38 x 50".split()
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_the_conventions_are_drawn_alone(tmp_path):
    picture = tmp_path / "picture.png"
    assert main(["demo", "--conventions", str(picture)]) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_check_that_fails_is_remembered(capsys):
    checks = demo.Checks()
    for value in (2.0, 1.0):
        checks.add(f"got {value}", [torch.tensor(value)], [torch.tensor(1.0)])
    assert not checks.ok
    assert capsys.readouterr().out.splitlines() == ["  MISMATCH  got 2.0", "  ok        got 1.0"]


def test_a_missing_photo_is_an_error_of_one_line(tmp_path, capsys):
    assert main(["demo", "no such photo.png", "--output", str(tmp_path / "picture.png")]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("spp_ext demo: the image could not be read") and printed.count("\n") == 1


@pytest.mark.parametrize("rows, columns", [(427, 640), (10, 12)])
def test_proposed_regions_lie_in_the_image(rows, columns):
    boxes = composition.propose_regions(500, rows, columns, seed=1)
    assert boxes.shape == (500, 5) and (boxes[:, 0] == 0).all()
    x1, y1, x2, y2 = boxes[:, 1:].unbind(1)
    assert ((0 <= x1) & (x1 <= x2) & (x2 <= columns)).all() and ((0 <= y1) & (y1 <= y2) & (y2 <= rows)).all()
    assert torch.equal(boxes, composition.propose_regions(500, rows, columns, seed=1))
    assert not torch.equal(boxes, composition.propose_regions(500, rows, columns, seed=2))
