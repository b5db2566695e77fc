from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import pointwise.networks
from pointwise import cli
from pointwise.cli.train import train
from pointwise.cli.train_clouds import CloudTraining
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


@pytest.mark.slow
def test_a_file_is_learned_and_tested(scene, tmp_path):
    out = tmp_path / "run"
    result = run(
        scene, "-o", out, "--network", "EachPoint", "--steps", 700, "--learning-rate", 0.1
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {
        "overall_accuracy",
        "mean_class_accuracy",
        "mean_iou",
        "iou",
        "recall",
        "precision",
        "counts",
        "confusion",
        "parameters",
        "steps",
        "seconds",
    }  # fmt: skip
    assert metrics["overall_accuracy"] > 0.9
    assert metrics["parameters"] == 4
    assert set(metrics["iou"]) == {"road", "tree"}
    assert sum(metrics["counts"].values()) >= 750
    counts = np.array(metrics["confusion"]["counts"])
    assert counts.sum(1).tolist() == list(metrics["counts"].values())
    page = (out / "test.html").read_text(encoding="utf-8")
    assert f"{100 * metrics['mean_iou']:.1f} %" in page
    assert "1 scan, the one with the largest share of errors first" in page
    command = f"  pointwise label {out} SCAN -o OUT"
    for text in ("road", "tree", "height", "mean over classes", command):
        assert text in result.output
    assert f"{100 * metrics['mean_iou']:.1f} %" in result.output
    assert max(len(line) for line in result.output.splitlines() if line != command) <= 80
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    load_run(out)


@pytest.fixture
def ctrl_c():
    """Ctrl-C as on a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_final_test_that_is_cut_short_is_made_up_for(name, scene, tmp_path, monkeypatch, capsys):
    number = getattr(signal, name)
    whole, out = tmp_path / "whole", tmp_path / "run"
    words = ["pointwise", "train", scene, "--network", "EachPoint", "--steps", 3]
    tested = CloudTraining.evaluate

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", [str(each) for each in arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    def told(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(10)

    assert command(*words, "-o", whole) in (0, None)
    monkeypatch.setattr(CloudTraining, "evaluate", told)
    capsys.readouterr()
    assert command(*words, "-o", out) == 128 + number
    said, errors = capsys.readouterr()
    making_up = f"evaluate {out} --json {out / 'metrics.json'} --html {out / 'test.html'}"
    (line,) = [line for line in said.splitlines() if "cut short" in line]
    assert line.endswith(f"pointwise {making_up}")
    assert "--resume" not in said
    assert errors.count("pointwise: ") == 1
    assert not (out / "metrics.json").exists()
    load_run(out)

    monkeypatch.setattr(CloudTraining, "evaluate", tested)
    assert command("pointwise", *making_up.split()) in (0, None)
    made_up, at_once = (json.loads((f / "metrics.json").read_text()) for f in (out, whole))
    assert made_up["confusion"] == at_once["confusion"]
    assert made_up["data"] == "its test part"
    assert (out / "test.html").exists()

    # Scores of the weights before are not left beside the new ones.
    monkeypatch.setattr(CloudTraining, "evaluate", told)
    assert command("pointwise", "train", "--resume", out, "--steps", 5) == 128 + number
    assert "cut short" in capsys.readouterr().out
    assert not (out / "metrics.json").exists()
    assert not (out / "test.html").exists()


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
    assert "4 clouds with a true class" in (out / "test.html").read_text(encoding="utf-8")
    described = json.loads((out / "run.json").read_text())
    assert described["arguments"]["cell_size"] == 0.3
    assert described["options"]["epochs"] == 2


def test_scans_in_files_teach_the_same_and_are_read_once(scene, tmp_path, monkeypatch):
    from pointwise.training import data, sources

    monkeypatch.setattr(data, "FEWEST", 16)
    read, files = sources.read_clouds, []

    def counted(file, columns=None):
        files.append(file)
        return read(file, columns)

    monkeypatch.setattr(sources, "read_clouds", counted)
    weights = []
    for name, more in (("here", ()), ("there", ("--cache", tmp_path / "cache"))):
        out = tmp_path / name
        result = run(scene, "-o", out, "--network", "EachPoint", "--epochs", 1, *more)
        assert result.exit_code == 0, result.output
        weights.append(torch.load(out / "weights.pt", weights_only=True))
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
    assert files == [scene, scene]  # once for each of the two
    resumed = run("--resume", tmp_path / "there", "--epochs", 2)
    assert resumed.exit_code == 0, resumed.output
    assert files == [scene, scene]
    assert json.loads((tmp_path / "there" / "run.json").read_text())["options"]["cache"] == str(
        tmp_path / "cache"
    )
    digits = run("digits", "--cache", tmp_path / "cache")
    assert "--cache is not for images" in str(digits.exception)


def test_more_scans_than_memory_holds_are_said(scene, monkeypatch, tmp_path):
    from pointwise.cli import train_clouds
    from pointwise.training.options import Options

    monkeypatch.setattr(train_clouds, "_memory_of_machine", lambda: 4.0 * scene.stat().st_size)
    assert train_clouds._too_much([scene]) == ""
    with pytest.warns(UserWarning, match=r"^the data are .* GB in files, and .* --cache FOLDER"):
        train_clouds.CloudTraining(Options([str(scene)], test=[str(scene)]), lambda _: None)


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
        result = run(scene, "-o", out, "--network", "EachPoint", "--steps", 3 * 16, "--block", 8)
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
    assert "has done its 48 steps; give more with --steps" in str(done.exception)
    assert run("--resume", out, "--steps", 4 * 16).exit_code == 0
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 4 * 16


def test_a_run_is_not_overwritten(scene, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    result = run(scene, "-o", tmp_path)
    assert isinstance(result.exception, ValueError)
    assert "holds a run already; choose another --out, or --resume" in str(result.exception)
    assert (tmp_path / "run.json").read_text() == "{}"


def test_nothing_given():
    assert "give DATA (rooms, digits, files or folders), or --resume RUN" in str(run().exception)


def test_resumption_takes_its_own_data(scene, tmp_path):
    result = run(scene, "--resume", tmp_path)
    assert "--resume takes the run's own data; leave out DATA" in str(result.exception)


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


class EachImage(nn.Module):
    def __init__(self, in_channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, round(8 * width), 3, 2, 1), nn.ReLU(), nn.Flatten(1)
        )
        self.head = nn.LazyLinear(classes)
        self(torch.zeros(1, in_channels, 12, 12))

    def forward(self, images):
        return self.head(self.layers(images))


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setattr(pointwise.networks, "EachImage", EachImage, raising=False)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 100, size=(80, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(80) % 2
    pixels[labels == 1, 4:8] += 120  # a bright band
    path = tmp_path / "bands.npz"
    np.savez(path, images=pixels, labels=labels, classes=["plain", "band"])
    return path


def test_images_are_learned_and_tested(images, tmp_path):
    out = tmp_path / "run"
    result = run(images, "-o", out, "--network", "EachImage", "--set", "width=0.5",
                 "--epochs", 8, "--batch", 8, "--flip", "--rotate", 5)  # fmt: skip
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["overall_accuracy"] > 0.9
    assert metrics["counts"] == {"plain": 10, "band": 10}
    assert "20 images with a true class" in (out / "test.html").read_text(encoding="utf-8")
    command = f"  pointwise classify {out} IMAGE"
    for text in ("12 × 12 pixels", "plain", "band", "images", command):
        assert text in result.output
    assert "IoU" not in result.output
    assert max(len(line) for line in result.output.splitlines() if line != command) <= 80
    described = json.loads((out / "run.json").read_text())
    assert described["arguments"] == {"in_channels": 3, "classes": 2, "width": 0.5}
    assert described["options"]["flip"] is True
    assert described["recipe"]["task"] == "images"
    load_run(out)
    again = run("--resume", out, "--epochs", 9)
    assert again.exit_code == 0, again.output


def test_width_is_an_argument_of_the_network(images, tmp_path):
    out = tmp_path / "run"
    result = run(images, "-o", out, "--network", "EachImage", "--width", 0.25, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert json.loads((out / "run.json").read_text())["arguments"]["width"] == 0.25


def test_options_of_the_other_kind(images, scene, tmp_path):
    for data, option, value, kind in (
        (images, "--cell-size", 0.1, "images"),
        (images, "--features", "xyz", "images"),
        (scene, "--size", 32, "clouds"),
        (scene, "--width", 0.5, "clouds"),
    ):
        result = run(data, "-o", tmp_path / "run", option, value)
        assert f"{option} is not for {kind}, and these are {kind}" in str(result.exception)
    result = run(images, "-o", tmp_path / "run", "--task", "segmentation")
    assert "there is no --task segmentation for them" in str(result.exception)
    mixed = run(images, "-o", tmp_path / "run", "--test", scene)
    assert "clouds and images cannot be learned together" in str(mixed.exception)


@pytest.mark.parametrize("text", ["width", "=3", "a b=3"])
def test_set_needs_a_name_and_a_value(images, tmp_path, text):
    result = run(images, "-o", tmp_path / "run", "--set", text)
    assert f"--set takes NAME=VALUE, such as width=0.25, got {text!r}" in str(result.exception)


def test_values_are_numbers_or_words():
    from pointwise.cli.network_arguments import network_arguments

    given = ["a=0.25", "b=3", "c=true", "d=standard", "e=[1, 2]", "f=x=y", "g="]
    assert network_arguments(given) == {
        "a": 0.25, "b": 3, "c": True, "d": "standard", "e": [1, 2], "f": "x=y", "g": "",
    }  # fmt: skip
    assert network_arguments(None) == {}


@pytest.mark.rare
def test_photographs_of_hands(shared_data, tmp_path):
    """MobileNetV1 ×0.25 tells the ten signs apart; the whole of it in a minute or two."""
    out = tmp_path / "run"
    result = run(shared_data / "image_classes/signdigits64.npz", "-o", out,
                 "--width", 0.25, "--epochs", 20)  # fmt: skip
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["overall_accuracy"] >= 0.95
    assert metrics["parameters"] == 215_642


def test_a_field_that_only_some_clouds_have(tmp_path):
    """Left out with a line; with --optional learned where it is, and done without elsewhere."""
    rng = np.random.default_rng(0)
    for i in range(4):
        labels = rng.integers(0, 2, 400)
        points = rng.uniform(0, 5, size=(400, 3)) * (1, 1, 0.1) + np.outer(labels, (0, 0, 2))
        fields = {"intensity": rng.random(400).astype(np.float32)} if i else {}
        scan = Scan(points, fields=fields, labels=labels)
        (tmp_path / "data").mkdir(exist_ok=True)
        write_scan(scan, tmp_path / "data" / f"{i}.ply")
    for optional in ((), ("--optional", "intensity")):
        out = tmp_path / f"run{len(optional)}"
        result = run(tmp_path / "data", "-o", out, "--network", "EachPoint", "--epochs", 1,
                     "--cell-size", 0.3, *optional)  # fmt: skip
        assert result.exit_code == 0, result.output
        names = load_run(out).recipe.features.names
        said = " ".join(result.output.split())
        if optional:
            assert names == ("intensity", "height")
            assert "optional intensity" in said
            assert "left out" not in said
        else:
            assert names == ("height",)
            assert "left out intensity, which" in said
            assert "--optional intensity takes it from the others" in said


def test_a_training_starts_from_another_run(scene, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    learned = run(scene, "-o", first, "--network", "EachPoint", "--steps", 2)
    assert learned.exit_code == 0, learned.output
    result = run(scene, "--from", first, "-o", second, "--map", "4=street", "--steps", 1)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "network EachPoint" in words
    assert (
        "taken 2 of 4 weights taken features height taken classes tree fresh classes street"
        in words
    )
    described = json.loads((second / "run.json").read_text())
    assert described["options"]["start"] == str(first)
    assert "fresh: classes street" in described["notes"]
    resumed = run("--resume", second, "--steps", 2)
    assert resumed.exit_code == 0, resumed.output
    assert json.loads((second / "metrics.json").read_text())["steps"] == 2
    refused = run("--resume", second, "--from", first)
    assert "leave out --from" in str(refused.exception)
    nowhere = run(scene, "--from", tmp_path / "nowhere", "-o", tmp_path / "third")
    assert "is no run" in str(nowhere.exception)
    assert not (tmp_path / "third").exists()
