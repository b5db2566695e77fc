"""The ray caster: the first solid that each ray of a scanner's dome meets."""

from __future__ import annotations

import math

import numpy as np

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import host
from pointwise.rooms.solids import BALL, BOX, Solids

# A ray may leave the middle of its grid cell by at most this part of a step, so that the window of
# rays computed for a solid, widened by one cell, holds every ray that can meet it.
MAX_JITTER = 0.45


def windows(
    solids: Solids, origin: np.ndarray, rows: int, columns: int, lowest: float
) -> np.ndarray:
    """The rays that can meet each solid: first row, row count, first column, column count [S, 4].

    Row r looks up by ``lowest + (r + ½)·(π/2 − lowest)/rows`` radians and column c to azimuth
    ``(c + ½)·2π/columns``; first columns may be negative and wrap around.
    """
    across = solids.centres - origin
    flat = np.hypot(across[:, 0], across[:, 1])
    far = np.hypot(flat, across[:, 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        wide = np.where(flat > solids.radii, np.arcsin(solids.radii / flat), math.pi)
        high = np.where(far > solids.radii, np.arcsin(solids.radii / far), math.pi)
    row_step, column_step = (math.pi / 2 - lowest) / rows, 2 * math.pi / columns
    azimuth = np.arctan2(across[:, 1], across[:, 0])
    elevation = np.arctan2(across[:, 2], flat)
    top = np.floor((elevation + high - lowest) / row_step) + 2
    bottom = np.floor((elevation - high - lowest) / row_step) - 1
    left = np.floor((azimuth - wide) / column_step) - 1
    right = np.floor((azimuth + wide) / column_step) + 2
    bottom, top = np.clip(bottom, 0, rows), np.clip(top, 0, rows)
    return np.stack([bottom, top - bottom, left, np.minimum(right - left, columns)], axis=1).astype(
        np.int64
    )


def cast(
    solids: Solids, origin: np.ndarray, directions: np.ndarray, lowest: float
) -> tuple[np.ndarray, np.ndarray]:
    """The distance to the first solid (inf where there is none) and its index (-1), both [R, C].

    ``directions`` [R, C, 3] are unit vectors on the grid of ``windows``, each within ``MAX_JITTER``
    steps of its place. A solid that holds ``origin`` is not seen.
    """
    rows, columns = directions.shape[:2]
    reach = windows(solids, origin, rows, columns, lowest)
    return _cast(
        origin, directions, solids.kinds, solids.centres, solids.inverses, reach, BALL, BOX
    )


@host(error_model="numpy")
def _cast(origin, directions, kinds, centres, inverses, reach, ball, box):
    # The numbers of the kinds are arguments: what is compiled reads no other file's constants.
    rows, columns = directions.shape[:2]
    nearest = np.full((rows, columns), np.inf)
    met = np.full((rows, columns), -1, dtype=np.int64)
    for s in range(len(kinds)):
        m = inverses[s]
        # The ray in the frame of the unit solid: o + t·d, with the same t as in the room.
        x, y, z = origin[0] - centres[s, 0], origin[1] - centres[s, 1], origin[2] - centres[s, 2]
        o0 = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z
        o1 = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z
        o2 = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z
        for r in range(reach[s, 0], reach[s, 0] + reach[s, 1]):
            for k in range(reach[s, 3]):
                c = (reach[s, 2] + k) % columns
                u, v, w = directions[r, c, 0], directions[r, c, 1], directions[r, c, 2]
                d0 = m[0, 0] * u + m[0, 1] * v + m[0, 2] * w
                d1 = m[1, 0] * u + m[1, 1] * v + m[1, 2] * w
                d2 = m[2, 0] * u + m[2, 1] * v + m[2, 2] * w
                t = _enter(kinds[s], ball, box, o0, o1, o2, d0, d1, d2)
                if 0.0 < t < nearest[r, c]:
                    nearest[r, c] = t
                    met[r, c] = s
    return nearest, met


@device
def _slab(o, d):
    """Where a ray is inside -1 ≤ o + t·d ≤ 1."""
    if abs(d) < 1e-12:
        return (-np.inf, np.inf) if abs(o) <= 1.0 else (np.inf, -np.inf)
    near, far = (-1.0 - o) / d, (1.0 - o) / d
    return (near, far) if near < far else (far, near)


@device
def _disc(a, b, c):
    """Where a·t² + 2·b·t + c ≤ 0."""
    if a < 1e-24:
        return (-np.inf, np.inf) if c <= 0.0 else (np.inf, -np.inf)
    root = b * b - a * c
    if root < 0.0:
        return (np.inf, -np.inf)
    root = math.sqrt(root)
    return ((-b - root) / a, (-b + root) / a)


@device
def _enter(kind, ball, box, o0, o1, o2, d0, d1, d2):
    """Where a ray enters a unit solid: every one of them is convex, an overlap of intervals."""
    if kind == ball:
        near, far = _disc(
            d0 * d0 + d1 * d1 + d2 * d2,
            o0 * d0 + o1 * d1 + o2 * d2,
            o0 * o0 + o1 * o1 + o2 * o2 - 1.0,
        )
        return near if near < far else np.inf
    near, far = _slab(o2, d2)
    if kind == box:
        near_0, far_0 = _slab(o0, d0)
        near_1, far_1 = _slab(o1, d1)
        near, far = max(near, near_0, near_1), min(far, far_0, far_1)
    else:
        near_0, far_0 = _disc(d0 * d0 + d1 * d1, o0 * d0 + o1 * d1, o0 * o0 + o1 * o1 - 1.0)
        near, far = max(near, near_0), min(far, far_0)
    return near if near < far else np.inf


def normals(solids: Solids, met: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The outward unit normals [N, 3] at ``points`` on the surfaces of the solids ``met`` [N]."""
    return _normals(points, met, solids.kinds, solids.centres, solids.inverses, BALL, BOX)


@host(error_model="numpy")
def _normals(points, met, kinds, centres, inverses, ball, box):
    result = np.empty_like(points)
    for i in range(len(points)):
        s = met[i]
        m = inverses[s]
        local = np.zeros(3)
        for j in range(3):  # by hand: Numba's matrix product wants SciPy
            for k in range(3):
                local[j] += m[j, k] * (points[i, k] - centres[s, k])
        if kinds[s] == box:  # the face is that of the largest coordinate
            axis = np.argmax(np.abs(local))
            side = 1.0 if local[axis] > 0.0 else -1.0
            local[:] = 0.0
            local[axis] = side
        elif kinds[s] != ball:  # a cylinder: its caps where |z| is 1, else its side
            if abs(local[2]) > math.hypot(local[0], local[1]):
                local[0], local[1] = 0.0, 0.0
            else:
                local[2] = 0.0
        for k in range(3):  # normals go by the transposed inverse
            result[i, k] = m[0, k] * local[0] + m[1, k] * local[1] + m[2, k] * local[2]
        result[i] /= math.sqrt((result[i] ** 2).sum())
    return result
