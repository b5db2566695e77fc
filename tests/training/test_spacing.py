from __future__ import annotations

import numpy as np
import pytest

from pointwise.cloud.scan import Scan
from pointwise.training.spacing import default_block, default_cell_size


def surface(spacing: float, side: float) -> Scan:
    axis = np.arange(0, side, spacing)
    x, y = np.meshgrid(axis, axis)
    return Scan(np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)]) + 1000.0)


@pytest.mark.parametrize("spacing", [0.01, 0.5, 20.0])
def test_a_cell_is_about_three_spacings(spacing):
    size = default_cell_size([surface(spacing, 100 * spacing)], occupancy=10)
    assert 2.8 * spacing <= size <= 3.4 * spacing  # √10 and a little


def test_dense_patches_and_duplicates_do_not_decide():
    scan = surface(0.5, 50)
    rng = np.random.default_rng(0)
    dense = rng.uniform(1000, 1001, size=(1000, 3)) * (1, 1, 0) + (0, 0, 1000)
    twice = np.concatenate([scan.points, scan.points[:5000], dense])
    assert default_cell_size([scan], occupancy=10) == 1.6
    assert 1.45 <= default_cell_size([Scan(twice)], occupancy=10) <= 1.6


def test_a_block_holds_about_as_many_points_as_wanted():
    side = default_block([surface(0.1, 30)], points=4000, most=6000)
    assert 3000 <= (side / 0.1) ** 2 <= 6000


def test_small_scans_are_not_cut():
    scans = [surface(0.1, 5), surface(0.1, 7)]
    side = default_block(scans, points=100, most=4900)
    assert np.ptp(scans[1].points, axis=0).max() < side < 7.1


def test_no_extent():
    scan = Scan(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="no extent to take a cell size from; give --cell-size"):
        default_cell_size([scan], occupancy=10)
    with pytest.raises(ValueError, match="no horizontal extent; give --block"):
        default_block([scan], points=10, most=10)
