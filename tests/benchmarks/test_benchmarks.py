"""The benchmarks: the frame that times them, what they are timed on, and that they refuse what is
wrong. No test looks at how long anything really took."""

from __future__ import annotations

import importlib
import io
import json
import operator
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cloud
import cloud_on_gpu
import device
import frame
import machine
import memory
import neighbours
import peers
import shapes
import work
from frame import OURS, Case, Contestant, Machine, Row

from pointwise.cloud.point_cloud import PointCloud
from pointwise.timing import Times

command = importlib.import_module("pointwise.cli.bench")
TOY = Machine(cpu="a toy", threads=2, fma_gflops=100.0, bandwidth_gbs=10.0)
SIZES = cloud.Sizes(clouds=2, points=100, scaling=(300,), scan=3000)


def right(results: dict) -> None:
    """A check that finds nothing wrong."""


def runs(who: str, work: Callable[[], object]) -> Contestant:
    return Contestant(who, lambda _: work())


# --- the frame ------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Time stands still, but for those who call this with seconds."""
    now = [0.0]
    still = SimpleNamespace(perf_counter=lambda: now[0], sleep=lambda _: None)
    monkeypatch.setattr(frame, "time", still)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return sleep


def test_turns_rotate_over_all_cases(clock):
    log = []
    first = Case("first", [runs(who, partial(log.append, who)) for who in "ab"], right)
    second = Case("second", [runs("c", partial(log.append, "c"))], right)
    frame.measure([first, second], rounds=4)
    # Each case is checked, then each of its contestants runs once for its memory.
    assert "".join(log) == "abab" + "cc" + "abc" + "bca" + "cab" + "abc"


def test_the_slow_take_part_in_two_rounds(clock):
    log = []

    def run(who: str, seconds: float) -> None:
        log.append(who)
        clock(seconds)

    slow = runs("s", partial(run, "s", frame.SLOW_SECONDS + 1))
    quick = runs("q", partial(run, "q", frame.SLOW_SECONDS - 1))
    frame.measure([Case("case", [slow, quick], right)], rounds=6)
    assert "".join(log) == "sqsq" + "sq" + "q" + "q" + "qs" + "q" + "q"


def test_a_slow_first_run_is_only_compiling(clock):
    seconds = iter([100.0, *[1.0] * 6])
    log = []

    def run() -> None:
        log.append("x")
        clock(next(seconds))

    frame.measure([Case("case", [runs("x", run)], right)], rounds=5)
    assert len(log) == 2 + 5


def test_times_are_those_of_run_without_prepare(clock):
    durations = iter([2.0, 2.0, 0.004, 0.001, 0.003])
    made = iter(range(100))

    def prepare() -> int:
        clock(1.0)
        return next(made)

    seen = []

    def run(state: int) -> None:
        seen.append(state)
        clock(next(durations))

    [row] = frame.measure([Case("case", [Contestant("x", run, prepare)], right)], rounds=3)
    assert (row.case, row.who) == ("case", "x")
    assert row.times.milliseconds == pytest.approx((4.0, 1.0, 3.0))
    assert (row.median_ms, row.min_ms) == (pytest.approx(3.0), pytest.approx(1.0))
    assert seen == [0, 1, 2, 3, 4]  # a fresh argument for every run


def test_wrong_results_are_not_timed():
    log = []
    good = Contestant(OURS, lambda _: [np.array([1.0, 2.0])])
    bad = Contestant("bad", lambda _: log.append("run") or [np.array([1.0, 2.1])])
    case = Case("sum", [good, bad], frame.agree(1e-3))
    message = "bench: sum is not timed, since it is not correct: bad differs from pointwise by 0.1"
    with pytest.raises(ValueError, match=message):
        frame.measure([case], rounds=3)
    assert log == ["run"]


def test_rounds_must_be_positive():
    with pytest.raises(ValueError, match="rounds must be 1 or more, got 0"):
        frame.measure([], rounds=0)


