"""``pointwise profile`` by hand: what it shows, what it writes, what it refuses."""

from __future__ import annotations

import json
import re
import shlex
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pointwise.cli.profile import profile
from pointwise.costs import machine, measure
from pointwise.costs.machine import Machine
from pointwise.networks import MobileNetV1
from pointwise.timing import Watch
from pointwise.training.classes import Classes
from pointwise.training.image_recipe import ImageRecipe
from pointwise.training.run import Run, save_run, save_weights

ROOT = Path(__file__).parents[2]
TOY = Machine("a processor", 2, 100.0, 10.0, caches=((2**17, 50.0), (2**20, 40.0)))
OWN = """
import torch
from torch import nn

from neighbour import CHANNELS


class Network(nn.Module):
    def __init__(self, width=1):
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, 4 * width, 3)

    def forward(self, x):
        return self.conv(x).relu()


def words():
    return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))


def needs(width):
    return Network(width)


ready = Network(2)
number = 3
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(machine, "measured", lambda *args, **options: TOY)
    monkeypatch.setattr(measure, "_call_ms", lambda: 0.002)
    monkeypatch.setattr(measure, "_launch_ms", lambda: 0.005)
    monkeypatch.setattr(measure, "_contradiction", lambda *given: "")  # by other tests' load


@pytest.fixture
def own(tmp_path):
    (tmp_path / "neighbour.py").write_text("CHANNELS = 2\n")
    (tmp_path / "own.py").write_text(OWN)
    yield tmp_path / "own.py"
    sys.modules.pop("neighbour", None)


def run(*arguments):
    app = typer.Typer()
    app.command()(profile)
    rounds = [] if "--rounds" in arguments else ["--rounds", "1"]
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [*map(str, arguments), *rounds])


def shown(*arguments) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, f"{result.output}\n{result.exception}"
    assert max(map(len, result.output.splitlines())) <= 80
    return result.output


SMALL = ("MobileNetV1", "--set", "width=0.25", "--set", "classes=10", "--input", "1x3x64x64")


def test_layers_in_order():
    output = shown(*SMALL)
    assert "MobileNetV1, 1x3x64x64: " in output
    assert "a processor, 2 threads: 100 GFLOP/s, 10 GB/s" in output
    names = re.findall(r"^(\S.*?)  ", output, re.MULTILINE)
    assert [name for name in names if name.startswith("blocks.")][:2] == ["blocks.0", "blocks.1"]
    assert "stem" in names
    assert "The layers take" in output
    assert "Far from their rooflines" in output


def test_a_busy_machine_gives_no_verdict(monkeypatch):
    why = "other programs use 1.4 of its 2 processors"
    monkeypatch.setattr(Watch, "busy", lambda self, *times: why)
    output = shown(*SMALL)
    flat = " ".join(output.split())
    assert f"This machine is busy: {why}." in flat
    assert "Far from" not in output
    assert "rooflines" not in output
    line = next(line for line in output.splitlines() if line.startswith("blocks.0"))
    assert line.split()[-2:] == ["–", "–"]


def test_a_deep_network_shows_layers_alike_together():
    deep = ("ResNet50", "--set", "classes=10", "--input", "1x3x32x32")
    output = shown(*deep)
    assert re.search(r"^layer3\.1-5\.conv2 ×5 +standard ", output, re.MULTILINE)
    assert "×: so many layers alike, and their times together; --each shows each" in output
    each = shown(*deep, "--each")
    assert "×" not in each
    assert re.search(r"^layer3\.4\.conv2 +standard ", each, re.MULTILINE)


def test_layers_sorted_and_few_of_them():
    output = shown(*SMALL, "--sort", "multiply_adds", "--top", "3")
    table = output.split("─\n")[1].split("\nand ")[0]
    millions = [float(cell) for cell in re.findall(r"([\d.]+) M ", table)]
    assert millions == sorted(millions, reverse=True)
    assert re.search(r"^and \d+ more layers$", output, re.MULTILINE)


def test_the_tree():
    output = shown(*SMALL, "--tree")
    assert re.search(r"^\(MobileNetV1\) +MobileNetV1 .* 100\.0 ", output, re.MULTILINE)
    assert re.search(r"^    0 +DepthwiseSepa", output, re.MULTILINE)


def test_threads_are_set_for_the_measurement_only(own):
    before = torch.get_num_threads()
    assert "Network, 1x2x8x8" in shown(f"{own}:Network", "-i", "1x2x8x8", "--threads", "1")
    assert torch.get_num_threads() == before


def test_files_of_ones_own(own):
    assert " 76 parameters" in shown(f"{own}:Network", "-i", "1x2x8x8")
    assert " 152 parameters" in shown(f"{own}:Network", "-i", "1x2x8x8", "--set", "width=2")
    assert " 152 parameters" in shown(f"{own}:ready", "-i", "1x2x8x8")
    assert " 76 parameters" in shown(f"{own}:needs", "-i", "1x2x8x8", "--set", "width=1")
    assert "Sequential, 2x5: " in shown(f"{own}:words", "-i", "2x5:int")


def test_runs(tmp_path):
    recipe = ImageRecipe(Classes((0, 1), ("a", "b")), (48, 64), (127.5,) * 3, (127.5,) * 3)
    trained = Run(recipe, MobileNetV1(classes=2, width=0.25), {"classes": 2, "width": 0.25})
    save_run(trained, tmp_path / "run")
    save_weights(trained, tmp_path / "run")
    assert "MobileNetV1, 1x3x48x64: " in shown(tmp_path / "run")
    result = run(tmp_path / "run", "--set", "width=1")
    assert "is a run and knows its own arguments" in str(result.exception)


@pytest.mark.slow
def test_files_of_others(tmp_path, own):
    """A program of torch.export has its layers; a function may bring its inputs."""
    net = MobileNetV1(classes=10, width=0.25).eval()
    torch.export.save(torch.export.export(net, (torch.rand(1, 3, 64, 64),)), tmp_path / "n.pt2")
    output = shown(tmp_path / "n.pt2")
    assert "1x3x64x64: " in output
    assert "blocks.0.depthwise.conv" in output
    with zipfile.ZipFile(tmp_path / "n.pt2") as old, \
         zipfile.ZipFile(tmp_path / "foreign.pt2", "w") as new:  # fmt: skip
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, part.replace(b"torch.ops.aten.relu6.default", b"torch.hub.load"))
    refused = str(run(tmp_path / "foreign.pt2").exception)
    assert refused.startswith("profile: ")
    assert "may run code of its own" in refused
    assert refused.endswith("If you trust whoever made it, say --trust")
    assert "--trust" not in str(run(tmp_path / "foreign.pt2", "--trust").exception)
    (tmp_path / "bad.pt2").write_text("nothing")
    assert "profile: " in str(run(tmp_path / "bad.pt2").exception)
    assert "bad.pt2 is no program of torch.export" in str(run(tmp_path / "bad.pt2").exception)
    assert "takes no arguments; omit --set" in str(
        run(tmp_path / "n.pt2", "--set", "width=1").exception
    )
    with own.open("a") as file:
        file.write("\n\ndef both():\n    return Network(3), torch.rand(2, CHANNELS, 5, 6)\n")
    assert "Network, 2x2x5x6: " in shown(f"{own}:both")
    assert "Network, 1x2x8x8: " in shown(f"{own}:both", "-i", "1x2x8x8")


@pytest.mark.slow
def test_onnx_files_by_layers(tmp_path):
    pytest.importorskip("onnxscript")
    runtimes = _runtimes()
    net = MobileNetV1(classes=10, width=0.25).eval()
    (tmp_path / "n.onnx").write_bytes(runtimes.onnx_file(net, torch.rand(1, 3, 64, 64)))
    output = shown(tmp_path / "n.onnx")
    assert "1x3x64x64: " in output
    assert "blocks.0.depthwise.conv" in output


def _runtimes():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import runtimes

    return runtimes


def test_names_of_timm_and_torchvision(monkeypatch):
    """Libraries that are not there are said to be; ones that are make the network."""
    message = str(run("resnet_of_nobody").exception)
    assert "no network is called 'resnet_of_nobody'" in message
    assert "torchvision" in message
    assert "timm" in message

    class Timm:
        is_model = staticmethod(lambda name: name == "tiny")

        @staticmethod
        def create_model(name, width=4):
            made = torch.nn.Sequential(torch.nn.Conv2d(1, width, 3), torch.nn.ReLU())
            made.default_cfg = {"input_size": (1, 8, 9)}
            return made

    monkeypatch.setitem(sys.modules, "timm", Timm)
    for name in ("tiny", "timm:tiny"):
        assert "Sequential, 1x1x8x9: " in shown(name)
    assert " 60 parameters" in shown("tiny", "--set", "width=6")
    assert "tiny of timm cannot be made: " in str(run("tiny", "--set", "deep=6").exception)


def test_clouds_are_points_of_a_room():
    network = ("CellPyramid", "--set", "width=8", "--set", "depths=[1,1]")
    output = shown(*network, "--input", "1500x3")
    assert "CellPyramid, 1,500 points of a room, 3 features each: " in output
    assert "search" in output
    assert "arithmetic not counted: pointwise.cell_search" in " ".join(output.split())
    assert "takes clouds: --input is points x channels" in str(run(*network, "-i", "9").exception)
    assert "takes clouds" in str(run(*network, "-i", "9x4").exception)


def test_json(tmp_path):
    file = tmp_path / "costs.json"
    assert f"wrote {file}" in "".join(shown(*SMALL, "--json", file).split("\n"))
    found = json.loads(file.read_text())
    assert set(found["totals"]) >= {"parameters", "multiply_adds", "bytes", "milliseconds"}
    assert found["input"] == "1x3x64x64"
    assert found["totals"]["multiply_adds"] == sum(row["multiply_adds"] for row in found["layers"])


def test_html(tmp_path):
    file = tmp_path / "costs.html"
    shown(*SMALL, "--html", file)
    assert "<!doctype html>" in file.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["costs.html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Nothing"], "no network is called 'Nothing'; there are CellPyramid"),
        (["MobileNetV1", "--input", "3by3"], "--input takes sizes such as 1x3x224x224, or 1x16"),
        (["MobileNetV1", "--input", "1x0x3"], "--input takes sizes"),
        (["MobileNetV1", "--input", "1x4x64x64"], r"does not run on \(1, 4, 64, 64\)"),
        (["MobileNetV1", "--sort", "name"], "--sort is one of order, time, lost.*got 'name'"),
        (["MobileNetV1", "--sort", "time", "--tree"], "--sort orders layers, and --tree shows"),
        (["MobileNetV1", "--json", "costs.txt"], "--json must end in .json, got costs.txt"),
        (["MobileNetV1", "--html", "costs.json"], "--html must end in .html"),
        (["MobileNetV1", "--html", "nowhere/costs.html"], "there is no folder nowhere for costs"),
        (["MobileNetV1", "--set", "wide=1"], "cannot be made with wide=1"),
        (["nothing.py:Network"], "there is no file nothing.py"),
        (["own.py"], "say which function or class of own.py makes the model"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message):
    result = run(*arguments)
    assert isinstance(result.exception, (ValueError, OSError))
    assert re.search(message, str(result.exception))
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "own.py has no 'Nothing'; there are Network, words, needs, ready"),
        ("number", "own.py:number is int, not a model"),
        ("needs", "needs cannot be called: .*give arguments with --set NAME=VALUE"),
        ("torch", "own.py:torch is module, not a model"),
        ("Network", "say what Network is given, as in --input 1x3x224x224"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(own, name, message):
    assert re.search(message, str(run(f"{own}:{name}").exception))


def test_a_file_that_breaks_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    error = str(run(f"{tmp_path / 'broken.py'}:Network").exception)
    assert "broken.py cannot be imported: ModuleNotFoundError: No module named" in error
    (tmp_path / "odd.py").write_text("def make():\n    return 3\n")
    assert "made int where a torch.nn.Module" in str(run(f"{tmp_path / 'odd.py'}:make").exception)


def commands() -> list[list[str]]:
    text = (ROOT / "docs/profile.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:\$ )?(pointwise profile -?\w.*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[2:] for line in lines]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
@pytest.mark.slow
def test_the_commands_of_the_docs_run(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = OWN.replace("from neighbour import CHANNELS", "CHANNELS = 3")
    (tmp_path / "my_models.py").write_text(source)
    shown(*words)
    for file in ("costs.json", "profile.html"):
        assert (tmp_path / file).exists() == (file in words)


def test_the_docs_have_commands():
    assert len(commands()) == 6
    assert {words[0] for words in commands()} >= {"MobileNetV1", "ResNet50"}
