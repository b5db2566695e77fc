"""What is benchmarked on: surfaces of simple shapes, and a landscape seen from above.

All of it is made from a seed, so that every machine times the same points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pointwise.cloud.scan import Scan

TILE = 50.0  # metres, the edge of a square tile of landscape
DENSITY = 10  # points per square metre, as from an aeroplane
CLASSES = {2: "ground", 5: "tree", 6: "building"}  # with the codes of LAS


def clouds(count: int, points: int, seed: int = 0) -> np.ndarray:
    """``[count, points, 3]`` float32: shapes and unions of two or three, each in the unit sphere.

    Points are evenly random on each shape's surface, and turned at random.
    """
    return np.stack([_cloud(np.random.default_rng((seed, i)), points) for i in range(count)])


def _cloud(rng: np.random.Generator, points: int) -> np.ndarray:
    parts = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    made = []
    for part in np.array_split(np.empty(points), parts):
        shape = SHAPES[rng.integers(len(SHAPES))]
        turned = shape(rng, len(part)) @ _rotation(rng)
        made.append(turned + (rng.uniform(-0.8, 0.8, 3) if parts > 1 else 0))
    surface = rng.permutation(np.concatenate(made))
    surface -= surface.mean(axis=0)
    return (surface / np.linalg.norm(surface, axis=1).max()).astype(np.float32)


def _rotation(rng: np.random.Generator) -> np.ndarray:
    turn, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    return turn * np.sign(np.diag(triangle))


def sphere(rng: np.random.Generator, count: int) -> np.ndarray:
    """On a sphere of radius 1, ``[count, 3]``."""
    direction = rng.normal(size=(count, 3))
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)


def block(rng: np.random.Generator, count: int) -> np.ndarray:
    """On a box with edges between 0.6 and 2."""
    edges = rng.uniform(0.6, 2.0, 3)
    areas = edges.prod() / edges  # of the faces across each axis
    axis = rng.choice(3, size=count, p=areas / areas.sum())
    place = rng.uniform(-0.5, 0.5, (count, 3))
    place[np.arange(count), axis] = rng.choice([-0.5, 0.5], count)
    return place * edges


def cylinder(rng: np.random.Generator, count: int) -> np.ndarray:
    """On a closed cylinder."""
    radius, height = rng.uniform(0.3, 0.8), rng.uniform(0.8, 2.0)
    on_side = rng.random(count) < height / (height + radius)  # 2πrh against 2πr²
    r = np.where(on_side, radius, radius * np.sqrt(rng.random(count)))
    end = rng.choice([-0.5, 0.5], count)
    return _around(rng, r, height * np.where(on_side, rng.uniform(-0.5, 0.5, count), end))


def cone(rng: np.random.Generator, count: int) -> np.ndarray:
    """On a closed cone."""
    radius, height = rng.uniform(0.4, 1.0), rng.uniform(0.8, 2.0)
    slant = np.hypot(radius, height)
    on_side = rng.random(count) < slant / (slant + radius)  # πrl against πr²
    share = np.sqrt(rng.random(count))  # of the radius: area grows with its square
    return _around(rng, radius * share, np.where(on_side, height * (1 - share), 0.0))


def torus(rng: np.random.Generator, count: int) -> np.ndarray:
    """On a torus."""
    ring, tube = rng.uniform(0.6, 1.0), rng.uniform(0.15, 0.4)
    angle = np.empty(0)
    while len(angle) < count:  # the outside has more surface than the inside
        tried = rng.uniform(0, 2 * np.pi, 2 * count)
        kept = rng.random(2 * count) < (ring + tube * np.cos(tried)) / (ring + tube)
        angle = np.concatenate((angle, tried[kept]))
    angle = angle[:count]
    return _around(rng, ring + tube * np.cos(angle), tube * np.sin(angle))


def _around(rng: np.random.Generator, radius: np.ndarray, z: np.ndarray) -> np.ndarray:
    """At random angles about the z axis."""
    angle = rng.uniform(0, 2 * np.pi, len(radius))
    return np.stack((radius * np.cos(angle), radius * np.sin(angle), z), axis=1)


SHAPES: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (
    sphere,
    block,
    cylinder,
    cone,
    torus,
)


def landscape(count: int, seed: int = 0) -> Scan:
    """A labelled scan of ``count`` points: hills with houses and trees, metres, float64.

    The density is the same for any ``count``: the area grows, tile by tile, each in random order.
    """
    per_tile = int(TILE**2 * DENSITY)
    tiles = -(-count // per_tile)
    across = int(np.ceil(np.sqrt(tiles)))
    points = np.empty((count, 3))
    labels = np.empty(count, dtype=np.int64)
    for tile in range(tiles):
        rng = np.random.default_rng((seed, tile))
        place, codes = _tile(rng, per_tile)
        here = slice(tile * per_tile, min((tile + 1) * per_tile, count))
        wanted = here.stop - here.start
        # A part of a tile is a square of it, so that it is as dense as all of it.
        corner = place[:, :2].max(axis=1)
        kept = np.flatnonzero(corner <= np.partition(corner, wanted - 1)[wanted - 1])[:wanted]
        place = place[kept] + TILE * np.array([tile % across, tile // across, 0])
        place[:, 2] += _height(place)
        points[here], labels[here] = place, codes[kept]
    return Scan(points=points, labels=labels, classes=CLASSES, name=f"landscape of {count:,}")


def _tile(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places ``[count, 3]`` above the ground of one tile, and their classes."""
    place = rng.uniform(0, 1, (count, 3)) * (TILE, TILE, 0)
    codes = np.full(count, 2)
    house = np.array([rng.uniform(8, 14), rng.uniform(8, 20), rng.uniform(4, 9)])
    centre = rng.uniform(15, TILE - 15, 2)
    within = (np.abs(place[:, :2] - centre) < house[:2] / 2).all(axis=1)
    codes[within] = 6
    off_ridge = np.abs(place[within, 0] - centre[0]) / (house[0] / 2)
    place[within, 2] = house[2] + 3 * (1 - off_ridge)
    for _ in range(rng.integers(4, 12)):
        trunk, radius, top = rng.uniform(0, TILE, 2), rng.uniform(1.5, 4), rng.uniform(5, 15)
        away = np.linalg.norm(place[:, :2] - trunk, axis=1) / radius
        crown = (away < 1) & (codes == 2) & (rng.random(count) < 0.8)  # the rest is seen below it
        codes[crown] = 5
        leaf = top - 0.6 * top * away[crown] ** 2
        place[crown, 2] = leaf - rng.exponential(0.5, len(leaf)).clip(max=3)
    place[:, 2] += rng.normal(0, 0.03, count)
    return place, codes


def _height(place: np.ndarray) -> np.ndarray:
    return 6 * np.sin(place[:, 0] / 90) + 4 * np.cos(place[:, 1] / 60)