def test_agree():
    check = frame.agree(1e-3)
    mine = np.array([100.0, 0.0])
    assert check({"a": [mine], "b": [mine + 0.09]}) is None  # within 1e-3 of the largest
    assert "b differs from a by 0.11 in result 0, more than 0.1" in check(
        {"a": [mine], "b": [mine + 0.11]}
    )
    assert "c differs" in check({"a": [mine], "b": [mine], "c": [mine * np.nan]})
    assert "b gives shape (1,) where a gives (2,)" in check({"a": [mine], "b": [mine[:1]]})


def test_the_limit_is_the_slower_of_arithmetic_and_memory():
    def case(flops, bytes_):
        return Case("case", [], right, flops, bytes_)

    assert frame.least_ms(case(1e9, 1e6), TOY) == pytest.approx(10.0)  # 1e9 / 100e9 s
    assert frame.least_ms(case(1e9, 1e9), TOY) == pytest.approx(100.0)  # 1e9 / 10e9 s
    assert frame.least_ms(case(None, 1e9), TOY) == pytest.approx(100.0)
    assert frame.least_ms(case(None, None), TOY) is None
    rows = [Row("case", OURS, lasting(40)), Row("free", OURS, lasting(40))]
    limited = frame.with_limits(rows, [case(1e9, None), Case("free", [], right)], TOY)
    assert [row.share_of_limit for row in limited] == [pytest.approx(0.25), None]


def test_json_has_exactly_these_keys(tmp_path):
    rows = [Row("one", OURS, Times((1.0, 2.0, 3.0)), 0.5, 30.0),
            Row("one", "other", lasting(4.0, rounds=3)),
            Row("two", "other", Times((4.0,)), busy="somebody computes")]  # fmt: skip
    frame.write(rows, TOY, tmp_path / "new" / "speed.json")
    assert json.loads((tmp_path / "new" / "speed.json").read_text()) == {
        "machine": {"cpu": "a toy", "threads": 2, "fma_gflops": 100.0, "bandwidth_gbs": 10.0},
        "rows": [
            {
                "case": "one",
                "who": "pointwise",
                "median_ms": 2.0,
                "min_ms": 1.0,
                "p95_ms": pytest.approx(2.9),
                "ratio": {"ratio": 1, "low": None, "high": None},
                "share_of_limit": 0.5,
                "peak_mb": 30.0,
                "busy": "",
            },
            {
                "case": "one",
                "who": "other",
                "median_ms": 4.0,
                "min_ms": 4.0,
                "p95_ms": 4.0,
                "ratio": {"ratio": 2, "low": None, "high": None},
                "share_of_limit": None,
                "peak_mb": None,
                "busy": "",
            },
            {
                "case": "two",
                "who": "other",
                "median_ms": 4.0,
                "min_ms": 4.0,
                "p95_ms": 4.0,
                "ratio": None,
                "share_of_limit": None,
                "peak_mb": None,
                "busy": "somebody computes",
            },
        ],
    }


def test_the_table_fits_80_columns():
    rows = [
        Row("grid_vs_kdtree_500", OURS, lasting(600), 1.0, 12345.0),
        Row("grid_vs_kdtree_500", "ckdtree_pairs", lasting(59_999, rounds=2), 0.0123, 12345.0),
        Row("grid_vs_kdtree_500", "ckdtree", Times((900.0, 1200.0, 990.0) * 2 + (900.0,))),
        Row("label_5m", OURS, lasting(59_999)),
    ]
    words = shown(rows)
    assert "grid_vs_kdtree_500 pointwise 600 600 600 100.0 % 12,345" in words
    assert "ckdtree_pairs 59,999 59,999 59,999 ≈100 1.2 % 12,345" in words
    assert "ckdtree 900 990 1,200 1.50–2.0" in words
    assert "label_5m pointwise 59,999 59,999 59,999" in words


def test_a_busy_machine_has_no_ratios():
    why = "other programs use 1.4 of its 2 processors"
    rows = [
        Row("sum", OURS, lasting(600), 1.0, busy=why),
        Row("sum", "torch", lasting(900), busy=why),
    ]
    words = shown(rows)
    assert "sum pointwise 600 600 600" in words
    assert "torch 900 900 900 –" in words
    assert f" This machine is busy: {why}. Times" in " ".join(words)
    assert "cases: This" not in " ".join(words)
    rows.append(Row("mean", OURS, lasting(600)))
    assert f"In 1 of 2 cases: This machine is busy: {why}." in " ".join(shown(rows))


