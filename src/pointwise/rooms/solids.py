"""Boxes, cylinders and balls, each stretched, turned and moved from a unit solid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pointwise.rooms.materials import Paint

BOX, CYLINDER, BALL = range(3)


class Solid(NamedTuple):
    """The unit solid of ``kind`` (each fills -1..1) mapped by ``centre + axes @ local``, metres.

    The unit cylinder's axis is z. The columns of ``axes`` are the half axes and are orthogonal.
    """

    kind: int
    centre: np.ndarray  # [3]
    axes: np.ndarray  # [3, 3]
    label: int
    paint: Paint


class Solids(NamedTuple):
    """Many solids as arrays, as the ray caster reads them."""

    kinds: np.ndarray  # [S] int64
    centres: np.ndarray  # [S, 3] float64
    inverses: np.ndarray  # [S, 3, 3] float64, from the room to the unit solid
    radii: np.ndarray  # [S] float64, of a sphere around the solid
    labels: np.ndarray  # [S] int64
    colors: np.ndarray  # [S, 3] float64
    reflectances: np.ndarray  # [S] float64


def pack(solids: Sequence[Solid]) -> Solids:
    """The arrays of ``solids``; their order is kept."""
    axes = np.array([solid.axes for solid in solids])  # [S, 3, 3]
    return Solids(
        kinds=np.array([solid.kind for solid in solids], dtype=np.int64),
        centres=np.array([solid.centre for solid in solids]),
        inverses=np.linalg.inv(axes),
        radii=np.sqrt((axes**2).sum(axis=(1, 2))),
        labels=np.array([solid.label for solid in solids], dtype=np.int64),
        colors=np.array([solid.paint.color for solid in solids]),
        reflectances=np.array([solid.paint.reflectance for solid in solids]),
    )


def rotation(turn: float, tilt: float = 0.0) -> np.ndarray:
    """First ``tilt`` about x (the top goes to -y), then ``turn`` about z; radians; [3, 3]."""
    c, s, u, v = math.cos(turn), math.sin(turn), math.cos(tilt), math.sin(tilt)
    return np.array([[c, -s * u, s * v], [s, c * u, -c * v], [0.0, v, u]])


def box(
    label: int,
    paint: Paint,
    at: tuple[float, float, float],
    size: tuple[float, float, float],
    turn: float = 0.0,
    tilt: float = 0.0,
) -> Solid:
    """A box of ``size``; ``at`` is the middle of its underside before it is tilted."""
    centre = np.array([at[0], at[1], at[2] + size[2] / 2])
    return Solid(BOX, centre, rotation(turn, tilt) * (np.array(size) / 2), label, paint)


def ball(
    label: int,
    paint: Paint,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    turn: float = 0.0,
    tilt: float = 0.0,
) -> Solid:
    """An ellipsoid with half axes ``radii``."""
    return Solid(BALL, np.array(centre), rotation(turn, tilt) * np.array(radii), label, paint)


def tube(
    label: int,
    paint: Paint,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
) -> Solid:
    """A cylinder with closed ends from ``start`` to ``end``."""
    a, b = np.array(start), np.array(end)
    half = (b - a) / 2
    length = math.hypot(*half)
    turn = math.atan2(half[1], half[0]) + math.pi / 2
    tilt = math.acos(max(-1.0, min(1.0, half[2] / length)))
    axes = rotation(turn, tilt) * np.array([radius, radius, length])
    return Solid(CYLINDER, (a + b) / 2, axes, label, paint)


def moved(
    solids: Iterable[Solid], x: float, y: float, z: float = 0.0, turn: float = 0.0
) -> list[Solid]:
    """``solids`` turned about the z axis of their own frame, then shifted."""
    shift, turned = np.array([x, y, z]), rotation(turn)
    return [
        solid._replace(centre=turned @ solid.centre + shift, axes=turned @ solid.axes)
        for solid in solids
    ]
