"""A simulated terrestrial laser scanner: a dome of rays from each station of a tripod."""

from __future__ import annotations

import math

import numpy as np

from pointwise.rooms.cast import MAX_JITTER, cast, normals
from pointwise.rooms.plan import FloorPlan, Pose
from pointwise.rooms.solids import Solids

LOWEST = math.radians(-62.0)  # below, the tripod is in the way
STEPS_UP = math.pi / 2 - LOWEST
MAX_RANGE_SIGMA = 0.01  # metres


def stations(rng: np.random.Generator, plan: FloorPlan, count: int) -> np.ndarray:
    """Places for the tripod on free floor, away from each other: [count, 3], metres."""
    off = min(0.8, 0.2 * min(plan.width, plan.depth))  # metres from the walls
    floor: list[tuple[float, float]] = []
    for side in (0.6, 0.4, 0.1):  # metres of free floor around the tripod
        for _ in range(200):
            x, y = (float(v) for v in rng.uniform(off, (plan.width - off, plan.depth - off)))
            if plan.inside(x, y, -off) and plan.fits(Pose(x, y - side / 2, 0.0), side, side):
                floor.append((x, y))
        if side < 0.6 and floor:
            break
    places = np.array(floor)
    chosen = [places[0]]
    while len(chosen) < count:  # the farthest from those that are there
        gaps = np.linalg.norm(places[:, None] - np.array(chosen), axis=2).min(axis=1)
        chosen.append(places[gaps.argmax()])
    return np.column_stack([np.array(chosen), rng.uniform(1.2, 1.8, count)])


def dome(rng: np.random.Generator, rays: int) -> np.ndarray:
    """About ``rays`` unit directions [rows, columns, 3], equal steps in azimuth and elevation,
    each ray a little off its place."""
    step = math.sqrt(2 * math.pi * STEPS_UP / rays)
    rows, columns = max(1, round(STEPS_UP / step)), max(1, round(2 * math.pi / step))
    off = np.clip(rng.normal(0.0, 0.15, (2, rows, columns)), -MAX_JITTER, MAX_JITTER)
    elevation = LOWEST + (np.arange(rows)[:, None] + 0.5 + off[0]) * (STEPS_UP / rows)
    azimuth = (np.arange(columns) + 0.5 + off[1]) * (2 * math.pi / columns)
    flat = np.cos(elevation)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=2)


def range_sigma(distance: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """The standard deviation of a measured range, metres: 2 mm and 0.2 mm for every metre, more
    where the beam grazes the surface (``cosine`` of the incidence), at most 1 cm."""
    sigma = (0.002 + 0.0002 * distance) / np.sqrt(np.maximum(cosine, 1e-3))
    return np.minimum(sigma, MAX_RANGE_SIGMA)


def scan_from(
    rng: np.random.Generator, solids: Solids, origin: np.ndarray, rays: int
) -> dict[str, np.ndarray]:
    """What a scanner at ``origin`` measures: ``points``, ``labels``, ``color``, ``intensity``.

    The intensity is the power that comes back, reflectance · cos(incidence) / range², relative to a
    white surface at 1 m (nearer, it stays as at 1 m); where it is low, the return is often lost.
    """
    directions = dome(rng, rays)
    distance, met = cast(solids, origin, directions, LOWEST)
    seen = met >= 0
    distance, met, directions = distance[seen], met[seen], directions[seen]
    normal = normals(solids, met, origin + distance[:, None] * directions)
    cosine = -(normal * directions).sum(axis=1)
    power = solids.reflectances[met] * cosine / np.maximum(distance, 1.0) ** 2
    returned = rng.random(len(power)) > np.exp(-power / 0.0008)
    distance, met, directions = distance[returned], met[returned], directions[returned]
    normal, cosine, power = normal[returned], cosine[returned], power[returned]
    measured = distance + rng.normal(0.0, range_sigma(distance, cosine))
    speckle = rng.normal(1.0, 0.05, len(power))
    return {
        "points": origin + measured[:, None] * directions,
        "labels": solids.labels[met],
        "color": _colors(rng, solids.colors[met], normal),
        "intensity": np.maximum(power * speckle, 0.0).astype(np.float32),
    }


def _colors(rng: np.random.Generator, base: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The camera's colours [N, 3] uint8: light from above, an exposure and a white balance of this
    station, noise."""
    light = 0.85 + 0.12 * normal[:, 2] + 0.05 * normal[:, 0] * rng.normal()
    camera = rng.normal(1.0, 0.05) * rng.normal(1.0, 0.03, 3)
    grain = rng.normal(0.0, 6.0, (len(base), 1)) + rng.normal(0.0, 3.0, base.shape)
    return np.clip(base * light[:, None] * camera + grain, 0.0, 255.0).astype(np.uint8)