def test_the_machine_is_watched_while_everyone_runs(clock, monkeypatch):
    monkeypatch.setattr(frame.Watch, "busy", lambda self, *times: f"{len(times)} are disturbed")
    rows = frame.measure([Case("case", [runs("a", lambda: 1), runs("b", lambda: 1)], right)], 6)
    assert {row.busy for row in rows} == {"2 are disturbed"}


def lasting(milliseconds: float, rounds: int = 7) -> Times:
    return Times((float(milliseconds),) * rounds)


def shown(rows: list[Row]) -> list[str]:
    out = io.StringIO()
    frame.show(rows, TOY, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    return [" ".join(line.split()) for line in lines]


# --- memory and machine ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is known on Linux only")
def test_peak_growth_sees_what_is_freed_again():
    held = b"x" * 60_000_000  # what was there before does not count

    def work() -> int:
        return len(b"y" * 100_000_000)  # which is gone when it returns

    assert memory.peak_growth(work) == pytest.approx(100, abs=5)
    assert memory.peak_growth(lambda: None) == pytest.approx(0, abs=5)
    assert len(held) == 60_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is known on Linux only")
@pytest.mark.rare
def test_resident_peak_is_of_a_fresh_process():
    held = b"x" * 300_000_000

    def peak(size: int) -> float:
        return memory.resident_peak(partial(partial, operator.mul, b"x", size))

    small, large = peak(1_000_000), peak(200_000_000)
    assert large - small == pytest.approx(199, abs=10)
    assert small < len(held) / 1e6


def test_peaks_are_null_where_the_system_cannot_tell(monkeypatch):
    monkeypatch.setattr(memory, "_reset_peak", lambda: None)
    assert memory.peak_growth(lambda: None) is None


def test_the_machine_is_measured(tmp_path, capsys):
    machine.main(json=tmp_path / "machine.json", rounds=1, quick=True)
    found = json.loads((tmp_path / "machine.json").read_text())
    assert found["rows"] == []
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["machine"]["fma_gflops"] > 0
    assert found["machine"]["bandwidth_gbs"] > 0
    assert "GFLOP/s" in capsys.readouterr().out
    with pytest.raises(ValueError, match="rounds must be 1 or more, got 0"):
        machine.main(rounds=0)


# --- what is timed --------------------------------------------------------------------------------


def test_clouds_are_shapes_in_the_unit_sphere():
    made = shapes.clouds(8, 200)
    assert made.shape == (8, 200, 3)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, shapes.clouds(8, 200))
    np.testing.assert_allclose(np.linalg.norm(made, axis=2).max(axis=1), 1, rtol=1e-6)
    assert len(np.unique(made[:, 0], axis=0)) == 8


@pytest.mark.parametrize(
    ("count", "tiles"), [(1000, 1), (25_000, 1), (60_000, 3)], ids=["part", "one", "three"]
)
def test_landscapes_are_equally_dense_at_any_size(count, tiles):
    scan = shapes.landscape(count)
    assert len(scan) == len(scan.labels) == count
    if count >= 25_000:  # a whole tile has houses and trees
        assert set(np.unique(scan.labels)) == set(shapes.CLASSES)
    tile = np.floor(scan.points[:, :2] / shapes.TILE)
    assert len(np.unique(tile, axis=0)) == tiles
    last = scan.points[(tile == tile[-1]).all(axis=1), :2]
    area = np.ptp(last, axis=0).prod()
    assert len(last) / area == pytest.approx(shapes.DENSITY, rel=0.15)


def test_work_is_counted_by_the_definition():
    points = torch.from_numpy(shapes.clouds(1, 150)[0])
    neighborhood = PointCloud(points).neighborhood(0.2, queries=PointCloud(points[:40]))
    query, cell, _ = neighborhood.decode()
    table = work.table_of(neighborhood)
    occupied = len(torch.stack((query, cell)).unique(dim=1).T)
    assert table == work.Table(queries=40, pairs=len(query), occupied=occupied)
    assert occupied < len(query)  # or the count of occupied cells would not be tested

    table = work.Table(queries=2, pairs=10, occupied=4)
    first, second = work.Layer(table, 3, 5), work.Layer(table, 5, 7)
    means = (10 + 4) * 3, (10 + 4) * 5
    products = 2 * 4 * 3 * 5, 2 * 4 * 5 * 7
    assert work.forward([first, second]) == sum(means) + sum(products)
    # Both weights' gradients; of the inputs, only the second's is wanted.
    assert work.backward([first, second]) == sum(products) + products[1] + means[1]


