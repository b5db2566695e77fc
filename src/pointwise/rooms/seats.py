"""Chairs and sofas."""

from __future__ import annotations

import math

import numpy as np

from pointwise.rooms.materials import CHAIR, SOFA, paint
from pointwise.rooms.plan import Furniture
from pointwise.rooms.solids import Solid, ball, box, moved, tube

CHAIR_SPACE = 0.62  # metres, the side of the square of floor that a chair needs


def chair(rng: np.random.Generator, swivel: bool) -> list[Solid]:
    """A chair around the origin, looking to +y: on four legs, or on a star of five with castors."""
    frame = paint(rng, "metal", "plastic", "wood") if not swivel else paint(rng, "metal", "plastic")
    cover = paint(rng, "fabric", "leather", "plastic") if swivel else paint(rng, "fabric", "wood")
    width, depth = (float(value) for value in rng.uniform((0.42, 0.4), (0.5, 0.48)))
    seat = float(rng.uniform(0.43, 0.52) if swivel else rng.uniform(0.42, 0.46))
    thick = float(rng.uniform(0.05, 0.09) if swivel else rng.uniform(0.025, 0.06))
    solids = [box(CHAIR, cover, (0.0, 0.0, seat - thick), (width, depth, thick))]
    solids += _star(rng, frame, seat - thick) if swivel else _legs(rng, frame, width, depth, seat)
    # The back leans; it begins a little above the seat.
    lean, tall = float(rng.uniform(0.08, 0.25)), float(rng.uniform(0.35, 0.55))
    slim, gap = float(rng.uniform(0.025, 0.06)), float(rng.uniform(0.02, 0.14))
    y = -depth / 2 - math.sin(lean) * (tall / 2 + gap)
    size = (width * float(rng.uniform(0.85, 1.0)), slim, tall)
    solids.append(box(CHAIR, cover, (0.0, y, seat + gap), size, tilt=lean))
    for x in (0.0,) if swivel else (-0.4 * width, 0.4 * width):
        low, high = (x, -depth / 2 + 0.02, seat - thick), (x, y, seat + gap + tall / 2)
        solids.append(tube(CHAIR, frame, low, high, 0.022 if swivel else 0.012))
    if rng.random() < (0.7 if swivel else 0.3):
        for x in (-width / 2 - 0.02, width / 2 + 0.02):
            at = (x, 0.0, seat + 0.19)
            solids.append(box(CHAIR, frame, at, (0.05, 0.65 * depth, 0.03)))
            for y in (0.05,) if swivel else (-0.15, 0.15):
                low = (x, y, seat - thick)
                solids.append(tube(CHAIR, frame, low, (x, y, seat + 0.2), 0.014))
    return solids


def _legs(rng: np.random.Generator, frame, width: float, depth: float, seat: float) -> list[Solid]:
    splay, radius = float(rng.uniform(0.0, 0.05)), float(rng.uniform(0.01, 0.02))
    solids = []
    for side in (-1, 1):
        for end in (-1, 1):
            x, y = side * (width / 2 - 0.03), end * (depth / 2 - 0.03)
            foot = (x + side * splay, y + end * splay, 0.0)
            solids.append(tube(CHAIR, frame, foot, (x, y, seat - 0.02), radius))
    return solids


def _star(rng: np.random.Generator, frame, seat: float) -> list[Solid]:
    solids = [
        tube(CHAIR, frame, (0.0, 0.0, 0.09), (0.0, 0.0, seat), 0.03),
        box(CHAIR, frame, (0.0, 0.0, seat - 0.05), (0.22, 0.26, 0.05)),
    ]
    reach, first = float(rng.uniform(0.28, 0.34)), float(rng.uniform(0.0, 2 * math.pi))
    for i in range(5):
        angle = first + i * 2 * math.pi / 5
        x, y = reach * math.cos(angle), reach * math.sin(angle)
        solids.append(tube(CHAIR, frame, (0.0, 0.0, 0.11), (x, y, 0.07), 0.02))
        solids.append(ball(CHAIR, frame, (x, y, 0.03), (0.03, 0.03, 0.03)))
    return solids


def sofa(rng: np.random.Generator, seats: int) -> Furniture:
    """An armchair or a sofa of ``seats`` with arms, a back, and cushions that lie on it."""
    cover = paint(rng, "fabric", "leather")
    seat = float(rng.uniform(0.55, 0.7))
    arm, back = float(rng.uniform(0.1, 0.22)), float(rng.uniform(0.16, 0.25))
    depth, sits = float(rng.uniform(0.75, 0.95)), float(rng.uniform(0.38, 0.45))
    arm_top, back_top = float(rng.uniform(0.52, 0.64)), float(rng.uniform(0.7, 0.9))
    feet, puff = float(rng.uniform(0.04, 0.12)), float(rng.uniform(0.1, 0.16))
    inner = seats * seat
    width = inner + 2 * arm
    solids = [
        box(SOFA, cover, (0.0, depth / 2, feet), (width, depth - 0.02, sits - puff - feet)),
        box(SOFA, cover, (0.0, back / 2 + 0.04, feet), (width, back, back_top - feet), tilt=0.06),
    ]
    for side in (-1, 1):
        at = (side * (inner + arm) / 2, depth / 2, feet)
        solids.append(box(SOFA, cover, at, (arm, depth, arm_top - feet)))
        for y in (0.08, depth - 0.08):
            x = side * (width / 2 - 0.06)
            solids.append(tube(SOFA, cover, (x, y, 0.0), (x, y, feet), 0.025))
    for i in range(seats):
        x = (i + 0.5) * seat - inner / 2
        front = depth - back
        at = (x, back + front / 2 + 0.02, sits - puff)
        solids.append(box(SOFA, cover, at, (seat - 0.015, front, puff)))
        behind = (x, back + 0.1, sits)
        solids.append(box(SOFA, cover, behind, (seat - 0.03, 0.14, 0.35), tilt=0.2))
        if rng.random() < 0.4:  # a loose cushion leans in the corner
            loose, spin = paint(rng, "fabric", "paper"), float(rng.normal(0.0, 0.4))
            at = (x + float(rng.normal(0.0, 0.1)), back + 0.27, sits + 0.19)
            solids.append(ball(SOFA, loose, at, (0.22, 0.08, 0.2), turn=spin, tilt=0.35))
    return Furniture(solids, width, depth)


def chairs_along(
    rng: np.random.Generator, model: list[Solid], length: float, missing: float = 0.08
) -> list[Solid]:
    """Chairs that look to -y at a table's edge, which is y = 0 over ``length`` metres of x.

    They are drawn up or pushed back, and turned a little, as people left them.
    """
    count = max(1, int(length / float(rng.uniform(CHAIR_SPACE, 0.85))))
    solids: list[Solid] = []
    for i in range(count):
        if rng.random() < missing:
            continue
        x = ((i + 0.5) / count - 0.5) * length + float(rng.normal(0.0, 0.03))
        y = float(rng.uniform(0.08, 0.36))
        turn = math.pi + float(np.clip(rng.normal(0.0, 0.25), -0.6, 0.6))
        solids += moved(model, x, y, turn=turn)
    return solids
