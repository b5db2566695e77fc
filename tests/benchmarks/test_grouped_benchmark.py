"""The benchmark of convolutions of groups: what is timed agrees, and a line comes out for each."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import grouped


def test_a_line_for_each_shape(monkeypatch, capsys):
    monkeypatch.setattr(grouped, "SHAPES", [grouped.Shape(16, 4, 7), grouped.Shape(16, 4, 7, 2)])
    monkeypatch.setattr(sys, "argv", ["grouped.py", "--samples", "2", "--only", "16_g4_7x7_s2"])
    grouped.main()
    head, line = capsys.readouterr().out.splitlines()
    assert "thread(s), 1 image(s)" in head
    assert line.startswith("16_g4_7x7_s2 [grouped]: PyTorch 0.")
    assert all(name in line for name in ("grouped", "mixed", "gradient of x", "of the weight"))
