"""The search of one tile of queries: a kernel, and the device functions that it is made of.

Queries are taken in the order of the grid. The rows of points around a row of queries are looked up
once, and in each of them a range moves forward as the queries' x index grows, so a search is one
walk through sorted memory. Queries side by side form a *group*: what any of them can reach, the
group's candidates, is copied together first, and each query then tests them a register at a time.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from pointwise.engine.cpu.compress import compress_store
from pointwise.engine.cpu.device import device, inlined
from pointwise.engine.cpu.launch import array, host, kernel
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.search.grid import FRAME, GRID
from pointwise.engine.cpu.search.reach import KERNEL, REACH, mark_rows, rows_around
from pointwise.engine.cpu.search.sort import sort_distinct
from pointwise.engine.cpu.vector import (
    at_most,
    bits,
    broadcast,
    count_bits,
    equal,
    first,
    floor,
    lanes_of,
    larger,
    less,
    load,
    magnitude,
    peek,
    poke,
    release,
    resize,
    smaller,
    to_uint32,
)
from pointwise.engine.search import MARGIN

QUERIES_PER_TILE = 256
_GROUP = 32  # queries that share their candidates, at most
_GROUP_COLUMNS = 4  # and how many x indices they extend over

SEARCH = Layout(
    "Search",
    "*tile_start *counts *owned *symmetric index_bits mirrored",
    points=GRID,
    queries=GRID,
    frame=FRAME,
    kernel=KERNEL,
    reach=REACH,
)
"""``tile_start [tiles + 1]`` int64: the first row of queries of each tile. Results: ``counts [Nq]``
int64 of each query's neighbours; ``owned [tiles, OWNED]`` int64, the tiles' memory; ``symmetric
[tiles]`` int64: no pair is on a border. ``mirrored`` looks from the points to the queries."""


# --- memory ---------------------------------------------------------------------------------------

# What a tile owns: the neighbours of all its queries, one behind the other, which are its result;
# and while it runs the x, y, z and original index of a group's candidates, the neighbours of one
# query, the rows around, which of them a group reaches along y and z, and the ranges in them.
# (By address: counting the references of arrays would cost more than what the functions do.)
OWNED = 10
RESULTS, _X, _Y, _Z, _ORDER, _HITS, _AROUND, _MET_Y, _MET_Z, _CURSORS = range(OWNED)


@inlined
def _at(owned, which):
    """The address of something that a tile owns."""
    return peek(owned + 8 * which, np.int64(0))


@device
def _grow(owned, which, size):
    """More memory for a tile, which stays on its list until it is freed."""
    grown = resize(_at(owned, which), max(size, 8))
    if grown == 0:
        raise MemoryError("there is no memory left for the neighbours of some points")
    poke(owned + 8 * which, grown)


@inlined
def _room_for_candidates(owned, room, needed):
    """Makes room for ``needed`` candidates; for how many there is room then."""
    if needed > room:
        room = 2 * needed
        _grow(owned, _X, 8 * room)
        _grow(owned, _Y, 8 * room)
        _grow(owned, _Z, 8 * room)
        _grow(owned, _ORDER, 4 * room)
        _grow(owned, _HITS, 4 * room)
    return room


@inlined
def _room_for_results(owned, room, needed):
    """The same for results."""
    if needed > room:
        room = max(2 * room, needed)
        _grow(owned, RESULTS, 4 * room)
    return room


@host()
def free(owned):
    """Frees what tiles own, where their results are not wanted any more."""
    for i in range(len(owned)):
        release(owned[i])


# --- groups of queries ----------------------------------------------------------------------------

_Box = namedtuple("_Box", "low_x high_x low_y high_y low_z high_z")
_Limits = namedtuple("_Limits", "x y z limit_x limit_y limit_z pitch inverse low_cell high_cell")


@inlined
def _group(queries, begin, end):
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
    return q, _Box(low_x, high_x, low_y, high_y, low_z, high_z)


# --- candidates of a group ------------------------------------------------------------------------


@inlined
def _limits(kernel, box, slack):
    """What a candidate may be away from a kernel cell of the box's middle, in registers.

    Far from zero the middle is rounded, and one side of the box is further from it.
    """
    x = 0.5 * (box.low_x + box.high_x)
    y = 0.5 * (box.low_y + box.high_y)
    z = 0.5 * (box.low_z + box.high_z)
    return _Limits(
        broadcast(x),
        broadcast(y),
        broadcast(z),
        broadcast(kernel.half + max(box.high_x - x, x - box.low_x) + slack),
        broadcast(kernel.half + max(box.high_y - y, y - box.low_y) + slack),
        broadcast(kernel.half + max(box.high_z - z, z - box.low_z) + slack),
        broadcast(kernel.pitch),
        broadcast(1.0 / kernel.pitch),
        broadcast(-kernel.centre),
        broadcast(kernel.centre),
    )


@inlined
def _is_near(offset, limit, limits):
    """Whether offsets along one axis are within ``limit`` of the nearest kernel cell's centre."""
    cell = floor(offset * limits.inverse + broadcast(0.5))
    cell = smaller(larger(cell, limits.low_cell), limits.high_cell)
    return at_most(magnitude(offset - cell * limits.pitch), limit)


