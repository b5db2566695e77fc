"""The benchmark of calls: everything agrees with PyTorch, and a line comes out for each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import calls


@pytest.mark.slow
def test_a_line_for_each_kind_of_call(monkeypatch, capsys, threads):
    monkeypatch.setattr(calls, "CALLS", 1)
    monkeypatch.setattr(sys, "argv", ["calls.py", "--samples", "1", "--channels", "8"])
    calls.main()
    head, *lines = capsys.readouterr().out.splitlines()
    assert "1 thread(s), 8 channels, 7×7 pixels; microseconds of a call" in head
    assert len(lines) == 15
    assert [line for line in lines if "PyTorch" not in line and "cell" not in line.lower()] == []
    assert lines[-1].startswith("ConvNormAct, both ways")


def test_only_what_is_asked_for(monkeypatch, capsys, threads):
    monkeypatch.setattr(sys, "argv", ["calls.py", "--samples", "1", "--only", "pointwise_conv2d"])
    calls.main()
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("pointwise_conv2d ")


def test_what_differs_is_not_timed(monkeypatch, threads):
    monkeypatch.setattr(sys, "argv", ["calls.py", "--samples", "1", "--only", "pointwise_conv2d"])
    monkeypatch.setattr(calls.functional, "pointwise_conv2d", lambda x, weight, bias: x)
    with pytest.raises(AssertionError, match="not close"):
        calls.main()
