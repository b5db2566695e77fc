"""The page on accelerated models runs as it stands, and its commands are those there are."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accelerate as contest
import make_pictures
from frame import check

from pointwise.acceleration import backend as ours
from pointwise.cli.bench import benchmarks, names
from pointwise.cli.speedup import speedup

PAGE = Path(__file__).parents[2] / "docs" / "accelerate.md"


@pytest.mark.slow
def test_the_code_runs_and_prints_what_the_page_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # it saves a model
    compile_ = torch.compile
    # An installation made before the entry point was there does not know the name.
    monkeypatch.setattr(torch, "compile", lambda model, backend: compile_(model, backend=ours))
    names: dict = {}
    for source, said in make_pictures.blocks(PAGE):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(source, names)
        assert printed.getvalue() == (said or "")


@pytest.mark.slow
def test_its_commands_exist():
    commands = re.findall(r"^pointwise (\w+) (\S+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {command for command, _ in commands} == {"speedup", "bench"}
    assert "accelerate" in names(benchmarks())
    app = typer.Typer()
    app.command()(speedup)
    result = CliRunner().invoke(app, ["MobileNetV2", "--quick", "--size", "32", "--rounds", "1"])
    assert result.exit_code == 0, result.exception
    assert "pointwise.accelerate" in result.output


@pytest.mark.slow
def test_the_benchmark_runs_and_refuses_what_is_wrong():
    alone = {*contest.WHO[:2], *contest.WHO[5:]}
    (planned,) = contest.plan(frozenset(contest.ALL) - alone, quick=True)
    case = planned.make()
    assert {one.who for one in case.contestants} == alone
    check(case)
    assert case.flops > 1e5
    right = torch.randn(2, 5)
    assert contest.same({contest.EAGER: right, "other": right * (1 + 1e-6)}) is None
    assert "other differs from torch_eager" in contest.same(
        {contest.EAGER: right, "other": right * 1.01}
    )
    assert contest.difference(right, right[:1]) == float("inf")
    assert contest.difference({"a": right}, {"a": right}) == 0


def test_runtimes_take_one_input():
    with pytest.raises(ValueError, match="onnxruntime takes models of one input here, got 2"):
        contest.run("onnxruntime", nn.Bilinear(2, 2, 2), (torch.rand(1, 2), torch.rand(1, 2)))
