"""Clutter: what lies on tables, stands about on the floor or hangs on the walls."""

from __future__ import annotations

import math

import numpy as np

from pointwise.rooms.materials import CLUTTER, paint
from pointwise.rooms.plan import Furniture
from pointwise.rooms.solids import Solid, ball, box, moved, tube


def desk_things(rng: np.random.Generator, width: float, depth: float) -> list[Solid]:
    """A monitor or a laptop, a lamp, papers, a cable; the desk's top is z = 0, its back y = 0."""
    x = float(rng.normal(0.0, 0.08))
    solids: list[Solid] = []
    if rng.random() < 0.75:
        for aside in (-0.29, 0.29) if width > 1.35 and rng.random() < 0.3 else (0.0,):
            turn = -0.8 * aside + float(rng.normal(0.0, 0.1))
            solids += moved(_monitor(rng), x + aside, 0.22, turn=turn)
        keys = paint(rng, "plastic", "laminate")
        at = (x, depth - 0.2, 0.0)
        solids.append(box(CLUTTER, keys, at, (0.44, 0.14, 0.022), float(rng.normal(0.0, 0.08))))
        cable = paint(rng, "plastic")
        solids.append(tube(CLUTTER, cable, (x, 0.04, 0.02), (x + 0.2, 0.02, -0.68), 0.008))
    elif rng.random() < 0.7:
        solids += moved(_laptop(rng), x, depth / 2, turn=float(rng.normal(0.0, 0.2)))
    for side in (-1.0, 1.0):
        if rng.random() < 0.55:
            spot = side * (width / 2 - 0.17), float(rng.uniform(0.15, depth - 0.17))
            solids += moved(_small(rng), *spot, turn=float(rng.uniform(-0.5, 0.5)))
    if rng.random() < 0.35:
        side = float(rng.choice((-1.0, 1.0)))
        solids += moved(_lamp(rng), side * (width / 2 - 0.14), 0.12, turn=side * 0.6)
    return solids


def table_things(rng: np.random.Generator, width: float, depth: float) -> list[Solid]:
    """A few things about the middle of a table around the origin; its top is z = 0."""
    solids: list[Solid] = []
    slots = max(1, int(width / 0.4))
    for i in range(slots):
        if rng.random() < 0.4:
            x = ((i + 0.5) / slots - 0.5) * width
            y = float(rng.uniform(-0.25, 0.25)) * depth
            thing = _laptop(rng) if rng.random() < 0.2 and depth > 0.8 else _small(rng)
            solids += moved(thing, x, y, turn=float(rng.uniform(-math.pi, math.pi)))
    return solids


def _monitor(rng: np.random.Generator) -> list[Solid]:
    color = paint(rng, "plastic")
    width, lift = float(rng.uniform(0.42, 0.62)), float(rng.uniform(0.08, 0.16))
    tall = 0.58 * width
    return [
        box(CLUTTER, color, (0.0, -0.03, 0.0), (0.24, 0.18, 0.015)),
        tube(CLUTTER, color, (0.0, -0.04, 0.0), (0.0, -0.03, lift + tall / 2), 0.022),
        box(CLUTTER, color, (0.0, 0.0, lift), (width, 0.035, tall), tilt=0.1),
    ]


def _laptop(rng: np.random.Generator) -> list[Solid]:
    color = paint(rng, "plastic", "metal")
    return [
        box(CLUTTER, color, (0.0, 0.0, 0.0), (0.34, 0.23, 0.018)),
        box(CLUTTER, color, (0.0, -0.16, 0.01), (0.34, 0.008, 0.22), tilt=0.35),
    ]


def _small(rng: np.random.Generator) -> list[Solid]:
    """A pile of paper or books, a mug, a bottle, a box or a plant in a pot."""
    kind = rng.integers(5)
    if kind == 0:
        height = float(rng.uniform(0.01, 0.12))
        return [box(CLUTTER, paint(rng, "paper"), (0.0, 0.0, 0.0), (0.22, 0.3, height))]
    if kind == 1:
        cup = paint(rng, "plastic", "laminate")
        return [tube(CLUTTER, cup, (0.0, 0.0, 0.0), (0.0, 0.0, 0.095), 0.04)]
    if kind == 2:
        glass = paint(rng, "leaf", "plastic")
        return [
            tube(CLUTTER, glass, (0.0, 0.0, 0.0), (0.0, 0.0, 0.2), 0.036),
            tube(CLUTTER, glass, (0.0, 0.0, 0.2), (0.0, 0.0, 0.28), 0.014),
        ]
    if kind == 3:
        width, depth, height = (float(value) for value in rng.uniform(0.1, 0.28, 3))
        return [box(CLUTTER, paint(rng, "cardboard", "plastic"), (0, 0, 0), (width, depth, height))]
    return _plant(rng, float(rng.uniform(0.25, 0.4)), 0.06)[0]


