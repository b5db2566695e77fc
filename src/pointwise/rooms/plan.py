"""The floor plan: the walls of a rectangular or L-shaped room, and the floor that is still free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pointwise.rooms.solids import Solid, moved

CELL = 0.05  # metres, of the raster of free floor


class Pose(NamedTuple):
    """Where furniture stands: its origin on the floor and its rotation about z (radians)."""

    x: float
    y: float
    turn: float


class Furniture(NamedTuple):
    """Furniture with its back at y = 0, looking to +y, over [-width/2, width/2] × [0, depth]."""

    solids: list[Solid]
    width: float
    depth: float


@dataclass
class Wall:
    """One side of the room, from ``start`` along a unit vector, with the room to its left."""

    start: np.ndarray  # [2]
    along: np.ndarray  # [2]
    length: float
    outer: bool  # on the bounding box, not on the notch of an L
    taken: list[tuple[float, float]] = field(default_factory=list)  # by what is tall or hangs

    @property
    def turn(self) -> float:
        return math.atan2(self.along[1], self.along[0])

    def pose(self, s: float, off: float = 0.0) -> Pose:
        """At ``s`` metres along the wall and ``off`` metres into the room."""
        x, y = self.start + s * self.along + off * np.array([-self.along[1], self.along[0]])
        return Pose(float(x), float(y), self.turn)

    def is_open(self, s: float, width: float) -> bool:
        return all(s + width / 2 <= low or s - width / 2 >= high for low, high in self.taken)

    def take(self, s: float, width: float) -> None:
        self.taken.append((s - width / 2, s + width / 2))


@dataclass
class FloorPlan:
    """A room over [0, width] × [0, depth], for an L without the rectangle ``notch`` at a corner."""

    width: float
    depth: float
    height: float
    thickness: float  # of the walls, outwards
    notch: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1

    def __post_init__(self) -> None:
        self.walls = self._walls()
        shape = math.ceil(self.width / CELL), math.ceil(self.depth / CELL)
        x, y = np.meshgrid(*((np.arange(n) + 0.5) * CELL for n in shape), indexing="ij")
        self.free = self.inside(x, y)  # [X, Y]

    @property
    def area(self) -> float:
        cut = self.notch
        lost = (cut[2] - cut[0]) * (cut[3] - cut[1]) if cut else 0.0
        return self.width * self.depth - lost

    def inside(self, x: ArrayLike, y: ArrayLike, margin: float = 0.0) -> np.ndarray:
        """Whether positions are in the room, or at most ``margin`` metres outside of it."""
        x, y = np.asarray(x), np.asarray(y)
        within = (x > -margin) & (x < self.width + margin)
        within &= (y > -margin) & (y < self.depth + margin)
        if self.notch:
            x0, y0, x1, y1 = self.notch
            within &= ~(
                (x > x0 + margin) & (x < x1 - margin) & (y > y0 + margin) & (y < y1 - margin)
            )
        return within

    def _walls(self) -> list[Wall]:
        w, d = self.width, self.depth
        corners = [(0.0, 0.0), (w, 0.0), (w, d), (0.0, d)]
        if self.notch:
            x0, y0, x1, y1 = self.notch
            # Counter-clockwise, the notched corner becomes three; which way round depends on it.
            inner = (x1 if x0 == 0.0 else x0, y1 if y0 == 0.0 else y0)
            corner = (0.0 if x0 == 0.0 else w, 0.0 if y0 == 0.0 else d)
            beside_x, beside_y = (inner[0], corner[1]), (corner[0], inner[1])
            i = corners.index(corner)
            vertical_first = corner in ((w, d), (0.0, 0.0))
            steps = [beside_y, inner, beside_x] if vertical_first else [beside_x, inner, beside_y]
            corners[i : i + 1] = steps
        walls = []
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            start, end = np.array(a), np.array(b)
            length = float(np.hypot(*(end - start)))
            middle = (start + end) / 2
            outer = bool(np.any((middle == 0.0) | (middle == (w, d))))
            walls.append(Wall(start, (end - start) / length, length, outer))
        return walls

    def _cells(
        self, pose: Pose, width: float, depth: float, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The raster cells under the footprint of a piece at ``pose``."""
        u = np.linspace(-width / 2, width / 2, max(2, math.ceil(width / step) + 1))
        v = np.linspace(0.0, depth, max(2, math.ceil(depth / step) + 1))[:, None]
        c, s = math.cos(pose.turn), math.sin(pose.turn)
        x, y = pose.x + c * u - s * v, pose.y + s * u + c * v
        return np.floor(x / CELL).astype(int), np.floor(y / CELL).astype(int)

    def fits(self, pose: Pose, width: float, depth: float) -> bool:
        """Whether the whole footprint is free floor."""
        i, j = self._cells(pose, width, depth, CELL)
        if i.min() < 0 or j.min() < 0 or i.max() >= len(self.free) or j.max() >= len(self.free[0]):
            return False
        return bool(self.free[i, j].all())

    def take(self, pose: Pose, width: float, depth: float) -> None:
        """The footprint is free no longer."""
        i, j = self._cells(pose, width, depth, CELL / 2)
        self.free[np.clip(i, 0, len(self.free) - 1), np.clip(j, 0, len(self.free[0]) - 1)] = False


