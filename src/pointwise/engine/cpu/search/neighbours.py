"""Grid search: which points lie in which kernel cell of which query.

The predicate is the definition, in float64 and in this order of operations, so that every search
gives the same answer: along each axis, with δ = point - query, the cell is t = ⌊δ·(1/(d·s)) + ½⌋
and must satisfy |t| ≤ (k-1)/2; for a dilation d > 1 also -s/2 ≤ δ - t·(d·s) < s/2.

Queries are taken in the order of the grid. The rows of points around a row of queries are looked up
once, and in each of them a window moves forward as the queries' x index grows, so a search is one
walk through sorted memory; eight candidates are tested at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointwise import checks
from pointwise.convolution.cells import index_bits
from pointwise.engine.cpu.launch import array, device, host, kernel, launch, slot
from pointwise.engine.cpu.search import grid
from pointwise.engine.cpu.vector import (
    at_most,
    bits,
    broadcast,
    compress_store,
    count_bits,
    equal,
    first,
    floor,
    lanes_of,
    larger,
    less,
    load,
    load_first,
    magnitude,
    peek,
    poke,
    release,
    resize,
    smaller,
    store,
    store_first,
    to_uint32,
)

_QUERIES_PER_TILE = 256
_GROUP = 32  # queries that share their candidates, at most
_GROUP_COLUMNS = 4  # and how far along x they spread
# Rows are matched on rounded indices; this margin (in cells) is far above the rounding of
# coordinates and far below the price of a row more.
_MARGIN = 1e-6


@device
def _sort(hits, count, target):
    """Writes ``count`` distinct uint32 from ``hits`` to ``target``, ascending.

    Short lists, nearly all there are, are sorted by rank: an element's place is the number of
    smaller ones, counted a register at a time and without a branch.
    """
    value = np.uint32(0)
    width = lanes_of(value)
    last = broadcast(np.uint32(0xFFFFFFFF))
    if count <= 4 * width:
        store(hits + 4 * count, last)
        store(hits + 4 * (count + width), last)
        store(hits + 4 * (count + 2 * width), last)
        store(hits + 4 * (count + 3 * width), last)
        a, b = load(hits, value), load(hits + 4 * width, value)
        c, d = load(hits + 8 * width, value), load(hits + 12 * width, value)
        if count <= width:
            for i in range(count):
                mine = peek(hits + 4 * i, value)
                poke(target + 4 * count_bits(bits(less(a, broadcast(mine)))), mine)
        elif count <= 2 * width:
            for i in range(count):
                mine = peek(hits + 4 * i, value)
                wanted = broadcast(mine)
                rank = count_bits(bits(less(a, wanted))) + count_bits(bits(less(b, wanted)))
                poke(target + 4 * rank, mine)
        else:
            for i in range(count):
                mine = peek(hits + 4 * i, value)
                wanted = broadcast(mine)
                rank = count_bits(bits(less(a, wanted))) + count_bits(bits(less(b, wanted)))
                rank += count_bits(bits(less(c, wanted))) + count_bits(bits(less(d, wanted)))
                poke(target + 4 * rank, mine)
        return
    found = array(hits, count, np.uint32)
    ascending = True
    for i in range(1, count):
        if found[i - 1] > found[i]:
            ascending = False
            break
    array(target, count, np.uint32)[:] = found if ascending else np.sort(found)


@device
def _near(low, high, pitch, half, centre):
    """Whether the offsets [low, high] along one axis meet a band of the kernel."""
    middle, extent = 0.5 * (low + high), 0.5 * (high - low)
    band = min(max(np.floor(middle / pitch + 0.5), -centre), centre)
    return abs(middle - band * pitch) <= half + extent


_OWNED = 6  # pieces of memory of a tile: five for one group of queries, and the results
_RESULTS = 5


@device
def _grow(owned, which, size):
    """More memory for a tile, which stays on its list until it is freed."""
    grown = resize(owned[which], size)
    if grown == 0:
        raise MemoryError("there is no memory left for the neighbours of some points")
    owned[which] = grown
    return grown


@host()
def _free(owned):
    """Frees what tiles own, where their results are not wanted any more."""
    for i in range(len(owned)):
        release(owned[i])


@device
def _rows_around(row_key, key, bits_y, bits_z, runs, row_of, index_y, index_z):
    """How many rows lie where the kernel reaches, seen from the row ``key``; which ones they are.

    ``runs`` are stretches of row offsets: first, last, and how many offsets come before. Jumps from
    one to the next of the rows that hold a point, so that empty space costs nothing.
    """
    mask_y, mask_z = (1 << bits_y) - 1, (1 << bits_z) - 1
    iy, iz, cloud = key & mask_y, (key >> bits_y) & mask_z, key >> (bits_y + bits_z)
    last = len(runs) - 1
    lowest_y = max(iy + runs[0, 0], 0)
    z, run_z, run_y = max(iz + runs[0, 0], 0), 0, 0
    row = np.searchsorted(row_key, (((cloud << bits_z) | z) << bits_y) | lowest_y)
    found = 0
    while row < len(row_key) and row_key[row] >> (bits_y + bits_z) == cloud:
        y, here = row_key[row] & mask_y, (row_key[row] >> bits_y) & mask_z
        if here != z:
            z, run_y = here, 0
        if z - iz > runs[last, 1]:
            break
        while z - iz > runs[run_z, 1]:
            run_z += 1
        next_z = max(z, iz + runs[run_z, 0])
        next_y = lowest_y
        if next_z == z:
            while run_y < last and y - iy > runs[run_y, 1]:
                run_y += 1
            if y - iy > runs[last, 1] or iy + runs[run_y, 0] > mask_y:
                next_z = z + 1
            elif y - iy < runs[run_y, 0]:
                next_y = iy + runs[run_y, 0]
            else:
                row_of[found] = row
                index_y[found] = runs[run_y, 2] + y - iy - runs[run_y, 0]
                index_z[found] = runs[run_z, 2] + z - iz - runs[run_z, 0]
                found += 1
                row += 1
                continue
        if next_z > mask_z:
            break
        row = np.searchsorted(row_key, (((cloud << bits_z) | next_z) << bits_y) | next_y)
    return found


@kernel
def _search(arguments, program, thread):
    """All neighbours of the queries in one tile of query rows, into memory of the tile's own."""
    # Points
    rows, stride = slot(arguments, 0), slot(arguments, 1)
    row_key = array(slot(arguments, 2), rows, np.int64)
    row_start = array(slot(arguments, 3), rows + 1, np.int64)
    column = array(slot(arguments, 4), stride, np.int32)
    order_at = slot(arguments, 5)
    x_at = slot(arguments, 6)
    y_at = x_at + 8 * stride
    z_at = y_at + 8 * stride
    # Queries
    query_rows, query_stride = slot(arguments, 7), slot(arguments, 8)
    query_key = array(slot(arguments, 9), query_rows, np.int64)
    query_start = array(slot(arguments, 10), query_rows + 1, np.int64)
    query_column = array(slot(arguments, 11), query_stride, np.int32)
    query_order = array(slot(arguments, 12), query_stride, np.uint32)
    query_at = array(slot(arguments, 13), 3 * query_stride, np.float64)
    # Frame and kernel
    bits_y, bits_z = slot(arguments, 14), slot(arguments, 15)
    origin_at = slot(arguments, 16)
    segments = slot(arguments, 17)
    spans = array(slot(arguments, 18), 2 * segments, np.int64)
    numbers = array(slot(arguments, 19), 7, np.float64)
    edge, pitch, half, centre, sign = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    gaps = numbers[6] > 1
    runs = array(slot(arguments, 20), 3 * slot(arguments, 25), np.int64).reshape(-1, 3)
    around = slot(arguments, 27)
    offsets = array(slot(arguments, 26), around, np.int64)
    # Results
    tile_start = array(slot(arguments, 21), program + 2, np.int64)
    counts = array(slot(arguments, 22), query_stride, np.int64)
    owned = array(slot(arguments, 23) + 8 * _OWNED * program, _OWNED, np.int64)

    like = numbers[0]
    width = lanes_of(like)
    size = 2.0 * centre + 1.0
    middle = broadcast((size * size + size + 1.0) * centre)
    pitch_, half_, inverse_ = broadcast(pitch), broadcast(half), broadcast(1.0 / pitch)
    half_up, low_half = broadcast(0.5), broadcast(-half)
    low_cell, high_cell = broadcast(-centre), broadcast(centre)
    sign_, size_, shift_ = broadcast(sign), broadcast(size), broadcast(numbers[5])

    most = min(rows, around * around)
    row_of, index_y, index_z = (
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
    )
    touch_y, touch_z = np.empty(around, np.bool_), np.empty(around, np.bool_)
    window = np.empty(2 * most * segments, np.int64)
    # Candidates of one group of queries: x, y, z and the original index; then one query's hits.
    room = 1024
    near_x, near_y = _grow(owned, 0, 8 * room), _grow(owned, 1, 8 * room)
    near_z, near_order = _grow(owned, 2, 8 * room), _grow(owned, 3, 4 * room)
    hits = _grow(owned, 4, 4 * room)
    out_room = 16 * _QUERIES_PER_TILE
    out = _grow(owned, _RESULTS, 4 * out_room)
    written = 0
    lopsided = np.int64(0)
    zero = broadcast(0.0)
    mask_y = (1 << bits_y) - 1
    mask_z = (1 << bits_z) - 1
    slack = _MARGIN * edge

    for query_row in range(tile_start[program], tile_start[program + 1]):
        key = query_key[query_row]
        iy = key & mask_y
        iz = (key >> bits_y) & mask_z
        cloud = key >> (bits_y + bits_z)
        base_y = peek(origin_at + 24 * cloud + 8, like) + iy * edge
        base_z = peek(origin_at + 24 * cloud + 16, like) + iz * edge
        found = _rows_around(row_key, key, bits_y, bits_z, runs, row_of, index_y, index_z)
        for j in range(found):
            for w in range(2 * segments):
                window[2 * segments * j + w] = row_start[row_of[j]]

        group_end = query_start[query_row]
        while group_end < query_start[query_row + 1]:
            # A group: neighbours along the row, which share their candidates.
            group = group_end
            first_column = query_column[group]
            low_x = high_x = query_at[group]
            low_y = high_y = query_at[query_stride + group]
            low_z = high_z = query_at[2 * query_stride + group]
            while (
                group_end < query_start[query_row + 1]
                and group_end - group < _GROUP
                and query_column[group_end] - first_column < _GROUP_COLUMNS
            ):
                x, y = query_at[group_end], query_at[query_stride + group_end]
                z_ = query_at[2 * query_stride + group_end]
                low_x, high_x = min(low_x, x), max(high_x, x)
                low_y, high_y = min(low_y, y), max(high_y, y)
                low_z, high_z = min(low_z, z_), max(high_z, z_)
                group_end += 1
            last_column = query_column[group_end - 1]

            centre_x = broadcast(0.5 * (low_x + high_x))
            centre_y = broadcast(0.5 * (low_y + high_y))
            centre_z = broadcast(0.5 * (low_z + high_z))
            limit_x = broadcast(half + 0.5 * (high_x - low_x) + slack)
            limit_y = broadcast(half + 0.5 * (high_y - low_y) + slack)
            limit_z = broadcast(half + 0.5 * (high_z - low_z) + slack)
            for t in range(around):
                row_y = base_y + offsets[t] * edge
                row_z = base_z + offsets[t] * edge
                touch_y[t] = _near(
                    row_y - high_y - slack, row_y + edge - low_y + slack, pitch, half, centre
                )
                touch_z[t] = _near(
                    row_z - high_z - slack, row_z + edge - low_z + slack, pitch, half, centre
                )
            near = 0
            for j in range(found):
                if not (touch_y[index_y[j]] and touch_z[index_z[j]]):
                    continue
                end = row_start[row_of[j] + 1]
                passed = row_start[row_of[j]]
                for segment in range(segments):
                    w = 2 * (segments * j + segment)
                    begin, stop = window[w], window[w + 1]
                    while begin < end and column[begin] < first_column + spans[2 * segment]:
                        begin += 1
                    stop = max(begin, stop)
                    # Few points in the whole row: one look at all of them beats one per stretch.
                    few = segment == 0 and end - begin <= segments * width
                    reaches = last_column + spans[2 * (segments - 1 if few else segment) + 1]
                    while stop < end and column[stop] <= reaches:
                        stop += 1
                    window[w], window[w + 1] = begin, begin if few else stop
                    begin = max(begin, passed)  # stretches may overlap: no candidate twice
                    passed = max(passed, end if few else stop)
                    if begin >= stop:
                        continue
                    if near + stop - begin + 80 > room:
                        room = 2 * (near + stop - begin + 80)
                        near_x = _grow(owned, 0, 8 * room)
                        near_y = _grow(owned, 1, 8 * room)
                        near_z = _grow(owned, 2, 8 * room)
                        near_order = _grow(owned, 3, 4 * room)
                        hits = _grow(owned, 4, 4 * room)
                    for p in range(begin, stop, width):
                        x8, y8 = load(x_at + 8 * p, like), load(y_at + 8 * p, like)
                        z8 = load(z_at + 8 * p, like)
                        dx, dy, dz = x8 - centre_x, y8 - centre_y, z8 - centre_z
                        tx = smaller(larger(floor(dx * inverse_ + half_up), low_cell), high_cell)
                        ty = smaller(larger(floor(dy * inverse_ + half_up), low_cell), high_cell)
                        tz = smaller(larger(floor(dz * inverse_ + half_up), low_cell), high_cell)
                        inside = (
                            first(stop - p, like)
                            & at_most(magnitude(dx - tx * pitch_), limit_x)
                            & at_most(magnitude(dy - ty * pitch_), limit_y)
                            & at_most(magnitude(dz - tz * pitch_), limit_z)
                        )
                        compress_store(near_x + 8 * near, x8, inside)
                        compress_store(near_y + 8 * near, y8, inside)
                        compress_store(near_z + 8 * near, z8, inside)
                        index = load(order_at + 4 * p, to_uint32(half_up))
                        compress_store(near_order + 4 * near, index, inside)
                        near += count_bits(bits(inside))

            for q in range(group, group_end):
                here_x, here_y = broadcast(query_at[q]), broadcast(query_at[query_stride + q])
                here_z = broadcast(query_at[2 * query_stride + q])
                count = 0
                for p in range(0, near, width):
                    dx = (load(near_x + 8 * p, like) - here_x) * sign_
                    dy = (load(near_y + 8 * p, like) - here_y) * sign_
                    dz = (load(near_z + 8 * p, like) - here_z) * sign_
                    tx = floor(dx * inverse_ + half_up)
                    ty = floor(dy * inverse_ + half_up)
                    tz = floor(dz * inverse_ + half_up)
                    inside = (
                        first(near - p, like)
                        & at_most(magnitude(tx), high_cell)
                        & at_most(magnitude(ty), high_cell)
                        & at_most(magnitude(tz), high_cell)
                    )
                    if gaps:
                        rx, ry, rz = dx - tx * pitch_, dy - ty * pitch_, dz - tz * pitch_
                        inside = inside & at_most(low_half, rx) & less(rx, half_)
                        inside = inside & at_most(low_half, ry) & less(ry, half_)
                        inside = inside & at_most(low_half, rz) & less(rz, half_)
                    # Seen from the other side, is this pair in the opposite cell? All are but
                    # those on a border, which half-open cells give to one side.
                    opposite = (
                        equal(floor(half_up - dx * inverse_), zero - tx)
                        & equal(floor(half_up - dy * inverse_), zero - ty)
                        & equal(floor(half_up - dz * inverse_), zero - tz)
                    )
                    if gaps:
                        opposite = opposite & less(low_half, rx)
                        opposite = opposite & less(low_half, ry) & less(low_half, rz)
                    lopsided |= bits(inside) & ~bits(opposite)
                    cell = (tz * size_ + ty) * size_ + tx + middle
                    packed = to_uint32(cell * shift_)
                    packed = packed | load(near_order + 4 * p, packed)
                    compress_store(hits + 4 * count, packed, inside)
                    count += count_bits(bits(inside))
                if written + count > out_room:
                    out_room = max(2 * out_room, written + count)
                    out = _grow(owned, _RESULTS, 4 * out_room)
                _sort(hits, count, out + 4 * written)
                written += count
                counts[query_order[q]] = count
    for i in range(_RESULTS):
        release(owned[i])
        owned[i] = 0
    symmetric = array(slot(arguments, 24) + 8 * program, 1, np.int64)
    symmetric[0] = lopsided == 0