def test_everyone_finds_the_same_neighbours():
    points = torch.from_numpy(shapes.clouds(1, 200)[0])
    tree = peers.KdTree(points.numpy())
    radius = peers.reach(0.1, 3, 2)
    counts, lists = tree.lists(radius, kept=30)
    assert len(lists) == 30
    assert counts[:30].tolist() == [len(row) for row in lists]
    by_lists = neighbours.of_lists(tree.lists(radius, kept=200)[1])
    by_pairs = neighbours.of_pairs(tree.pairs(radius), 200)
    mine = neighbours.triples(PointCloud(points).neighborhood(0.1, 3, 2), 200)
    for query, point in (by_lists, by_pairs):
        found = neighbours.in_cells(points.double(), query, point, 0.1, 2)
        assert torch.equal(found, mine)


# --- every case refuses what is wrong -------------------------------------------------------------


def results_of(case: Case) -> dict:
    """Everyone's results, which the case's own check accepts."""
    results = {one.who: one.run(one.prepare()) for one in case.contestants}
    assert case.check(results) is None
    return results


@pytest.mark.parametrize("number", [0, 1], ids=["forward", "backward"])
def test_paper_cases_refuse_other_numbers(number):
    case = cloud.paper_cases(SIZES)[number]
    assert case.name == ("paper_forward", "paper_backward")[number]
    results = results_of(case)
    with torch.no_grad():
        results["torch"][-1][-1] += 1e-3 * results["torch"][-1].abs().max()
    assert "torch differs from pointwise" in case.check(results)


def test_the_paper_s_batch_needs_no_transposed_table():
    points, offsets = cloud.paper_batch(cloud.Sizes(clouds=8))
    batch = PointCloud(points, offsets)
    for dilation in cloud.DILATIONS:
        table = batch.neighborhood(cloud.CELL_SIZE, cloud.KERNEL_SIZE, dilation)
        assert table.backward_table() == (None, None)


def test_search_refuses_a_lost_neighbour():
    case = cloud.search_case(SIZES)
    results = results_of(case)
    lists = results["ckdtree"][0][1]  # dilation 1: all in the cube are in some cell
    neighbour = next(row for row in lists if len(row) > 1)
    lost = neighbour.pop()
    assert "ckdtree finds" in case.check(results)
    neighbour.append(lost)
    pairs = results["ckdtree_pairs"]
    results["ckdtree_pairs"] = [pairs[0][1:], *pairs[1:]]
    assert "ckdtree_pairs finds" in case.check(results)


def test_scaling_refuses_a_lost_neighbour_and_another_number():
    search, convolution = cloud.scaling_cases(300)
    assert (search.name, convolution.name) == ("grid_vs_kdtree_300", "conv_300")
    results = results_of(search)
    counts, lists = results["ckdtree"]
    results["ckdtree"] = (counts + np.eye(300, dtype=np.int64)[7], lists)
    assert "ckdtree finds" in search.check(results)
    swapped = [[j if j != i else (i + 150) % 300 for j in row] for i, row in enumerate(lists)]
    results["ckdtree"] = (counts, swapped)
    assert "the first points have other neighbours" in search.check(results)

    results = results_of(convolution)
    results[OURS][-1, 0] += 1e-3 * results[OURS].abs().max()
    assert "differs from the definition" in convolution.check(results)


def test_labelling_refuses_points_without_a_class():
    case = cloud.label_case(SIZES)
    results = results_of(case)
    assert "not each of 3,000 points" in case.check({OURS: results[OURS][:-1]})
    results[OURS][5] = 99
    assert "not each of 3,000 points" in case.check(results)


def test_a_kd_tree_that_would_take_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(cloud, "expected_seconds", lambda search, count: 61.0)
    search, _ = cloud.scaling_cases(300)
    assert [one.who for one in search.contestants] == [OURS]


