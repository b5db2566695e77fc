"""The building: floor, ceiling, walls, doors, columns, boards and ceiling lamps."""

from __future__ import annotations

import math

import numpy as np

from pointwise.rooms.materials import (
    BOARD,
    CEILING,
    CLUTTER,
    COLUMN,
    DOOR,
    FLOOR,
    WALL,
    Paint,
    paint,
)
from pointwise.rooms.plan import FloorPlan, Furniture, Pose, Site, Wall
from pointwise.rooms.solids import Solid, box, moved, tube

Opening = tuple[Wall, float, float, float]  # the wall, the middle along it, width, height


def floor_plan(rng: np.random.Generator, kind: str) -> FloorPlan:
    """A plan of a size usual for the ``kind`` of room; about a third of the larger ones are L's."""
    low, high = {
        "office": ((3.0, 3.0), (4.8, 4.5)),
        "meeting": ((4.0, 4.5), (6.0, 8.5)),
        "lounge": ((4.5, 4.0), (8.0, 6.5)),
        "open": ((7.5, 6.5), (12.0, 10.0)),
    }[kind]
    width, depth = (float(value) for value in rng.uniform(low, high))
    if rng.random() < 0.5:
        width, depth = depth, width
    notch = None
    if kind in ("lounge", "open") and rng.random() < 0.4:
        w, d = (float(value) for value in rng.uniform(0.25, 0.45, 2) * (width, depth))
        x0 = 0.0 if rng.random() < 0.5 else width - w
        y0 = 0.0 if rng.random() < 0.5 else depth - d
        notch = (x0, y0, w if x0 == 0.0 else width, d if y0 == 0.0 else depth)
    height = float(rng.uniform(2.5, 3.0 if kind == "office" else 3.5))
    return FloorPlan(width, depth, height, float(rng.uniform(0.1, 0.25)), notch)


def add_shell(site: Site) -> Paint:
    """Doors, walls, floor and ceiling; returns the paint of the walls."""
    plan, rng = site.plan, site.rng
    openings = [_door(site)]
    if plan.area > 30 and rng.random() < 0.6:
        openings.append(_door(site))
    wall_paint = paint(rng, "plaster")
    for wall in plan.walls:
        # One wall in eight has a colour or a material of its own.
        own = paint(rng, "plaster", "concrete", "wood") if rng.random() < 0.12 else wall_paint
        holes = [opening for opening in openings if opening[0] is wall]
        site.put(_wall(wall, holes, plan, own), wall.pose(0.0))
    t = plan.thickness
    size = (plan.width + 2 * t, plan.depth + 2 * t, 0.2)
    middle = plan.width / 2, plan.depth / 2
    floor = paint(rng, "carpet", "wood", "laminate", "concrete")
    ceiling = paint(rng, "plaster", "tiles", "tiles", "concrete")
    site.solids.append(box(FLOOR, floor, (*middle, -0.2), size))
    site.solids.append(box(CEILING, ceiling, (*middle, plan.height), size))
    return wall_paint


def _wall(wall: Wall, holes: list[Opening], plan: FloorPlan, color: Paint) -> list[Solid]:
    """The wall in its own frame: along x, the room at y > 0, with its doors left out."""
    t, solids = plan.thickness, []

    def part(left: float, right: float, bottom: float) -> None:
        size = (right - left, t, plan.height - bottom)
        solids.append(box(WALL, color, ((left + right) / 2, -t / 2, bottom), size))

    left = 0.0
    for _, s, width, height in sorted(holes, key=lambda hole: hole[1]):
        part(left, s - width / 2, 0.0)
        part(s - width / 2, s + width / 2, height)
        left = s + width / 2
    part(left, wall.length, 0.0)
    return solids


def _door(site: Site) -> Opening:
    """A door in its frame, shut or ajar, with the floor before it kept free."""
    plan, rng = site.plan, site.rng
    double = plan.area > 30 and rng.random() < 0.3
    leaf = float(rng.uniform(0.75, 0.85) if double else rng.uniform(0.82, 0.98))
    width, height = leaf * (2 if double else 1), float(rng.uniform(2.0, 2.15))
    # Not on the notch of an L, where floor and ceiling go on behind the wall.
    walls = [wall for wall in plan.walls if wall.outer and wall.length > width + 0.6]
    while True:
        wall = walls[rng.integers(len(walls))]
        s = float(rng.uniform(width / 2 + 0.2, wall.length - width / 2 - 0.2))
        if wall.is_open(s, width + 0.3):
            break
    wall.take(s, width + 0.2)
    plan.take(wall.pose(s), width + 0.1, 1.0)
    site.put(_frame(rng, width, height, plan.thickness), wall.pose(s))
    color = paint(rng, "wood", "wood", "plaster", "laminate", "metal")
    metal = paint(rng, "metal")
    recess = float(rng.uniform(0.02, plan.thickness - 0.05))
    for side in (-1.0, 1.0) if double else (float(rng.choice((-1.0, 1.0))),):
        ajar = float(rng.uniform(0.15, 1.5)) if rng.random() < 0.3 else 0.0
        # An open leaf turns about its hinge on the room's side of the wall.
        hinge = Pose(side * width / 2, 0.0 if ajar else -recess, -side * ajar)
        panel = _leaf(color, metal, leaf, height - 0.01, -side)
        site.put(moved(panel, hinge.x, hinge.y, turn=hinge.turn), wall.pose(s))
    return wall, s, width, height