@kernel
def _collect(arguments, program, thread):
    """Copies a tile's rows to where they belong in the table and frees the tile's memory."""
    tile_start = array(slot(arguments, 0), program + 2, np.int64)
    query_start = array(slot(arguments, 1), tile_start[program + 1] + 1, np.int64)
    last = query_start[tile_start[program + 1]]
    query_order = array(slot(arguments, 2), last, np.uint32)
    row_start = array(slot(arguments, 3), slot(arguments, 6) + 1, np.int64)
    target = slot(arguments, 4)
    owned = array(slot(arguments, 5) + 8 * _OWNED * program, _OWNED, np.int64)
    value = np.uint32(0)
    width = lanes_of(value)
    source = owned[_RESULTS]
    for q in range(query_start[tile_start[program]], last):
        begin = row_start[query_order[q]]
        count = row_start[query_order[q] + 1] - begin
        for i in range(0, count, width):
            row = load_first(source + 4 * i, count - i, value)
            store_first(target + 4 * (begin + i), row, count - i)
        source += 4 * count
    release(owned[_RESULTS])
    owned[_RESULTS] = 0


_FAR = 1 << grid.INDEX_BITS  # further than any two indices are apart


def _stretches(pitch: float, half: float, centre: int, dilation: int) -> list[tuple[float, float]]:
    """Where the kernel's cells begin and end along an axis; without gaps they are one stretch."""
    if dilation == 1:
        return [(-centre * pitch - half, centre * pitch + half)]
    return [(m * pitch - half, m * pitch + half) for m in range(-centre, centre + 1)]