def _lamp(rng: np.random.Generator) -> list[Solid]:
    color = paint(rng, "metal", "plastic")
    elbow, head = (0.0, -0.03, 0.3), (0.0, 0.2, 0.42)
    return [
        tube(CLUTTER, color, (0.0, 0.0, 0.0), (0.0, 0.0, 0.02), 0.08),
        tube(CLUTTER, color, (0.0, 0.0, 0.0), elbow, 0.012),
        tube(CLUTTER, color, elbow, head, 0.012),
        tube(CLUTTER, color, head, (0.0, 0.25, 0.36), 0.055),
    ]


def _plant(rng: np.random.Generator, tall: float, pot: float) -> tuple[list[Solid], float]:
    """A plant around the origin in a pot of radius ``pot``, and how far its leaves reach."""
    clay, stem = paint(rng, "cardboard", "plastic", "laminate"), paint(rng, "leaf", "wood")
    rim, leaf, reach = 1.8 * pot, min(0.2 * tall, 1.2 * pot), pot
    solids = [
        tube(CLUTTER, clay, (0.0, 0.0, 0.0), (0.0, 0.0, rim), pot),
        tube(CLUTTER, stem, (0.0, 0.0, rim), (0.0, 0.0, 0.8 * tall), 0.1 * pot),
    ]
    for _ in range(int(rng.integers(8, 16))):
        angle, tilt = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(-0.9, 0.9))
        out, up = float(rng.uniform(0.2, 1.2)) * pot, float(rng.uniform(0.45, 0.95)) * tall
        centre = (out * math.cos(angle), out * math.sin(angle), max(up, rim + leaf))
        radii = (0.35 * leaf, leaf, 0.06 * leaf)
        solids.append(ball(CLUTTER, paint(rng, "leaf"), centre, radii, angle - math.pi / 2, tilt))
        reach = max(reach, out + leaf)
    return solids, reach


def floor_thing(rng: np.random.Generator) -> Furniture:
    """A bin, cardboard boxes, a bag, a plant, a computer or a printer on a stand."""
    kind = rng.integers(6)
    if kind == 0:
        radius, height = float(rng.uniform(0.12, 0.2)), float(rng.uniform(0.28, 0.6))
        bin_ = tube(
            CLUTTER, paint(rng, "plastic", "metal"), (0, radius, 0), (0, radius, height), radius
        )
        return Furniture([bin_], 2 * radius, 2 * radius)
    if kind == 1:
        width, depth, height = (float(value) for value in rng.uniform(0.25, 0.55, 3))
        solids, z = [], 0.0
        for _ in range(int(rng.integers(1, 4))):
            color, turn = paint(rng, "cardboard"), float(rng.normal(0.0, 0.15))
            solids.append(box(CLUTTER, color, (0.0, 0.3, z), (width, depth, height), turn))
            z, height = z + height, 0.7 * height
            width, depth = 0.9 * width, 0.9 * depth
        return Furniture(solids, 0.64, 0.6)
    if kind == 2:
        cloth, lean = paint(rng, "fabric", "leather"), float(rng.uniform(0.1, 0.3))
        bag = ball(CLUTTER, cloth, (0.0, 0.16, 0.23), (0.17, 0.12, 0.23), tilt=lean)
        pocket = ball(CLUTTER, cloth, (0.0, 0.26, 0.15), (0.12, 0.07, 0.13), tilt=lean)
        return Furniture([bag, pocket], 0.36, 0.34)
    if kind == 3:
        size = float(rng.uniform(0.7, 1.7)), float(rng.uniform(0.13, 0.2))
        green, reach = _plant(rng, *size)
        return Furniture(moved(green, 0.0, reach), 2 * reach, 2 * reach)
    if kind == 4:
        color = paint(rng, "plastic", "metal")
        return Furniture([box(CLUTTER, color, (0.0, 0.22, 0.0), (0.19, 0.42, 0.42))], 0.2, 0.44)
    stand, case = paint(rng, "wood", "laminate"), paint(rng, "plastic", "laminate")
    return Furniture(
        [
            box(CLUTTER, stand, (0.0, 0.27, 0.0), (0.55, 0.5, 0.55)),
            box(CLUTTER, case, (0.0, 0.27, 0.55), (0.48, 0.42, 0.3)),
            box(CLUTTER, case, (0.0, 0.36, 0.85), (0.48, 0.2, 0.1)),
        ],
        0.56,
        0.54,
    )


def picture(rng: np.random.Generator) -> tuple[list[Solid], float]:
    """A picture or a poster in its frame to hang on a wall, and its width."""
    width, height = (float(value) for value in rng.uniform(0.3, 0.8, 2))
    thick, bottom = float(rng.uniform(0.008, 0.03)), 1.55 - height / 2
    edge, sheet = paint(rng, "wood", "metal", "plastic"), paint(rng, "paper", "plaster", "fabric")
    solids = [box(CLUTTER, sheet, (0.0, thick / 2, bottom), (width, thick, height))]
    for x in (-width / 2, width / 2):
        solids.append(box(CLUTTER, edge, (x, thick / 2, bottom), (0.03, thick + 0.012, height)))
    return solids, width