# --- the command ----------------------------------------------------------------------------------


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match=r"there is no 'clouds'; there are .*cloud, .*machine"):
        command.bench("clouds")
    assert "frame" not in command.names(command.benchmarks())


def test_benchmarks_are_found_inside_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "pointwise"
    monkeypatch.setattr(command, "__file__", str(package / "cli" / "bench.py"))
    with pytest.raises(FileNotFoundError, match=r"no benchmarks in .*; install pointwise again"):
        command.benchmarks()
    (package / "benchmarks").mkdir(parents=True)
    (package / "benchmarks" / "frame.py").touch()
    (package / "benchmarks" / "toy.py").write_text("def main(json, rounds, quick): ...\n")
    assert command.benchmarks() == package / "benchmarks"
    assert command.names(command.benchmarks()) == ["toy"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_said_in_one_line():
    with pytest.raises(ValueError, match=r"bench: --device cuda:1, and PyTorch .* finds no CUDA"):
        command.bench("cloud", quick=True, device="cuda:1")


def test_a_device_that_a_benchmark_does_not_run_on(monkeypatch):
    with pytest.raises(
        ValueError, match=r"bench: machine runs on the CPU alone, got --device cuda"
    ):
        command.bench("machine", quick=True, device="cuda")
    with pytest.raises(ValueError, match=r"bench: --device is cpu, cuda or cuda:1, got 'tpu'"):
        command.bench("cloud", quick=True, device="tpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"bench: --device cuda:1, and there are 1, from cuda:0"):
        command.bench("cloud", quick=True, device="cuda:1")


TINY = cloud_on_gpu.Sizes(clouds=2, points=100, scaling=(300,), scan=400)


@pytest.mark.parametrize("name", ["paper_forward", "paper_backward", "search_300", "conv_300_f32",
                                  "conv_300_bf16", "unet_400"])  # fmt: skip
def test_what_is_timed_on_a_gpu_agrees(name, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    (planned,) = [each for each in cloud_on_gpu.plan(TINY, "cpu") if each.name == name]
    frame.check(planned.make())


def test_rows_of_a_gpu_are_shown_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(device, "timed", lambda one: (2.0, 30.0))
    monkeypatch.setattr(device, "bandwidth", lambda: 1000.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    plan = [each for each in cloud_on_gpu.plan(TINY, "cpu") if each.name == "search_300"]
    device.run(plan, tmp_path / "speed.json", 7, False, None)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "a GPU, 1,000 GB/s" in shown
    assert "through_cpu" in shown
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["machine"]["name"] == "a GPU"
    assert [(row["case"], row["median_ms"]) for row in found["rows"]] == [("search_300", 2.0)] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gpu_choice", "image", "training", "accelerate"])
def test_benchmarks_run_on_gpus(name, tmp_path, capsys):
    path = tmp_path / "speed.json"
    command.bench(name, json=path, rounds=2, quick=True, device="cuda")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert json.loads(path.read_text())["device"]


# Those that start processes or need a GPU have records, and tests, of their own.
OF_THEIR_OWN = {"gpu_choice", "int8", "saved"}


@pytest.mark.rare
@pytest.mark.parametrize("name", sorted({*command.names(command.benchmarks())} - OF_THEIR_OWN))
def test_every_benchmark_runs(name, tmp_path, capsys):
    path = tmp_path / "speed.json"
    command.bench(name, json=path, rounds=2, quick=True)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    found = json.loads(path.read_text())
    assert list(found) == ["machine", "rows"]
    for row in found["rows"]:
        assert list(row) == ["case", "who", "median_ms", "min_ms", "p95_ms", "ratio",
                             "share_of_limit", "peak_mb", "busy"]  # fmt: skip
        assert 0 < row["min_ms"] <= row["median_ms"]
    if name == "cloud":
        who = {(row["case"], row["who"]) for row in found["rows"]}
        cases = {"paper_forward": "torch", "paper_backward": "torch", "search": "ckdtree"}
        assert {*cases.items(), *((case, OURS) for case in cases), ("label_5m", OURS)} <= who
        if importlib.util.find_spec("open3d"):
            assert ("search", "open3d") in who