def _near_by(value: float) -> float:
    return min(max(value, -_FAR), _FAR)


def _spans(stretches: Sequence[tuple[float, float]], step: float) -> np.ndarray:
    """For each stretch of the kernel along x, its first and last x index from the query's."""
    spans = [
        (
            math.floor(_near_by(low / step - _MARGIN)),
            math.floor(_near_by(high / step + 1 + _MARGIN)),
        )
        for low, high in stretches
    ]
    return np.array(spans, dtype=np.int64)


def _runs(stretches: Sequence[tuple[float, float]], edge: float) -> np.ndarray:
    """Offsets of the rows that the kernel reaches along y or z, a few for each stretch at most.

    ``[R, 3]``: first, last, and how many come before, without overlaps. A row and a query's own
    are an edge wide each, so that a row less than one edge off a stretch may meet it.
    """
    runs: list[list[int]] = []
    before = 0
    for low, high in stretches:
        first = math.ceil(_near_by(low / edge - 1 - 0.9 * _MARGIN))
        last = math.floor(_near_by(high / edge + 1 + 0.9 * _MARGIN))
        if runs:
            first = max(first, runs[-1][1] + 1)
        if first <= last:
            runs.append([first, last, before])
            before += last - first + 1
    return np.array(runs, dtype=np.int64)


