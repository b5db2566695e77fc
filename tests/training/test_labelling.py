from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import cloud, scene

from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.evaluate import evaluate
from pointwise.training.label import _angles, classify_scan, classify_scans, label_scan
from pointwise.training.plan import plan
from pointwise.training.run import Run
from pointwise.training.sources import Data
from pointwise.training.thin import thin


def a_run(**more) -> Run:
    return plan(Data("segmentation", [scene(0)], [], []), network="TinyPoints", **more)


class BySign(torch.nn.Module):
    """Class 1 where the feature is positive, else class 0, the surer the larger it is.

    Counts the points it is given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.read: list[int] = []

    def forward(self, points, features, offsets):
        self.read.append(len(points))
        value = features[:, 0]
        return torch.stack([-value, value, torch.full_like(value, -9)], dim=1)


def by_intensity(spacing: float, **more) -> Run:
    run = a_run(features=["intensity"], **more)
    return replace(run, recipe=replace(run.recipe, spacing=spacing), network=BySign())


def normalised(run: Run, intensity: np.ndarray) -> np.ndarray:
    (centre,), (scale,) = run.recipe.features.centre, run.recipe.features.scale
    return ((intensity - centre) / scale).clip(-3, 3)


@pytest.mark.parametrize("block", [0.7, 3.0, 50.0])
def test_every_point_gets_the_label_of_its_own_features(block):
    run, scan = by_intensity(0.0, block=block), scene(3)
    codes = label_scan(run, scan)
    value = normalised(run, scan.fields["intensity"])
    clear = np.abs(value) > 1e-4
    assert codes.dtype == np.int64
    np.testing.assert_array_equal(codes[clear], np.where(value > 0, 20, 10)[clear])


@pytest.mark.parametrize("block", [1.5, 50.0])
def test_every_point_gets_the_label_of_its_cube(block):
    run, scan = by_intensity(0.5, block=block), scene(3)
    codes, confidence = label_scan(run, scan, confidence=True)
    thinned, cube = thin(scan, 0.5, ["intensity"])
    assert len(thinned) < 0.5 * len(scan) == 0.5 * len(codes)
    value = normalised(run, thinned.fields["intensity"])[cube]
    clear = np.abs(value) > 1e-4
    np.testing.assert_array_equal(codes[clear], np.where(value > 0, 20, 10)[clear])
    np.testing.assert_allclose(confidence, probability(value), rtol=1e-4)


def test_labels_do_not_depend_on_the_order_of_the_points():
    run, scan = a_run(block=2.0), scene(4)
    order = np.random.default_rng(0).permutation(len(scan))
    np.testing.assert_array_equal(label_scan(run, scan)[order], label_scan(run, scan.select(order)))


def probability(value: np.ndarray) -> np.ndarray:
    """Of the class that ``BySign`` says."""
    size = np.abs(value)
    return np.exp(size) / (np.exp(size) + np.exp(-size) + np.exp(-9))


def test_a_denser_scan_is_read_in_smaller_blocks():
    run = by_intensity(0.0)
    run = replace(run, recipe=replace(run.recipe, most=500))
    label_scan(run, scene(5, 20_000))
    assert max(run.network.read) <= 500
    assert len(run.network.read) > 40


def test_confidence_is_the_probability_of_the_class():
    run, scan = by_intensity(0.0), scene(6)
    codes, confidence = label_scan(run, scan, confidence=True)
    np.testing.assert_array_equal(codes, label_scan(run, scan))
    expected = probability(normalised(run, scan.fields["intensity"]))
    assert expected.min() < 0.6 < 0.95 < expected.max()
    np.testing.assert_allclose(confidence, expected, rtol=1e-4)


@pytest.mark.parametrize("spacing", [0.0, 0.5])
def test_progress_counts_every_point_that_is_read(spacing):
    calls: list[tuple[int, int]] = []
    scan = scene(7)
    label_scan(by_intensity(spacing, block=2.0), scan, lambda *done: calls.append(done))
    count = len(thin(scan, spacing)[0]) if spacing else 2000
    assert {total for _, total in calls} == {count}
    assert calls[-1] == (count, count)
    assert len(calls) > 10
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_nothing_to_label():
    assert label_scan(a_run(), scene(0).select(np.arange(0))).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [0.0, 0.5])
def test_memory_grows_little_with_the_scan(spacing):
    """What is needed beyond the scan: codes and one sort, and no [N, classes] nor [N, C] array."""
    run = by_intensity(spacing, block=40.0)
    rng = np.random.default_rng(0)
    peaks = []
    for count in (200_000, 600_000):
        side = np.sqrt(count / 20)
        points = rng.uniform(0, 1, size=(count, 3)) * (side, side, 1)
        scan = Scan(points, {"intensity": np.zeros(count, np.float32)})
        tracemalloc.start()
        label_scan(run, scan)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 400_000 < 100  # bytes per point


def test_a_missing_feature():
    scan = replace(scene(0), fields={})
    with pytest.raises(ValueError, match="label: scene 0 must have color with 3 value"):
        label_scan(a_run(), scan)


def test_clouds_are_classified_alike_alone_and_together():
    clouds = [cloud(label, i, 50 + 10 * i) for label in (0, 1) for i in range(4)]
    run = plan(Data("classification", clouds, [], []), network="TinyClouds")
    together = list(classify_scans(run, clouds, batch=3))
    assert len(together) == 8
    for scan, probabilities in zip(clouds, together, strict=True):
        assert probabilities.shape == (2,)
        assert probabilities.sum() == pytest.approx(1)
        np.testing.assert_allclose(classify_scan(run, scan), probabilities, rtol=1e-5)


def test_a_clouds_class_is_voted_on_by_its_turns():
    clouds = [cloud(label, 0) for label in (0, 1)]
    arguments = {"width": 8, "depths": (1, 1)}
    run = plan(Data("classification", clouds, [], []), arguments=arguments, rotate=40.0)
    rows = []
    for angle in (0.0, -40.0, 40.0):
        prepared = run.recipe.prepare(clouds[1])
        index = np.arange(len(clouds[1]))
        points, features = run.recipe.sample(prepared, index, angle=angle)
        inputs = (torch.from_numpy(part) for part in (points, features))
        with torch.inference_mode():
            logits = run.network.eval()(*inputs, torch.tensor([0, len(points)]))
        rows.append(logits.softmax(1)[0].numpy())
    assert np.ptp(rows, axis=0).max() > 1e-4  # the network sees that it is turned
    for votes in (1, 3):
        expected = np.mean(rows[:votes], axis=0)
        np.testing.assert_allclose(
            classify_scan(run, clouds[1], votes=votes), expected, rtol=1e-4, atol=1e-6
        )


def test_an_empty_cloud_has_no_class():
    clouds = [cloud(0, 0), cloud(1, 0)]
    run = plan(Data("classification", clouds, [], []), network="TinyClouds")
    with pytest.raises(ValueError, match="label: cloud 0 has no points to classify"):
        classify_scan(run, clouds[0].select(np.arange(0)))


def test_evaluation_counts_what_is_labelled_and_known():
    run = by_intensity(0.5, block=3.0)  # thinned, but every point of the scan is counted
    scan = scene(8)
    scan.labels[:7] = 99  # a class that training has not seen
    matrix = evaluate(run, [scan, scene(9)])
    for i, code in enumerate(run.recipe.classes.codes):
        counted = (scan.labels == code).sum() + (scene(9).labels == code).sum()
        assert matrix[i].sum() == counted
    known = ~np.isin(scan.labels, (99, UNLABELLED))
    agreed = (label_scan(run, scan) == scan.labels)[known].sum()
    other = scene(9)
    agreed += (label_scan(run, other) == other.labels)[other.labels != UNLABELLED].sum()
    assert np.trace(matrix) == agreed


def test_evaluation_of_clouds():
    clouds = [cloud(label, i) for label in (0, 1) for i in range(4)]
    run = plan(Data("classification", clouds, [], []), network="TinyClouds")
    calls: list[tuple[int, int]] = []
    matrix = evaluate(run, clouds, lambda *done: calls.append(done))
    said = [int(p.argmax()) for p in classify_scans(run, clouds)]
    for truth in (0, 1):
        for answer in (0, 1):
            expected = sum(
                c.label == truth and s == answer for c, s in zip(clouds, said, strict=True)
            )
            assert matrix[truth, answer] == expected
    assert calls[-1] == (8, 8)


@pytest.mark.parametrize(
    ("votes", "largest", "angles"),
    [
        (1, 180.0, [0]),
        (3, 180.0, [0, 120, 240]),
        (4, 180.0, [0, 90, 180, 270]),
        (1, 20.0, [0]),
        (2, 20.0, [0, -20]),
        (3, 20.0, [0, -20, 20]),
        (5, 20.0, [0, -10, 10, -20, 20]),
        (3, 0.0, [0]),  # which way is north was learned, too
    ],
)
def test_votes_are_turned_as_training_turned(votes, largest, angles):
    assert _angles(votes, largest) == pytest.approx(angles)


def test_no_votes():
    with pytest.raises(ValueError, match="--votes must be 1 or more, got 0"):
        _angles(0, 180.0)


class Eastern(torch.nn.Module):
    """Class 1 east of the block's middle: every turn changes its mind."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, points, features, offsets):
        return torch.stack([torch.zeros(len(points)), 2 * points[:, 0]], dim=1)


def test_votes_are_averaged():
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    scan = Scan(points, {}, (points[:, 0] > 0).astype(int))
    data = Data("segmentation", [scan], [], [])
    run = plan(data, network="TinyPoints", features=["height"], block=10.0)
    run = replace(run, network=Eastern(), recipe=replace(run.recipe, spacing=0.0))
    local = torch.from_numpy(points - points.mean(axis=0)).float()
    turns = torch.deg2rad(torch.tensor([0.0, 120.0, 240.0]))
    east = local[:, :1] * turns.cos() - local[:, 1:2] * turns.sin()
    expected = torch.sigmoid(2 * east).mean(dim=1)
    codes, certain = label_scan(run, scan, confidence=True, votes=3)
    assert codes.tolist() == (expected > 0.5).long().tolist()
    assert certain == pytest.approx(torch.maximum(expected, 1 - expected).numpy(), abs=1e-5)
    assert (label_scan(run, scan, votes=1) == (local[:, 0] > 0).numpy()).all()
