"""The commands of the page on evaluating run in their order, on small rooms."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from test_docs_commands import commands, run

from pointwise.cloud.files import read_scan, write_scan
from pointwise.rooms import rooms


@pytest.mark.slow
def test_the_commands_on_evaluating_run_in_their_order(tmp_path):
    *learned, new, unlabelled = rooms(5, rays=3000)
    (tmp_path / "scans").mkdir()
    for scan in learned:
        write_scan(scan, tmp_path / "scans" / f"{scan.name}.ply")
    write_scan(new, tmp_path / "new.ply")
    write_scan(replace(unlabelled, labels=None), tmp_path / "unlabelled.ply")
    found = commands("evaluate.md")
    assert [words[1] for words in found] == ["train", "evaluate", "evaluate", "suggest"]
    for words in found:
        run(words, tmp_path)
    assert (tmp_path / "run" / "test.html").stat().st_size > 1_000_000
    assert (tmp_path / "new.html").stat().st_size > 1_000_000
    scores = json.loads((tmp_path / "new.json").read_text())
    assert sum(map(sum, scores["confusion"]["counts"])) == sum(scores["counts"].values())
    with open(tmp_path / "next.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, len(rows) + 1)]
    points = read_scan(tmp_path / "next" / "unlabelled.ply")
    assert points.fields["suggested"].max() == len(rows)