def _frame(rng: np.random.Generator, width: float, height: float, thickness: float) -> list[Solid]:
    color = paint(rng, "wood", "plaster", "metal")
    face, out = float(rng.uniform(0.05, 0.09)), float(rng.uniform(0.01, 0.025))
    return [
        box(DOOR, color, (-width / 2 - face / 2 + 0.02, 0.0, 0.0), (face, 2 * out, height)),
        box(DOOR, color, (width / 2 + face / 2 - 0.02, 0.0, 0.0), (face, 2 * out, height)),
        box(DOOR, color, (0.0, 0.0, height - 0.02), (width + 2 * face - 0.04, 2 * out, face)),
    ]


def _leaf(color: Paint, metal: Paint, width: float, height: float, side: float) -> list[Solid]:
    """A door's leaf with its hinge at the origin, reaching to ``side`` along x, behind y = 0."""
    grip = side * (width - 0.08)
    solids = [box(DOOR, color, (side * width / 2, -0.02, 0.005), (width, 0.04, height))]
    for y in (0.05, -0.09):
        solids.append(tube(DOOR, metal, (grip, y, 1.04), (grip - side * 0.12, y, 1.04), 0.011))
        solids.append(tube(DOOR, metal, (grip, -0.02, 1.04), (grip, y, 1.04), 0.012))
    return solids


def add_columns(site: Site, wall_paint: Paint) -> None:
    """Free-standing columns in a row in large rooms, pillars at the walls in others."""
    plan, rng = site.plan, site.rng
    color = wall_paint if rng.random() < 0.5 else paint(rng, "concrete", "plaster", "metal")
    size, round_ = float(rng.uniform(0.3, 0.6)), bool(rng.random() < 0.5)
    if plan.area > 45 and rng.random() < 0.8:
        count, aside = int(rng.integers(1, 4)), float(rng.uniform(0.3, 0.7))
        parts = [((i + 1) / (count + 1), aside) for i in range(count)]
        spots = parts if plan.width > plan.depth else [(v, u) for u, v in parts]
        spots = [(u * plan.width, v * plan.depth) for u, v in spots]
        standing = [_column(site, color, x, y, size, round_) for x, y in spots]
        if any(standing):
            return
    for _ in range(int(rng.integers(1, 3))):
        width, out = float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.12, 0.35))
        # It reaches into the wall, across the gap that furniture keeps.
        pillar = box(COLUMN, color, (0.0, out / 2 - 0.05, 0.0), (width, out + 0.1, plan.height))
        site.against_wall(Furniture([pillar], width, out), tall=True)


def _column(site: Site, color: Paint, x: float, y: float, size: float, round_: bool) -> bool:
    height = site.plan.height
    footprint = Pose(x, y - size / 2, 0.0)
    if not site.plan.fits(footprint, size + 0.6, size):
        return False
    site.plan.take(footprint, size, size)
    site.solids.append(
        tube(COLUMN, color, (x, y, 0.0), (x, y, height), size / 2)
        if round_
        else box(COLUMN, color, (x, y, 0.0), (size, size, height))
    )
    return True


def add_boards(site: Site, count: int) -> None:
    """White-, chalk- and pinboards, a centimetre or three thick, at the height of the eyes."""
    rng = site.rng
    for _ in range(count):
        material = ("whiteboard", "whiteboard", "chalkboard", "cork")[rng.integers(4)]
        width = float(rng.uniform(0.9, 1.5) if material == "cork" else rng.uniform(1.2, 3.0))
        width = min(width, 0.7 * max(site.plan.width, site.plan.depth) - 0.6)
        place = site.on_wall(width) or site.on_wall(width := 0.9)
        if place is None:
            return
        height, thick = float(rng.uniform(0.9, 1.25)), float(rng.uniform(0.01, 0.03))
        z = float(rng.uniform(0.8, 1.0))
        edge = paint(rng, "wood" if material == "cork" else "metal")
        solids = [box(BOARD, paint(rng, material), (0.0, thick / 2, z), (width, thick, height))]
        rim = thick + 0.006
        for x in (-width / 2, width / 2):
            solids.append(box(BOARD, edge, (x, rim / 2, z), (0.025, rim, height)))
        for at in (z, z + height - 0.025):
            solids.append(box(BOARD, edge, (0.0, rim / 2, at), (width, rim, 0.025)))
        if material != "cork":  # the tray for pens
            solids.append(box(BOARD, edge, (0.0, 0.035, z - 0.02), (0.6 * width, 0.07, 0.015)))
        site.put(solids, place[0].pose(place[1]))


def add_lamps(site: Site) -> None:
    """A grid of lamps of one model under the ceiling; call it before there is furniture."""
    plan, rng = site.plan, site.rng
    color = paint(rng, "laminate", "tiles", "metal")
    width, depth = ((0.6, 0.6), (1.2, 0.3), (1.2, 0.16), (0.35, 0.35))[rng.integers(4)]
    drop, thick = float(rng.uniform(0.0, 0.5)), float(rng.uniform(0.02, 0.07))
    hanging = drop > 0.25 and plan.height > 2.7
    bottom = plan.height - thick - (drop if hanging else 0.0)
    lamp = [
        tube(CLUTTER, color, (0.0, 0.0, bottom), (0.0, 0.0, bottom + thick), width / 2)
        if width < 0.5
        else box(CLUTTER, color, (0.0, 0.0, bottom), (width, depth, thick))
    ]
    if hanging:
        for x in (-0.4 * width, 0.4 * width):
            lamp.append(tube(CLUTTER, color, (x, 0.0, bottom), (x, 0.0, plan.height), 0.006))
    across, along = math.ceil(plan.width / 2.6), math.ceil(plan.depth / 2.6)
    for i in range(across):
        for j in range(along):
            pose = Pose((i + 0.5) * plan.width / across, (j + 0.5) * plan.depth / along, 0.0)
            if plan.fits(Pose(pose.x, pose.y - depth / 2, 0.0), width, depth):
                site.put(lamp, pose)
