from __future__ import annotations

import numpy as np
import pytest

from pointwise.training.ground import Ground


def slope(count: int = 40_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, size=(count, 3))
    points[:, 2] = 0.05 * points[:, 0]
    return points


def test_height_over_a_slope_follows_the_slope():
    points = slope()
    trees = np.arange(len(points)) % 3 == 0
    points[trees, 2] += 12.0
    points[::1000, 2] -= 30.0  # ghosts below the ground
    height = Ground(points).height(points)
    clean = np.ones(len(points), bool)
    clean[::1000] = False
    # A cell is 33 wide, the ground rises 1.7 in it, and the low percentile is near its edge.
    assert np.abs(height[trees & clean] - 12).max() < 1.7
    assert np.abs(height[~trees & clean]).max() < 1.7


def test_two_far_islands_have_their_own_ground():
    points = slope(8000)
    points[::2] += (10_000, 10_000, 500)
    height = Ground(points, per_cell=512).height(points)
    assert np.abs(height).max() < 10


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_points(count):
    points = np.arange(3.0 * count).reshape(count, 3)
    height = Ground(points).height(points)
    assert height.dtype == np.float32
    assert height.min() == 0


def test_points_on_a_line():
    points = np.column_stack([np.linspace(0, 9, 50), np.zeros(50), np.full(50, 4.0)])
    np.testing.assert_allclose(Ground(points, per_cell=5).height(points), 0, atol=1e-6)
