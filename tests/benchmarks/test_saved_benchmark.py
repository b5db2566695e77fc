"""``bench saved``: fresh processes, from a saved model to its first result."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import first_result
import saved
from frame import OURS

command = importlib.import_module("pointwise.cli.bench")


@pytest.mark.slow
def test_everyone_reads_what_was_saved(tmp_path, capsys):
    path = tmp_path / "saved.json"
    command.bench("saved", json=path, rounds=2, quick=True)
    record = json.loads(path.read_text())["cases"]["espcn"]
    there = {who for who in saved.NAMES if not who.startswith("aotinductor")}
    there -= set(saved.lacking(quick=True))
    assert set(record["who"]) == there
    assert record["why_not"] == {}
    for who, found in record["who"].items():
        assert 0 < found["min_s"] <= found["median_s"] <= found["p95_s"]
        assert found["size_mb"] > 0, who
        assert found["error"] <= 1e-4
    assert record["who"][OURS]["ratio"]["ratio"] == 1
    if "openvino" in there:
        sizes = [record["who"][who]["size_mb"] for who in ("openvino", "openvino_cache")]
        assert sizes[0] < sizes[1]
    said = capsys.readouterr().out
    assert "without AOTInductor: compiling is not quick" in said
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.rare
def test_aotinductor_too(tmp_path):
    if "aotinductor" in saved.lacking(quick=False):
        pytest.skip("there is no C++ compiler")
    path = tmp_path / "saved.json"
    saved.main(path, rounds=1, models="espcn")
    record = json.loads(path.read_text())["cases"]["espcn"]
    assert record["why_not"] == {}
    assert {"aotinductor", "aotinductor_loader", OURS} <= set(record["who"])


def test_who_fails_or_is_wrong_is_named(tmp_path, monkeypatch):
    def fails(*_):
        raise TypeError("not this model\nnor another")

    monkeypatch.setattr(saved, "_SAVED", {OURS: fails, "openvino": fails, "aotinductor": fails})
    seconds, why = saved.saved(torch.nn.ReLU(), torch.ones(1), tmp_path, {"openvino": "not here"})
    assert set(why) == {OURS, "aotinductor", "aotinductor_loader"}
    assert set(why.values()) == {"TypeError: not this model"}
    assert set(seconds) == {OURS, "aotinductor"}


@pytest.mark.slow
def test_a_process_that_fails_says_why(tmp_path):
    np.save(tmp_path / "input.npy", np.zeros(1, np.float32))
    with pytest.raises(RuntimeError, match=r"No such file.*pointwise\.pt"):
        saved.first_result(OURS, tmp_path)


def test_names_and_options():
    assert set(saved.NAMES) == set(saved.FILES) == set(first_result.WHO)
    with pytest.raises(ValueError, match="takes its models from --models, not from --only"):
        saved.main(only="unet")


def test_without_a_compiler_there_is_no_aotinductor(monkeypatch):
    lacking = {"torch_compile": "no g++", "openvino": "not installed"}
    monkeypatch.setattr(saved.runtimes, "missing", lambda **_: dict(lacking))
    assert saved.lacking(quick=False) == {
        "aotinductor": "no g++", "aotinductor_loader": "no g++",
        "openvino": "not installed", "openvino_cache": "not installed",
    }  # fmt: skip
