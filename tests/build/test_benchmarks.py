"""The benchmark suite measures what it says, and its reports agree with its numbers. No test here looks at a time."""

import copy
import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spp_ext import reference

ROOT = Path(__file__).parents[2]
PEERS = {"torch", "torchvision", "OpenVINO", "ONNX Runtime"}
OWN = {"values only", "float32", "64th"}
FLOORS = {"read", "refill", "fresh", "copy", "launch"}


@pytest.fixture(scope="module")
def suite():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield importlib.import_module("benchmarks.__main__")


@pytest.fixture(scope="module")
def baselines(suite):
    return importlib.import_module("benchmarks.baselines")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The suite's shortest run: its result, what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("results")
    words = ["overhead", "16x256x13x13 forward with argmax", "K=300 forward"]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--threads", "1,2", "--turns", "1", "--seconds", "0.05"]
    command += [f"--output={folder}", *(f"--filter={word}" for word in words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text()), done, folder


def test_a_result_says_what_was_measured_and_on_what(baselines, measured):
    result, done, folder = measured
    assert {"hardware", "device", "versions", "instruction_set", "commit", "date", "threads", "rows"} <= set(result)
    assert result["versions"]["torch"] == torch.__version__
    assert result["device"] == "cpu" and not result["failed"]
    assert sorted((row["case"].split(":")[0], row["threads"]) for row in result["rows"]) == sorted(
        (source, threads)
        for source in ["ZF-5 conv5, 224 px, batch of 16", "conv5, 600x800 px", "overhead", "overhead"]
        for threads in (1, 2)
    )
    for row in result["rows"]:
        assert row["roles"]["spp_ext"] == "ours"
        assert "peer" in row["roles"].values() and row["roles"][row["floor"]] == "floor"
        for time in row["times"].values():
            assert 0 < time["p10"] <= time["median"] <= time["p90"] and time["calls"] >= 1
        if row["kind"] == "forward":
            assert ("out=" in row["times"]) == baselines.TAKES_OUT
        if row["kind"] != "forward + backward":
            assert row["memory"]["spp_ext"]["extra"] >= 0
        assert row["case"] in done.stdout and row["case"] in done.stderr  # the table, and the progress
    assert any(path.suffix == ".png" and path.read_bytes()[:4] == b"\x89PNG" for path in folder.iterdir())


def test_the_argmax_is_all_that_is_saved(measured):
    rows = [row for row in measured[0]["rows"] if row["kind"] == "forward with argmax"]
    assert len(rows) == 2
    for row in rows:
        assert row["memory"]["spp_ext"]["saved"] == 16 * 256 * 50 * 4
        assert row["memory"]["torch"]["saved"] > row["memory"]["spp_ext"]["saved"]


def test_ratios_and_misses_follow_from_the_medians(suite, measured):
    for row in measured[0]["rows"]:
        ours = row["times"]["spp_ext"]["median"]
        assert set(row["ratios"]) == set(row["times"]) - {"spp_ext"}
        for name, ratio in row["ratios"].items():
            assert ratio == pytest.approx(row["times"][name]["median"] / ours, rel=1e-3, abs=1e-4)
        assert row["floor_fraction"] == row["ratios"][row["floor"]]
        assert row["gigabytes_per_second"] == pytest.approx(row["bytes"] / ours / 1e9, rel=1e-2, abs=1e-3)
        for target in row["targets"]:
            theirs, mine = row["times"][target["against"]]["median"], row["times"][target["ours"]]["median"]
            assert target["ratio"] == pytest.approx(theirs / mine, rel=1e-3, abs=1e-4)
            assert (target in suite.report.missed(row)) == (target["ratio"] < target["least"])
        judged = {target["against"] for target in row["targets"]}
        assert {name for name, role in row["roles"].items() if role in ("peer", "engine")} <= judged
        if row["floor"] == "read":
            assert row["times"]["read"]["median"] == min(row["times"][name]["median"] for name in suite.report.READS)


def _row(suite, case, milliseconds):
    """A row with given medians."""
    times = {name: {"median": time / 1e3, "p10": time / 1e3, "p90": time / 1e3} for name, time in milliseconds.items()}
    roles = {"spp_ext": "ours", "out=": "own", "torch": "peer", "OpenVINO": "engine"}
    return suite.report.make_row(
        case, "cpu", 1, times, {name: roles.get(name, "floor") for name in milliseconds}, sampled={}
    )


def test_targets_of_a_fresh_and_of_a_reused_result_are_told_apart(suite):
    Target = suite.report.Target
    targets = (
        Target("OpenVINO", 1.5),
        Target("OpenVINO", 3, "out=", "windows overlap"),
        Target("refill", 0.5, "out=", "memory"),
        Target("ONNX Runtime", 3, "out="),  # not measured here
    )
    case = suite.Case("a map", (2, 4, 8, 8), kernel_sizes=(5,), targets=targets)
    times = {"spp_ext": 2, "out=": 1, "torch": 1.9, "OpenVINO": 2.9, "fresh": 1, "refill": 0.6}
    row = _row(suite, case, times)
    assert [(t["against"], t["ours"], t["ratio"]) for t in suite.report.missed(row)] == [
        ("torch", "spp_ext", 0.95),  # the least that is asked of every row
        ("OpenVINO", "spp_ext", 1.45),
        ("OpenVINO", "out=", 2.9),
    ]
    heading, cells = suite.report.table([row])
    shown = dict(zip(heading, cells, strict=True))
    assert (shown["ms"], shown["out= ms"]) == ("2.00", "1.00")
    assert (shown["torch"], shown["OpenVINO"]) == ("0.95x*", "1.45x* (2.9x*)")
    assert (shown["fresh"], shown["refill"]) == ("50%", "60%")
    place = "a map: 2x4x8x8 kernels 5 forward, on 1 thread"
    assert suite.report.misses([row]) == [
        f"{place}: 'torch' takes 0.95x our time, the target is 1x",
        f"{place}: 'OpenVINO' takes 1.45x our time, the target is 1.5x",
        f"{place}: 'OpenVINO' takes 2.9x our time with out=, the target is 3x: windows overlap",
    ]


def test_the_read_floor_is_the_quickest_read(suite):
    case = suite.Case("a map", (2, 4, 8, 8))
    row = _row(suite, case, {"spp_ext": 4, "sum": 3, "amax": 1, "max": 2})
    assert row["floor"] == "read" and row["floor_fraction"] == row["ratios"]["read"] == 0.25


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_read_reads_every_cell(baselines, suite, dtype, layout):
    case = suite.Case("a map", (2, 4, 3, 5), dtype=dtype, layout=layout)
    map = baselines._maps(case, "cpu", gradient=False)()
    reads = baselines._reads(map)
    assert set(reads) == set(suite.report.READS)
    one = torch.tensor([1e30]).view(map.dtype)[-1]  # in 16 bits the half that has the sign and the exponent
    cells = map.as_strided((map.numel(),), (1,))
    step = 4 // map.element_size()
    for place in range(step - 1, map.numel(), step):
        cells.zero_()[place] = one
        for name, read in reads.items():
            assert float(read()) > 9e29, (name, place)


def test_slow_functions_get_fewer_turns_and_each_gets_one(suite):
    seconds = {"fast": 0.01, "slow": 0.5, "very slow": 100.0}
    functions = {name: lambda name=name: name for name in seconds}
    samples = suite.interleaved_samples(
        functions, turns=10, seconds=3.0, turn=lambda function, _: [seconds[function()]]
    )
    assert samples == {"fast": [0.01] * 10, "slow": [0.5] * 5, "very slow": [100.0]}


def test_a_run_is_resumed_where_the_commit_is_the_same(suite, tmp_path, monkeypatch):
    measured, real = [], suite._measure

    def note(case, *rest):
        measured.append(case.name)
        if len(measured) == 2:
            raise KeyboardInterrupt  # as if the run were cut off
        return real(case, *rest)

    monkeypatch.setattr(suite, "_measure", note)
    monkeypatch.setattr(suite.measure, "cpu_memory", lambda *_: {})
    monkeypatch.setattr(suite, "commit", lambda: "0123456789ab")
    command = ["--quick", "--threads", "1", "--turns", "1", "--seconds", "0.01", "--filter", "overhead", "--resume"]
    command += ["--output", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        suite.main(command)
    first, second = measured
    assert suite.main(command) == 0 and measured[2:] == [second]
    (result,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert [row["case"] for row in result["rows"]] == [first, second]
    for other in ("fedcba987654", None, "0123456789ab-dirty", "0123456789ab-dirty"):
        del measured[2:]
        monkeypatch.setattr(suite, "commit", lambda other=other: other)
        assert suite.main(command) == 0 and measured[2:] == [first, second]


def test_a_waiting_turn_ends_when_the_gpu_has_finished(suite, monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    samples = suite.measure.waiting_turn(lambda: events.append("call"), seconds=0)
    assert len(samples) == 1 and events == ["wait", "call", "wait"]


def _scaled(result, factor, which):
    """The result with the times of a contender of some rows multiplied."""
    changed = copy.deepcopy(result)
    for index, name in which:
        time = changed["rows"][index]["times"][name]
        time.update({part: time[part] * factor for part in ("median", "p10", "p90")})
    return changed


def test_compare_flags_a_planted_slow_down_and_nothing_else(suite, measured, tmp_path, capsys):
    result = copy.deepcopy(measured[0])
    for row in result["rows"]:  # spreads of a quiet machine
        for time in row["times"].values():
            time.update(p10=time["median"] * 0.98, p90=time["median"] * 1.02)
    floors = [(index, row["floor"]) for index, row in enumerate(result["rows"])]
    ours = [(index, "spp_ext") for index in range(len(result["rows"]))]
    for factor, which, slower, faster in (
        (1.0, [], 0, 0),
        (1.5, ours[2:3], 1, 0),
        (0.5, ours[2:3], 0, 1),
        (1.02, ours, 0, 0),  # within the spread
        (1.5, ours + floors, 0, 0),  # the whole machine
    ):
        before, after = tmp_path / "before.json", tmp_path / "after.json"
        before.write_text(json.dumps(result))
        after.write_text(json.dumps(_scaled(result, factor, which)))
        status = suite.main(["compare", str(before), str(after)])
        printed = capsys.readouterr().out
        assert status == (1 if slower else 0)
        assert printed.count("SLOWER") == slower
        assert f"{len(ours)} rows compared, {slower} slower, {faster} faster; 0 in one result only" in printed
        if slower:
            assert result["rows"][2]["case"] in printed


def test_readme_fills_the_place_between_its_markers(suite, measured, tmp_path):
    result = measured[0]
    results, readme = tmp_path / "results", tmp_path / "README.md"
    saved = suite.report.save(result, results)
    (results / "gpu-check.json").write_text('{"hardware": "a report of another kind"}')
    around = "# before\n<!-- benchmarks:begin -->{}<!-- benchmarks:end -->\nafter\n"
    readme.write_text(around.format("\nwhat was there\n"))
    command = ["readme", "--readme", str(readme), "--results", str(results)]

    assert suite.main(command) == 0
    text = readme.read_text()
    assert text.startswith("# before\n<!-- benchmarks:begin -->") and text.endswith("<!-- benchmarks:end -->\nafter\n")
    assert "what was there" not in text and "(docs/benchmarks.png)" in text
    assert (tmp_path / "docs" / "benchmarks.png").read_bytes()[:4] == b"\x89PNG"
    rows = [row for row in result["rows"] if row["threads"] == 2]
    for row in rows:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {row['case']} |")]
        assert line.endswith("| not yet measured |")
    assert suite.main(command) == 0 and readme.read_text() == text
    assert json.loads(saved.read_text()) == result

    # Targets and reasons are today's, whenever the times were measured.
    later = copy.deepcopy(result)
    row = next(row for row in later["rows"] if row["threads"] == 2 and "torch" in row["times"])
    row["times"]["torch"]["median"], row["targets"] = 1e-9, []
    suite.report.save(later, results)
    assert suite.main(command) == 0
    assert f"{row['case']}, on 2 threads: 'torch' takes" in readme.read_text()
    targets = [target for row in json.loads(saved.read_text())["rows"] for target in row["targets"]]
    assert [target["against"] for target in targets if target["ratio"] < 1e-3] == ["torch"]

    gpu = copy.deepcopy(result) | {"device": "cuda", "hardware": "a GPU"}
    gpu["rows"] = [row | {"threads": None} for row in rows]
    suite.report.save(gpu, results)
    assert suite.main(command) == 0
    text = readme.read_text()
    assert "not yet measured" not in text and "a GPU" in text


def test_readme_without_its_markers_is_left_alone(suite, measured, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("# nothing to fill\n")
    assert suite.main(["readme", "--readme", str(readme), "--results", str(measured[2])]) == 1
    assert readme.read_text() == "# nothing to fill\n"
    assert "benchmarks:begin" in capsys.readouterr().err


def test_readme_is_left_alone_if_one_of_several_sections_has_no_place(suite, tmp_path):
    readme, text = tmp_path / "README.md", "<!-- first:begin -->old<!-- first:end -->\n"
    readme.write_text(text)
    with pytest.raises(ValueError, match="second:begin"):
        suite.report.write_sections(readme, {"first": "new", "second": "new"})
    assert readme.read_text() == text


def test_markdown_shows_the_characters_that_it_would_take_for_emphasis(suite):
    lines = suite.report.as_markdown([["case", "torch"], ["a", "~2x*"]]).splitlines()
    assert lines == ["| case | torch |", "| --- | ---: |", "| a | \\~2x\\* |"]


@pytest.mark.parametrize(
    "regions, kind, dtype, expected",
    [
        # 16 x 256 x 13 x 13 cells = 692,224; 16 x 256 x 50 bins = 204,800
        (0, "forward", "float32", 4 * 692_224 + 4 * 204_800),
        (0, "forward with argmax", "float32", 4 * 692_224 + 4 * 204_800 + 4 * 204_800),
        (0, "forward + backward", "float32", 4 * 692_224 + 8 * 204_800 + 8 * 204_800 + 4 * 692_224),
        (0, "forward", "bfloat16", 2 * 692_224 + 2 * 204_800),
        # 30 regions: 30 x 256 x 50 bins = 384,000; 30 boxes of 20 bytes
        (30, "forward", "float32", 4 * 692_224 + 4 * 384_000 + 600),
        (30, "forward with argmax", "bfloat16", 2 * 692_224 + 2 * 384_000 + 4 * 384_000 + 600),
        (30, "forward + backward", "bfloat16", 2 * 692_224 + 6 * 384_000 + 6 * 384_000 + 2 * 692_224 + 600),
    ],
)
def test_bytes_that_must_move(suite, regions, kind, dtype, expected):
    assert suite.Case("a map", (16, 256, 13, 13), regions, kind, dtype).bytes == expected


def test_bytes_that_stride_1_pools_must_move(suite):
    case = suite.Case("a map", (2, 3, 5, 7), kernel_sizes=(3, 5))
    assert case.output_shape == (2, 9, 5, 7)
    assert case.bytes == 4 * 210 + 4 * 630


@pytest.mark.parametrize("sizes, chain", [((5, 9, 13), (5, 5, 5)), ((3, 7), (3, 5)), ((5,), (5,))])
def test_a_chain_of_pools_has_the_values_of_its_kernel_sizes(suite, baselines, sizes, chain):
    case = suite.Case("a map", (2, 3, 9, 11), kernel_sizes=sizes)
    x = torch.randn(case.shape)
    assert case.chain == chain
    assert torch.equal(baselines.chained(x, case.chain), baselines.ours(case, None)(x))


def test_pools_stand_for_a_level_where_its_bins_are_alike(suite):
    kernel_and_stride = importlib.import_module("benchmarks.engines")._kernel_and_stride
    assert kernel_and_stride(13, 6) == (3, 2) and kernel_and_stride(32, 2) == (16, 16)
    assert kernel_and_stride(32, 3) is None and kernel_and_stride(2, 3) is None
    for cells in range(1, 70):
        for bins in range(1, 8):
            found = kernel_and_stride(cells, bins)
            x = torch.randn(1, 1, 1, cells)
            if found:
                pooled = torch.nn.functional.max_pool2d(x, (1, found[0]), (1, found[1]))
                assert torch.equal(pooled, torch.nn.functional.adaptive_max_pool2d(x, (1, bins)))


def test_an_engine_gets_a_contiguous_map_and_is_compared(suite, baselines, monkeypatch):
    case = suite.Case("a map", (2, 4, 8, 8), layout="channels_last")
    given = []

    def engine(case, rois):
        def pool(map):
            given.append(map.is_contiguous())
            return baselines.ours(case, rois)(map) + error

        return pool

    def broken(case, rois):
        raise ImportError("no such engine")

    monkeypatch.setattr(baselines, "engines", lambda case: [("good", engine), ("missing", broken)])
    error = 0.0
    found, omitted = baselines.contenders(case)
    assert found["good"].role == "engine" and given and all(given)
    assert omitted["missing"] == "ImportError: no such engine"
    assert "good" not in baselines.contenders(case, against_engines=False)[0]
    error = 1e-6
    with pytest.raises(RuntimeError, match="good and spp_ext differ"):
        baselines.contenders(case)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_names_are_unique_and_targets_name_contenders(suite, device):
    cases = suite.cases(device)
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        for target in case.targets:
            assert target.against in PEERS | OWN | FLOORS and target.ours in ("spp_ext", "out=")
            assert target.ours == "spp_ext" or case.has_fixed_buffers
        assert case.floor(device) in FLOORS - {"launch"}
    quick = suite.cases(device, quick=True)
    assert set(case.name for case in quick) < set(case.name for case in cases)


def test_proposals_stay_inside_their_map(suite):
    proposals = importlib.import_module("benchmarks.cases").proposals
    boxes = proposals(2000, 38, 50)
    assert boxes.shape == (2000, 5) and torch.equal(boxes, proposals(2000, 38, 50))
    for box in boxes[:, 1:].numpy():
        y0, y1, x0, x1 = reference.roi_window(box, 1 / 16, "roi_pool", 38, 50, box.dtype.type)
        assert 0 <= y0 < y1 <= 38 and 0 <= x0 < x1 <= 50


def test_overhead_lists_each_pool_beside_torch(suite, capsys):
    status = suite.main(["--turns", "1", "--seconds", "0.01", "overhead"])
    assert status == 0
    forward, *rest = capsys.readouterr().out.splitlines()
    assert forward == "forward" and rest[3] == "forward + backward"
    for lines in (rest[:3], rest[4:]):
        assert [line.split()[0] for line in lines] == ["spatial_pyramid_pool", "roi_spatial_pyramid_pool", "torch"]
        assert lines[-1].endswith("1.00 of torch")


# ---- R-CNN against SPP-net ----


@pytest.fixture(scope="module")
def sppnet(suite):
    return importlib.import_module("benchmarks.sppnet")


def test_the_papers_ratios_follow_from_its_times(sppnet):
    found = sppnet.ratios(sppnet.PAPER)
    assert set(found) == set(sppnet.PAPER_RATIOS)  # nothing about pooling, which the paper does not tell
    for name, ratio in sppnet.PAPER_RATIOS.items():
        assert found[name] == pytest.approx(ratio, rel=0.01)


def test_pooling_counts_against_sppnet_alone(sppnet):
    times = {sppnet.RCNN: 10.0, sppnet.FC: 1.0}
    for name in sppnet.SCALES:
        times |= {f"{name}, conv": 2.0, f"{name}, pooling": 3.0}
    found = sppnet.ratios(times)
    assert found["1 scale, conv"] == 5 and found["1 scale, conv + fc"] == pytest.approx(11 / 3)
    assert found["5 scales, conv + pooling + fc"] == pytest.approx(11 / 6)


def test_multiply_adds_are_those_of_the_layers(sppnet):
    found = sppnet.multiply_adds()
    conv1, conv2, conv3 = 112, 26, 13  # outputs of 227 pixels
    region = conv1**2 * 96 * 7 * 7 * 3 + conv2**2 * 256 * 5 * 5 * 96
    region += conv3**2 * 9 * (256 * 384 + 384 * 384 + 384 * 256)
    assert found[sppnet.RCNN] == 2000 * region
    assert found[sppnet.FC] == 2000 * (12800 * 4096 + 4096 * 4096)
    assert found["5 scales, conv"] > 5 * found["1 scale, conv"]


def test_sppnet_measures_every_step(sppnet, suite, tmp_path, monkeypatch, capsys):
    narrow = functools.partial(sppnet.models.sppnet_zf5, width=1 / 32)
    monkeypatch.setattr(sppnet.models, "sppnet_zf5", narrow)
    monkeypatch.setattr(sppnet, "SCALES", {"1 scale": (64,), "5 scales": (64, 96)})
    monkeypatch.setattr(sppnet, "REGIONS", 20)
    monkeypatch.setattr(sppnet, "SAMPLED", {"cpu": 4})
    about = {"hardware": "A CPU", "device": "cpu", "versions": {"torch": "2"}, "date": "2026", "commit": "abc"}
    status = sppnet.run(about, "cpu", 1, turns=1, seconds=0.01, folder=tmp_path)
    assert status == 0
    result = suite.report.load(tmp_path, "multiply_adds")["cpu"]
    steps = {f"{name}, {step}" for name in ("1 scale", "5 scales") for step in ("conv", "pooling")}
    assert set(result["times"]) == {sppnet.RCNN, sppnet.FC} | steps
    assert all(time["median"] > 0 for time in result["times"].values())
    assert result["sampled"] == {sppnet.RCNN: 0.2}
    medians = {name: time["median"] for name, time in result["times"].items()}
    for name, ratio in sppnet.ratios(medians).items():
        assert result["ratios"][name] == pytest.approx(ratio, rel=0.01, abs=0.01)
    assert (tmp_path / "sppnet-a-cpu.json").exists() and "pooling of 2,000 regions" in capsys.readouterr().out


def test_sppnet_readme_sections(sppnet, suite, tmp_path):
    times = {name: {"median": seconds} for name, seconds in sppnet.PAPER.items()}
    result = {
        "benchmark": "sppnet",
        "hardware": "a CPU",
        "device": "cpu",
        "threads": 2,
        "versions": {"torch": "2"},
        "date": "2026-01-01T00:00",
        "commit": "abc",
        "times": times,
        "ratios": sppnet.ratios(sppnet.PAPER),
        "sampled": {sppnet.RCNN: 0.016},
        "multiply_adds": sppnet.multiply_adds(),
    }
    (tmp_path / "sppnet-a-cpu.json").write_text(json.dumps(result))
    demo = {
        "hardware": "another CPU",
        "torch": "2",
        "seconds": 120,
        "settings": {"seeds": [0, 1]},
        "table": [["pictures", "no SPP", "SPP"], ["64 x 64", "1.0", "2.0 (1.0 to 3.0)"]],
        "detection": {"a grid": {"mAP": {"1 scale": 0.25, "5 scales": 0.5}, "recall": 0.75}},
    }
    (tmp_path / "sppnet-demo.json").write_text(json.dumps(demo))
    assert suite.report.load(tmp_path) == {}  # neither is a result of the suite's own kind
    sections = sppnet.sections(tmp_path)
    assert set(sections) == {"sppnet", "sppnet-demo"}

    lines = sections["sppnet"].splitlines()
    (line,) = [line for line in lines if line.startswith("| R-CNN / SPP-net, 1 scale: conv + fc |")]
    assert line.split("|")[2].strip() == line.split("|")[4].strip() == "102x"
    assert "\\~14.37 s" in sections["sppnet"]
    assert "- a CPU, 2 threads, torch 2, 2026-01-01, commit abc" in lines
    lines = sections["sppnet-demo"].splitlines()
    assert "| 64 x 64 | 1.0 | 2.0 (1.0 to 3.0) |" in lines and "| a grid | 75.0 | 25.0 | 50.0 |" in lines


def test_sppnet_without_results_has_no_section(sppnet, tmp_path):
    assert sppnet.sections(tmp_path) == {}
