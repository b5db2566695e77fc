"""Candidates of a search: what any query of a group can reach, put together once for all of them.

A point may be a neighbour if it is as near to a kernel cell of the middle of the group's box as
half a cell and half the box. This is looked at in whole numbers and float32, many at once, with a
margin for what is rounded.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from pointwise.engine.cpu.compress import compress_store
from pointwise.engine.cpu.device import inlined
from pointwise.engine.cpu.launch import array
from pointwise.engine.cpu.search.owned import AT, ORDER, X, Y, Z, address, room_for_candidates
from pointwise.engine.cpu.vector import (
    at_most,
    bits,
    broadcast,
    choose,
    count_bits,
    counting,
    first,
    lanes_of,
    less,
    load,
    magnitude,
    nearest,
    offset,
    peek,
    poke,
    store,
)

_GROUP = 32  # queries that share their candidates, at most
_GROUP_COLUMNS = 16  # and how many x indices they extend over
_SHORT = 64  # points of a row that are looked at all: faster than to find those within reach

Box = namedtuple("Box", "low_x high_x low_y high_y low_z high_z")
Limits = namedtuple(
    "Limits", "middle_x middle_y middle_z limit_x limit_y limit_z centre scale doubt"
)
"""Of a group: its middle in the grid's fixed point; how far a candidate may be from a kernel cell
of it along each axis, in units of the cells' distance; ``scale``, which makes such units of the
fixed point's; and by how much they may be off."""


@inlined
def group_of(queries, begin, end):
    """(the end of the group of queries that begins with ``begin``, its bounding box)."""
    column = array(queries.column, end, np.int32)
    position, stride = array(queries.position, 3 * queries.stride, np.float64), queries.stride
    last = min(end, begin + _GROUP)
    low_x = high_x = position[begin]
    low_y = high_y = position[stride + begin]
    low_z = high_z = position[2 * stride + begin]
    q = begin
    while q < last and column[q] - column[begin] < _GROUP_COLUMNS:
        x, y, z = position[q], position[stride + q], position[2 * stride + q]
        low_x, high_x = min(low_x, x), max(high_x, x)
        low_y, high_y = min(low_y, y), max(high_y, y)
        low_z, high_z = min(low_z, z), max(high_z, z)
        q += 1
    return q, Box(low_x, high_x, low_y, high_y, low_z, high_z)


@inlined
def limits_of(kernel, frame, origin, box, slack):
    """What is looked at for the group in ``box``; ``origin`` is the address of its cloud's.

    Far from zero the middle is rounded, and one side of the box is further from it. ``doubt`` is
    four times what rounding a fixed point to float32, scaling it and taking it from another can
    change, and a unit of the fixed point for each of the two. Where it is a part of a cell, or
    where cells have more numbers than float32, all is in doubt, and all are candidates.
    """
    x = 0.5 * (box.low_x + box.high_x)
    y = 0.5 * (box.low_y + box.high_y)
    z = 0.5 * (box.low_z + box.high_z)
    by_pitch = 1.0 / kernel.pitch
    half = kernel.half * by_pitch
    limit_x = half + (max(box.high_x - x, x - box.low_x) + slack) * by_pitch
    limit_y = half + (max(box.high_y - y, y - box.low_y) + slack) * by_pitch
    limit_z = half + (max(box.high_z - z, z - box.low_z) + slack) * by_pitch
    scale = by_pitch / frame.units
    furthest = kernel.centre + 2.0 * max(limit_x, limit_y, limit_z)
    doubt = 2.0**-20 * (1.0 + furthest) + 2.0 * scale
    size = 2.0 * kernel.centre + 1.0
    if doubt > 0.125 * half or size * size * size > 2.0**24:
        doubt, scale = 1e20, 0.0
    return Limits(
        np.uint32(np.int64((x - peek(origin, slack)) * frame.units)),
        np.uint32(np.int64((y - peek(origin + 8, slack)) * frame.units)),
        np.uint32(np.int64((z - peek(origin + 16, slack)) * frame.units)),
        np.float32(limit_x + doubt),
        np.float32(limit_y + doubt),
        np.float32(limit_z + doubt),
        np.float32(kernel.centre),
        np.float32(scale),
        doubt,
    )


