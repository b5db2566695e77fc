"""Random changes that leave the class as it is; for training only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def about_z(degrees: float) -> np.ndarray:
    """The matrix ``[3, 3]`` float32 that turns points about the vertical: ``points @ matrix``."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=np.float32)


@dataclass(frozen=True)
class Augmentation:
    """What may be done to a block or a cloud.

    ``rotate`` is the largest turn about the vertical, in degrees; ``scale`` the largest change of
    size, as a share; ``jitter`` the standard deviation of noise, in the points' unit; ``drop`` the
    largest share of points left out; ``blank`` the chance that a block loses its colour, and
    ``withhold`` that it loses an optional feature.
    """

    rotate: float = 180.0
    scale: float = 0.1
    flip: bool = True
    jitter: float = 0.0
    drop: float = 0.2
    blank: float = 0.1
    withhold: float = 0.3

    def kept(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draws which of ``count`` points stay: a mask ``[count]``, never empty."""
        keep = rng.random(count, dtype=np.float32) >= rng.uniform(0, self.drop)
        return keep if keep.any() else np.ones(count, dtype=bool)

    def move(
        self, points: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Turns, mirrors, scales and jitters points ``[N, 3]`` that lie about their origin.

        Returns the points, the turn ``[3, 3]`` for whatever else has a direction, and the scale.
        """
        turn = about_z(rng.uniform(-self.rotate, self.rotate))
        if self.flip and rng.random() < 0.5:
            turn[:, 0] *= -1
        scale = float(rng.uniform(1 - self.scale, 1 + self.scale))
        moved = points @ (turn * np.float32(scale))
        if self.jitter > 0:
            noise = rng.standard_normal(points.shape, dtype=np.float32).clip(-3, 3)
            moved += noise * np.float32(self.jitter)
        return moved, turn, scale

    def withheld(self, optional: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Draws which of the optional features a block does without, each by itself."""
        return [name for name in optional if rng.random() < self.withhold]

    def tint(self, color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Changes normalised colours ``[N, 3]``: contrast, tint and noise, or no colour at all."""
        if rng.random() < self.blank:
            return np.zeros_like(color)
        contrast = rng.uniform(0.8, 1.2, size=3).astype(np.float32)
        shift = rng.normal(0, 0.1, size=3).astype(np.float32)
        noise = rng.standard_normal(color.shape, dtype=np.float32) * np.float32(0.05)
        return color * contrast + shift + noise
