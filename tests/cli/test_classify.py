from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import pointwise.networks
from pointwise.cli.classify import classify
from pointwise.cli.label import label
from pointwise.cli.train_clouds import CloudTraining
from pointwise.networks import MobileNetV1
from pointwise.training.classes import Classes
from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.run import Run, save_run, save_weights
from pointwise.training.sources import Data

NAMES = ("dark", "bright", "a name that is so long that no table of eighty columns can hold it")


class ByBrightness(nn.Module):
    """Class 1 the likelier the brighter the image is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([-1.0, 1.0, 0.0]))

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None] * self.weight


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.setattr(pointwise.networks, "ByBrightness", ByBrightness, raising=False)
    recipe = ImageRecipe(Classes((0, 1, 2), NAMES), (8, 8), (127.5,) * 3, (127.5,) * 3)
    run = Run(recipe, ByBrightness(), {})
    save_run(run, tmp_path / "run")
    save_weights(run, tmp_path / "run")
    return tmp_path / "run"


def image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 20, 3), value, np.uint8)).save(path)
    return path


def call(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


def run(*arguments):
    return call(classify, *arguments)


def test_images_and_folders(trained, tmp_path):
    long = "an-image-with-a-name-that-is-longer-than-its-column.png"
    files = image(tmp_path / "night.png", 0), image(tmp_path / "more" / long, 255).parent
    result = run(trained, *files)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 80
    first = next(line for line in lines if line.startswith("night.png"))
    assert "dark" in first
    assert f"{100 * float(torch.tensor([1.0, -1, 0]).softmax(0)[0]):.1f} %" in first
    assert any(line.startswith("an-image") and "bright" in line for line in lines)


def test_json(trained, tmp_path):
    result = run(trained, image(tmp_path / "a [x].png", 255), "--json", "--top", 2)
    assert result.exit_code == 0, result.output
    ((found),) = json.loads(result.output)
    assert found["image"] == "a [x].png"
    assert [(one["class"], one["index"]) for one in found["top"]] == [("bright", 1), (NAMES[2], 2)]
    expected = torch.tensor([-1.0, 1, 0]).softmax(0)
    assert [one["probability"] for one in found["top"]] == pytest.approx(
        [float(expected[1]), float(expected[2])], abs=1e-6
    )


def test_a_network_with_weights(tmp_path):
    torch.save(MobileNetV1(classes=3, width=0.25).state_dict(), tmp_path / "w.pth")
    (tmp_path / "names.txt").write_text("x\ny\nz\n")
    result = run("MobileNetV1", image(tmp_path / "a.png", 9), "--json", "--size", 32,
                 "--weights", tmp_path / "w.pth", "--labels", tmp_path / "names.txt")  # fmt: skip
    assert result.exit_code == 0, result.output
    ((found),) = json.loads(result.output)
    assert {one["class"] for one in found["top"]} == {"x", "y", "z"}
    assert sum(one["probability"] for one in found["top"]) == pytest.approx(1, abs=1e-5)


def refused(*arguments):
    result = run(*arguments)
    assert isinstance(result.exception, (ValueError, OSError)), result.output
    return str(result.exception)


def test_what_goes_wrong(trained, tmp_path):
    picture = image(tmp_path / "a.png", 9)
    assert "no folder MobileNetV1; for a network of pointwise.networks, give its weights" in (
        refused("MobileNetV1", picture)
    )
    assert "--labels goes with --weights" in refused(trained, picture, "--labels", picture)
    assert "nowhere.png does not exist" in refused(trained, tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("text")
    assert "text.png: is no image that can be read" in refused(trained, tmp_path / "text.png")
    assert "no network is called 'Net'" in refused("Net", picture, "--weights", picture)


def test_runs_of_clouds_and_of_images_are_told_apart(trained, tmp_path):
    picture = image(tmp_path / "a.png", 9)
    result = call(label, trained, picture, "-o", tmp_path / "out.ply")
    assert f"trained on images; use: pointwise classify {trained} IMAGE" in str(result.exception)
    described = json.loads((trained / "run.json").read_text())
    features = {"names": ["one"], "widths": [1], "centre": [0.0], "scale": [1.0]}
    described["recipe"] = {
        "task": "segmentation", "classes": described["recipe"]["classes"], "features": features,
        "block": 1.0, "margin": 0.1, "most": 10,
    }  # fmt: skip
    (trained / "run.json").write_text(json.dumps(described))
    assert "was trained on point clouds; use: pointwise label" in refused(trained, picture)


@pytest.mark.parametrize(
    ("task", "command"),
    [("classification", "pointwise classify run CLOUD"),
     ("segmentation", "pointwise label run SCAN -o OUT")],
)  # fmt: skip
def test_training_on_clouds_names_the_command_for_its_run(task, command):
    training = CloudTraining.__new__(CloudTraining)
    training.data = Data(task, [], [], [])
    assert training.next_step(Path("run"))[1] == command