@inlined
def from_middle(fixed, middle, scale):
    """A query's coordinate, as the candidates have theirs: in whole numbers first, which wrap."""
    return np.float32(np.int32(fixed - middle)) * scale


@inlined
def _is_near(units, limit, centre):
    """Whether offsets along one axis are within ``limit`` of the nearest kernel cell's centre."""
    cell, high, low = nearest(units), broadcast(centre), broadcast(-centre)
    cell = choose(less(cell, high), cell, high)
    cell = choose(less(low, cell), cell, low)
    return at_most(magnitude(units - cell), broadcast(limit))


@inlined
def _keep(points, limits, begin, stop, owned, near):
    """Adds those of the points ``begin … stop`` that are candidates to ``near`` others; all."""
    like, whole = np.float32(0), np.uint32(0)
    x_at = points.fixed
    y_at, z_at = x_at + 4 * points.stride, x_at + 8 * points.stride
    scale = broadcast(limits.scale)
    for p in range(begin, stop, lanes_of(like)):
        x = offset(load(x_at + 4 * p, whole), broadcast(limits.middle_x)) * scale
        y = offset(load(y_at + 4 * p, whole), broadcast(limits.middle_y)) * scale
        z = offset(load(z_at + 4 * p, whole), broadcast(limits.middle_z)) * scale
        inside = (
            first(stop - p, like)
            & _is_near(x, limits.limit_x, limits.centre)
            & _is_near(y, limits.limit_y, limits.centre)
            & _is_near(z, limits.limit_z, limits.centre)
        )
        compress_store(address(owned, X) + 4 * near, x, inside)
        compress_store(address(owned, Y) + 4 * near, y, inside)
        compress_store(address(owned, Z) + 4 * near, z, inside)
        compress_store(address(owned, ORDER) + 4 * near, load(points.order + 4 * p, whole), inside)
        compress_store(address(owned, AT) + 4 * near, counting(np.uint32(p)), inside)
        near += count_bits(bits(inside))
    return near


@inlined
def candidates(points, reach, limits, row, first_column, last_column, cursors, owned, room, near):
    """Adds the candidates in a row of points to ``near`` others of a group.

    Returns how many there are, and for how many there is room then. ``cursors [intervals, 2]``
    int64 are the range of sorted points that each interval of the kernel reaches in a long row;
    they move forward with the groups.
    """
    intervals = reach.intervals
    row_start = array(points.row_start, points.rows + 1, np.int64)
    column = array(points.column, points.stride, np.int32)
    columns = array(reach.columns, 2 * intervals, np.int64)
    passed, end = row_start[row], row_start[row + 1]
    if end - passed <= _SHORT:
        room = room_for_candidates(owned, room, near + _SHORT + 80)
        return _keep(points, limits, passed, end, owned, near), room
    for i in range(intervals):
        cursor = cursors + 16 * i
        begin, stop = peek(cursor, np.int64(0)), peek(cursor + 8, np.int64(0))
        while begin < end and column[begin] < first_column + columns[2 * i]:
            begin += 1
        stop = max(begin, stop)
        while stop < end and column[stop] <= last_column + columns[2 * i + 1]:
            stop += 1
        poke(cursor, begin)
        poke(cursor + 8, stop)
        begin = max(begin, passed)  # intervals may overlap: no candidate twice
        passed = max(passed, stop)
        if begin < stop:
            room = room_for_candidates(owned, room, near + stop - begin + 80)
            near = _keep(points, limits, begin, stop, owned, near)
    return near, room


@inlined
def close(owned, near):
    """Behind the last candidate everything is far away: then no register needs a mask."""
    far = broadcast(np.float32(1e30))
    store(address(owned, X) + 4 * near, far)
    store(address(owned, Y) + 4 * near, far)
    store(address(owned, Z) + 4 * near, far)