@inlined
def _keep(points, limits, begin, stop, owned, near):
    """Adds the points ``begin … stop`` that may be neighbours to ``near`` candidates; their number.

    A point may be one if it is as near to a kernel cell of the box's middle as half the cell and
    half the box.
    """
    like = np.float64(0)
    x_at = points.position
    y_at, z_at = x_at + 8 * points.stride, x_at + 16 * points.stride
    to_x, to_y, to_z, to_order = _at(owned, _X), _at(owned, _Y), _at(owned, _Z), _at(owned, _ORDER)
    for p in range(begin, stop, lanes_of(like)):
        x, y, z = load(x_at + 8 * p, like), load(y_at + 8 * p, like), load(z_at + 8 * p, like)
        inside = (
            first(stop - p, like)
            & _is_near(x - limits.x, limits.limit_x, limits)
            & _is_near(y - limits.y, limits.limit_y, limits)
            & _is_near(z - limits.z, limits.limit_z, limits)
        )
        compress_store(to_x + 8 * near, x, inside)
        compress_store(to_y + 8 * near, y, inside)
        compress_store(to_z + 8 * near, z, inside)
        index = load(points.order + 4 * p, to_uint32(x))
        compress_store(to_order + 4 * near, index, inside)
        near += count_bits(bits(inside))
    return near


@inlined
def _candidates(own, row, first_column, last_column, limits, cursors, owned, room, near):
    """Adds the candidates in a row of points to ``near`` others of a group.

    Returns how many there are, and for how many there is room then. ``cursors [intervals, 2]``
    int64 are the range of sorted points that each interval of the kernel reaches in the row; they
    move forward with the groups.
    """
    points, intervals = own.points, own.reach.intervals
    row_start = array(points.row_start, points.rows + 1, np.int64)
    column = array(points.column, points.stride, np.int32)
    columns = array(own.reach.columns, 2 * intervals, np.int64)
    width = lanes_of(np.float64(0))
    passed, end = row_start[row], row_start[row + 1]
    for i in range(intervals):
        cursor = cursors + 16 * i
        begin, stop = peek(cursor, np.int64(0)), peek(cursor + 8, np.int64(0))
        while begin < end and column[begin] < first_column + columns[2 * i]:
            begin += 1
        stop = max(begin, stop)
        # Few points in the whole row: one look at all of them beats one per interval.
        few = i == 0 and end - begin <= intervals * width
        reaches = last_column + columns[2 * (intervals - 1 if few else i) + 1]
        while stop < end and column[stop] <= reaches:
            stop += 1
        poke(cursor, begin)
        poke(cursor + 8, begin if few else stop)
        begin = max(begin, passed)  # intervals may overlap: no candidate twice
        passed = max(passed, end if few else stop)
        if begin < stop:
            room = _room_for_candidates(owned, room, near + stop - begin + 80)
            near = _keep(points, limits, begin, stop, owned, near)
    return near, room


