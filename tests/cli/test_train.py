from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import pointwise.networks
from pointwise.cli.train import train
from pointwise.cloud.files import write_scan
from pointwise.cloud.scan import Scan
from pointwise.training.run import load_run


class EachPoint(nn.Module):
    def __init__(self, in_channels: int, classes: int, cell_size: float) -> None:
        super().__init__()
        self.layer = nn.Linear(in_channels, classes)

    def forward(self, points, features, offsets):
        return self.layer(features)


class EachCloud(EachPoint):
    def forward(self, points, features, offsets):
        each = self.layer(features).split(offsets.diff().tolist())
        return torch.stack([rows.mean(dim=0) for rows in each])


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    for network in (EachPoint, EachCloud):
        monkeypatch.setattr(pointwise.networks, network.__name__, network, raising=False)


@pytest.fixture
def scene(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0, 0), (30, 10, 0.1), size=(3000, 3))
    labels = (rng.random(3000) < 0.3).astype(np.int64) + 4
    points[labels == 5, 2] += 3.0
    classes = {4: "road", 5: "tree", 6: "river"}
    path = tmp_path / "scene.npz"
    write_scan(Scan(points, labels=labels, classes=classes), path)
    return path


def run(*arguments):
    app = typer.Typer()
    app.command()(train)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


def test_a_file_is_learned_and_tested(scene, tmp_path):
    out = tmp_path / "run"
    result = run(
        scene, "-o", out, "--network", "EachPoint", "--epochs", 6, "--learning-rate", 0.1
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {
        "overall_accuracy",
        "mean_class_accuracy",
        "mean_iou",
        "iou",
        "counts",
        "parameters",
        "seconds",
    }  # fmt: skip
    assert metrics["overall_accuracy"] > 0.9
    assert metrics["parameters"] == 4
    assert set(metrics["iou"]) == {"road", "tree"}
    assert sum(metrics["counts"].values()) >= 750
    command = f"  pointwise label {out} SCAN -o OUT"
    for text in ("road", "tree", "height", "mean over classes", command):
        assert text in result.output
    assert f"{100 * metrics['mean_iou']:.1f} %" in result.output
    assert max(len(line) for line in result.output.splitlines() if line != command) <= 80
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    load_run(out)


def test_folders_of_classes(tmp_path):
    rng = np.random.default_rng(0)
    for name, height in (("flat", 0.1), ("tall", 5.0)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(8):
            points = rng.uniform(-1, 1, size=(50, 3)) * (1, 1, height)
            write_scan(Scan(points), tmp_path / "data" / name / f"{i}.ply")
    out = tmp_path / "run"
    result = run(
        tmp_path / "data", "-o", out, "--network", "EachCloud", "--epochs", 2, "--cell-size", 0.3
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads((out / "metrics.json").read_text())["counts"] == {"flat": 2, "tall": 2}
    described = json.loads((out / "run.json").read_text())
    assert described["arguments"]["cell_size"] == 0.3
    assert described["options"]["epochs"] == 2


def test_an_interrupted_training_says_how_to_go_on_and_does(scene, tmp_path, monkeypatch):
    from pointwise.training import data
    from pointwise.training.module import TrainingModule

    monkeypatch.setattr(data, "FEWEST", 16)
    step = TrainingModule.training_step

    def interrupted(self, batch, number):
        if self.global_step == 20:
            raise KeyboardInterrupt
        return step(self, batch, number)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupted)
        result = run(scene, "-o", out, "--network", "EachPoint", "--epochs", 3, "--block", 8)
    assert result.exit_code == 130
    assert f"pointwise train --resume {out}" in result.output
    assert not (out / "metrics.json").exists()
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 20

    result = run("--resume", out)
    assert result.exit_code == 0, result.output
    state = torch.load(out / "last.ckpt", weights_only=True)
    assert state["global_step"] == 3 * 16
    assert (out / "metrics.json").exists()

    done = run("--resume", out)
    assert "has done its 3 epochs; give more with --epochs" in str(done.exception)
    assert run("--resume", out, "--epochs", 4).exit_code == 0
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 4 * 16


def test_a_run_is_not_overwritten(scene, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    result = run(scene, "-o", tmp_path)
    assert isinstance(result.exception, ValueError)
    assert "holds a run already; choose another --out, or --resume" in str(result.exception)
    assert (tmp_path / "run.json").read_text() == "{}"


def test_nothing_given():
    assert "give DATA (rooms, files or folders), or --resume RUN" in str(run().exception)


def test_resumption_takes_its_own_data(scene, tmp_path):
    result = run(scene, "--resume", tmp_path)
    assert "--resume takes the run's own data; leave DATA away" in str(result.exception)


def test_unknown_network(scene, tmp_path):
    result = run(scene, "-o", tmp_path / "run", "--network", "PointNet")
    assert "no network is called 'PointNet'; there are" in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_the_folder_follows_the_data(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "scene").mkdir(parents=True)
    result = run(scene, "--network", "EachPoint", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "scene-2" / "weights.pt").exists()
