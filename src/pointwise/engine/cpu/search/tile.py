"""The search of one tile of queries: a kernel.

Queries are taken in the order of the grid. The rows of points around a row of queries are looked up
once, and in each long one a range moves forward as the queries' x index grows, so a search is one
walk through sorted memory. Queries side by side form a *group*: what any of them can reach, the
group's candidates, is copied together first, and each query then tests them a register at a time.
"""

from __future__ import annotations

import numpy as np

from pointwise.engine.cpu.launch import array, kernel
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.search.candidates import (
    candidates,
    close,
    from_middle,
    group_of,
    limits_of,
)
from pointwise.engine.cpu.search.grid import FRAME, GRID
from pointwise.engine.cpu.search.hits import cells_of, hits_of
from pointwise.engine.cpu.search.owned import (
    AROUND,
    CURSORS,
    HITS,
    MET_Y,
    MET_Z,
    OWNED,
    RESULTS,
    address,
    grow,
    keep_results,
    room_for_candidates,
    room_for_results,
)
from pointwise.engine.cpu.search.reach import KERNEL, REACH, mark_rows, rows_around
from pointwise.engine.cpu.search.sort import sort_distinct
from pointwise.engine.cpu.vector import peek, poke
from pointwise.engine.search import MARGIN

QUERIES_PER_TILE = 256

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
    fixed = array(queries.fixed, 3 * queries.stride, np.uint32)
    tile_start = array(own.tile_start, program + 2, np.int64)
    counts = array(own.counts, queries.stride, np.int64)
    owned = own.owned + 8 * OWNED * program

    most = min(points.rows, reach.around * reach.around)
    ranges = 16 * reach.intervals  # bytes of the cursors in one row
    grow(owned, AROUND, 24 * most)
    grow(owned, MET_Y, 8 * reach.around)
    grow(owned, MET_Z, 8 * reach.around)
    grow(owned, CURSORS, ranges * most)
    around, cursors = address(owned, AROUND), address(owned, CURSORS)
    met_y, met_z = address(owned, MET_Y), address(owned, MET_Z)
    room = room_for_candidates(owned, 0, 512)
    results = room_for_results(owned, 0, 16 * QUERIES_PER_TILE)
    written = 0
    on_border = False
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
            end, box = group_of(queries, group, query_start[query_row + 1])
            low_y, high_y = box.low_y - origin_y, box.high_y - origin_y
            low_z, high_z = box.low_z - origin_z, box.high_z - origin_z
            mark_rows(met_y, reach, own.kernel, frame.edge, lowest_y, low_y, high_y)
            mark_rows(met_z, reach, own.kernel, frame.edge, lowest_z, low_z, high_z)
            limits = limits_of(own.kernel, frame, origin, box, slack)
            first_column, last_column = query_column[group], query_column[end - 1]
            near = 0
            for j in range(found):
                of_row = around + 24 * j
                row = peek(of_row, np.int64(0))
                y, z = peek(of_row + 8, row), peek(of_row + 16, row)
                if peek(met_y + 8 * y, row) and peek(met_z + 8 * z, row):
                    near, room = candidates(points, reach, limits, row, first_column, last_column,
                                            cursors + ranges * j, owned, room, near)  # fmt: skip
            close(owned, near)
            cells = cells_of(own.kernel, limits.doubt)
            for q in range(group, end):
                x = from_middle(fixed[q], limits.middle_x, limits.scale)
                y = from_middle(fixed[queries.stride + q], limits.middle_y, limits.scale)
                z = from_middle(fixed[2 * queries.stride + q], limits.middle_z, limits.scale)
                count, crossed = hits_of(own, cells, q, x, y, z, owned, near)
                on_border |= crossed
                results = room_for_results(owned, results, written + count)
                sort_distinct(address(owned, HITS), count, address(owned, RESULTS) + 4 * written)
                written += count
                counts[query_order[q]] = count
    keep_results(owned)
    array(own.symmetric + 8 * program, 1, np.int64)[0] = not on_border
