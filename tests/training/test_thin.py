"""Fewer points: one for each cube."""

from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.thin import far_sparser, thin


def scan(labels=None):
    points = np.array([[0.0, 0, 0], [0.2, 0.4, 0], [2.1, 0, 0], [0.4, 0.2, 0.3]]) + 500_000
    color = np.array([[0, 0, 0], [30, 60, 90], [7, 8, 9], [60, 0, 0]], dtype=np.uint8)
    return Scan(points, {"color": color, "intensity": np.array([1, 2, 3, 6.0])}, labels)


def test_a_point_is_the_mean_of_its_cube():
    thinned, cube = thin(scan(), 1.0, ["color", "height"])
    assert cube.tolist() == [0, 0, 1, 0]
    assert thinned.points - 500_000 == pytest.approx(
        np.array([[0.2, 0.2, 0.1], [2.1, 0, 0]]), abs=1e-9
    )
    assert list(thinned.fields) == ["color"]  # only what is asked for, and is there
    assert thinned.fields["color"].tolist() == [[30, 20, 30], [7, 8, 9]]
    assert thinned.labels is None


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([3, 5, 7, 5], [5, 7]),
        ([5, 3, 7, 4], [3, 7]),  # as frequent as the others, and the lowest
        ([UNLABELLED, UNLABELLED, UNLABELLED, 9], [9, UNLABELLED]),
        ([UNLABELLED] * 4, [UNLABELLED] * 2),
    ],
)
def test_the_label_that_most_have(labels, expected):
    thinned, _ = thin(scan(np.array(labels)), 1.0)
    assert thinned.labels.tolist() == expected


def test_random_clouds():
    rng = np.random.default_rng(0)
    points, labels = rng.random((500, 3)), rng.integers(0, 4, 500)
    values = rng.random(500).astype(np.float32)
    thinned, cube = thin(Scan(points, {"v": values}, labels), 0.3, ["v"])
    assert len(thinned) == cube.max() + 1 < 100
    for i in range(len(thinned)):
        mine = cube == i
        assert thinned.points[i] == pytest.approx(points[mine].mean(axis=0))
        assert thinned.fields["v"][i] == pytest.approx(values[mine].mean())
        assert thinned.labels[i] == np.bincount(labels[mine]).argmax()
        assert np.ptp(points[mine], axis=0).max() <= 0.3


def test_points_that_lie_far_apart_for_the_spacing():
    x, y = np.meshgrid(np.arange(20.0), np.arange(20.0))
    grid = Scan(np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1))
    assert far_sparser(grid, 0.1)  # a cube of 0.8 holds one of them, or none
    assert not far_sparser(grid, 0.3)
    assert not far_sparser(grid.select(slice(0, 50)), 0.1)  # too few to tell
