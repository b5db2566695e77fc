"""What the simulated scanner promises: occlusion, density, noise, intensity, lost returns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pointwise.rooms.cast import cast
from pointwise.rooms.furnish import furnished
from pointwise.rooms.materials import WALL, Paint
from pointwise.rooms.plan import FloorPlan
from pointwise.rooms.scanner import LOWEST, STEPS_UP, dome, range_sigma, scan_from, stations
from pointwise.rooms.solids import box, pack

WHITE = Paint((240.0, 240.0, 240.0), 0.9)
BLACK = Paint((20.0, 20.0, 20.0), 0.05)
ORIGIN = np.array([0.0, 0.0, 1.5])


def wall_at(x: float, paint: Paint = WHITE, size: float = 6.0, label: int = WALL):
    """A wall facing the origin, its surface at ``x``."""
    return box(label, paint, (x + 0.1, 0.0, 1.5 - size / 2), (0.2, size, size))


def test_nothing_is_seen_behind_a_wall():
    near, far = wall_at(2.0, size=2.0, label=0), wall_at(4.0, size=12.0, label=1)
    scan = scan_from(np.random.default_rng(0), pack([near, far]), ORIGIN, 60_000)
    behind = scan["points"][scan["labels"] == 1]
    # The shadow of the near wall on the far one is twice as large; the edges blur by the noise.
    shadow = (np.abs(behind[:, 1]) < 1.95) & (np.abs(behind[:, 2] - 1.5) < 1.95)
    assert len(behind) > 1000
    assert not shadow.any()
    assert (scan["labels"] == 0).sum() > 1000


def test_walls_hide_what_is_around_the_corner_of_an_l():
    seed = next(s for s in range(100) if furnished(s)[0].notch)
    plan, solids = furnished(seed)
    rng = np.random.default_rng(0)
    (origin,) = stations(rng, plan, 1)
    points = scan_from(rng, pack(solids), origin, 20_000)["points"]
    # Walk each line of sight from the scanner to just before the point: it stays in the room.
    reach = np.linalg.norm(points - origin, axis=1, keepdims=True)
    for part in np.linspace(0.0, 1.0, 60):
        x, y, _ = (origin + (points - origin) * part * (1 - 0.05 / reach)).T
        assert plan.inside(x, y, plan.thickness + 0.03).all()


def test_density_falls_with_distance_as_equal_angles_say():
    floor = [box(1, WHITE, (0.0, 0.0, -0.2), (30.0, 30.0, 0.2))]
    rays = 200_000
    scan = scan_from(np.random.default_rng(0), pack(floor), ORIGIN, rays)
    away = np.hypot(scan["points"][:, 0], scan["points"][:, 1])
    steps = rays / (2 * math.pi * STEPS_UP)  # rays per square radian of azimuth and elevation
    for inner, outer in ((1.0, 1.3), (2.0, 2.4), (4.0, 4.6)):
        count = ((away > inner) & (away < outer)).sum()
        turn = math.atan(outer / ORIGIN[2]) - math.atan(inner / ORIGIN[2])
        assert count == pytest.approx(2 * math.pi * turn * steps, rel=0.04)


@pytest.mark.parametrize("distance", [1.5, 4.0, 8.0])
def test_range_noise_is_as_stated(distance):
    wall = pack([wall_at(distance, size=2 * distance)])
    scan = scan_from(np.random.default_rng(1), wall, ORIGIN, 150_000)
    ray = scan["points"] - ORIGIN
    cosine = ray[:, 0] / np.linalg.norm(ray, axis=1)
    error = (ray[:, 0] - distance) / cosine  # along the ray
    scaled = error / range_sigma(distance / cosine, cosine)
    assert scaled.std() == pytest.approx(1.0, abs=0.03)
    assert scaled.mean() == pytest.approx(0.0, abs=0.03)


def test_range_sigma_in_metres():
    cosine = np.array([1.0, 1.0, 0.25, 0.01])
    sigma = range_sigma(np.array([0.0, 5.0, 5.0, 5.0]), cosine)
    np.testing.assert_allclose(sigma, [0.002, 0.003, 0.006, 0.01])


def test_intensity_is_reflectance_times_cosine_over_squared_range():
    scan = scan_from(np.random.default_rng(2), pack([wall_at(3.0)]), ORIGIN, 100_000)
    ray = scan["points"] - ORIGIN
    reach = np.linalg.norm(ray, axis=1)
    reflectance = scan["intensity"] * reach**2 / (ray[:, 0] / reach)
    assert reflectance.mean() == pytest.approx(WHITE.reflectance, rel=0.01)
    assert reflectance.std() / reflectance.mean() == pytest.approx(0.05, abs=0.01)
    assert scan["intensity"].dtype == np.float32


def test_weak_returns_are_lost():
    def share(paint: Paint, distance: float) -> float:
        wall = pack([wall_at(distance, paint, size=distance)])
        returned = scan_from(np.random.default_rng(3), wall, ORIGIN, 100_000)["points"]
        _, met = cast(wall, ORIGIN, dome(np.random.default_rng(3), 100_000), LOWEST)
        return len(returned) / (met >= 0).sum()

    assert share(WHITE, 3.0) > 0.999
    assert 0.3 < share(BLACK, 9.0) < 0.7
    assert share(BLACK, 3.0) > share(BLACK, 9.0) > share(BLACK, 14.0)


def test_stations_stand_on_free_floor_away_from_each_other():
    plan = FloorPlan(8.0, 6.0, 2.8, 0.2)
    plan.free[:80] = False  # the left half is full
    places = stations(np.random.default_rng(0), plan, 3)
    assert places.shape == (3, 3)
    assert (places[:, 0] > 4.0).all()
    assert ((places[:, 2] >= 1.2) & (places[:, 2] <= 1.8)).all()
    gaps = np.linalg.norm(places[:, None, :2] - places[None, :, :2], axis=2)
    assert gaps[~np.eye(3, dtype=bool)].min() > 1.5
