"""The experiment on starting from a run: what is learned from and tested on, and a tiny run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fine_tune
from typer import Typer
from typer.testing import CliRunner

from pointwise.cloud.files import read_scan
from pointwise.rooms import room
from pointwise.training.plan import plan
from pointwise.training.run import save_run, save_weights
from pointwise.training.sources import Data


def test_rooms_have_six_classes_and_no_colour():
    scans = fine_tune.rooms(0, rays=2000)
    assert (len(scans.labelled), len(scans.test)) == (5, 6)
    names = {name for scan in scans.test for name in scan.classes.values()}
    assert names == {"ceiling", "floor", "wall", "door", "furniture", "clutter"}
    assert not any(scan.fields for scan in scans.labelled)
    assert scans.labelled[0].name != scans.test[0].name


def test_tiles_of_the_town_hold_every_point_once(shared_data):
    file = shared_data / "las/town_6_classes.las"
    scans = fine_tune.town(file, seed=1)
    assert (len(scans.labelled), len(scans.test)) == (5, 3)
    tiles = [*scans.labelled, *scans.test]
    assert np.ptp([len(tile) for tile in tiles]) <= 2
    together = np.concatenate([tile.points for tile in tiles])
    whole = read_scan(file).points
    assert np.array_equal(together[np.lexsort(together.T)], whole[np.lexsort(whole.T)])
    first, other = (fine_tune.town(file, seed).test[0].points for seed in (1, 2))
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_a_tiny_run(tmp_path):
    data = Data("segmentation", [room(1, rays=2000)], [], [])
    run = plan(data, cell_size=0.3, arguments={"width": 8, "depths": (1, 1)})
    save_run(run, tmp_path / "run")
    save_weights(run, tmp_path / "run")
    app, out = Typer(), tmp_path / "found.json"
    app.command()(fine_tune.command)
    options = {"from": tmp_path / "run", "what": "rooms", "rays": 1500, "steps": 1, "seeds": 1}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = CliRunner().invoke(app, [*words, "--json", str(out)])
    assert done.exit_code == 0, done.output or done.exception
    found = json.loads(out.read_text())["mean_iou"]["rooms"]
    assert list(found) == [
        f"{scans}, {start}"
        for scans in ("1 scan", "2 scans", "5 scans")
        for start in ("from scratch", "from the run")
    ]
    assert all(0 <= value <= 1 for (value,) in found.values())