@dataclass
class Site:
    """A room being furnished."""

    plan: FloorPlan
    rng: np.random.Generator
    solids: list[Solid] = field(default_factory=list)

    def put(self, solids: list[Solid], pose: Pose, z: float = 0.0) -> None:
        self.solids += moved(solids, pose.x, pose.y, z, pose.turn)

    def against_wall(self, piece: Furniture, tall: bool = False, tries: int = 40) -> Pose | None:
        """Places the piece with its back to a wall, where it fits; None if it fits nowhere.

        What is ``tall`` does not stand before a board or a door, and keeps them from coming later.
        """
        walls = [wall for wall in self.plan.walls if wall.length > piece.width + 0.1]
        if not walls:
            return None
        odds = np.array([wall.length for wall in walls])
        for _ in range(tries):
            wall = walls[self.rng.choice(len(walls), p=odds / odds.sum())]
            margin = piece.width / 2 + 0.05
            s = float(self.rng.uniform(margin, wall.length - margin))
            pose = wall.pose(s, float(self.rng.uniform(0.02, 0.06)))
            if tall and not wall.is_open(s, piece.width):
                continue
            if self.plan.fits(pose, piece.width, piece.depth):
                if tall:
                    wall.take(s, piece.width)
                self.plan.take(pose, piece.width, piece.depth)
                self.put(piece.solids, pose)
                return pose
        return None

    def on_floor(
        self, piece: Furniture, clearance: float = 0.0, square: bool = False, tries: int = 40
    ) -> Pose | None:
        """Places the piece anywhere with ``clearance`` metres around it; ``square`` to the walls
        or turned at random."""
        for _ in range(tries):
            turn = float(self.rng.integers(4)) * math.pi / 2
            turn += float(self.rng.normal(0.0, 0.03) if square else self.rng.uniform(-0.7, 0.7))
            x = float(self.rng.uniform(0.0, self.plan.width))
            y = float(self.rng.uniform(0.0, self.plan.depth))
            pose = Pose(x, y, turn)
            around = Pose(x + clearance * math.sin(turn), y - clearance * math.cos(turn), turn)
            width, depth = piece.width + 2 * clearance, piece.depth + 2 * clearance
            if self.plan.fits(around, width, depth):
                self.plan.take(pose, piece.width, piece.depth)
                self.put(piece.solids, pose)
                return pose
        return None

    def on_wall(self, width: float, tries: int = 40) -> tuple[Wall, float] | None:
        """A place on a wall for something ``width`` wide to hang or a door: the wall and where."""
        walls = [wall for wall in self.plan.walls if wall.length > width + 0.2]
        if not walls:
            return None
        odds = np.array([wall.length for wall in walls])
        for _ in range(tries):
            wall = walls[self.rng.choice(len(walls), p=odds / odds.sum())]
            s = float(self.rng.uniform(width / 2 + 0.1, wall.length - width / 2 - 0.1))
            if wall.is_open(s, width + 0.1):
                wall.take(s, width + 0.1)
                return wall, s
        return None
