"""``bench int8``: everyone's bytes on the same digits, and what they cost."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import int8
from frame import OURS

command = importlib.import_module("pointwise.cli.bench")


@pytest.mark.slow
def test_everyone_answers(tmp_path, capsys):
    path = tmp_path / "int8.json"
    command.bench("int8", json=path, rounds=2, quick=True)
    record = json.loads(path.read_text())["cases"]["digits"]
    lacking = set(int8.runtimes.missing(inference=True, quick=True))
    there = {who for who in (int8.EAGER, OURS, int8.ORT, int8.OPENVINO, *int8.IN_FLOAT)
             if who not in lacking and int8.IN_FLOAT.get(who) not in lacking}  # fmt: skip
    assert set(record["who"]) == there
    assert record["why_not"] == {}
    for who, found in record["who"].items():
        assert 0 < found["min_ms"] <= found["median_ms"]
        assert (found["of_float"] is None) == (who not in int8.IN_FLOAT)
        if who in int8.IN_FLOAT:
            assert 1e-5 < found["error"] < 0.5, who
            assert found["same_class"] > 0.5
        else:
            assert found["error"] < 1e-4
            assert found["same_class"] == 1
    assert record["who"][int8.OURS_MIXED]["error"] < 0.05
    said = capsys.readouterr().out
    assert "bytes are multiplied by" in said
    assert max(map(len, said.splitlines())) <= 80


def test_answers_are_of_the_images_that_were_asked():
    image, images = torch.zeros(1, 3), torch.arange(12.0).view(4, 3)
    found = int8._answers(lambda _: image * 2, images, image)
    assert torch.equal(found, images * 2)


def test_what_is_compared():
    right = torch.tensor([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0], [2.0, 0.0]])
    given = right.clone()
    given[3] = torch.tensor([0.0, 2.0])
    found = int8._compared(right, given, torch.tensor([1, 0, 0, 0]))
    assert found == {"error": pytest.approx((8 / 20) ** 0.5, rel=1e-2), "same_class": 0.75,
                     "accuracy": 0.5}  # fmt: skip
    assert int8._compared(right, right, None) == {"error": 0, "same_class": 1, "accuracy": None}


def test_a_model_that_cannot_be_in_bytes_is_named(monkeypatch):
    images = torch.rand(2, 3, 4, 4)
    task = int8.Task(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval(), images, images)
    found = int8.measured("line", task, 1, dict.fromkeys((int8.ORT, int8.OPENVINO), "not here"))
    assert set(found["who"]) == {int8.EAGER, OURS}
    assert "there is nothing that int8 could work on" in found["why_not"][int8.OURS_INT8]
    assert set(found["why_not"]) == {int8.OURS_INT8, int8.OURS_MIXED}


def test_cases_are_chosen_by_name():
    with pytest.raises(ValueError, match=r"no case has 'unet' in its name; there are digits, mob"):
        int8.main(only="unet")
