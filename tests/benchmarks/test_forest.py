"""What trees learn from: the numbers of a cloud and of a point's surroundings; a small run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")
pytest.importorskip("scipy")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import forest
from typer import Typer
from typer.testing import CliRunner

from pointwise.cloud.files import write_scan
from pointwise.cloud.scan import Scan


def plane(rng: np.random.Generator, *normal: float) -> np.ndarray:
    """Points of a square about the origin, at right angles to ``normal``."""
    flat = rng.uniform(-1, 1, (2000, 3))
    return flat - np.outer(flat @ normal, normal)


def test_shapes_are_those_of_planes_lines_and_balls():
    rng = np.random.default_rng(0)
    floor, wall = plane(rng, 0, 0, 1), plane(rng, 1, 0, 0)
    line = np.outer(rng.uniform(-1, 1, 2000), [0, 0, 1.0])
    ball = rng.standard_normal((2000, 3))
    names = ("linear", "planar", "scattered", "curved", "vertical", "far", "above", "tall")
    of = {
        name: dict(zip(names, forest.shapes(points, points).mean(axis=0), strict=True))
        for name, points in (("floor", floor), ("wall", wall), ("line", line), ("ball", ball))
    }
    assert of["line"]["linear"] == pytest.approx(1)
    for surface in ("floor", "wall"):
        assert of[surface]["scattered"] == pytest.approx(0)
        assert of[surface]["planar"] > 0.4
    assert of["ball"]["scattered"] > 0.1
    assert of["floor"]["vertical"] == pytest.approx(0)
    assert of["wall"]["vertical"] == pytest.approx(1)
    assert of["floor"]["tall"] == pytest.approx(0)
    assert of["wall"]["tall"] > 0.01
    once = np.zeros((1, 3))
    assert np.isfinite(forest.shapes(once, once)).all()


def command() -> Typer:
    app = Typer(pretty_exceptions_enable=False)
    app.command()(forest.command)
    return app


def table_on_floor(seed: int) -> Scan:
    """A floor with a table on it, which height alone tells apart."""
    rng = np.random.default_rng(seed)
    floor, top = rng.uniform(0, 4, (3000, 3)), rng.uniform(1, 3, (1000, 3))
    floor[:, 2], top[:, 2] = 0, 0.8
    labels = np.repeat([0, 1], [len(floor), len(top)])
    return Scan(np.concatenate([floor, top]), labels=labels, classes={0: "floor", 1: "table"})


def test_points_are_labelled(tmp_path):
    for i in range(3):
        write_scan(table_on_floor(i), tmp_path / "scans" / f"{i}.npz")
    options = ["--cell-size", "0.2", "--json", str(tmp_path / "found.json")]
    found = CliRunner().invoke(command(), [str(tmp_path / "scans"), *options])
    assert found.exit_code == 0, found.output
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["mean_iou"] > 0.99
    assert sum(record["counts"].values()) % 4000 == 0  # every point of the scans held out


def test_clouds_are_classified(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(16):
        stretch = [1, 1, 3] if i % 2 else [1, 1, 0.3]
        kind = "tall" if i % 2 else "flat"
        points = rng.standard_normal((200, 3)) * stretch
        write_scan(Scan(points), tmp_path / "clouds" / kind / f"{i}.npz")
    options = ["--json", str(tmp_path / "found.json")]
    found = CliRunner().invoke(command(), [str(tmp_path / "clouds"), *options])
    assert found.exit_code == 0, found.output
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["overall_accuracy"] == 1
    assert sum(record["counts"].values()) == 4
