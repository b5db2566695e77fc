"""A run as it is handed on: what is written, and that commands take it as they take any run."""

from __future__ import annotations

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from pointwise.cli.evaluate import evaluate
from pointwise.cli.export_run import export_run
from pointwise.cli.info import info
from pointwise.cli.label import label
from pointwise.cloud.files import read_scan, write_scan
from pointwise.rooms import room
from pointwise.training import built_in
from pointwise.training.plan import plan
from pointwise.training.run import Run, load_run, save_run, save_weights
from pointwise.training.sources import Data

ROOM = room(1, rays=2000)


@pytest.fixture
def saved(tmp_path):
    """A run as training leaves it, in the folder ``runs/small``."""
    options = {"data": ["rooms"], "cache": "/somewhere/scans", "workers": 3}
    run = plan(
        Data("segmentation", [ROOM], [], []),
        cell_size=0.3,
        features=["color", "height"],
        optional=["color"],
        arguments={"width": 8, "depths": (1, 1)},
        options=options,
    )
    folder = tmp_path / "runs" / "small"
    save_run(run, folder)
    save_weights(run, folder)
    (folder / "metrics.json").write_text('{"mean_iou": 0.5}')
    (folder / "last.ckpt").write_bytes(b"much")
    return folder


def call(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


def said(command, *arguments) -> str:
    done = call(command, *arguments)
    assert done.exit_code == 0, done.output or done.exception
    return done.output


def test_what_is_written(saved, tmp_path):
    out = tmp_path / "small"
    printed = said(export_run, saved, "-o", out)
    files = {file.name: file.stat().st_size for file in out.iterdir()}
    assert files.keys() == {"run.json", "weights.pt", "metrics.json"}
    assert printed == f"{out}: {sum(files.values()) / 1e6:.2f} MB\n"
    weights = torch.load(out / "weights.pt", weights_only=True)
    assert {w.dtype for w in weights.values()} == {torch.float16}
    options = json.loads((out / "run.json").read_text())["options"]
    assert options == {"data": ["rooms"], "cache": None, "workers": 0}
    was, now = load_run(saved), load_run(out)
    assert now.recipe == was.recipe
    for name, weights in was.network.state_dict().items():
        other = now.network.state_dict()[name]
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, weights, rtol=2**-11, atol=2**-24)


def test_in_full(saved, tmp_path):
    said(export_run, saved, "-o", tmp_path / "full", "--full")
    was, now = (
        load_run(saved).network.state_dict(),
        load_run(tmp_path / "full").network.state_dict(),
    )
    assert all(torch.equal(now[name], was[name]) for name in was)


def test_no_run_is_replaced_unless_asked(saved, tmp_path):
    out = tmp_path / "small"
    said(export_run, saved, "-o", out)
    again = call(export_run, saved, "-o", out)
    assert isinstance(again.exception, ValueError)
    assert "holds a run already" in str(again.exception)
    said(export_run, saved, "-o", out, "--force")
    itself = call(export_run, saved, "-o", saved, "--force")
    assert "holds a run already" in str(itself.exception)


@pytest.fixture
def as_built_in(saved, tmp_path, monkeypatch) -> str:
    """The name of a built-in run, in a folder without one of that name."""
    said(export_run, saved, "-o", tmp_path / "models" / "chambers")
    monkeypatch.setattr(built_in, "MODELS", tmp_path / "models")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return "chambers"


def test_commands_take_a_built_in_run_by_its_name(as_built_in, tmp_path):
    write_scan(ROOM, "scan.ply")
    assert "points" in said(label, as_built_in, "scan.ply", "-o", "out.ply")
    assert read_scan("out.ply").labels is not None
    assert "mean over classes" in said(evaluate, as_built_in, "scan.ply", "--votes", 1)
    words = " ".join(said(info, as_built_in).split())
    assert "network CellUNet" in words
    assert isinstance(load_run(as_built_in), Run)


def test_a_folder_of_that_name_comes_first(as_built_in, tmp_path):
    (tmp_path / "here" / as_built_in).mkdir()
    with pytest.raises(FileNotFoundError, match="it hides the built-in run of this name"):
        load_run(as_built_in)
    with pytest.raises(FileNotFoundError, match=r"none is no run: .* which 'train' writes$"):
        load_run("none")
