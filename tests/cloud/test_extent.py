from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pointwise.cloud.extent import find_extent, set_aside
from pointwise.cloud.scan import Scan
from pointwise.rooms import room


def site(count: int = 5000, seed: int = 0) -> np.ndarray:
    """A hundred metres at UTM coordinates, ten metres high."""
    random = np.random.default_rng(seed).random((count, 3))
    return random * (100, 100, 10) + (500_000, 5_500_000, 100)


SITE = site()
FAR = {
    "the origin": [[0, 0, 0]],
    "a kilometre": SITE[:1] + (1000, 0, 0),
    "20 km": SITE[:3] + (0, 20_000, 0),
    "no data": np.full((4, 3), -9999.0),
    "the largest float32": np.full((2, 3), np.finfo(np.float32).max),
    "the largest float64": [[1.7e308, -1.7e308, 1.7e308], [-1.7e308, 0, 0]],
    "many at one place": np.zeros((400, 3)),
    "scattered": np.random.default_rng(1).uniform(-2e4, 2e4, (200, 3)) + SITE[0],
    "from below": SITE[:5] - (0, 0, 600),
    "a bird": SITE[:2] + (0, 0, 1e4),
}


@pytest.mark.parametrize("kind", FAR)
def test_strays_are_found_and_said(kind):
    far = np.asarray(FAR[kind], dtype=np.float64)
    extent = find_extent(np.concatenate([SITE, far]))
    assert extent.stray.tolist() == [False] * len(SITE) + [True] * len(far)
    assert np.array_equal(extent.kept, SITE)
    assert len(extent.parts) == 1
    line = set_aside(Scan(extent.points, name="town"))
    assert line.startswith(f"town: {len(far)} of {len(extent.points):,} points far from")
    assert "\n" not in line


@pytest.mark.parametrize("share", [0.05, 0.4, 1])
def test_parts_far_apart_are_all_kept(share):
    other = SITE[: int(share * len(SITE))] + (1e5, 0, 0)
    extent = find_extent(np.concatenate([other, SITE]))
    assert not extent.stray.any()
    assert [len(part) for part in extent.parts] == [len(SITE), len(other)]
    assert "points in 2 places far apart" in set_aside(Scan(extent.points))


def sweep() -> np.ndarray:
    """As a scanner on a car sees: dense about it, and thin to 120 m."""
    rng = np.random.default_rng(0)
    far, around = np.minimum(rng.exponential(10, 50_000), 120), rng.uniform(0, 2 * np.pi, 50_000)
    return np.stack([far * np.cos(around), far * np.sin(around), rng.uniform(-2, 5, 50_000)], 1)


def tower() -> np.ndarray:
    points = site()
    points[:, 2] = 0  # a plane, and a pole on it
    points[:50, 2] = np.linspace(0, 40, 50)
    return points


CLEAN = {
    "a site": SITE,
    "a plane": SITE * (1, 1, 0),
    "a line": SITE * (1, 0, 0),
    "a pole": SITE * (0, 0, 1),
    "one place": np.ones((50, 3)),
    "a tower": tower(),
    "a sweep": sweep(),
    "a room": room(0).points,
    "ten points": SITE[:10],
    "two points": SITE[:2] * (1, 1000, 1),
    "a point": SITE[:1],
    "nothing": SITE[:0],
    "a little further": np.concatenate([SITE, SITE[:3] + (150, 0, 0)]),
}


@pytest.mark.parametrize("kind", CLEAN)
def test_clean_clouds_are_one_part(kind):
    points = CLEAN[kind]
    extent = find_extent(points)
    assert not extent.stray.any()
    assert len(extent.parts) == 1
    assert extent.parts[0] is points
    assert extent.kept is points
    assert set_aside(Scan(points)) == ""


def test_small_clouds_have_strays_too():
    points = np.concatenate([SITE[:10], np.zeros((1, 3))])
    assert find_extent(points).stray.tolist() == [False] * 10 + [True]


def test_memory_does_not_follow_the_distance():
    points = np.concatenate([SITE, [[1e15, -1e15, 0]]])
    tracemalloc.start()
    find_extent(points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
