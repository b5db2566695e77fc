"""``pointwise speedup``: models by their names, the table, and what is said of what is wrong."""

from __future__ import annotations

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from pointwise.cli.models import find_model
from pointwise.cli.speedup import prepared, speedup

app = typer.Typer()
app.command()(speedup)

OWN = """
import torch
from torch import nn


def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Softmax(1))


def with_inputs():
    return nn.Bilinear(4, 5, 2), (torch.rand(3, 4), torch.rand(3, 5))


def number():
    return 1
"""


def run(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_model_of_ones_own(own):
    output = run(f"{own}:small", "--quick", "--size", "16", "--rounds", "1")
    words = " ".join(output.split())
    assert "PyTorch" in words
    assert "pointwise.accelerate" in words
    assert 'backend="pointwise"' in words
    assert "1 × conv 3×3 + relu" in words
    assert "aten.softmax.int (PyTorch's own): 3" in words
    table = output.split("inputs")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "plain" in run(f"{own}:with_inputs", "--quick", "--rounds", "1")


def test_ours_and_exported_programs(tmp_path):
    model, inputs = find_model("MobileNetV2", 2, 64)
    assert type(model).__name__ == "MobileNetV2"
    assert not model.training
    assert inputs[0].shape == (2, 3, 64, 64)
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    x = torch.rand(1, 3, 9, 9)
    torch.export.save(torch.export.export(own, (x,)), tmp_path / "own.pt2")
    model, inputs = find_model(str(tmp_path / "own.pt2"), 1, 224)
    assert torch.equal(inputs[0], x)
    assert torch.equal(model(x), own(x))
    assert "1 × conv 3×3 + relu" in run(str(tmp_path / "own.pt2"), "--quick", "--rounds", "1")


def test_work_in_a_process_of_its_own(own):
    for who in ("torch_eager", "torch_channels_last", "pointwise"):
        assert prepared(f"{own}:small", 2, 12, who)().shape == (2, 8, 10, 10)


def test_what_is_wrong_is_said(own, tmp_path):
    for name, message, kind in (
        ("nothing.py:f", "there is no file nothing.py", OSError),
        ("nothing.pt2", "there is no file nothing.pt2", OSError),
        (f"{own}:other", "there is no function 'other' in", ValueError),
        (f"{own}:number", "gives int, not an nn.Module", ValueError),
        ("net.onnx", "does not read ONNX files; give the model that it was made from", ValueError),
        ("NoSuchNet", "no model 'NoSuchNet': ours are MobileNetV1, .*Others: file.py:function",
         ValueError),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            run(name, "--quick")
