from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toys import cloud, scene

from pointwise.cloud.files import read_scan, write_scan
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.evaluate import evaluate
from pointwise.training.plan import plan
from pointwise.training.relabel import AS_IS, Relabelling, read_names, relabelling
from pointwise.training.run import read_run, save_run
from pointwise.training.sources import load_data


def scan(*codes: int, **more) -> Scan:
    return Scan(np.zeros((len(codes), 3)), labels=np.array(codes), **more)


def test_codes_become_one_class():
    given = scan(2, 3, 4, 5, 6, 3, classes={2: "ground", 3: "low", 4: "mid", 5: "high", 6: "roof"})
    wanted = relabelling([given], ["4,3,high=vegetation"])
    made = wanted.applied(given)
    assert made.labels.tolist() == [2, 4, 4, 4, 6, 4]
    assert made.classes == {2: "ground", 4: "vegetation", 6: "roof"}
    assert given.labels.tolist() == [2, 3, 4, 5, 6, 3]


def test_codes_of_the_users_own():
    given = scan(0, 1, 17, 99, 0)
    wanted = relabelling([given], ["0,99=stuff"], "17", {"1": "car"})
    made = wanted.applied(given)
    assert made.labels.tolist() == [0, 1, UNLABELLED, 0, 0]
    assert made.classes == {0: "stuff", 1: "car"}
    assert made.no_class == {17: (1, "ignored, as asked")}


def test_applied_twice_is_applied_once():
    given = scan(0, 1, 17, 99, 0)
    wanted = relabelling([given], ["0,99=stuff"], "17", {"1": "car"})
    once = wanted.applied(given)
    twice = wanted.applied(once)
    assert twice.labels.tolist() == once.labels.tolist()
    assert (twice.classes, twice.no_class) == (once.classes, once.no_class)


def test_nothing_asked_is_nothing_done():
    given = scan(1, 2)
    assert relabelling([given]) == AS_IS
    assert AS_IS.applied(given) is given


def test_a_name_makes_a_class_of_what_las_calls_none(tmp_path):
    write_scan(replace(scan(2, 6, 7), points=np.arange(9.0).reshape(3, 3)), tmp_path / "a.las")
    content = bytearray((tmp_path / "a.las").read_bytes())
    at = int.from_bytes(content[96:100], "little") + 16
    content[at] = 1  # the class of the first point
    (tmp_path / "a.las").write_bytes(content)
    given = read_scan(tmp_path / "a.las")
    assert given.labels.tolist() == [UNLABELLED, 6, 7]
    assert given.codes.tolist() == [1, 6, 7]
    made = relabelling([given], names={"1": "other", "6": "roof", "7": "rest"}).applied(given)
    assert made.labels.tolist() == [1, 6, 7]
    assert made.classes[1] == "other"
    assert not made.no_class
    assert not [line for line in made.assumed if "ASPRS" in line]  # all its codes are named
    merged = relabelling([given], ["6,1=town"]).applied(given)
    assert merged.labels.tolist() == [6, 6, 7]
    untouched = relabelling([given], ["6,7=town"]).applied(given)
    assert untouched.labels.tolist() == [UNLABELLED, 6, 6]
    assert given.select(np.array([0])).codes.tolist() == [1]


def test_whole_clouds():
    clouds = [cloud(0, 0), cloud(1, 0)]
    wanted = relabelling(clouds, ignore="slab")
    assert [each.label for each in map(wanted.applied, clouds)] == [0, None]
    wanted = relabelling(clouds, ["pillar,slab=thing"])
    assert [each.label for each in map(wanted.applied, clouds)] == [0, 0]


@pytest.mark.parametrize(
    ("merge", "ignore", "said"),
    [
        (["3,4"], None, "--map must be such as 3,4,5=vegetation, got '3,4'"),
        (["=x"], None, "--map must be such as"),
        (["3="], None, "--map must be such as"),
        ([",=x"], None, "names no code"),
        (["3,4=a", "4,5=b"], None, "code 4 is named twice"),
        (["3,4=a"], "4", "code 4 is named twice"),
        (
            [],
            "tree",
            r"no class is called 'tree'; there are ground \(2\), low \(3\)",
        ),
        ([], ",", "names no code"),
    ],
)
def test_what_cannot_be_understood(merge, ignore, said):
    given = scan(2, 3, 4, 5, classes={2: "ground", 3: "low"})
    with pytest.raises(ValueError, match=said):
        relabelling([given], merge, ignore)


def test_codes_that_nothing_has_are_said():
    with pytest.warns(UserWarning, match="nothing has the code 33 of --map"):
        relabelling([scan(2, 3)], ["3,33=x"], "0,7")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"2": "ground", "06": "a  roof"}', {"2": "ground", "6": "a roof"}),
        ('{"ground": 2, "roof": 6}', {"2": "ground", "6": "roof"}),
        ('["unlabelled", "car"]', {"0": "unlabelled", "1": "car"}),
    ],
)
def test_names(tmp_path, text, names):
    (tmp_path / "names.json").write_text(text)
    assert read_names(tmp_path / "names.json") == names


@pytest.mark.parametrize(
    "text",
    ["", "3", "{}", '{"x": "y"}', '{"1": ""}', '{"1": 2.5}', '{"a": 1, "b": 1}',
     '{"1":"a","01":"b"}', '{"1": ["a"]}', "[" * 100_000],
)  # fmt: skip
def test_names_that_are_none(tmp_path, text):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"train: --names .*names.json must be JSON such as"
    ) as said:
        read_names(tmp_path / "names.json")
    assert len(str(said.value).splitlines()) == 1


def files(tmp_path: Path) -> list[str]:
    for i in range(3):
        write_scan(scene(i), tmp_path / f"{i}.npz")
    return [str(tmp_path / f"{i}.npz") for i in range(3)]


def test_a_run_keeps_what_was_asked(tmp_path):
    boxes = "red box,green box=box"
    data = load_data(files(tmp_path), merge=[boxes], ignore="99", names={"10": "flat"})
    assert any("left out" in note for note in data.notes)
    run = plan(data, network="TinyPoints")
    assert run.recipe.classes.names == ("flat", "box")
    assert run.recipe.classes.codes == (10, 20)
    save_run(run, tmp_path / "run")
    again = read_run(tmp_path / "run")
    assert again.recipe == run.recipe
    assert again.recipe.relabelling == Relabelling(((20, 30),), (99,), (10, 20), ("flat", "box"))


def test_files_are_scored_by_the_runs_classes(tmp_path):
    """What stands in a file are its own codes: 30 is right where the run says 20."""
    run = plan(load_data(files(tmp_path), merge=["20,30=box"]), network="TinyPoints")
    given = scene(7)
    matrix = evaluate(run, [given])
    assert matrix[1].sum() == np.isin(given.labels, (20, 30)).sum()
    assert matrix.sum() == (given.labels != UNLABELLED).sum()


def test_a_broken_run_is_said(tmp_path):
    save_run(plan(load_data(files(tmp_path), merge=["20,30=box"]), network="TinyPoints"), tmp_path)
    described = json.loads((tmp_path / "run.json").read_text())
    for key, value in (("merged", [[]]), ("ignored", ["a"]), ("names", []), ("codes", [2, 1])):
        broken = json.loads(json.dumps(described))
        broken["recipe"]["relabelling"][key] = value
        (tmp_path / "run.json").write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"run.json is broken: recipe.relabelling"):
            read_run(tmp_path)
