from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toys import cloud, scene

from pointwise.cloud.scan import Scan
from pointwise.training.augment import Augmentation
from pointwise.training.features import constant_fields, default_features, fit_features
from pointwise.training.ground import Ground
from pointwise.training.plan import plan
from pointwise.training.sources import Data


def values(features, scan, **more):
    local = (scan.points - scan.points.mean(axis=0)).astype(np.float32)
    return features.values(scan, np.arange(len(scan)), local, Ground(scan.points), **more)


def test_default_features_are_those_all_scans_have():
    one, two = scene(0), scene(1)
    assert default_features([one, two], "segmentation") == ("color", "intensity", "height")
    two.fields.pop("color")
    assert default_features([one, two], "segmentation") == ("intensity", "height")
    assert default_features([cloud(0, 0)], "classification") == ("height", "xyz")


def test_outliers_neither_stretch_the_scale_nor_leave_it():
    scan = scene(0)
    scan.fields["intensity"][:20] = 1e9
    scan.fields["intensity"][20] = np.nan
    result = values(fit_features(["intensity"], [scan]), scan)[:, 0]
    assert result.max() == 3
    assert result[20] == 0
    assert abs(np.median(result)) < 0.1
    assert 0.4 < np.std(result[21:]) < 0.8


def test_a_constant_feature_is_zero():
    scan = scene(0)
    scan.fields["time"] = np.full(len(scan), 5.0)
    assert (values(fit_features(["time"], [scan]), scan) == 0).all()


def constant(value: float, **more: float):
    """Two scenes whose intensity is one value, or one in each."""
    scans = [scene(0), scene(1)]
    for i, scan in enumerate(scans):
        scan.fields["intensity"] = np.full(len(scan), more.get(f"in{i}", value), np.float32)
    return scans


def test_a_field_with_one_value_is_no_feature():
    scans = constant(7.0)
    assert constant_fields(scans) == {"intensity": "7"}
    run = plan(Data("segmentation", scans, [], []), network="TinyPoints", cell_size=0.5, block=6.0)
    assert run.recipe.features.names == ("color", "height")
    assert run.notes == ["left out: what has one value everywhere, so no feature: intensity (7)"]
    without = replace(scene(2), fields={"color": scene(2).fields["color"]})
    run.recipe.prepare(without)  # the next scan need not have it


@pytest.mark.parametrize("scans", [constant(0.0, in1=3.0), [scene(0)]])
def test_a_field_that_varies_is_one(scans):
    assert constant_fields(scans) == {}


def test_a_field_without_a_number_is_no_feature():
    scans = constant(np.nan)
    assert constant_fields(scans) == {"intensity": "not a number"}
    run = plan(Data("segmentation", scans, [], []), network="TinyPoints", cell_size=0.5, block=6.0)
    assert "intensity" not in run.recipe.features.names


def test_a_constant_field_that_is_asked_for_is_said():
    run = plan(Data("segmentation", constant(7.0), [], []), network="TinyPoints", cell_size=0.5,
               block=6.0, features=["intensity", "height"])  # fmt: skip
    assert run.recipe.features.names == ("intensity", "height")
    (said,) = run.notes
    assert said.startswith("note: intensity is 7 everywhere, so nothing is learned from it")


def test_channels_lie_in_the_order_of_the_names():
    scan = scene(0)
    features = fit_features(["height", "color", "xyz"], [scan], radius=10.0)
    result = values(features, scan)
    assert features.channels == result.shape[1] == 7
    local = (scan.points - scan.points.mean(axis=0)) / 10
    np.testing.assert_allclose(result[:, 4:], local, atol=1e-6)
    red = scan.labels == 20
    others = (scan.labels >= 0) & ~red
    assert result[red, 1].min() > result[others, 1].max()


def test_normals_turn_with_the_points():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(100, 3))
    normal = points / np.linalg.norm(points, axis=1, keepdims=True)  # away from the centre
    scan = Scan(points, {"normal": normal.astype(np.float32)})
    moved, turn, scale = Augmentation(jitter=0).move(points.astype(np.float32), rng)
    result = fit_features(["normal"], [scan]).values(
        scan, np.arange(100), moved, None, Augmentation(), turn, scale, rng
    )
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert np.abs(result - normal).max() > 0.1


def test_unknown_name():
    with pytest.raises(ValueError, match="scene 0 has no feature 'colour'; it has color, intens"):
        fit_features(["colour"], [scene(0)])


def test_no_name():
    with pytest.raises(ValueError, match="--features must name at least one"):
        fit_features([], [scene(0)])


def test_widths_differ_between_scans():
    one, two = scene(0), scene(1)
    two.fields["color"] = two.fields["color"][:, 0]
    with pytest.raises(ValueError, match=r"'color' has 1 value.* scene 1 and 3 in scene 0"):
        fit_features(["color"], [one, two])


def test_a_feature_without_a_finite_value():
    scan = scene(0)
    scan.fields["intensity"][:] = np.nan
    with pytest.raises(ValueError, match="'intensity' has no finite value"):
        fit_features(["intensity"], [scan])


def test_a_scan_without_a_trained_feature():
    features = fit_features(["color", "height"], [scene(0)])
    without = replace(scene(1), fields={})
    with pytest.raises(ValueError, match=r"label: scene 1 must have color with 3 value.*height"):
        features.check(without, "label")