# --- neighbours of a query ------------------------------------------------------------------------


_Cells = namedtuple(
    "_Cells", "sign pitch inverse half low_half high_cell size middle cell_unit zero half_up"
)


@inlined
def _cells(kernel, index_bits, mirrored):
    """What offsets are compared with, and cells numbered by, in registers."""
    size = 2.0 * kernel.centre + 1.0  # cells along an axis
    return _Cells(
        broadcast(-1.0 if mirrored else 1.0),
        broadcast(kernel.pitch),
        broadcast(1.0 / kernel.pitch),
        broadcast(kernel.half),
        broadcast(-kernel.half),
        broadcast(kernel.centre),
        broadcast(size),
        broadcast((size * size + size + 1.0) * kernel.centre),
        broadcast(np.float64(1 << index_bits)),
        broadcast(0.0),
        broadcast(0.5),
    )


@inlined
def _hits(cells, dilated, x, y, z, owned, near):
    """Which of a group's candidates are neighbours of the query at (x, y, z): the definition.

    Writes their pairs; returns how many, and whether one is on a border: not in the opposite cell,
    seen from the other side. (All are but those on a border, which half-open cells give to one
    side.)
    """
    like = np.float64(0)
    near_x, near_y, near_z = _at(owned, _X), _at(owned, _Y), _at(owned, _Z)
    near_order, hits = _at(owned, _ORDER), _at(owned, _HITS)
    here_x, here_y, here_z = broadcast(x), broadcast(y), broadcast(z)
    sign, pitch, inverse, half, low_half = cells[:5]
    high_cell, size, middle, cell_unit, zero, half_up = cells[5:]
    count = 0
    on_border = np.int64(0)
    for p in range(0, near, lanes_of(like)):
        dx = (load(near_x + 8 * p, like) - here_x) * sign
        dy = (load(near_y + 8 * p, like) - here_y) * sign
        dz = (load(near_z + 8 * p, like) - here_z) * sign
        tx = floor(dx * inverse + half_up)
        ty = floor(dy * inverse + half_up)
        tz = floor(dz * inverse + half_up)
        inside = (
            first(near - p, like)
            & at_most(magnitude(tx), high_cell)
            & at_most(magnitude(ty), high_cell)
            & at_most(magnitude(tz), high_cell)
        )
        opposite = (
            equal(floor(half_up - dx * inverse), zero - tx)
            & equal(floor(half_up - dy * inverse), zero - ty)
            & equal(floor(half_up - dz * inverse), zero - tz)
        )
        if dilated:
            rx, ry, rz = dx - tx * pitch, dy - ty * pitch, dz - tz * pitch
            inside = inside & at_most(low_half, rx) & less(rx, half)
            inside = inside & at_most(low_half, ry) & less(ry, half)
            inside = inside & at_most(low_half, rz) & less(rz, half)
            opposite = opposite & less(low_half, rx)
            opposite = opposite & less(low_half, ry) & less(low_half, rz)
        on_border |= bits(inside) & ~bits(opposite)
        cell = (tz * size + ty) * size + tx + middle
        packed = to_uint32(cell * cell_unit)
        packed = packed | load(near_order + 4 * p, packed)
        compress_store(hits + 4 * count, packed, inside)
        count += count_bits(bits(inside))
    return count, on_border


