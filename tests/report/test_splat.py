from __future__ import annotations

import numpy as np
import pytest

from pointwise.report.splat import bounds, shade, turn, view


@pytest.mark.parametrize(
    ("around", "above", "point", "seen"),
    [
        (-90, 0, (1, 2, 3), (1, 3, 2)),  # from the front: y runs away from the viewer
        (0, 0, (1, 2, 3), (2, 3, -1)),
        (-90, 90, (1, 2, 3), (1, 2, -3)),  # from above: a map, and high is near
    ],
)
def test_turn(around, above, point, seen):
    np.testing.assert_allclose(turn(np.array([point], float), around, above), [seen], atol=1e-12)


def test_turn_keeps_distances():
    points = np.random.default_rng(0).normal(size=(20, 3))
    seen = turn(points, -60, 35)
    before = np.linalg.norm(points[:, None] - points, axis=2)
    np.testing.assert_allclose(np.linalg.norm(seen[:, None] - seen, axis=2), before, atol=1e-12)


def test_the_nearer_point_hides_the_farther():
    rng = np.random.default_rng(1)
    far = np.c_[rng.random((4000, 2)) * 10, np.full(4000, 5.0)]
    near = np.c_[rng.random((9000, 2)) * (5, 10), np.full(9000, 1.0)]  # the left half
    for order in ([far, near], [near, far]):
        is_near = np.concatenate([np.full(len(part), part is near) for part in order])
        drawn = view(np.concatenate(order), 100, 100)
        left, right = drawn.index[10:90, 10:40], drawn.index[10:90, 60:90]
        assert is_near[left[left >= 0]].mean() > 0.99
        assert not is_near[right[right >= 0]].any()
        assert (left >= 0).mean() > 0.95  # the discs close the surface


def test_every_pixel_shows_a_point_within_the_disc():
    seen = np.random.default_rng(2).random((60, 3)) * (8, 4, 3)
    drawn = view(seen, 160, 120)
    left, right, bottom, top = drawn.box
    assert (right - left) / 160 == pytest.approx((top - bottom) / 120)  # one scale
    row, column = np.nonzero(drawn.index >= 0)
    points = seen[drawn.index[row, column]]
    x = (points[:, 0] - left) / (right - left) * 160 - 0.5
    y = (top - points[:, 1]) / (top - bottom) * 120 - 0.5
    assert np.hypot(x - column, y - row).max() < drawn.radius + 1.5
    assert set(drawn.index.ravel()) - {-1} <= set(range(60))
    assert np.isinf(drawn.depth[drawn.index < 0]).all()


def test_denser_clouds_get_smaller_discs():
    rng = np.random.default_rng(3)
    radii = [view(rng.random((n, 3)), 200, 200).radius for n in (100, 3000, 200_000)]
    assert radii[0] > radii[1] > radii[2] >= 1


def test_strays_do_not_make_the_rest_tiny():
    points = np.random.default_rng(4).random((10_000, 3))
    points[0] = (1e4, 0, 0)
    _, high = bounds(points)
    assert high[0] < 1.01
    assert (view(points, 100, 100).index >= 0).mean() > 0.7


def test_one_point_is_in_the_middle():
    drawn = view(np.array([[5.0, -3.0, 2.0]]), 40, 30)
    row, column = np.nonzero(drawn.index == 0)
    assert (row.mean(), column.mean()) == pytest.approx((15, 20), abs=1)


def test_a_plane_is_lit_evenly_and_the_foot_of_a_wall_is_darker():
    rows, columns = np.mgrid[:80, :80].astype(float)
    tilted = 300 + 2 * rows + columns
    inner = np.s_[20:60, 20:60]
    assert shade(tilted, 1)[inner].min() > 0.99
    step = np.where(columns < 40, 100.0, 160.0)  # the left stands 60 pixels before the right
    light = shade(step, 2)
    assert light[40, 30] > 0.99
    assert light[40, 41] < 0.8
    assert light[40, 41] < light[40, 50] < light[40, 75]


def test_empty_pixels_neither_darken_nor_are_darkened():
    depth = np.full((40, 40), np.inf)
    depth[10:30, 10:30] = 50.0
    np.testing.assert_array_equal(shade(depth, 2), 1.0)
