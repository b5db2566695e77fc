"""The ray caster against intersections worked out face by face, in the room's own frame."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pointwise.rooms.cast import cast, normals
from pointwise.rooms.materials import Paint
from pointwise.rooms.scanner import LOWEST, dome
from pointwise.rooms.solids import BALL, BOX, Solid, ball, box, moved, pack, tube

GREY = Paint((128.0, 128.0, 128.0), 0.5)


def first_faces(solid: Solid, origin: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance [R] (inf for a miss) and normal [R, 3] where rays ``d`` [R, 3] enter ``solid``."""
    half = np.linalg.norm(solid.axes, axis=0)
    unit = solid.axes / half
    nearest, normal = np.full(len(d), np.inf), np.zeros_like(d)

    def meet(t, on_face, outward):
        outward = np.broadcast_to(outward, d.shape)
        hit = on_face & (t > 0) & ((outward * d).sum(1) < 0) & (t < nearest)
        nearest[hit], normal[hit] = t[hit], outward[hit]

    def flat(axis, side):
        n = side * unit[:, axis]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = ((solid.centre + half[axis] * n - origin) @ n) / (d @ n)
            return t, n, (origin + t[:, None] * d - solid.centre) @ unit

    with np.errstate(invalid="ignore"):
        if solid.kind == BOX:
            for axis in range(3):
                others = [i for i in range(3) if i != axis]
                for side in (-1.0, 1.0):
                    t, n, local = flat(axis, side)
                    meet(t, (np.abs(local[:, others]) <= half[others]).all(1), n)
        elif solid.kind == BALL:
            form = unit @ np.diag(half**-2) @ unit.T  # x·form·x = 1 on the surface
            o = origin - solid.centre
            a, b, c = np.einsum("ri,ij,rj->r", d, form, d), d @ form @ o, o @ form @ o - 1
            t = (-b - np.sqrt(b * b - a * c)) / a
            n = (o + t[:, None] * d) @ form
            meet(t, ~np.isnan(t), n / np.linalg.norm(n, axis=1, keepdims=True))
        else:
            along, radius = unit[:, 2], half[0]
            for side in (-1.0, 1.0):
                t, n, local = flat(2, side)
                meet(t, np.hypot(local[:, 0], local[:, 1]) <= radius, n)
            o, across = origin - solid.centre, d - np.outer(d @ along, along)
            o_across = o - (o @ along) * along
            a, b = (across**2).sum(1), across @ o_across
            t = (-b - np.sqrt(b * b - a * (o_across @ o_across - radius**2))) / a
            at = o + t[:, None] * d
            n = (at - np.outer(at @ along, along)) / radius
            meet(t, np.abs(at @ along) <= half[2], n)
    return nearest, normal


def random_solids(rng: np.random.Generator, count: int) -> list[Solid]:
    """Solids of all kinds, in all directions and turns, from a centimetre to the size of a wall."""
    solids = []
    for i in range(count):
        x, y, z = (float(v) for v in rng.normal(0.0, 2.5, 3))
        a, b, c = (float(v) for v in np.exp(rng.uniform(math.log(0.02), math.log(1.5), 3)))
        turn, tilt = (float(v) for v in rng.uniform(-math.pi, math.pi, 2))
        if i % 3 == 0:
            solids.append(box(i, GREY, (x, y, z), (a, b, c), turn, tilt))
        elif i % 3 == 1:
            solids.append(ball(i, GREY, (x, y, z), (a, b, c), turn, tilt))
        else:
            solids.append(tube(i, GREY, (x, y, z), (x + b, y - c, z + a), 0.5 * a))
    return solids


@pytest.mark.parametrize("seed", range(4))
def test_cast_finds_the_first_of_random_solids(seed):
    rng = np.random.default_rng(seed)
    solids = random_solids(rng, 60)
    solids.append(box(60, GREY, (0.0, 0.0, -3.0), (20.0, 20.0, 0.1)))  # a floor below
    solids.append(box(61, GREY, (-4.0, 0.0, -3.0), (0.1, 20.0, 8.0)))  # a wall across ±π
    origin, directions = rng.normal(0.0, 0.3, 3), dome(rng, 3000)
    distance, met = cast(pack(solids), origin, directions, LOWEST)

    rays = directions.reshape(-1, 3)
    oracle = [first_faces(solid, origin, rays) for solid in solids]
    distances = np.array([t for t, _ in oracle])
    nearest = distances.min(axis=0)
    assert 0.3 < np.isfinite(nearest).mean() < 1.0
    np.testing.assert_allclose(distance.ravel(), nearest, rtol=1e-9, atol=1e-9)
    seen = np.isfinite(nearest)
    assert (met.ravel()[~seen] == -1).all()
    assert (met.ravel()[seen] == distances.argmin(axis=0)[seen]).all()

    index, points = met.ravel()[seen], origin + distance.ravel()[seen, None] * rays[seen]
    expected = np.array([n for _, n in oracle])[index, np.flatnonzero(seen)]
    found = normals(pack(solids), index, points)
    # A hit on the very edge of two faces may count as either.
    assert (np.abs(found - expected).max(axis=1) < 1e-6).mean() > 0.999


def test_a_solid_around_the_scanner_is_not_seen():
    rng = np.random.default_rng(0)
    around = [box(0, GREY, (0.0, 0.0, -1.0), (2.0, 2.0, 2.0))]
    directions = dome(rng, 2000)
    _, met = cast(pack(around), np.zeros(3), directions, LOWEST)
    assert (met == -1).all()
    outside, _ = cast(pack(around), np.array([-5.0, 0.0, 0.0]), directions, LOWEST)
    assert outside.min() == pytest.approx(4.0, rel=1e-2)


def test_tube_goes_from_start_to_end():
    start, end = np.array([1.0, 2.0, 0.5]), np.array([-0.5, 2.5, 1.7])
    solid = tube(0, GREY, tuple(start), tuple(end), 0.1)
    np.testing.assert_allclose(solid.centre + solid.axes[:, 2], end)
    np.testing.assert_allclose(solid.centre - solid.axes[:, 2], start)
    np.testing.assert_allclose(np.linalg.norm(solid.axes[:, :2], axis=0), 0.1)
    np.testing.assert_allclose(solid.axes[:, 0] @ solid.axes[:, 1], 0.0, atol=1e-12)


def test_moved_turns_then_shifts():
    solid = box(0, GREY, (1.0, 0.0, 0.0), (0.4, 0.2, 1.0))
    (result,) = moved([solid], 5.0, 6.0, 7.0, turn=math.pi / 2)
    np.testing.assert_allclose(result.centre, (5.0, 7.0, 7.5))
    np.testing.assert_allclose(result.axes[:, 0], (0.0, 0.2, 0.0), atol=1e-12)