@kernel
def search_tile(arguments, program, thread):
    """All neighbours of the queries in one tile of query rows, into memory of the tile's own."""
    own = SEARCH(arguments)
    points, queries, frame, reach = own.points, own.queries, own.frame, own.reach
    row_start = array(points.row_start, points.rows + 1, np.int64)
    query_key = array(queries.row_key, queries.rows, np.int64)
    query_start = array(queries.row_start, queries.rows + 1, np.int64)
    query_column = array(queries.column, queries.stride, np.int32)
    query_order = array(queries.order, queries.stride, np.uint32)
    position = array(queries.position, 3 * queries.stride, np.float64)
    tile_start = array(own.tile_start, program + 2, np.int64)
    counts = array(own.counts, queries.stride, np.int64)
    owned = own.owned + 8 * OWNED * program

    most = min(points.rows, reach.around * reach.around)
    ranges = 16 * reach.intervals  # bytes of the cursors in one row
    _grow(owned, _AROUND, 24 * most)
    _grow(owned, _MET_Y, 8 * reach.around)
    _grow(owned, _MET_Z, 8 * reach.around)
    _grow(owned, _CURSORS, ranges * most)
    around, cursors = _at(owned, _AROUND), _at(owned, _CURSORS)
    met_y, met_z = _at(owned, _MET_Y), _at(owned, _MET_Z)
    room = _room_for_candidates(owned, 0, 512)
    results = _room_for_results(owned, 0, 16 * QUERIES_PER_TILE)
    cells, dilated = _cells(own.kernel, own.index_bits, own.mirrored), own.kernel.dilation > 1
    written = 0
    on_border = np.int64(0)
    mask_y, mask_z = (1 << frame.bits_y) - 1, (1 << frame.bits_z) - 1
    slack = MARGIN * frame.edge

    for query_row in range(tile_start[program], tile_start[program + 1]):
        key = query_key[query_row]
        origin = frame.origin + 24 * (key >> (frame.bits_y + frame.bits_z))
        # From the origin: far from zero, where it is much larger than a row, it would swallow what
        # tells rows apart.
        origin_y, origin_z = peek(origin + 8, slack), peek(origin + 16, slack)
        lowest_y = (key & mask_y) * frame.edge
        lowest_z = ((key >> frame.bits_y) & mask_z) * frame.edge
        found = rows_around(points, frame, reach, key, around)
        for j in range(found):
            for at in range(cursors + ranges * j, cursors + ranges * (j + 1), 8):
                poke(at, row_start[peek(around + 24 * j, np.int64(0))])
        end = query_start[query_row]
        while end < query_start[query_row + 1]:
            group = end
            end, box = _group(queries, group, query_start[query_row + 1])
            low_y, high_y = box.low_y - origin_y, box.high_y - origin_y
            low_z, high_z = box.low_z - origin_z, box.high_z - origin_z
            mark_rows(met_y, reach, own.kernel, frame.edge, lowest_y, low_y, high_y)
            mark_rows(met_z, reach, own.kernel, frame.edge, lowest_z, low_z, high_z)
            limits = _limits(own.kernel, box, slack)
            first_column, last_column = query_column[group], query_column[end - 1]
            near = 0
            for j in range(found):
                of_row = around + 24 * j
                row = peek(of_row, np.int64(0))
                y, z = peek(of_row + 8, row), peek(of_row + 16, row)
                if peek(met_y + 8 * y, row) and peek(met_z + 8 * z, row):
                    near, room = _candidates(own, row, first_column, last_column, limits,
                                             cursors + ranges * j, owned, room,
                                             near)  # fmt: skip
            for q in range(group, end):
                x, y = position[q], position[queries.stride + q]
                z = position[2 * queries.stride + q]
                if dilated:  # two loops, since a branch in one would cost a twentieth
                    count, crossed = _hits(cells, True, x, y, z, owned, near)
                else:
                    count, crossed = _hits(cells, False, x, y, z, owned, near)
                on_border |= crossed
                results = _room_for_results(owned, results, written + count)
                sort_distinct(_at(owned, _HITS), count, _at(owned, RESULTS) + 4 * written)
                written += count
                counts[query_order[q]] = count
    for i in range(OWNED):
        if i != RESULTS:
            release(_at(owned, i))
            poke(owned + 8 * i, np.int64(0))
    array(own.symmetric + 8 * program, 1, np.int64)[0] = on_border == 0
