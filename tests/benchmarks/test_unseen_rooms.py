from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import unseen_rooms
from typer import Typer
from typer.testing import CliRunner


def test_the_built_in_run_is_scored_as_three_scanners_see_a_room():
    scans = dict(unseen_rooms.seen(1, 8000))
    (full,), (blind,), (plain,) = scans.values()
    assert set(full.fields) == {"color", "intensity"}
    assert not blind.fields
    assert not plain.fields
    assert (full.points == blind.points).all()
    assert len(plain) < len(full) / 3
    app = Typer()
    app.command()(unseen_rooms.command)
    done = CliRunner().invoke(app, ["rooms", "--rooms", "1", "--rays", "8000"])
    assert done.exit_code == 0, done.output or done.exception
    lines = done.output.splitlines()
    assert [line.partition(":")[0] for line in lines if "mean IoU" in line] == list(scans)
    assert len(lines) == 3 * (1 + 11)
