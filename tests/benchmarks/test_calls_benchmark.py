"""The benchmark of calls: everything agrees with PyTorch, and a row comes out for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import calls
import frame


def written(path: Path) -> list[tuple[str, str]]:
    return [(row["case"], row["who"]) for row in json.loads(path.read_text())["rows"]]


@pytest.mark.slow
def test_a_row_for_each_who_calls(tmp_path):
    calls.main(json=tmp_path / "rows.json", rounds=1, quick=True, only="pointwise_conv*")
    found = written(tmp_path / "rows.json")
    whom = ("pointwise_conv2d", "pointwise_conv")
    assert found == [(name, who) for name in whom for who in ("pointwise", "PyTorch")]


@pytest.mark.slow
def test_every_kind_of_call_agrees(tmp_path):
    calls.main(json=tmp_path / "rows.json", rounds=1, quick=True)
    found = written(tmp_path / "rows.json")
    assert len(found) == 15 + 13
    assert ("ConvNormAct_both_ways", "PyTorch") in found
    assert ("cell_conv", "PyTorch") not in found


def test_what_differs_is_not_timed(monkeypatch):
    monkeypatch.setattr(calls.functional, "pointwise_conv2d", lambda x, weight, bias: x)
    with pytest.raises(ValueError, match="pointwise_conv2d is not timed, since it is not correct"):
        frame.check(calls.case_of("pointwise_conv2d"))
