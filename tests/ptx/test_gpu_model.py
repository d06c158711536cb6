"""The model that predicts times: occupancy, the formula on made-up counts, the weights, the table."""

import math
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from benchmarks import report as benchmarks_report
from tools.gpu_model import predict, report, table, weights
from tools.gpu_model.counts import Clocks
from tools.gpu_model.gpus import GPUS, occupancy
from tools.gpu_model.scoreboard import FROM_DRAM, FROM_L2

H100, A100, RTX_4090, T4 = (GPUS[key] for key in ("h100", "a100", "4090", "t4"))


# ---- occupancy: values of CUDA's occupancy calculator ----


@pytest.mark.parametrize(
    "gpu, threads, registers, shared, blocks, limit",
    [
        (H100, 256, 32, 0, 8, "warps"),
        (H100, 256, 64, 0, 4, "registers"),
        (H100, 256, 40, 0, 6, "registers"),
        (H100, 256, 33, 0, 6, "registers"),  # 33 registers are given out as 40
        (H100, 32, 32, 0, 32, "blocks"),
        (H100, 1024, 32, 0, 2, "warps"),
        (H100, 96, 128, 0, 5, "registers"),
        (H100, 128, 32, 48 * 1024, 4, "shared memory"),  # 49 KB of 228 each
        (H100, 128, 32, 227 * 1024, 1, "shared memory"),
        (H100, 128, 32, 113 * 1024, 2, "shared memory"),  # 114 KB with what is reserved
        (H100, 128, 32, 114 * 1024, 1, "shared memory"),
        (A100, 256, 32, 40 * 1024, 4, "shared memory"),
        (A100, 256, 255, 0, 1, "registers"),
        (RTX_4090, 256, 32, 0, 6, "warps"),
        (RTX_4090, 32, 32, 0, 24, "blocks"),
        (RTX_4090, 256, 32, 24 * 1024, 4, "shared memory"),
        (T4, 256, 64, 0, 4, "warps"),
        (T4, 32, 32, 0, 16, "blocks"),
        (T4, 128, 32, 32 * 1024, 2, "shared memory"),  # nothing is reserved
    ],
)
def test_occupancy_is_that_of_the_tables(gpu, threads, registers, shared, blocks, limit):
    found = occupancy(gpu, threads, registers, shared)
    assert (found.blocks, found.warps) == (blocks, blocks * threads // 32)
    assert found.limit == limit


def test_a_block_that_fits_nowhere_is_an_error():
    with pytest.raises(ValueError, match="no block of 128 threads fits on T4: shared memory"):
        occupancy(T4, 128, 32, 65 * 1024)


# ---- the formula ----


@dataclass
class Traffic:
    requests: int = 0
    sectors: int = 0
    distinct: int = 0
    block_distinct: int = 0
    wavefronts: int = 0


@dataclass
class MadeUp:
    """Counts of a launch that nobody ran."""

    forms: Counter = field(default_factory=Counter)
    grid: int = 13200
    blocks: int = 100
    threads: int = 256
    shared_bytes: int = 0
    global_loads: Traffic = field(default_factory=Traffic)
    global_stores: Traffic = field(default_factory=Traffic)
    shared_loads: Traffic = field(default_factory=Traffic)
    shared_stores: Traffic = field(default_factory=Traffic)
    atomics: Traffic = field(default_factory=Traffic)
    barriers: int = 0
    clocks: dict = field(default_factory=lambda: clocks(0, 0))


def clocks(dram, l2, more=0):
    """The clocks of blocks by where loads come from; the longest block takes ``more`` than the mean."""
    return {
        (gpu.architecture, load): Clocks(mean, mean + more)
        for gpu in GPUS.values()
        for load, mean in ((FROM_DRAM, dram), (FROM_L2, l2))
    }


WEIGHTS = weights.Weights()
ANYTHING = predict.Footprint(1e15, 1e15)


def predicted(gpu=H100, footprint=ANYTHING, registers=32, **counts):
    return predict.predict(MadeUp(**counts), registers, gpu, WEIGHTS, footprint)


def test_streaming_is_bound_by_dram_and_takes_the_bytes_over_the_rate():
    sectors = 100 * 800 * 4
    loads = Traffic(100 * 800, sectors, sectors, sectors)
    found = predicted(
        global_loads=loads,
        forms=Counter({"ld.global.v4.f32": 100 * 800, "max.f32": 100 * 800}),
        clocks=clocks(2000, 1000),
    )
    assert found.resource == "DRAM"
    assert found.seconds == pytest.approx(sectors * 132 * 32 / (0.85 * 3.0e12))


def test_arithmetic_is_bound_by_issue():
    found = predicted(forms=Counter({"add.s32": 10_000_000, "fma.rn.f32": 10_000_000}))
    assert found.resource == "issue"
    assert found.seconds == pytest.approx(20_000_000 * 132 / (132 * 0.65 * 4 * 1.755e9))


def test_one_kind_of_arithmetic_is_bound_by_the_part_that_does_it():
    assert predicted(forms=Counter({"lop3.b32": 10_000_000})).resource == "alu"
    assert predicted(forms=Counter({"popc.b32": 10_000_000})).resource == "xu"
    doubles = Counter({"add.f64": 10_000_000})
    professional, consumer = (predicted(gpu=gpu, forms=doubles) for gpu in (H100, RTX_4090))
    assert professional.resource == consumer.resource == "fp64"
    assert consumer.seconds > 20 * professional.seconds


def test_bank_conflicts_are_bound_by_l1():
    loads = {requests: Traffic(requests=1_000_000, wavefronts=requests * 1_000_000) for requests in (1, 32)}
    forms = Counter({"ld.shared.f32": 1_000_000, "add.f32": 3_000_000})
    free, conflicting = (predicted(shared_loads=loads[ways], forms=forms) for ways in (1, 32))
    assert free.resource == "issue" and conflicting.resource == "L1"
    assert conflicting.seconds > 15 * free.seconds


def test_few_blocks_are_bound_by_latency():
    forms = Counter({"add.s32": 8000, "ld.global.f32": 800})
    loads = Traffic(800, 3200, 3200, 3200)
    found = predicted(grid=1, blocks=1, global_loads=loads, forms=forms, clocks=clocks(30_000, 20_000))
    assert found.resource == "latency"
    assert found.seconds == pytest.approx(30_000 / H100.clock)


def test_every_wave_of_blocks_takes_as_long_as_a_block_and_the_last_as_the_longest():
    grids = {132 * 8: 1500, 132 * 8 + 1: 2500, 132 * 8 * 3: 3500}  # 8 blocks of 256 threads at once
    for grid, expected in grids.items():
        found = predicted(grid=grid, clocks=clocks(1000, 1000, more=500))
        assert found.resources["latency"] == pytest.approx(expected / H100.clock)


@pytest.mark.parametrize("distinct, expected", [(8000, 3000), (4000, 2000), (80, 1020)])
def test_loads_take_as_long_as_from_where_they_come(distinct, expected):
    loads = Traffic(2000, 8000, distinct, 8000)  # L2 is asked for 8000 sectors and has all but those distinct
    found = predicted(grid=100, global_loads=loads, clocks=clocks(3000, 1000))
    assert found.resources["latency"] == pytest.approx(expected / H100.clock)


def test_the_last_wave_costs_a_whole_one():
    one, two = (
        predicted(grid=grid, blocks=grid, forms=Counter({"add.s32": grid * 10_000, "fma.rn.f32": grid * 10_000}))
        for grid in (132, 133)
    )
    assert two.resources["issue"] == pytest.approx(2 * one.resources["issue"])


def test_more_registers_leave_fewer_warps_to_hide_latency():
    loads = Traffic(10_000, 40_000, 40_000, 40_000)
    times = [
        predicted(registers=n, global_loads=loads, clocks=clocks(2000, 1000)).resources["latency"]
        for n in (32, 64, 128)
    ]
    assert times == sorted(times) and times[2] > 3 * times[0]


def test_what_blocks_share_comes_from_dram_once_and_again_where_l2_is_too_small():
    sectors = 100 * 10_000
    loads = Traffic(100 * 2500, sectors, sectors, sectors)  # 4.2 GB asked for by all blocks together
    small, large = (
        predicted(global_loads=loads, footprint=predict.Footprint(size, 0)).dram_bytes for size in (20e6, 500e6)
    )
    assert small == pytest.approx(20e6)
    assert large > 3e9


@pytest.mark.parametrize("waves", [1, 3])
def test_what_blocks_share_comes_once_for_those_that_are_there_together(waves):
    blocks = waves * 132 * 8
    sectors = blocks * 10_000  # of which all blocks ask for the same 200 MB, four times what L2 holds
    loads = Traffic(blocks * 2500, sectors, sectors, sectors)
    found = predicted(grid=blocks, blocks=blocks, global_loads=loads, footprint=predict.Footprint(200e6, 0)).dram_bytes
    held = 0.75 if waves > 1 else 0  # the share of what comes again that L2 does not have
    assert found == pytest.approx(200e6 * (1 + held * (waves - 1)), rel=0.03)


def test_a_launch_reads_the_inputs_and_what_those_before_wrote():
    def launch(stored, atomic, blocks):
        return MadeUp(grid=100, blocks=blocks, global_stores=Traffic(distinct=stored), atomics=Traffic(distinct=atomic))

    call = SimpleNamespace(read_bytes=1000, written=50)
    found = table.footprints(call, [launch(7, 0, 100), launch(0, 3, 50), launch(9, 9, 100)])
    assert [one.reads for one in found] == [1000, 1000 + 7 * 32, 1000 + 7 * 32 + 2 * 3 * 32]
    assert [one.writes for one in found] == [math.inf, math.inf, 50]


def test_a_call_adds_its_launches_up():
    launch = predicted(forms=Counter({"add.s32": 1000}))
    whole = predict.of_call([launch, launch], H100)
    assert whole.seconds == pytest.approx(2 * launch.seconds + 2 * 2.5e-6)
    assert whole.resource == "launch"


# ---- the weights ----


def test_weighted_forms_agree_with_the_machine_code_of_kernels_without_loops():
    ratios = {
        (name, architecture): sum(WEIGHTS.total(Counter(row["forms"]), architecture).values()) / row["machine"]
        for name, rows in WEIGHTS.checks.items()
        for architecture, row in rows.items()
    }
    assert len(ratios) == 6 * 4
    assert all(0.9 < ratio < 1.35 for ratio in ratios.values()), ratios


def test_a_form_without_a_weight_is_named_with_the_command_that_measures_it():
    with pytest.raises(KeyError, match=r"sin.approx.f32 has no weight for sm_90: python -m tools.gpu_model weights"):
        WEIGHTS.of("sin.approx.f32", "90")


@pytest.mark.parametrize(
    "form, name",
    [
        ("ld.global.nc.L1::no_allocate.v4.f32", "ld.global.v4.b32"),
        ("ld.global.u16", "ld.global.b16"),
        ("st.volatile.shared.v2.u64", "st.shared.v2.b64"),
        ("@bra", "bra"),
        ("@!%p1 bra.uni", "bra"),
        ("mov.f64", "mov.b64"),
        ("max.NaN.f16x2", "max.NaN.f16x2"),
        ("setp.ne.or.s32", "setp.ne.or.s32"),
    ],
)
def test_a_form_has_one_name_whatever_its_hints(form, name):
    assert weights.canonical(form) == name
    assert WEIGHTS.of(form, "90") is not None


@pytest.mark.parametrize("architecture", ["90", pytest.param("75", marks=pytest.mark.integration)])
def test_every_form_of_the_kernels_has_a_weight(nvcc, architecture):
    """The other tests run the PTX of 90; that of 75 is made for this one alone."""
    from tools.gpu_model.ptx import modules

    used = set().union(*map(weights.forms_in, modules(architecture)))
    missing = {
        f"{form} on sm_{gpu.architecture}"
        for gpu in GPUS.values()
        for form in used
        if gpu.ptx == architecture and gpu.architecture not in WEIGHTS.forms.get(form, {})
    }
    assert not missing, f"python -m tools.gpu_model weights --nvdisasm PATH measures {sorted(missing)}"


def test_the_forms_of_every_gpu_are_looked_up():
    assert {gpu.ptx for gpu in GPUS.values()} == {"90", "75"}


# ---- the table ----


def row(seconds):
    whole = {"seconds": seconds, "resource": "DRAM", "floor_fraction": 0.5, "naive_seconds": 3 * seconds}
    return {"case": "a map", "gpus": {"h100": {**whole, "calls": {"pool": whole, "scatter": whole}}}}


def test_the_table_and_its_section_say_predicted():
    lines = report.table([row(1e-4)], ["h100"])
    assert lines[0][1] == "H100 SXM, predicted: us"
    assert lines[1] == ["a map", "100", "DRAM", "50%", "3x"]
    assert lines[2][0] == "a map: the backward alone"
    section = report.section([row(1e-4)], ["h100"], benchmarks_report.as_markdown)
    assert "predicted, not measured" in section and "35 %" in section


def test_predictions_are_no_measured_result(tmp_path):
    report.save([row(1e-4)], tmp_path / "gpu-model.json")
    assert benchmarks_report.load(tmp_path) == {}
