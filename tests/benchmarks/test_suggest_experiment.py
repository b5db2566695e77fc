"""The experiment on suggestions: what is drawn and counted, and a tiny run of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import suggest
from suggest import Pool, up_to
from typer import Typer
from typer.testing import CliRunner

from pointwise.rooms import rooms


@pytest.fixture(scope="module")
def pool():
    return Pool.of(rooms(2, rays=2000))


def test_labels_are_those_of_the_chosen_cubes(pool):
    chosen = [pool.cubes[0], pool.cubes[-1]]
    scans = pool.labelled(chosen)
    for room, (scan, whole) in enumerate(zip(scans, pool.scans, strict=True)):
        inside = np.isin(pool.cube[room], [cube for where, cube in chosen if where == room])
        assert (scan.labels[inside] == whole.labels[inside]).all()
        assert (scan.labels[~inside] == -1).all()
    assert pool.points(chosen) == sum(int((scan.labels >= 0).sum()) for scan in scans)
    assert pool.points(pool.cubes) == sum(map(len, pool.scans))


def test_half_a_budget_is_the_beginning_of_the_whole(pool):
    order = list(pool.cubes)
    half, whole = up_to(pool, order, 300), up_to(pool, order, 600)
    assert whole[: len(half)] == half
    assert pool.points(half[:-1]) < 300 <= pool.points(half)


@pytest.mark.slow
def test_a_tiny_run(tmp_path):
    app = Typer()
    app.command()(suggest.command)
    out = tmp_path / "found.json"
    options = {"rooms": 2, "test": 1, "rays": 2000, "budget": 0.5, "steps": 3, "seeds": 1}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = CliRunner().invoke(app, [*words, "--whole", "--json", str(out)])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(out.read_text())["seeds"]
    assert list(found) == ["half, suggested", "half, by chance", "whole, by chance", "all labels"]
    half, chance, whole, every = (each["points"] for each in found.values())
    cube = every / 4  # nothing is larger
    assert abs(half - chance) < cube
    assert chance < whole < every
    assert all(0 <= each["mean_iou"] <= 1 for each in found.values())
    again = CliRunner().invoke(app, [*words, "--json", str(out)])
    assert again.exit_code == 0, again.output
    assert "seed 0" not in again.output  # what is there is not done again
    other = CliRunner().invoke(app, [*words, "--rounds", "2", "--json", str(out)])
    assert "holds another experiment's numbers" in str(other.exception)
