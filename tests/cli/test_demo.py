"""The demo, in seconds instead of minutes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pointwise.cli import app
from pointwise.cloud.files import read_scan


def demo(*options: str):
    return CliRunner().invoke(app, ["demo", "--steps", "3", "--rooms", "3", *options])


@pytest.mark.slow
def test_the_whole_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = demo()
    assert first.exit_code == 0, first.output
    made = ("run/weights.pt", "run/metrics.json", "run/confusion.png", "room.html", "room.png")
    for name in made:
        assert (tmp_path / "demo" / name).stat().st_size > 0
    new, labelled = (read_scan(tmp_path / "demo" / f"{n}.ply") for n in ("room", "room-labelled"))
    assert new.labels is None
    assert len(labelled) == len(new)
    assert set(labelled.labels) <= set(range(11))
    assert "Training on 3 rooms for 3 steps" in first.output
    assert "All of the demo takes" not in first.output  # which is so of the usual one only
    for said in ("of its points are labelled as they should be", "demo/room.html", "demo/run"):
        assert said in first.output


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    found = demo("--out", str(tmp_path))
    assert isinstance(found.exception, ValueError)
    assert "is not an empty folder; choose another --out" in str(found.exception)
    with pytest.raises(StopIteration):
        next(path for path in tmp_path.iterdir() if path.name != "notes.txt")
