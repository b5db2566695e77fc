"""Times are taken in turns, often enough, and said in the usual words."""

from __future__ import annotations

import numpy as np
import pytest

from pointwise.timing import BUSY, Times, Watch, in_turns, measured, turns


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when told to."""

    class Clock:
        now = 0.0

        def run(self, name, milliseconds, order):
            def go():
                order.append(name)
                self.now += 1e-3 * milliseconds

            return go

    made = Clock()
    monkeypatch.setattr(turns.time, "perf_counter", lambda: made.now)
    return made


def test_everyone_takes_turns_and_another_begins_each_round(clock):
    order = []
    runs = {name: clock.run(name, span, order) for name, span in (("a", 1), ("b", 2), ("c", 3))}
    found = in_turns(runs, samples=30)
    assert {name: set(np.round(each.milliseconds, 9)) for name, each in found.items()} == {
        "a": {1}, "b": {2}, "c": {3}}  # fmt: skip
    assert [len(each.milliseconds) for each in found.values()] == [30, 30, 30]
    assert [each.turns for each in found.values()] == [(5,) * 6] * 3
    taken = order[6:42]  # two runs of each to learn how long it takes
    assert taken == [*"aaaaaa", *"bbbbbb", *"cccccc", *"bbbbbb", *"cccccc", *"aaaaaa"]


def test_what_takes_long_runs_less_often(clock):
    order = []
    runs = {"slow": clock.run("slow", 900, order), "quick": clock.run("quick", 1, order)}
    found = in_turns(runs, samples=50, seconds=2)
    assert len(found["slow"].milliseconds) == 6
    assert len(found["quick"].milliseconds) == 50
    some = in_turns({"a": clock.run("a", 125, order)}, samples=50, seconds=2)
    assert len(some["a"].milliseconds) == 16
    assert some["a"].turns == (2,) * 8  # an interval needs six rounds


def test_progress_is_told(clock):
    seen = []
    in_turns({"a": clock.run("a", 1, [])}, 12, progress=lambda *given: seen.append(given))
    assert seen == [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
    assert in_turns({}) == {}
    with pytest.raises(ValueError, match="samples must be 1 or more, got 0"):
        in_turns({}, samples=0)


def test_what_is_said_of_times():
    values = (3.0, 1.0, 2.0, 10.0, 4.0)
    times = Times(values)
    assert times.median == 3
    assert times.mean == 4
    assert times.std == pytest.approx(np.std(values, ddof=1))
    assert (times.min, times.max) == (1, 10)
    assert times.percentile(95) == pytest.approx(8.8)
    assert times.percentile(99) == pytest.approx(9.76)
    assert Times((2.0,)).std == 0
    assert times.record() == {
        "mean": 4.0, "std": pytest.approx(3.535534), "min": 1.0, "max": 10.0, "median": 3.0,
        "p95": 8.8, "p99": 9.76, "runs": 5}  # fmt: skip


def test_rounds_are_judged_by_their_medians():
    times = Times((1.0, 2.0, 9.0, 4.0, 6.0), turns=(3, 2))
    assert times.by_round() == [2.0, 5.0]
    assert Times((1.0, 2.0)).by_round() == [1.0, 2.0]


def test_a_call_as_the_guide_times_it(monkeypatch):
    calls = []
    monkeypatch.setattr(Watch, "busy", lambda self, *times: "")
    took = measured(lambda: calls.append(1), samples=6)
    assert len(calls) > 6
    assert took.milliseconds == took.times.median
    assert BUSY not in str(took)
    said = turns.Measured(Times((12.0, 10.0, 14.0, 1200.0)), "somebody is here")
    assert str(said) == f"13.0 ms (10.0 to 1,022; {BUSY})"
