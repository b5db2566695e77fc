"""Bookcases, partly filled; the books count as bookcase, as in S3DIS."""

from __future__ import annotations

import numpy as np

from pointwise.rooms.materials import BOOKCASE, Paint, paint
from pointwise.rooms.plan import Furniture
from pointwise.rooms.solids import Solid, box, moved


def bookcase(rng: np.random.Generator, units: int) -> Furniture:
    """``units`` of one model side by side."""
    width, depth = (float(value) for value in rng.uniform((0.6, 0.28), (1.0, 0.42)))
    height = float(rng.uniform(1.6, 2.2) if rng.random() < 0.7 else rng.uniform(0.8, 1.4))
    color = paint(rng, "wood", "laminate", "metal")
    backed, doors = bool(rng.random() < 0.8), bool(rng.random() < 0.3)
    solids: list[Solid] = []
    for i in range(units):
        unit = _unit(rng, width, depth, height, color, backed, doors)
        solids += moved(unit, (i - (units - 1) / 2) * width, 0.0)
    return Furniture(solids, units * width, depth)


def _unit(
    rng: np.random.Generator,
    width: float,
    depth: float,
    height: float,
    color: Paint,
    backed: bool,
    doors: bool,
) -> list[Solid]:
    y, board = depth / 2, 0.022
    inner = width - 2 * board
    sides = [
        box(BOOKCASE, color, (side * (width - board) / 2, y, 0.0), (board, depth, height))
        for side in (-1, 1)
    ]
    solids = sides + [box(BOOKCASE, color, (0.0, y, height - board), (inner, depth, board))]
    if backed:
        solids.append(box(BOOKCASE, color, (0.0, 0.005, 0.0), (inner, 0.01, height)))
    shelves = max(2, round(height / 0.36))
    pitch = (height - 0.08) / shelves
    closed = 0.0
    if doors:  # the lower part is a cupboard
        closed = 0.06 + pitch * (shelves // 2)
        for x in (-inner / 4, inner / 4):
            panel = (inner / 2 - 0.003, 0.018, closed - 0.04)
            solids.append(box(BOOKCASE, color, (x, depth - 0.012, 0.05), panel))
            knob = (0.15 * x, depth, closed - 0.12)
            solids.append(box(BOOKCASE, paint(rng, "metal"), knob, (0.012, 0.04, 0.09)))
    for i in range(shelves):
        z = 0.06 + i * pitch
        solids.append(box(BOOKCASE, color, (0.0, y, z - board), (inner, depth - 0.01, board)))
        if z + 0.01 >= closed and rng.random() < 0.85:
            solids += _books(rng, inner, depth, z, pitch - board)
    return solids


def _books(
    rng: np.random.Generator, inner: float, depth: float, z: float, room: float
) -> list[Solid]:
    """Upright books from one end of a shelf on, and at times a pile of lying ones beside them."""
    solids: list[Solid] = []
    x, end = -inner / 2 + 0.005, inner / 2 * float(rng.uniform(-0.3, 1.0))
    folders = rng.random() < 0.3  # of one make, as in offices
    model = paint(rng, "paper", "plastic")
    while True:
        thick = 0.07 if folders else float(rng.uniform(0.02, 0.06))
        if x + thick > end:
            break
        tall = min(0.31 if folders else float(rng.uniform(0.18, 0.3)), room - 0.02)
        deep = min(0.27 if folders else float(rng.uniform(0.14, 0.24)), depth - 0.04)
        color = model if folders else paint(rng, "paper")
        at = (x + thick / 2, depth - 0.03 - deep / 2 - float(rng.uniform(0.0, 0.02)), z)
        solids.append(box(BOOKCASE, color, at, (thick - 0.002, deep, tall)))
        x += thick
    if inner / 2 - x > 0.3 and rng.random() < 0.5:
        for i in range(int(rng.integers(1, 5))):
            at = (x + 0.16, depth / 2, z + 0.03 * i)
            size = (0.24, min(0.17, depth - 0.04), 0.028)
            solids.append(box(BOOKCASE, paint(rng, "paper"), at, size, float(rng.normal(0, 0.1))))
    return solids
