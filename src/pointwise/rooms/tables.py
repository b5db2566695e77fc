"""Tables: desks, meeting tables, round tables, coffee tables, with the chairs around them."""

from __future__ import annotations

import math

import numpy as np

from pointwise.rooms.materials import CLUTTER, TABLE, Paint, paint
from pointwise.rooms.plan import Furniture
from pointwise.rooms.seats import CHAIR_SPACE, chairs_along
from pointwise.rooms.solids import Solid, box, moved, tube
from pointwise.rooms.things import desk_things, table_things

CHAIR_ROOM = 0.75  # metres of floor that drawn-up chairs need beyond a table's edge


def table(
    rng: np.random.Generator, width: float, depth: float, height: float, color: Paint
) -> list[Solid]:
    """A rectangular table around the origin, on one of four kinds of legs."""
    thick, metal = float(rng.uniform(0.02, 0.045)), paint(rng, "metal", "wood", "laminate")
    under = height - thick
    solids = [box(TABLE, color, (0.0, 0.0, under), (width, depth, thick))]
    x, y = width / 2 - 0.06, depth / 2 - 0.06
    legs = ("posts", "bars", "panels", "feet")[rng.integers(4)]
    for side in (-x, x):
        if legs == "panels":
            solids.append(box(TABLE, color, (side, 0.0, 0.0), (0.03, depth - 0.08, under)))
        elif legs == "feet":  # a T upside down
            solids.append(box(TABLE, metal, (side, 0.0, 0.0), (0.07, depth - 0.1, 0.04)))
            solids.append(box(TABLE, metal, (side, 0.0, 0.04), (0.06, 0.12, under - 0.04)))
        else:
            for end in (-y, y):
                post = (
                    tube(TABLE, metal, (side, end, 0.0), (side, end, under), 0.028)
                    if legs == "posts"
                    else box(TABLE, metal, (side, end, 0.0), (0.05, 0.05, under))
                )
                solids.append(post)
    if legs == "panels" or (legs == "feet" and rng.random() < 0.5):
        at = (0.0, -0.3 * depth, under - 0.35)
        solids.append(box(TABLE, color, at, (2 * x - 0.03, 0.02, 0.35)))
    elif rng.random() < 0.5:  # an apron
        for end in (-y, y):
            solids.append(box(TABLE, metal, (0.0, end, under - 0.06), (2 * x, 0.025, 0.06)))
    return solids


def desk(rng: np.random.Generator, seat: list[Solid], color: Paint) -> Furniture:
    """A desk for one person, who looks at the wall behind it."""
    width, depth = (float(value) for value in rng.uniform((1.2, 0.65), (1.8, 0.8)))
    solids = _workplace(rng, seat, color, width, depth, float(rng.uniform(0.71, 0.76)))
    return Furniture(solids, width, depth + CHAIR_ROOM)


def desk_cluster(
    rng: np.random.Generator, seat: list[Solid], color: Paint, pairs: int
) -> Furniture:
    """Desks back to back, ``pairs`` of them in a row, often with a screen between."""
    width, depth = (float(value) for value in rng.uniform((1.2, 0.65), (1.6, 0.8)))
    height, middle = float(rng.uniform(0.71, 0.76)), depth + CHAIR_ROOM
    solids: list[Solid] = []
    for i in range(pairs):
        x = (i - (pairs - 1) / 2) * (width + 0.01)
        for turn in (0.0, math.pi):
            place = _workplace(rng, seat, color, width, depth, height)
            off = 0.02 if turn == 0.0 else -0.02
            solids += moved(place, x, middle + off, turn=turn)
    long = pairs * (width + 0.01)
    if rng.random() < 0.4:
        cloth = paint(rng, "fabric", "laminate", "cork")
        solids.append(box(CLUTTER, cloth, (0.0, middle, 0.5), (long - 0.1, 0.025, 0.7)))
    return Furniture(solids, long, 2 * middle)


