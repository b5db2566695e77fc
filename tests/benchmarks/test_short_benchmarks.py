"""Short and small jobs in the benchmarks: repeated, and limited by the cache they fit into."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import frame
import machine
from frame import Case, Contestant, Machine


def test_short_steady_runs_are_repeated(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(
        frame, "time", SimpleNamespace(perf_counter=lambda: now[0], sleep=lambda _: None)
    )
    log = []

    def contestant(who: str, seconds: float, steady: bool) -> Contestant:
        def run(_: object) -> None:
            log.append(who)
            now[0] += seconds

        return Contestant(who, run, steady=steady)

    people = [
        contestant("a", frame.SHORT_SECONDS / 2.5, steady=True),
        contestant("b", frame.SHORT_SECONDS * 2, steady=True),
        contestant("c", frame.WARM_SECONDS * 2, steady=True),
        contestant("d", frame.SHORT_SECONDS / 4, steady=False),
    ]
    rows = frame.measure([Case("case", people, lambda _: None)], rounds=1)
    # Checked and measured for memory; tried, which begins with 20 ms of warm-up; and then in turn,
    # warm-up and timed runs.
    tried = "aaaaaa" + "bb" + "cc"
    assert "".join(log) == "abcd" * 2 + tried + "aaaaaaaa" + "bb" + "c" + "d"
    expected = [frame.SHORT_SECONDS / 2.5, frame.SHORT_SECONDS * 2, frame.WARM_SECONDS * 2,
                frame.SHORT_SECONDS / 4]  # fmt: skip
    assert [row.median_ms for row in rows] == pytest.approx([1e3 * second for second in expected])


def test_small_jobs_are_limited_by_the_cache_they_fit_into(tmp_path):
    toy = Machine("a toy", 2, 100.0, 10.0, caches=((1000, 90.0), (2000, 95.0), (4000, 40.0)))
    assert [toy.gbs(size) for size in (500, 1500, 2000, 3999, 4000, 4001)] == [
        95.0,  # the second is noise, but no limit may be too low
        95.0,
        95.0,
        95.0,
        40.0,
        10.0,
    ]
    case = Case("case", [], lambda _: None, flops=0, bytes=4000)
    assert frame.least_ms(case, toy) == pytest.approx(4000 / 40e6)
    frame.write([], toy, tmp_path / "speed.json")
    found = json.loads((tmp_path / "speed.json").read_text())["machine"]
    assert found["caches"] == [[1000, 90.0], [2000, 95.0], [4000, 40.0]]
    other = Machine("a toy", 2, 90.0, 11.0, caches=((1000, 91.0), (2000, 94.0), (4000, 41.0)))
    assert machine.better(toy, other).caches == ((1000, 91.0), (2000, 95.0), (4000, 41.0))
