"""The commands of the page on the built-in run and on starting from it, in their order."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from test_docs_commands import DOCS, commands, run

from pointwise.cloud.files import read_scan, write_scan
from pointwise.rooms import rooms


@pytest.mark.slow
def test_the_commands_on_rooms_run_in_their_order(tmp_path):
    """As they stand, but for the steps."""
    *known, scan = rooms(5, split="test", rays=4000)
    (tmp_path / "labelled").mkdir()
    for each in known:
        write_scan(each, tmp_path / "labelled" / f"{each.name}.ply")
    write_scan(replace(scan, labels=None), tmp_path / "scan.ply")
    found = commands("rooms.md")
    assert [words[1] for words in found] == [
        *("label", "view", "evaluate", "info", "train", "label", "export-run")
    ]
    printed = []
    for words in found:
        if "--steps" in words:
            words[words.index("--steps") + 1] = "2"
        printed.append(run(words, tmp_path))
    page = (DOCS / "rooms.md").read_text(encoding="utf-8")
    (classes,) = re.findall(r"\*Classes:\* (.*)\.\n", page)
    assert set(read_scan(tmp_path / "out.ply").classes.values()) == set(classes.split(", "))
    assert "mean over classes" in printed[2]
    assert "CellUNet" in printed[3]
    assert "classes ceiling, floor" in " ".join(printed[4].split())
    small = {file.name for file in (tmp_path / "small").iterdir()}
    assert small == {"run.json", "weights.pt", "metrics.json"}