def _workplace(
    rng: np.random.Generator,
    seat: list[Solid],
    color: Paint,
    width: float,
    depth: float,
    height: float,
) -> list[Solid]:
    """A desk with its back at y = 0, what lies on it and its chair, sometimes with drawers."""
    solids = moved(table(rng, width, depth, height, color), 0.0, depth / 2)
    if rng.random() < 0.5:
        x = float(rng.choice((-1.0, 1.0))) * (width / 2 - 0.34)
        drawers = paint(rng, "wood", "laminate", "metal")
        solids.append(box(TABLE, drawers, (x, depth / 2, 0.03), (0.42, depth - 0.12, 0.56)))
    solids += moved(desk_things(rng, width, depth), 0.0, 0.0, height)
    solids += moved(chairs_along(rng, seat, CHAIR_SPACE, missing=0.05), 0.0, depth)
    return solids


def meeting_table(
    rng: np.random.Generator, seat: list[Solid], long: float, deep: float
) -> Furniture:
    """A table with chairs all around that needs at most ``long`` × ``deep`` metres of floor."""
    color = paint(rng, "wood", "laminate")
    width = min(float(rng.uniform(1.6, 4.5)), long - 2 * CHAIR_ROOM)
    depth = min(float(rng.uniform(0.9, 1.4)), deep - 2 * CHAIR_ROOM)
    height = float(rng.uniform(0.71, 0.76))
    solids = table(rng, width, depth, height, color)
    for turn in (0.0, math.pi):
        row = moved(chairs_along(rng, seat, width - 0.2), 0.0, depth / 2)
        solids += moved(row, 0.0, 0.0, turn=turn)
        if rng.random() < 0.6:
            head = moved(chairs_along(rng, seat, CHAIR_SPACE), 0.0, width / 2)
            solids += moved(head, 0.0, 0.0, turn=turn + math.pi / 2)
    solids += moved(table_things(rng, width, depth), 0.0, 0.0, height)
    deep_all = depth + 2 * CHAIR_ROOM
    return Furniture(moved(solids, 0.0, deep_all / 2), width + 2 * CHAIR_ROOM, deep_all)


def round_table(rng: np.random.Generator, seat: list[Solid]) -> Furniture:
    """A round table on one foot with two to five chairs."""
    radius, height = float(rng.uniform(0.4, 0.65)), float(rng.uniform(0.7, 0.76))
    color, metal = paint(rng, "wood", "laminate"), paint(rng, "metal")
    solids = [
        tube(TABLE, color, (0.0, 0.0, height - 0.03), (0.0, 0.0, height), radius),
        tube(TABLE, metal, (0.0, 0.0, 0.02), (0.0, 0.0, height - 0.03), 0.045),
        tube(TABLE, metal, (0.0, 0.0, 0.0), (0.0, 0.0, 0.03), 0.6 * radius),
    ]
    count = int(rng.integers(2, 6 if radius > 0.55 else 5))
    first = float(rng.uniform(0.0, 2 * math.pi))
    for i in range(count):
        place = moved(chairs_along(rng, seat, CHAIR_SPACE, missing=0.0), 0.0, radius)
        solids += moved(place, 0.0, 0.0, turn=first + i * 2 * math.pi / count)
    solids += moved(table_things(rng, radius, radius), 0.0, 0.0, height)
    size = 2 * (radius + CHAIR_ROOM)
    return Furniture(moved(solids, 0.0, size / 2), size, size)


def coffee_table(rng: np.random.Generator) -> Furniture:
    """A low table, as it stands before a sofa."""
    width, depth = (float(value) for value in rng.uniform((0.6, 0.5), (1.2, 0.7)))
    height = float(rng.uniform(0.38, 0.5))
    solids = table(rng, width, depth, height, paint(rng, "wood", "laminate", "metal"))
    solids += moved(table_things(rng, width, depth), 0.0, 0.0, height)
    return Furniture(moved(solids, 0.0, depth / 2), width, depth)
