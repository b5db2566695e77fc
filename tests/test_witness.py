"""The witness sees what it is there to see."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import witness
import witness_timing
from witness_engine import Launches

RECORDS = {
    "one": {"digests": {"out": "1234", "calls": "3 as kernels"}, "launches": 2},
    "two": {"digests": {"out": "abcd"}, "launches": 1},
}


def test_nothing_changed():
    assert witness.compare(RECORDS, copy.deepcopy(RECORDS)) == []


def test_a_changed_bit_a_missing_entry_a_new_one_and_a_launch_are_seen(tmp_path, capsys):
    new = copy.deepcopy(RECORDS)
    new["one"]["digests"]["out"] = "1235"
    new["one"]["launches"] = 3
    new["three"] = new.pop("two")
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, records in zip(files, (RECORDS, new), strict=True):
        file.write_text(json.dumps(records))
    assert witness.main(["--compare", *map(str, files)]) == 1
    said = capsys.readouterr().out
    for line in (
        "missing   two",
        "new       three",
        "differs   one: out, 1234 → 1235",
        "launches  one: 2 → 3",
    ):
        assert line in said
    assert witness.main(["--compare", str(files[0]), str(files[0])]) == 0


def test_a_digest_is_of_every_bit():
    x = torch.arange(24, dtype=torch.float32).view(1, 2, 3, 4)
    changed = x.clone()
    changed[0, 1, 2, 3] = torch.nextafter(x[0, 1, 2, 3], torch.tensor(0.0))
    others = [changed, x.double(), x.view(2, 1, 3, 4), x.to(memory_format=torch.channels_last)]
    assert len({witness.digest(y) for y in (x, *others)}) == 5
    assert witness.digest(torch.tensor(0.0)) != witness.digest(torch.tensor(-0.0))
    assert witness.digest([x, None]) != witness.digest([x])
    assert witness.digest(x) == witness.digest(x.clone())


@pytest.mark.parametrize("name", ["autocast", "lines torch.float32", "cloud voxels one"])
def test_entries_run_and_agree_with_themselves(name):
    chosen = witness.entries(f"^{name}")
    assert chosen
    for run in chosen.values():
        one, other = (witness.record(run, Launches()) for _ in range(2))
        assert one == other
        assert one["threads differ"] == []
        assert "raises" not in one["digests"]


def test_a_timing_is_marked_only_where_both_times_are_longer():
    def slower(*new: float) -> bool:
        return witness_timing.row("", {"old": [1.0, 1.0, 2.0], "new": [*new]})[1]

    assert slower(1.1, 1.1, 1.1)
    assert not slower(0.9, 1.1, 1.1)
    assert not slower(1.0, 1.0, 9.0)