def grid_search(
    points: Tensor,
    point_offsets: Tensor,
    queries: Tensor,
    query_offsets: Tensor,
    cell_size: float,
    kernel_size: int,
    dilation: int,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The table of a neighbourhood: ``row_start [Nq+1]`` int64 and ``pairs [P]`` int32.

    Row i of the table holds ``cell << index_bits(N) | point`` for each neighbour of query i, in
    ascending order. ``transposed`` turns the table round: row j holds ``cell << index_bits(Nq) |
    query`` for each query that has point j as a neighbour. The third result is true where the table
    is its own transpose but for the numbering of the cells (m for M-1-m): the queries are the
    points, and no pair lies on a border, as in nearly all measured clouds.

    The search is a kernel on raw addresses, so everything is checked here, whoever calls.
    """
    checks.positions("cell_search", "points", points)
    checks.positions("cell_search", "queries", queries)
    checks.offsets("cell_search", "point_offsets", point_offsets, len(points))
    checks.offsets("cell_search", "query_offsets", query_offsets, len(queries))
    checks.kernel("cell_search", cell_size, kernel_size, dilation)
    checks.table_width("cell_search", max(len(points), len(queries)), kernel_size)
    if len(point_offsets) != len(query_offsets):
        raise ValueError(
            f"cell_search: {len(point_offsets) - 1} clouds of points but "
            f"{len(query_offsets) - 1} of queries; every query searches the cloud of its own number"
        )
    same = points is queries and point_offsets is query_offsets
    point_offsets = point_offsets.to("cpu").contiguous()
    query_offsets = point_offsets if same else query_offsets.to("cpu").contiguous()
    centre = (kernel_size - 1) // 2
    grid.check_size("cell_search", cell_size)
    pitch, half = dilation * cell_size, cell_size / 2
    reach = centre * pitch + half
    # A contiguous kernel needs 3 × 3 rows of half its width; one with gaps looks only at the rows
    # that its cells touch, for which narrower rows are better. All dilations of a 3 × 3 × 3 kernel
    # share one grid.
    narrow = dilation > 1 or kernel_size == 3
    edge = (1.5 * cell_size if narrow else reach) * (1 + _MARGIN)
    exact = grid.as_float64(points)
    asked = exact if same else grid.as_float64(queries)
    corners = grid.bounds("cell_search", exact, point_offsets)
    if not same:
        others = grid.bounds("cell_search", asked, query_offsets)
        corners[:, 0] = np.minimum(corners[:, 0], others[:, 0])
        corners[:, 1] = np.maximum(corners[:, 1], others[:, 1])
    frame = grid.make_frame(corners, edge, cell_size / 2)
    source = grid.build_once(points, exact, point_offsets, frame)
    seekers = source if same else grid.build(asked, query_offsets, frame)
    if transposed:
        source, seekers = seekers, source
    count_source = len(queries) if transposed else len(points)
    count_seekers = len(points) if transposed else len(queries)
    shift = index_bits(count_source)

    stretches = _stretches(pitch, half, centre, dilation)
    spans, runs = _spans(stretches, frame.step), _runs(stretches, frame.edge)
    offsets = np.concatenate([np.arange(first, last + 1) for first, last, _ in runs])
    sign = -1.0 if transposed else 1.0
    numbers = np.array([frame.edge, pitch, half, centre, sign, float(1 << shift), dilation])
    tiles = np.searchsorted(
        seekers.row_start[:-1], np.arange(0, max(1, count_seekers), _QUERIES_PER_TILE)
    )
    tiles = np.append(np.unique(tiles), len(seekers.row_key)).astype(np.int64)
    row_start = np.zeros(count_seekers + 1, dtype=np.int64)
    counts = row_start[1:]
    owned = np.zeros(_OWNED * len(tiles), dtype=np.int64)
    symmetric = np.zeros(len(tiles) - 1, dtype=np.int64)
    arguments = [len(source.row_key), source.position.shape[1]]
    arguments += [source.row_key.ctypes.data, source.row_start.ctypes.data]
    arguments += [source.column.ctypes.data, source.order.ctypes.data, source.position.ctypes.data]
    arguments += [len(seekers.row_key), seekers.position.shape[1]]
    arguments += [seekers.row_key.ctypes.data, seekers.row_start.ctypes.data]
    arguments += [seekers.column.ctypes.data, seekers.order.ctypes.data]
    arguments += [seekers.position.ctypes.data, frame.bits[1], frame.bits[2]]
    arguments += [frame.origin.ctypes.data, len(spans), spans.ctypes.data, numbers.ctypes.data]
    arguments += [runs.ctypes.data, tiles.ctypes.data, counts.ctypes.data, owned.ctypes.data]
    arguments += [symmetric.ctypes.data, len(runs), offsets.ctypes.data, len(offsets)]
    try:
        launch(_search, arguments, len(tiles) - 1)
        np.cumsum(counts, out=counts)
        # NumPy asks the kernel for huge pages, which halves the cost of first touching it all.
        pairs = torch.from_numpy(np.empty(int(row_start[-1]), dtype=np.int32))
        collected = [tiles.ctypes.data, seekers.row_start.ctypes.data, seekers.order.ctypes.data]
        collected += [row_start.ctypes.data, pairs.data_ptr(), owned.ctypes.data, count_seekers]
        launch(_collect, collected, len(tiles) - 1)
    except BaseException:
        _free(owned)
        raise
    mirror = torch.tensor(same and bool(symmetric.all()))
    return torch.from_numpy(row_start), pairs, mirror
