"""Short and small jobs in the benchmarks: repeated, and limited by the cache they fit into."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import frame
import machine
from frame import Case, Contestant, Machine

EPS = torch.finfo(torch.float32).eps


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


def test_the_streams_of_the_cache_measurement_do_what_is_counted():
    size, programs = 4 * machine.REGISTER_BYTES * 3, 5
    a, b = (torch.randn(programs * size // 4) for _ in range(2))
    c = torch.full_like(a, torch.nan)
    arguments = [2, size, machine.REGISTER_BYTES, a.data_ptr(), c.data_ptr()]
    machine.launch(machine._scale, arguments, programs)
    assert torch.equal(c, 3 * a)
    arguments = [2, size, machine.REGISTER_BYTES, *(x.data_ptr() for x in (a, b, c))]
    machine.launch(machine._triad, arguments, programs)
    # Rounded once, where the two steps of the definition round twice.
    torch.testing.assert_close(c, a + 3 * b, rtol=2 * EPS, atol=2 * EPS * 3 * float(b.abs().max()))


def test_caches_are_measured():
    found = machine.caches(seconds=0.001)
    sizes = [size for size, _ in found]
    assert sizes[0] == 2**17
    assert sizes == sorted(sizes)
    assert machine.last_cache() / 1.5 < sizes[-1] <= machine.last_cache()
    assert all(rate > 0 for _, rate in found)
