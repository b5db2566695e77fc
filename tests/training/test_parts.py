"""Which classes are learned, validated and tested is said wherever it is not all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from short_runs import train
from toys import pictures, scene
from typer.testing import CliRunner

from pointwise.cli import app
from pointwise.cloud.files import write_scan
from pointwise.cloud.scan import Scan
from pointwise.training.classes import codes_of, find_classes
from pointwise.training.evaluate import evaluate
from pointwise.training.images.sources import ImageData
from pointwise.training.metrics import scores
from pointwise.training.parts import doubts, means_over, without_validation
from pointwise.training.plan import plan
from pointwise.training.sources import Data, load_data
from pointwise.training.split import cut_in_space
from pointwise.training.train import Settings


def strip(labels: np.ndarray, seed: int = 0) -> Scan:
    """A strip of 100 by 20, sorted along it, with these labels."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((0, 0, 0), (100, 20, 1), size=(len(labels), 3))
    points[:, 0].sort()
    return Scan(points, labels=labels, classes={1: "grass", 2: "rock", 3: "pole"})


def ends(count: int = 4000) -> np.ndarray:
    """Grass, and rock in the first tenth alone."""
    return np.where(np.arange(count) < count // 10, 2, 1)


def write(folder: Path, **scans: Scan) -> list[str]:
    for name, scan in scans.items():
        write_scan(scan, folder / f"{name}.npz")
    return [str(folder / f"{name}.npz") for name in scans]


def test_each_lack_has_its_line():
    lines = doubts({"a": 5, "b": 7, "d": 2}, {"a": 1}, {"a": 3, "c": 1200}, "points")
    assert lines == [
        "never learned, since only the test part has them: c (1,200 points); they count as wrong",
        "not in the test part, so not tested: b (7 points), d (2 points)",
        "not in the validation part, which best.ckpt is chosen by: b, d",
    ]
    assert doubts({"a": 5, "b": 7}, {"a": 1, "b": 1}, {"a": 1, "b": 1}, "points") == []
    (untested, alone) = doubts({"a": 5, "b": 7}, {}, {"a": 3}, "points")
    assert alone.startswith("the test part has one class only, a: its scores cannot say")
    assert "b (7 points)" in untested


def test_what_the_means_are_over():
    assert means_over(np.array([3, 4]), ("a", "b")) == ""
    assert means_over(np.array([3, 4, 0]), ("a", "b", "c")) == (
        "The means are over 2 of 3 classes; not tested: c."
    )
    assert means_over(np.array([0, 4]), ("a", "b")).startswith("All of the test part is b: ")


def test_classes_are_those_of_all_parts(tmp_path):
    """One that the test part alone has is there, wrong, and lowers the mean."""
    held = scene(2)
    held.labels[:200] = 77
    held.classes = {**held.classes, 77: "well"}
    data = Data("segmentation", [scene(0), scene(1)], [], [held])
    run = plan(data, network="TinyPoints", block=6.0, cell_size=0.5)
    assert run.recipe.classes.names == ("floor", "red box", "green box", "well")
    train(run, data, tmp_path, Settings(steps=100))
    result = scores(evaluate(run, data.test))
    assert result.counts[3] == 200
    assert result.iou[3] == 0
    assert result.counts.sum() == (held.labels >= 0).sum()
    assert result.mean_iou == pytest.approx(np.mean(result.iou))
    images = ImageData(pictures(3), [], [])
    assert images.classes() == ["lying", "standing"]
    more = pictures(1)[0]
    assert ImageData([more], [], pictures(1)).classes() == ["lying", "standing"]


def test_two_classes_to_learn_are_needed_whatever_is_tested():
    with pytest.raises(ValueError, match="the training data has grass, but at least two classes"):
        find_classes([strip(np.ones(50, int))], [strip(ends(50))])


def test_a_class_that_only_the_test_part_has_is_said(tmp_path):
    a, b, c = strip(ends()), strip(ends(), 1), strip(np.where(ends() == 2, 3, 1), 2)
    data = load_data(write(tmp_path, a=a, b=b), test=write(tmp_path, c=c))
    assert (
        "note: never learned, since only the test part has them: pole (400 points); they count as"
        " wrong"
    ) in data.notes
    assert "note: not in the test part, so not tested: rock (" in " ".join(data.notes)


def test_a_test_part_with_one_class_is_no_hundred_per_cent_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr("pointwise.training.data.FEWEST", 16)
    (a, test) = write(tmp_path, a=strip(ends()), test=strip(np.ones(4000, int), 1))
    result = CliRunner(env={"COLUMNS": "80"}).invoke(
        app, ["train", a, "--test", test, "-o", str(tmp_path / "run"), "--network", "TinyPoints",
              "--steps", "20"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "the test part has one class only, grass: its scores cannot say whether" in said
    assert "All of the test part is grass: these scores do not say whether" in said
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["not_tested"] == ["rock"]
    assert metrics["counts"] == {"grass": 4000, "rock": 0}


def test_points_without_a_class_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("pointwise.training.data.FEWEST", 16)
    held = strip(ends(), 1)
    held.labels[:37] = -1
    a, test = write(tmp_path, a=strip(ends()), test=held)
    result = CliRunner().invoke(
        app, ["train", a, "--test", test, "-o", str(tmp_path / "run"), "--network", "TinyPoints",
              "--steps", "20"],
    )  # fmt: skip
    assert "not counted among these points: 37 without a class" in result.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["not_counted"] == {"without a class": 37}


@pytest.mark.parametrize("few", [1, 2, 5])
def test_a_class_with_few_points_still_gets_a_validation_part(few, tmp_path):
    labels = np.where(np.arange(4000) % 3 == 0, 2, 1)
    labels[-few:] = 3  # at the end that would be held out first
    (a,) = write(tmp_path, a=strip(labels))
    data = load_data([a], test=write(tmp_path, t=strip(labels, 1)))
    assert sum(map(len, data.validation)) >= 0.14 * 4000
    assert set(np.concatenate([codes_of(scan) for scan in data.train])) == {1, 2, 3}


def test_scenes_that_each_have_a_class_alone_are_cut_for_validation(tmp_path):
    scans = {f"s{i}": strip(np.where(np.arange(900) % 3, 1, i)) for i in (2, 3)}
    data = load_data(write(tmp_path, **scans), test=write(tmp_path, t=strip(ends())))
    assert len(data.train) == len(data.validation) == 2
    assert set(np.concatenate([codes_of(scan) for scan in data.train])) == {1, 2, 3}


def test_why_there_is_no_validation_part_and_what_that_means(tmp_path):
    """Two points, one of each class, at the corners: whatever is taken out takes one of them."""
    points = np.array([[0.0, 0, 0], [9, 9, 0]])
    (a,) = write(tmp_path, a=Scan(points, labels=np.array([1, 2]), classes={1: "a", 2: "b"}))
    data = load_data([a], test=[a])
    assert data.validation == []
    (said,) = [line for line in data.notes if "validation" in line]
    assert said.startswith(
        "note: there is no validation part: it would take all that is learned of "
    )
    assert said == f"note: {without_validation(said.split(': ')[2].partition(';')[0])}"
    assert "best.ckpt is that of the last step" in said


def test_the_last_weights_are_the_best_without_a_validation_part(tmp_path):
    import torch

    data = Data("segmentation", [scene(0)], [], [scene(1)])
    run = plan(data, network="TinyPoints", block=6.0, cell_size=0.5)
    train(run, data, tmp_path, Settings(steps=3))
    best, last = (
        torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    )
    assert best == last == 3


def test_a_cut_keeps_every_class_and_turns_where_it_must():
    """A class in a band along the strip is on both sides of a cut across; one at an end is kept."""
    scan = strip(ends())
    kept, held = cut_in_space(scan, 0.25)
    assert set(codes_of(kept)) == {1, 2}
    assert set(codes_of(held)) == {1, 2}  # along the strip: across it, no cut has both on both
    assert len(held) / 4000 == pytest.approx(0.25, abs=0.02)
