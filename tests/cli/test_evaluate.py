from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import typer
from test_label import ByHeight, WholeByHeight, save, scan
from typer.testing import CliRunner

import pointwise.networks
from pointwise.cli.evaluate import evaluate
from pointwise.cloud.files import write_scan
from pointwise.training.classes import Classes
from pointwise.training.labelled import in_classes_of
from pointwise.training.sources import Data

NAMES = {2: "ground", 6: "building"}


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    for network in (ByHeight, WholeByHeight):
        monkeypatch.setattr(pointwise.networks, network.__name__, network, raising=False)


def labelled(seed: int, **more):
    return scan(seed, labels=np.where(np.arange(500) % 4 == 0, 6, 2), classes=NAMES, **more)


@pytest.fixture
def segmenter(tmp_path):
    return save(Data("segmentation", [labelled(0)], [], []), "ByHeight", tmp_path / "run")


def run(*arguments):
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(a) for a in arguments])


def put(path, cloud):
    path.parent.mkdir(exist_ok=True, parents=True)
    write_scan(cloud, path)
    return path


def test_every_score_of_known_mistakes(segmenter, tmp_path):
    cloud = labelled(1)
    cloud.labels[4:24:4] = 2  # five of the high points are called ground: the run is wrong there
    cloud.labels[1:11:2] = -1
    file, out = put(tmp_path / "new" / "a.npz", cloud), tmp_path / "scores.json"
    done = run(segmenter, file, "--json", out)
    assert done.exit_code == 0, done.output
    scores = json.loads(out.read_text())
    assert scores["confusion"]["counts"] == [[370, 5], [0, 120]]
    assert scores["counts"] == {"ground": 375, "building": 120}
    assert scores["recall"] == {"ground": pytest.approx(370 / 375, abs=1e-6), "building": 1.0}
    assert scores["precision"] == {"ground": 1.0, "building": 0.96}
    assert scores["iou"] == {"ground": pytest.approx(370 / 375, abs=1e-6), "building": 0.96}
    assert scores["mean_iou"] == pytest.approx((370 / 375 + 0.96) / 2, abs=1e-6)
    assert scores["overall_accuracy"] == pytest.approx(490 / 495, abs=1e-6)
    assert scores["not_counted"] == {"without a class": 5}
    assert "Not counted: 5 without a class" in done.output
    assert "98.7 %" in done.output
    said = done.output.replace(f"{tmp_path}/", "")  # a folder of any length
    assert max(map(len, said.splitlines())) <= 80


def test_classes_are_found_by_name_whatever_their_code(segmenter, tmp_path):
    cloud = labelled(1)
    swapped = replace(cloud, labels=8 - cloud.labels, classes={2: "building", 6: "ground"})
    out = tmp_path / "scores.json"
    done = run(segmenter, put(tmp_path / "new" / "a.npz", swapped), "--json", out)
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["mean_iou"] == 1


def test_a_class_that_was_not_learned_is_named_and_not_counted(segmenter, tmp_path):
    cloud = labelled(1)
    cloud.labels[:100] = 2
    # Code 2 is another class than the run's: its points must not be scored as ground.
    cloud = replace(cloud, classes={2: "water", 6: "building"})
    done = run(segmenter, put(tmp_path / "new" / "a.npz", cloud))
    assert done.exit_code == 0, done.output
    assert "Not counted: 400 of water, which was not learned" in done.output
    assert "Not in the data, so in no mean: ground" in done.output


def test_nothing_to_count(segmenter, tmp_path):
    file = put(tmp_path / "new" / "a.npz", scan(1))
    done = run(segmenter, file)
    assert isinstance(done.exception, ValueError)
    assert str(done.exception) == (
        "evaluate: no points with a class that the run has learned: 500 without a class"
    )


def test_scores_on_what_was_learned_are_said_to_be(segmenter, tmp_path):
    file = put(tmp_path / "data" / "a.npz", labelled(1))
    described = json.loads((segmenter / "run.json").read_text())
    described["options"] = {"data": [str(tmp_path / "data")]}
    (segmenter / "run.json").write_text(json.dumps(described))
    other = put(tmp_path / "other" / "a.npz", labelled(2))
    with pytest.warns(UserWarning, match=r"a.npz is among what the run was trained with"):
        assert run(segmenter, file).exit_code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(segmenter, other).exit_code == 0


def test_the_page_shows_the_clouds(segmenter, tmp_path):
    page = tmp_path / "page.html"
    put(tmp_path / "new" / "a.npz", labelled(1))
    put(tmp_path / "new" / "b.npz", labelled(2))
    done = run(segmenter, tmp_path / "new", "--html", page)
    assert done.exit_code == 0, done.output
    text = page.read_text(encoding="utf-8")
    assert "run on new" in text
    assert "1,000 points with a true class" in text
    assert "2 scans" in text


def test_whole_clouds_in_folders_named_by_class(tmp_path):
    names = {0: "low", 1: "high"}
    clouds = [scan(i, 4.0 * (i % 2), label=i % 2, classes=names) for i in range(4)]
    trained = save(Data("classification", clouds, [], []), "WholeByHeight", tmp_path / "run")
    # In this order of folders "high" has code 0, and the run calls it 1.
    for folder, height in (("high", 4.0), ("low", 0.0)):
        for i in range(3):
            put(tmp_path / "new" / folder / f"{i}.ply", scan(10 + i, height))
    out, page = tmp_path / "scores.json", tmp_path / "page.html"
    done = run(trained, tmp_path / "new", "--json", out, "--html", page)
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["confusion"]["counts"] == [[3, 0], [0, 3]]
    assert "6 clouds with a true class" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--html", "page.txt"], "--html must end in .html"),
        (["--json", "nowhere/x.json"], "there is no folder nowhere"),
        (["--without", "colour"], "--without colour: the run reads height, not colour"),
    ],
)
def test_options_that_cannot_be(segmenter, tmp_path, options, said):
    file = put(tmp_path / "new" / "a.npz", labelled(1))
    done = run(segmenter, file, *options)
    assert isinstance(done.exception, ValueError)
    assert said in str(done.exception)


def test_more_classes_than_fit_are_named_by_their_confusions(monkeypatch, tmp_path):
    # The module; ``pointwise.cli.evaluate`` is the function.
    monkeypatch.setattr(sys.modules["pointwise.cli.evaluate"], "MOST_IN_A_TABLE", 1)
    trained = save(Data("segmentation", [labelled(0)], [], []), "ByHeight", tmp_path / "run")
    cloud = labelled(1)
    cloud.labels[4:24:4] = 2
    done = run(trained, put(tmp_path / "new" / "a.npz", cloud))
    assert "The most frequent confusions" in done.output
    assert [line.split() for line in done.output.splitlines() if "1.3 %" in line] == [
        ["ground", "building", "5", "1.3", "%"]
    ]


def test_codes_without_names_are_taken_by_code():
    classes = Classes((2, 6), ("2", "6"))
    cloud = labelled(0)
    assert in_classes_of(classes, cloud) is cloud
    nameless = replace(cloud, classes={})
    assert in_classes_of(Classes((2, 6), ("ground", "building")), nameless) is nameless
