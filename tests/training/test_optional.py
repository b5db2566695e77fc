from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from short_runs import new_run, train
from test_features import values
from toys import cloud, scene

from pointwise.training.augment import Augmentation
from pointwise.training.evaluate import evaluate
from pointwise.training.features import default_features, fit_features, left_out
from pointwise.training.label import classify_scan, label_scan
from pointwise.training.metrics import scores
from pointwise.training.plan import plan
from pointwise.training.run import load_run, read_run, save_run
from pointwise.training.sources import Data
from pointwise.training.train import Settings


def without(scan, *names):
    kept = {name: values for name, values in scan.fields.items() if name not in names}
    return replace(scan, fields=kept)


def test_what_only_some_scans_have_is_left_out_with_a_line_unless_optional():
    scans = [scene(0), without(scene(1), "color"), scene(2)]
    names = default_features(scans, "segmentation")
    assert names == ("intensity", "height")
    assert left_out(names, scans) == [
        "left out: color, which 1 of 3 clouds lack, such as scene 1;"
        " --optional color takes it from the others"
    ]
    names = default_features(scans, "segmentation", ["color"])
    assert names == ("color", "intensity", "height")
    assert left_out(names, scans) == []


def test_the_line_is_kept_with_the_run(tmp_path):
    mixed = Data("segmentation", [scene(0), without(scene(1), "color")], [], [])
    run = plan(mixed, network="TinyPoints", block=6.0, cell_size=0.5)
    assert any(note.startswith("left out: color, which 1 of 2 clouds lack") for note in run.notes)


def test_a_lacking_feature_is_zero_and_the_others_are_as_they_were():
    scans = [scene(0), without(scene(1), "color"), scene(2)]
    features = fit_features(["color", "height"], scans, optional=["color"])
    # Fitted on those that have it.
    assert features.centre[:3] == pytest.approx(
        fit_features(["color"], [scene(0), scene(2)]).centre, abs=3
    )
    full, lacking = scene(1), scans[1]
    assert features.lacking(full) == []
    assert features.lacking(lacking) == ["color"]
    assert (values(features, lacking)[:, :3] == 0).all()
    assert np.ptp(values(features, full)[:, 0]) > 0.5
    np.testing.assert_array_equal(values(features, lacking)[:, 3], values(features, full)[:, 3])
    features.check(lacking, "label")


def test_black_all_over_is_no_colour():
    run = plan(Data("segmentation", [scene(0)], [], []), optional=["color"], network="TinyPoints")
    full, none = scene(1), without(scene(1), "color")
    black = replace(full, fields={**full.fields, "color": np.zeros((len(full), 3), np.uint8)})
    with pytest.warns(UserWarning, match="scene 1: color is the same at every point"):
        labels = label_scan(run, black)
    np.testing.assert_array_equal(labels, label_scan(run, none))
    assert run.recipe.features.without_constants(full) is full


def test_each_optional_feature_is_withheld_by_itself_about_as_often_as_said():
    features = fit_features(
        ["color", "intensity", "height"], [scene(0)], optional=["color", "intensity"]
    )
    rng = np.random.default_rng(0)
    augmentation = Augmentation(blank=0.0, withhold=0.3)
    found = [values(features, scene(1, 50), augmentation=augmentation, rng=rng) for _ in range(400)]
    color, intensity, height = (
        np.array([not rows[:, part].any() for rows in found]) for part in (slice(0, 3), 3, 4)
    )
    assert 0.24 < color.mean() < 0.36
    assert 0.24 < intensity.mean() < 0.36
    assert 0.05 < (color & intensity).mean() < 0.14
    assert not height.any()


def test_nothing_is_withheld_in_labelling():
    features = fit_features(["color", "height"], [scene(0)], optional=["color"])
    assert all(values(features, scene(1))[:, :3].any() for _ in range(20))


@pytest.mark.parametrize(
    ("names", "optional", "said"),
    [
        (["intensity", "height"], ["color"], "--optional color is not among the features"),
        (["color", "height"], ["height"], "--optional height needs not be said"),
        (["time", "height"], ["time"], "--optional time: no cloud to learn from has it; scene 0"),
        (["color"], ["color"], "--optional must leave one of the --features"),
    ],
)
def test_what_cannot_be_optional(names, optional, said):
    with pytest.raises(ValueError, match=said):
        fit_features(names, [scene(0)], optional=optional)


def test_a_feature_that_some_have_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"no feature 'color'.*With --optional color, clouds may"):
        fit_features(["color"], [scene(0), without(scene(1), "color")])


def test_a_run_keeps_what_is_optional(tmp_path):
    run = new_run()
    run.recipe = replace(run.recipe, features=replace(run.recipe.features, optional=("color",)))
    save_run(run, tmp_path)
    assert read_run(tmp_path).recipe == run.recipe
    broken = (tmp_path / "run.json").read_text().replace('"color"\n      ]', '"colour"\n      ]')
    (tmp_path / "run.json").write_text(broken)
    with pytest.raises(ValueError, match="optional has 'colour', which is not among the names"):
        read_run(tmp_path)


@pytest.mark.slow
def test_a_net_trained_so_labels_scans_with_and_without(tmp_path):
    """Boxes differ in colour alone; without, they are still told from the floor."""
    data = Data("segmentation", [scene(0), scene(1)], [], [scene(3)])
    names = {"features": ["color", "height"], "optional": ["color"]}
    run = plan(data, network="TinyPoints", block=6.0, cell_size=0.5, **names)
    train(run, data, tmp_path, Settings(epochs=2), augmentation=Augmentation(blank=0.0))
    lacking = without(scene(3), "color")
    assert scores(evaluate(run, [scene(3)])).iou.min() > 0.8
    assert scores(evaluate(run, [lacking])).iou[0] > 0.9  # the floor
    assert label_scan(load_run(tmp_path), lacking).shape == (2000,)


def test_whole_clouds_too():
    clouds = [cloud(label, i) for label in (0, 1) for i in range(4)]
    for scan in clouds[:4]:
        scan.fields["intensity"] = np.arange(len(scan), dtype=np.float32)
    data = Data("classification", clouds, [], [])
    run = plan(data, network="TinyClouds", cell_size=0.5, optional=["intensity"])
    assert run.recipe.features.names == ("intensity", "height", "xyz")
    for scan in (clouds[0], clouds[-1]):
        assert classify_scan(run, scan).shape == (2,)
