"""A busy machine is known to be: by its counters, by a loop, by times; an idle one never is."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from pointwise.timing import BUSY, Load, Times, Watch, in_turns, load
from pointwise.timing.load import granted, processors, verdict_of, why_scattered


def seen(**changed) -> Load:
    quiet = {"seconds": 1.0, "processors": 2, "threads": 2, "others": 0.05, "stolen": 0.0,
             "granted": 0.99}  # fmt: skip
    return Load(**quiet | changed)


@pytest.mark.parametrize(
    "quiet",
    [
        {},
        {"others": 0.2, "stolen": 0.08, "granted": 0.85},
        {"others": None, "stolen": None},  # a system without counters
        {"threads": 1, "others": 0.6},  # on a processor that nobody here needs
        {"processors": 64, "threads": 64, "others": 1.2},
        {"processors": 64, "threads": 8, "others": 20.0},
    ],
)
def test_an_idle_machine_is_not_called_busy(quiet):
    assert seen(**quiet).why_busy() == ""


@pytest.mark.parametrize(
    ("busy", "why"),
    [
        ({"others": 0.5}, "other programs use 0.5 of its 2 processors"),
        ({"others": 1.0, "threads": 1}, "other programs use 1.0 of its 2 processors"),
        ({"processors": 1, "threads": 1, "others": 0.4}, "use 0.4 of its only processor"),
        ({"processors": 64, "threads": 64, "others": 3.0}, "use 3.0 of its 64 processors"),
        ({"stolen": 0.3}, "the host of this virtual machine takes 15 % of its processors' time"),
        ({"granted": 0.5}, "a loop on 2 threads got a processor 50 % of the time"),
        ({"others": None, "stolen": None, "granted": 0.3, "threads": 1}, "a loop on 1 thread got"),
    ],
)
def test_what_speaks_against_a_verdict(busy, why):
    assert why in seen(**busy).why_busy()


def test_times_speak_too():
    near, far = Times((1.0, 1.2, 1.3, 9.0)), Times((1.0, 4.0, 4.0, 90.0))
    assert why_scattered(()) == ""
    assert why_scattered((near, near, far)) == ""  # one of three may be odd by itself
    assert "half of all runs take 4.0 times as long as the fastest" in why_scattered(
        (near, far, far)
    )
    assert why_scattered((Times((1.0, 9.0)),)) == ""  # two runs say nothing


def test_the_counters_are_read(tmp_path, monkeypatch):
    """Own processors only, and neither what is idle nor what waits for a disk is use."""
    mine = min(load._numbers())
    stat = tmp_path / "stat"
    lines = ["cpu  9 9 9 9 9 9 9 9 0 0", f"cpu{mine} 100 200 300 4000 5000 10 20 70 50 0",
             "cpu999 7 7 7 7 7 7 7 7 0 0", "intr 1 2 3"]  # fmt: skip
    stat.write_text("\n".join(lines))
    monkeypatch.setattr(load, "_STAT", stat)
    ticks = os.sysconf("SC_CLK_TCK")
    assert load._counters() == (630 / ticks, 70 / ticks)
    monkeypatch.setattr(load, "_STAT", tmp_path / "nothing")
    assert load._counters() is None
    with Watch() as watch:
        pass
    assert watch.load.others is None
    assert watch.load.stolen is None


def test_what_this_process_does_is_not_others(monkeypatch):
    """Counters that stand still but for our own work."""
    now = [0.0]
    monkeypatch.setattr(load, "_counters", lambda: (load._own() - now[0], 0.0))
    with Watch() as watch:
        end = time.perf_counter() + 0.2
        while time.perf_counter() < end:
            pass
    assert watch.load.others == 0
    now[0] = -0.0
    monkeypatch.setattr(load, "_counters", lambda: (load._own() + 1.5 * time.perf_counter(), 0.0))
    with Watch() as watch:
        time.sleep(0.2)
    assert watch.load.others == pytest.approx(1.5, abs=0.25)


def test_a_thread_that_waits_is_not_granted_a_processor():
    assert 0 < granted(1, 0.02) <= 1
    assert 0 < granted(3, 0.02) <= 1


@pytest.fixture
def burners():
    """A program for each processor that computes, and two more."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(processors() + 2)
    ]
    time.sleep(0.3)
    yield
    for each in started:
        each.kill()
        each.wait()


@pytest.mark.real_load
@pytest.mark.parametrize("counted", [True, False], ids=["with counters", "without"])
def test_a_load_of_its_own_is_seen(burners, monkeypatch, counted):
    if not counted:  # as on systems that have none
        monkeypatch.setattr(load, "_counters", lambda: None)
    x = torch.rand(200, 200)
    with Watch() as watch:
        times = in_turns({"a": lambda: x @ x, "b": lambda: x + x}, samples=12, seconds=0.3)
    why = watch.busy(*times.values())
    assert why
    assert verdict_of(why).startswith(f"{BUSY.capitalize()}: {why}. ")
    if counted and sys.platform == "linux":
        assert watch.load.others > 0.5
