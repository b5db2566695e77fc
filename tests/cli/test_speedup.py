"""``pointwise speedup``: models by their names, the table, and what is said of what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accelerate as contest
import runtimes

from pointwise.cli.speedup import Wanted, find, prepared, speedup

app = typer.Typer()
app.command()(speedup)

OWN = """
import torch
from torch import nn


def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.LogSoftmax(1))


def with_inputs():
    return nn.Bilinear(4, 5, 2), (torch.rand(3, 4), torch.rand(3, 5))


def wide(channels):
    return nn.Conv2d(3, channels, 3)


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
    assert "aten.log_softmax.int (PyTorch's own): 3" in words
    table = output.split("inputs")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "plain" in run(f"{own}:with_inputs", "--quick", "--rounds", "1")


@pytest.mark.slow
def test_what_quick_leaves_out(own):
    """As README says it."""

    def who(output: str) -> set[str]:
        lines = output.partition("times as fast as PyTorch")[0].splitlines()
        return {name for name in contest.NAMES.values() for line in lines
                if line.strip().startswith(f"{name} ")}  # fmt: skip

    command = [f"{own}:small", "--size", "16", "--rounds", "1"]
    quick, whole = run(*command, "--quick"), run(*command)
    alone = {"PyTorch", "channels_last", "pointwise.accelerate", 'backend="pointwise"'}
    assert who(quick) == alone
    missing = runtimes.missing(inference=True, quick=False)
    more = {contest.NAMES[each] for each in contest.WHO if each not in missing}
    assert who(whole) == alone | more
    assert "peak" in whole
    assert "peak" not in quick


@pytest.mark.slow
def test_ours_and_exported_programs(tmp_path):
    model, inputs, _ = find(Wanted("MobileNetV2", 2, 64))
    assert type(model).__name__ == "MobileNetV2"
    assert not model.training
    assert inputs[0].shape == (2, 3, 64, 64)
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    x = torch.rand(1, 3, 9, 9)
    torch.export.save(torch.export.export(own, (x,)), tmp_path / "own.pt2")
    model, inputs, _ = find(Wanted(str(tmp_path / "own.pt2")))
    assert torch.equal(inputs[0], x)
    assert torch.equal(model.eval()(x), own(x))
    assert "1 × conv 3×3 + relu" in run(str(tmp_path / "own.pt2"), "--quick", "--rounds", "1")


@pytest.mark.slow
def test_work_in_a_process_of_its_own(own):
    for who in ("torch_eager", "torch_channels_last", "pointwise"):
        assert prepared(Wanted(f"{own}:small", 2, 12), who)().shape == (2, 8, 10, 10)


def _saved(path, sizes) -> str:
    """A convolution as an ONNX file for images of these sizes."""
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(torch.rand(4, 3, 3, 3).numpy(), "conv.weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "conv.weight"], ["a"]),
         helper.make_node("Relu", ["a"], ["y"])],
        "graph", [helper.make_tensor_value_info("x", numbers, sizes)],
        [helper.make_empty_tensor_value_info("y")], [weight],
    )  # fmt: skip
    versions = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), path)
    return str(path)


@pytest.mark.slow
def test_onnx_files(tmp_path):
    file = _saved(tmp_path / "open.onnx", ["n", 3, "h", "w"])
    assert find(Wanted(file)).inputs[0].shape == (1, 3, 224, 224)
    found = find(Wanted(file, 2, 20))
    assert found.inputs[0].shape == (2, 3, 20, 20)
    for who in ("torch_eager", "onnxruntime", "openvino", "pointwise"):
        if who != "torch_eager":
            pytest.importorskip(who)
        result = torch.as_tensor(prepared(Wanted(file, 2, 20), who)())
        assert (result - found.model(*found.inputs)).abs().max() < 1e-5, who
    output = run(file, "--quick", "--size", "20", "--rounds", "1")
    assert "1 × conv 3×3 + relu" in output
    file = _saved(tmp_path / "fixed.onnx", [1, 3, 20, 24])
    assert find(Wanted(file)).inputs[0].shape == (1, 3, 20, 24)
    with pytest.raises(ValueError, match="fixed is made for --batch 1 only, got 2"):
        run(file, "--batch", "2")
    with pytest.raises(ValueError, match="fixed is made for --size 24 only, got 20"):
        run(file, "--size", "20")


def test_arguments_of_functions(own):
    assert find(Wanted(f"{own}:wide", None, 8, ("channels=5",))).model.out_channels == 5
    with pytest.raises(ValueError, match=r"wide cannot be called: .*give arguments with --set"):
        run(f"{own}:wide")


def test_what_is_wrong_is_said(own, tmp_path):
    for name in ("empty.onnx", "empty.pt2"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="Bilinear brings its own inputs; omit --batch and --size"):
        run(f"{own}:with_inputs", "--batch", "2")
    with pytest.raises(ValueError, match="takes clouds; omit --batch and --size"):
        run("CellPyramid", "--batch", "2")
    for name, message, kind in (
        ("nothing.py:f", "there is no file nothing.py", OSError),
        ("nothing.pt2", "there is no file nothing.pt2", OSError),
        (f"{own}:other", "own.py has no 'other'; there are small, with_inputs", ValueError),
        (f"{own}:number", "made int where a torch.nn.Module is needed, or one and", ValueError),
        ("net.onnx", "there is no file net.onnx", OSError),
        (f"{tmp_path}/empty.onnx", "speedup: .*empty.onnx is empty", ValueError),
        (f"{tmp_path}/empty.pt2", "empty.pt2 is no program of torch.export", ValueError),
        ("NoSuchNet", "speedup: no network is called 'NoSuchNet'; there are CellPyramid, .*; "
         "torchvision .*; timm .*; or give FILE.py:FUNCTION", ValueError),
        ("timm:NoSuchNet", "no network is called 'timm:NoSuchNet'", ValueError),
    ):  # fmt: skip
        with pytest.raises(kind, match=message):
            run(name, "--quick")
