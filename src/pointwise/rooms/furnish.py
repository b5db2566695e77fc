"""Which furniture a room of a kind gets, and where people would put it."""

from __future__ import annotations

import math

import numpy as np

from pointwise.rooms import shell, tables, things
from pointwise.rooms.materials import paint
from pointwise.rooms.plan import FloorPlan, Furniture, Pose, Site
from pointwise.rooms.seats import chair, sofa
from pointwise.rooms.solids import Solid, moved
from pointwise.rooms.storage import bookcase

KINDS = ("office", "meeting", "lounge", "open")


def furnished(seed: int) -> tuple[FloorPlan, list[Solid]]:
    """The room of number ``seed``: its plan with what floor is left free, and all its solids.

    Of the things that not every room has, each third room is sure to get a column, a sofa or a
    board, so that three rooms with consecutive numbers hold every class.
    """
    rng = np.random.default_rng([seed, 0])
    kind = KINDS[rng.choice(4, p=(0.35, 0.25, 0.2, 0.2))]
    column, seat, board = (seed % 3 == i or rng.random() < 0.5 for i in range(3))
    site = Site(shell.floor_plan(rng, kind), rng)
    wall_paint = shell.add_shell(site)
    if column:
        shell.add_columns(site, wall_paint)
    shell.add_lamps(site)
    if board or kind == "meeting":
        shell.add_boards(site, int(rng.integers(1, 4 if kind in ("meeting", "open") else 2)))
    if seat and kind != "lounge":  # first, where little room is left in the end
        _sofa_corner(site, int(rng.integers(1, 3 if kind == "office" else 4)))
    {"office": _office, "meeting": _meeting, "lounge": _lounge, "open": _open}[kind](site)
    _clutter(site)
    return site.plan, site.solids


def _office(site: Site) -> None:
    rng = site.rng
    _bookcases(site, 1)
    model, color = chair(rng, swivel=True), paint(rng, "wood", "laminate")
    for _ in range(int(rng.integers(2, 5))):
        site.against_wall(tables.desk(rng, model, color))
    if rng.random() < 0.4:
        site.on_floor(tables.round_table(rng, chair(rng, swivel=False)))
    _spare_chairs(site, int(rng.integers(1, 4)))


def _meeting(site: Site) -> None:
    rng, plan = site.rng, site.plan
    model = chair(rng, swivel=bool(rng.random() < 0.6))
    along_x = plan.width > plan.depth
    long, deep = max(plan.width, plan.depth), min(plan.width, plan.depth)
    for shrink in (1.0, 1.4, 1.8, 2.2):  # metres left beside the table
        piece = tables.meeting_table(rng, model, long - shrink, deep - shrink / 2)
        if piece.width <= 2 * tables.CHAIR_ROOM + 0.8:
            break
        for _ in range(10):
            x, y = np.array([plan.width, plan.depth]) / 2 + rng.normal(0.0, 0.2, 2)
            half = piece.depth / 2
            pose = Pose(x, y - half, 0.0) if along_x else Pose(x + half, y, math.pi / 2)
            if plan.fits(pose, piece.width, piece.depth):
                plan.take(pose, piece.width, piece.depth)
                site.put(piece.solids, pose)
                _bookcases(site, 1)
                _spare_chairs(site, int(rng.integers(1, 5)))
                return
    _lounge(site)  # a column stands in the way: a room with smaller tables


def _lounge(site: Site) -> None:
    rng = site.rng
    for _ in range(int(rng.integers(1, 4))):
        _sofa_corner(site, int(rng.integers(1, 4)))
    model = chair(rng, swivel=False)
    for _ in range(int(rng.integers(2, 5))):
        site.on_floor(tables.round_table(rng, model))
    _bookcases(site, 1)
    _spare_chairs(site, int(rng.integers(1, 4)))


def _open(site: Site) -> None:
    rng = site.rng
    model, color = chair(rng, swivel=True), paint(rng, "wood", "laminate")
    _bookcases(site, int(rng.integers(1, 4)))
    for _ in range(max(2, int(site.plan.area / float(rng.uniform(11.0, 18.0))))):
        pairs = int(rng.integers(1, 4))
        while pairs:
            cluster = tables.desk_cluster(rng, model, color, pairs)
            if site.on_floor(cluster, clearance=0.3, square=True):
                break
            pairs -= 1
    for _ in range(int(rng.integers(1, 5))):
        site.against_wall(tables.desk(rng, model, color))
    if rng.random() < 0.5:
        site.on_floor(tables.round_table(rng, chair(rng, swivel=False)))


def _bookcases(site: Site, most: int) -> None:
    """At least one bookcase: a narrower one where there is no room for more."""
    for _ in range(most):
        units = int(site.rng.integers(1, 4))
        while units and not site.against_wall(bookcase(site.rng, units), tall=True):
            units -= 1


def _sofa_corner(site: Site, seats: int) -> None:
    """A sofa at a wall, with fewer seats where it must be, and at times a coffee table."""
    rng = site.rng
    pose = None
    while seats and pose is None:
        piece = sofa(rng, seats)
        pose = site.against_wall(piece)
        seats -= 1
    if pose is None or rng.random() < 0.4:
        return
    low = tables.coffee_table(rng)
    off = piece.depth + float(rng.uniform(0.3, 0.45))
    before = Pose(pose.x - off * math.sin(pose.turn), pose.y + off * math.cos(pose.turn), pose.turn)
    if site.plan.fits(before, low.width, low.depth):
        site.plan.take(before, low.width, low.depth)
        site.put(low.solids, before)


def _spare_chairs(site: Site, count: int) -> None:
    """Chairs along the walls, one model."""
    model = chair(site.rng, swivel=False)
    for _ in range(count):
        turned = moved(model, 0.0, 0.42, turn=float(site.rng.normal(0.0, 0.15)))
        site.against_wall(Furniture(turned, 0.64, 0.72))


def _clutter(site: Site) -> None:
    rng, area = site.rng, site.plan.area
    for _ in range(int(rng.integers(0, 3 + int(area / 15)))):
        solids, width = things.picture(rng)
        place = site.on_wall(width, tries=5)
        if place:
            site.put(solids, place[0].pose(place[1]))
    for _ in range(int(rng.integers(1, 4 + int(area / 12)))):
        if rng.random() < 0.75:
            site.against_wall(things.floor_thing(rng))
        else:
            site.on_floor(things.floor_thing(rng))
