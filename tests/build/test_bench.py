"""``python -m spp_ext bench`` times only what computes the same. No test here looks at a time."""

import json

import pytest
import torch
from support import CONVENTIONS

import spp_ext
from spp_ext.__main__ import main
from spp_ext.cli import bench

pytestmark = pytest.mark.cpu_only

MINE = """
import torch, spp_ext

def maps(input, levels):
    return torch.cat([torch.nn.functional.adaptive_max_pool2d(input, n).flatten(1) for n in levels], 1)

def regions(input, boxes, levels, spatial_scale):
    assert boxes.shape == (5, 5) and spatial_scale == 1 / 16
    return spp_ext.roi_spatial_pyramid_pool(input, boxes, levels, spatial_scale, convention="outer")

def too_large(input, levels):
    return maps(input, levels) + 1

def no_gradient(input, levels):
    return maps(input.detach(), levels) + 0 * input.sum()

def nothing(input, levels):
    return None

number = 3
"""
SMALL = ["--shape", "2x3x7x6", "--levels", "1,2x3", "--turns", "1", "--seconds", "0.01"]


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    (tmp_path / "bench_mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(bench, "settle_malloc", lambda: None)  # the other tests need malloc as it was


def test_a_result_says_what_was_measured_and_in_which_threads(tmp_path, capsys):
    path, before = tmp_path / "result.json", torch.get_num_threads()
    options = ["--threads", "1,2", "--baseline", "bench_mine:maps", "--baseline", "torch", "--json", str(path)]
    assert main(["bench", *SMALL, *options, "--dtype", "bfloat16", "--layout", "channels_last", "--backward"]) == 0
    assert torch.get_num_threads() == before
    result = json.loads(path.read_text())
    assert result["call"]["shape"] == [2, 3, 7, 6] and result["call"]["levels"] == [1, [2, 3]]
    assert result["versions"]["spp_ext"] == spp_ext.__version__ and result["hardware"]
    who = [(row["threads"], row["contender"]) for row in result["rows"]]
    assert who == [(n, name) for n in (1, 2) for name in ("spp_ext", "bench_mine:maps", "torch")]
    assert all(row["p10"] <= row["median"] <= row["p90"] and row["calls"] >= 1 for row in result["rows"])
    printed = capsys.readouterr().out
    assert "2x3x7x6 bfloat16, channels_last, cpu; levels 1, 2x3; whole maps; forward + backward\n" in printed
    for row in result["rows"]:
        ours = next(it for it in result["rows"] if (it["threads"], it["contender"]) == (row["threads"], "spp_ext"))
        cells = [row["contender"], str(row["threads"])] + [f"{row[key] * 1e3:.3f}" for key in ("median", "p10", "p90")]
        cells += [str(row["calls"]), f"{row['median'] / ours['median']:.2f}"]
        assert cells in [line.split() for line in printed.splitlines()]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_slices_of_torch_compute_the_same_regions_under_every_convention(convention):
    call = bench.Call((3, 2, 9, 7), (1, (2, 3)), 40, convention, "float32", "contiguous", "cpu", True, 1)
    assert list(bench.steps(call, ["torch"])) == ["spp_ext", "torch"]  # which raises Unable if a result differs
    boxes = bench.draw_boxes(call)
    assert boxes[:, 0].tolist() == sorted(boxes[:, 0].tolist()) and set(boxes[:, 0].tolist()) == {0, 1, 2}


def test_a_function_of_the_users_gets_boxes_and_scale():
    options = ["--regions", "5", "--threads", "1", "--baseline", "bench_mine:regions"]
    assert main(["bench", *SMALL, *options, "--convention", "outer"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--baseline", "bench_mine:too_large"],
            "the result of bench_mine:too_large is not that of spp_ext",
        ),
        (
            ["--backward", "--baseline", "bench_mine:no_gradient"],
            "the gradient of bench_mine:no_gradient",
        ),
        (["--baseline", "bench_mine:nothing"], "to be a tensor, got NoneType"),
        (["--baseline", "bench_mine:number"], "expected a baseline module:function or 'torch', got 'bench_mine"),
        (["--baseline", "bench_mine:other"], "the baseline 'bench_mine:other' was not found (module"),
        (["--baseline", "no_such_module:f"], "was not found (No module named 'no_such_module')"),
        (["--baseline", "maps"], "expected a baseline module:function or 'torch', got 'maps'"),
        (["--levels", "2000000"], "spp_ext.spatial_pyramid_pool: expected every level to be"),
        (["--json", "no/such/folder.json"], "No such file or directory: 'no/such/folder.json'"),
    ],
)
def test_what_cannot_be_timed_is_an_error_of_one_line(options, message, capsys):
    assert main(["bench", *SMALL, "--threads", "1", *options]) == 1
    said = capsys.readouterr().err
    assert said.startswith("spp_ext bench: ") and message in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "options", [["--shape", "3x4"], ["--shape", "1x2x0x4"], ["--levels", "1x2x3"], ["--threads", "0"]]
)
def test_sizes_that_mean_nothing_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        main(["bench", *options])
    assert "expected " in capsys.readouterr().err
