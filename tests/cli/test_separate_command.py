from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from pointwise.cli.classify import classify
from pointwise.cli.separate import separate
from pointwise.cli.train import train
from pointwise.networks import CellUNet, MobileNetV1
from pointwise.separation import separate_as
from pointwise.training.classes import Classes
from pointwise.training.features import Features
from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.recipe import Recipe
from pointwise.training.run import Run, load_run, save_run, save_weights

ARGUMENTS = {"width": 0.25, "convolution": "standard", "stem_stride": 1}
MADE = [f"{name}={value}" for name, value in ARGUMENTS.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on images with classes, which are sorted by class as in many files."""
    home = tmp_path_factory.mktemp("separate")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    images = rng.integers(0, 120, size=(60, 16, 16, 3)) + 100 * labels[:, None, None, None]
    np.savez(home / "images.npz", images=images.astype(np.uint8), labels=labels)
    recipe = ImageRecipe(Classes((0, 1), ("0", "1")), (16, 16), (127.5,) * 3, (60.0,) * 3)
    torch.manual_seed(0)
    arguments = {"in_channels": 3, "classes": 2, **ARGUMENTS}
    network = MobileNetV1(**arguments)
    with torch.no_grad():
        network.train()(torch.randn(16, 3, 16, 16))  # statistics of its own
    options = {"data": [str(home / "images.npz")], "batch": 16}
    run = Run(recipe, network.eval(), arguments, options)
    save_run(run, home / "run")
    save_weights(run, home / "run")
    return home


def call(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


def run(*arguments):
    result = call(separate, *arguments)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


@pytest.mark.slow
def test_a_run_is_separated_tested_and_kept(folder, tmp_path):
    out = tmp_path / "out"
    text = run(folder / "run", "--budget", 0.3, "-o", out, "--json", tmp_path / "a.json")
    command = f"  pointwise classify {out} IMAGE"
    lines = [line for line in text.splitlines() if line != command and "Mobile" not in line]
    assert max(map(len, lines[1:])) <= 80
    for words in ("36 training images to fit to, 16 test images to compare outputs on",
                  "Accuracy on the test part (16 images)", "  before ", "  separated ", command,
                  "timed on 1 image of 3×16×16"):  # fmt: skip
        assert words in text
    found = json.loads((tmp_path / "a.json").read_text())
    before, after = found["totals"]["multiply_adds"]
    assert after <= 0.3 * before
    assert set(found["accuracy"]) == {"before", "separated"}
    ranks = {row["name"]: row["rank"] for row in found["layers"] if row["rank"] is not None}
    kept = load_run(out)
    assert kept.separated == ranks != {}
    assert sum(p.numel() for p in kept.network.parameters()) == found["totals"]["parameters"][1]
    assert (folder / "run" / "run.json").read_text().count("separated") == 0
    image = tmp_path / "image.npz"
    np.savez(image, images=np.full((1, 16, 16, 3), 200, np.uint8))
    shown = call(classify, out, image, "--json")
    assert shown.exit_code == 0, shown.output
    # The rest of it, later.
    run(out, "--rank", 1, "-o", tmp_path / "more")
    more = load_run(tmp_path / "more").separated
    assert len(more) == 14
    assert more == dict.fromkeys(more, 1) | ranks
    assert "Nothing was separated" in run(tmp_path / "more", "--rank", 1)


@pytest.mark.slow
def test_fine_tuning_goes_through_training_and_can_go_on(folder, tmp_path):
    out = tmp_path / "tuned"
    text = run(folder / "run", "--rank", 1, "--finetune", 1, "-o", out, "--learning-rate", 0.01)
    assert "fine-tuned" in text
    assert "(1 epoch, " in text
    names = {"run.json", "best.ckpt", "last.ckpt", "weights.pt", "metrics.json", "confusion.png"}
    assert names <= {path.name for path in out.iterdir()}
    described = json.loads((out / "run.json").read_text())
    assert described["options"]["epochs"] == 1
    assert described["options"]["learning_rate"] == 0.01
    assert set(described["separated"].values()) == {1}
    steps = torch.load(out / "last.ckpt", weights_only=True)["global_step"]
    more = call(train, "--resume", out, "--epochs", 2)
    assert more.exit_code == 0, more.output
    state = torch.load(out / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2 * steps > 0
    # A checkpoint is as good as the folder.
    assert "Nothing was separated" in run(out / "best.ckpt", "--rank", 1)
    again = call(separate, folder / "run", "--rank", 1, "-o", out)
    assert f"{out} holds a run already; choose another --out" in str(again.exception)


def test_without_its_images_a_run_is_compared_on_noise(folder, tmp_path):
    described = json.loads((folder / "run" / "run.json").read_text())
    described["options"]["data"] = [str(tmp_path / "gone.npz")]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    weights = (folder / "run" / "weights.pt").read_bytes()
    (tmp_path / "run" / "weights.pt").write_bytes(weights)
    text = run(tmp_path / "run", "--rank", 2, "--input", "2x3x16x16")
    assert "no images: outputs are compared on noise" in text
    assert "timed on 2 images of 3×16×16" in text
    assert "Accuracy" not in text
    with_data = run(tmp_path / "run", "--rank", 2, "--data", folder / "images.npz")
    assert "Accuracy on the test part" in with_data
    only_weights = run(tmp_path / "run", "--rank", 2, "--data", folder / "images.npz", "--fit", 0)
    assert "nothing is fitted; 16 test images to compare outputs on" in only_weights


@pytest.mark.slow
def test_a_network_of_ours_and_a_file_of_weights(folder, tmp_path):
    out = tmp_path / "weights.pt"
    options = [f"--set={each}" for each in (*MADE, "classes=2")]
    text = run("MobileNetV1", *options, "--input", "1x3x16x16", "--error", 0.6, "-o", out)
    assert f"Ranks and weights are in {out}" in text.replace("\n", "")
    kept = torch.load(out, weights_only=True)
    network = separate_as(MobileNetV1(classes=2, **ARGUMENTS), kept["separated"])
    network.load_state_dict(kept["weights"])
    assert set(kept["separated"]) <= {f"blocks.{i}.conv" for i in range(13)} | {"stem.conv"}
    # With weights of its own, on images without classes.
    torch.save(MobileNetV1(classes=2, **ARGUMENTS).state_dict(), tmp_path / "own.pth")
    text = run("MobileNetV1", *options[1:-1], "--weights", tmp_path / "own.pth", "--input",
               "1x3x224x224", "--data", folder / "images.npz", "--fit", 8, "--rank", 1)  # fmt: skip
    assert "8 images to fit to, 15 other images to compare outputs on" in text
    assert "Accuracy" not in text


def test_a_function_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def small(channels=16):\n"
        "    first, last = nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, 1)\n"
        "    return nn.Sequential(first, nn.ReLU(), last)\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    text = run("mine.py:small", "--set", "channels=24", "--input", "4x3x20x20", "--only-faster",
               "--rank", 1)  # fmt: skip
    assert "timed on 4 images of 3×20×20" in text
    assert "Left alone, pointwise (1×1) already: 2." in text
    with open("mine.py", "a") as file:
        file.write("def both():\n    return small(), nn.Parameter(torch.rand(2, 3, 20, 20))\n")
        file.write("import torch\n")
    assert "timed on 2 images of 3×20×20" in run("mine.py:both", "--rank", 1)
    half = run("mine.py:small", "--input", "1x3x20x20")  # half of the multiply-adds
    assert "0/9" not in half
    assert "/9" in half


def refused(*arguments):
    result = call(separate, *arguments)
    assert isinstance(result.exception, (ValueError, OSError)), result.output
    return str(result.exception)


def test_what_goes_wrong(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    its = folder / "run"
    assert "there are CellPyramid, CellUNet" in refused("MobileNetV9")
    assert "one of error, budget and rank" in refused(its, "--rank", 1, "--error", 0.1)
    assert "MobileNetV1 reads images of 3x16x16, --input is 1x3x32x32" in (
        refused(its, "--input", "1x3x32x32")
    )
    assert "images, channels, height and width, as in 1x3x224x224, got 16x16" in (
        refused("MobileNetV1", "--input", "16x16")
    )
    assert "--input takes sizes such as 1x3x224x224" in refused("MobileNetV1", "--input", "big")
    assert "of must be one of" in refused(its, "--budget", 0.5, "--of", "flops")
    assert "--finetune needs a run of 'pointwise train' on images, and MobileNetV1 is none" in (
        refused("MobileNetV1", "--finetune", 3)
    )
    assert "is a file of weights, FILE.pt, got here" in refused("MobileNetV1", "-o", "here")
    assert "there is no folder nowhere for a.pt" in refused("MobileNetV1", "-o", "nowhere/a.pt")
    assert "there is no folder nowhere for a.json" in refused(its, "--json", "nowhere/a.json")
    (tmp_path / "taken").write_text("")
    assert "taken is a file, and a run is a folder" in refused(its, "-o", "taken")
    assert "is a run and knows its own arguments; omit --set" in refused(its, "--set", "width=2")
    assert "does not exist" in refused(its, "--data", "nowhere")
    (tmp_path / "text.txt").write_text("no model")
    assert "text.txt does not lie in the folder of a run" in refused("text.txt")
    (tmp_path / "mine.py").write_text("number = 3\n")
    assert "say which function or class of mine.py" in refused("mine.py")
    assert "mine.py has no 'small'" in refused("mine.py:small")
    (tmp_path / "line.py").write_text("from torch import nn\nline = nn.Linear(3, 3)\n")
    assert "Linear has no torch.nn.Conv2d in it" in refused("line.py:line")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, size=(12, 16, 16, 3)).astype(np.uint8)
    np.savez("others.npz", images=pixels, labels=np.repeat(["cat", "dog"], 6))
    message = refused(its, "--rank", 1, "--data", "others.npz")
    assert "others.npz has none of the classes of" in message
    np.savez("few.npz", images=pixels[:3])
    assert "few.npz has 3 images; 8 are needed at least" in (
        refused("MobileNetV1", "--data", "few.npz")
    )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text((its / "run.json").read_text())
    (tmp_path / "broken" / "best.ckpt").write_text("nothing")
    assert "best.ckpt is no checkpoint of a training" in refused("broken/best.ckpt")


def test_clouds_are_refused(tmp_path):
    arguments = {"in_channels": 1, "classes": 2, "cell_size": 0.1}
    features = Features(("height",), (1,), (0.0,), (1.0,))
    recipe = Recipe("segmentation", Classes((0, 1), ("a", "b")), features, 1.0, 0.1, 100)
    run = Run(recipe, CellUNet(**arguments), arguments)
    save_run(run, tmp_path / "run")
    save_weights(run, tmp_path / "run")
    for model in (tmp_path / "run", "CellUNet"):
        assert "is for point clouds, and only convolutions on images are separated" in (
            refused(model)
        )


def test_runs_keep_their_ranks_and_broken_ones_say_so(folder, tmp_path):
    described = json.loads((folder / "run" / "run.json").read_text())
    described["separated"] = {"stem.conv": 2, "nowhere": 1}
    (tmp_path / "run.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"run.json: separate_as: no convolution is called 'now"):
        load_run(tmp_path)
