"""Points seen from one side, as pixels: an orthographic z-buffer of discs, and its shading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOTHING = np.uint64(2**64 - 1)  # farther than any point


@dataclass
class View:
    """What a pixel shows: the index of its point (-1 for none), and how far away, in pixels."""

    index: np.ndarray  # [H, W] int64
    depth: np.ndarray  # [H, W] float64, inf where there is no point
    radius: int  # of a point's disc, in pixels
    box: tuple[float, float, float, float]  # left, right, bottom, top, in the scan's unit


def turn(points: np.ndarray, around: float, above: float) -> np.ndarray:
    """Points ``[N, 3]`` as right, up and away for a viewer at ``around`` (degrees, from x to y)
    and ``above`` the horizon (degrees; 90 looks straight down)."""
    a, e = np.radians(around), np.radians(above)
    right = (-np.sin(a), np.cos(a), 0.0)
    up = (-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e))
    away = (-np.cos(e) * np.cos(a), -np.cos(e) * np.sin(a), -np.sin(e))
    return points @ np.array([right, up, away]).T


def bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the box around points ``[N, D]``, without the farthest 0.05 % on each side,
    so that a few strays do not make the rest tiny."""
    low, high = np.quantile(points, (0.0005, 0.9995), axis=0)
    return low, high


def view(seen: np.ndarray, width: int, height: int) -> View:
    """Draws ``seen`` ``[N, 3]`` (right, up, away) on ``width`` × ``height`` pixels, to one scale.

    The discs are as large as the gaps between the points ask for; what lies outside ``bounds``
    by more than the margin is not drawn.
    """
    low, high = (corner[:2] for corner in bounds(seen))
    middle, side = (low + high) / 2, high - low
    unit = max(side[0] / width, side[1] / height) * 1.06 or 1.0 / min(width, height)
    column = np.floor((seen[:, 0] - middle[0]) / unit + width / 2).astype(np.int64)
    row = np.floor((middle[1] - seen[:, 1]) / unit + height / 2).astype(np.int64)
    inside = np.flatnonzero((column >= 0) & (column < width) & (row >= 0) & (row < height))
    pixel = row[inside] * width + column[inside]

    away = seen[inside, 2]
    nearest, farthest = away.min(), away.max()
    step = (farthest - nearest) / (2**32 - 2) or 1.0
    key = ((away - nearest) / step).astype(np.uint64) << np.uint64(32) | inside.astype(np.uint64)
    flat = np.full(width * height, NOTHING)
    np.minimum.at(flat, pixel, key)  # the nearest point of each pixel, one pixel large
    buffer = flat.reshape(height, width)
    radius = _radius(buffer)
    buffer = _widen(buffer, radius)

    empty = buffer == NOTHING
    index = np.where(empty, -1, (buffer & np.uint64(2**32 - 1)).astype(np.int64))
    depth = np.where(empty, np.inf, (buffer >> np.uint64(32)).astype(np.float64) * step / unit)
    half = np.array([width, height]) * unit / 2
    (left, lower), (right, upper) = (middle - half).tolist(), (middle + half).tolist()
    return View(index, depth, radius, (left, right, lower, upper))


def shade(depth: np.ndarray, radius: int, strength: float = 1.0) -> np.ndarray:
    """Eye-dome lighting: how bright each pixel is, 0 to 1, from ``depth`` ``[H, W]`` alone.

    A pixel darkens by as much as its neighbours stand before it, at one to eight times the
    ``radius`` of the points; opposite neighbours are averaged, so that a tilted plane stays
    evenly lit.
    """
    height, width = depth.shape
    seen = np.where(np.isfinite(depth), depth, np.nan).astype(np.float32)
    dark = np.zeros_like(seen)
    for reach in (radius, 2 * radius, 4 * radius, 8 * radius):
        for dy, dx in ((0, reach), (reach, 0), (reach, reach), (reach, -reach)):
            rows, columns = (dy, height - dy), (abs(dx), width - abs(dx))
            if rows[0] >= rows[1] or columns[0] >= columns[1]:
                continue  # the picture is too small for neighbours this far apart
            here = seen[slice(*rows), slice(*columns)]
            one = seen[rows[0] + dy : rows[1] + dy, columns[0] + dx : columns[1] + dx]
            other = seen[rows[0] - dy : rows[1] - dy, columns[0] - dx : columns[1] - dx]
            # flat discs make steps of about their radius on a slope: those are no relief
            before = (here - (one + other) / 2 - radius) / reach
            # beside an empty pixel this is NaN, which fmax takes for 0
            dark[slice(*rows), slice(*columns)] += np.minimum(np.fmax(before, 0), 1)
    return np.maximum(np.exp(-strength * dark / 16), 0.3)


def _radius(buffer: np.ndarray) -> int:
    """How far to widen points so that surfaces close: from the share of pixels they hit."""
    height, width = (n // 16 * 16 for n in buffer.shape)
    hit = buffer[:height, :width] != NOTHING
    per_block = hit.reshape(height // 16, 16, width // 16, 16).sum((1, 3))
    crowded = per_block[per_block > 0]
    if len(crowded) == 0:
        return 3
    gap = np.sqrt(256 / np.median(crowded))  # pixels from one point to the next
    return int(np.clip(round(0.85 * gap), 1, 7))


def _widen(buffer: np.ndarray, radius: int) -> np.ndarray:
    """Every point as a disc, the nearer before the farther: one shift of all points at a time."""
    out = buffer.copy()
    row, column = np.nonzero(buffer != NOTHING)
    keys = buffer[row, column]
    height, width = buffer.shape
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx > radius * (radius + 0.5):
                continue
            y, x = row + dy, column + dx
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            y, x = y[inside], x[inside]  # no pixel twice, since all moved alike
            out[y, x] = np.minimum(out[y, x], keys[inside])
    return out
