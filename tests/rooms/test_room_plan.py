"""Floor plans: walls all around, and a raster of free floor that keeps furniture apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pointwise.rooms.plan import FloorPlan, Furniture, Pose, Site

NOTCHES = {
    "none": None,
    "low left": (0.0, 0.0, 2.0, 1.5),
    "low right": (4.0, 0.0, 6.0, 1.5),
    "high left": (0.0, 3.0, 2.0, 5.0),
    "high right": (4.0, 3.0, 6.0, 5.0),
}


@pytest.mark.parametrize("notch", NOTCHES.values(), ids=NOTCHES.keys())
def test_walls_go_around_the_room_counter_clockwise(notch):
    plan = FloorPlan(6.0, 5.0, 2.7, 0.2, notch)
    start = np.array([wall.start for wall in plan.walls])
    end = np.array([wall.start + wall.length * wall.along for wall in plan.walls])
    np.testing.assert_allclose(end, np.roll(start, -1, axis=0))
    (x, y), (u, v) = start.T, end.T
    assert 0.5 * (x * v - u * y).sum() == pytest.approx(plan.area)  # Gauss's shoelace
    assert len(plan.walls) == (6 if notch else 4)
    assert sum(not wall.outer for wall in plan.walls) == (2 if notch else 0)
    for wall in plan.walls:
        inner, beyond = wall.pose(wall.length / 2, 0.1), wall.pose(wall.length / 2, -0.1)
        assert plan.inside(inner.x, inner.y)
        assert not plan.inside(beyond.x, beyond.y)
        assert plan.inside(beyond.x, beyond.y, margin=0.15)
    assert plan.free.mean() * 30.0 == pytest.approx(plan.area, rel=0.01)


def test_what_is_taken_fits_no_more():
    plan = FloorPlan(6.0, 5.0, 2.7, 0.2, (4.0, 3.0, 6.0, 5.0))
    pose = Pose(2.0, 2.0, math.radians(30))
    assert plan.fits(pose, 1.0, 1.0)
    plan.take(pose, 1.0, 1.0)
    assert not plan.fits(pose, 1.0, 1.0)
    assert not plan.fits(Pose(1.75, 2.43, 0.0), 0.2, 0.2)  # inside the turned square
    assert plan.fits(Pose(2.6, 1.8, 0.0), 0.2, 0.2)  # beside it, inside its bounding box
    assert not plan.fits(Pose(5.0, 3.5, 0.0), 0.5, 0.5)  # in the notch
    assert not plan.fits(Pose(0.2, 1.0, 0.0), 0.6, 0.5)  # through the wall


def test_tall_pieces_keep_off_boards_and_low_ones_do_not():
    site = Site(FloorPlan(3.0, 3.0, 2.7, 0.2), np.random.default_rng(0))
    for wall in site.plan.walls:
        wall.take(1.5, 2.8)
    piece = Furniture([], 0.8, 0.4)
    assert site.against_wall(piece, tall=True) is None
    assert site.against_wall(piece) is not None


def test_a_piece_that_fits_nowhere_is_not_placed():
    site = Site(FloorPlan(3.0, 3.0, 2.7, 0.2), np.random.default_rng(0))
    assert site.on_floor(Furniture([], 2.0, 3.5)) is None
    assert site.against_wall(Furniture([], 3.5, 0.5)) is None
    assert site.on_wall(3.5) is None
    assert site.plan.free.all()


def test_pieces_at_a_wall_stand_with_their_back_to_it():
    site = Site(FloorPlan(4.0, 4.0, 2.7, 0.2), np.random.default_rng(1))
    for _ in range(6):
        pose = site.against_wall(Furniture([], 0.5, 0.5))
        assert pose is not None
        ahead = pose.x - math.sin(pose.turn), pose.y + math.cos(pose.turn)
        assert site.plan.inside(*ahead)
        assert min(pose.x, pose.y, 4.0 - pose.x, 4.0 - pose.y) < 0.061
