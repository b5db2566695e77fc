"""Grid search: which points lie in which kernel cell of which query.

The predicate is the definition (``convolution.cells.cells_of``), in float64 and in its order of
operations, so that every search gives the same answer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.cells import index_bits
from pointwise.engine.cpu.launch import array, kernel, launch
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.search import grid
from pointwise.engine.cpu.search.grid import GRID, Grid
from pointwise.engine.cpu.search.owned import OWNED, RESULTS, free
from pointwise.engine.cpu.search.reach import KERNEL, reach_arguments
from pointwise.engine.cpu.search.tile import QUERIES_PER_TILE, SEARCH, search_tile
from pointwise.engine.cpu.vector import lanes_of, load_first, release, store_first
from pointwise.engine.search import check, row_edge

_COLLECT = Layout("Collect", "*tile_start *row_start *pairs *owned rows", queries=GRID)


@kernel
def _collect(arguments, program, thread):
    """Copies a tile's rows to where they belong in the table and frees the tile's memory."""
    own = _COLLECT(arguments)
    tile_start = array(own.tile_start, program + 2, np.int64)
    query_start = array(own.queries.row_start, tile_start[program + 1] + 1, np.int64)
    last = query_start[tile_start[program + 1]]
    query_order = array(own.queries.order, last, np.uint32)
    row_start = array(own.row_start, own.rows + 1, np.int64)
    owned = array(own.owned + 8 * OWNED * program, OWNED, np.int64)
    value = np.uint32(0)
    width = lanes_of(value)
    source = owned[RESULTS]
    for q in range(query_start[tile_start[program]], last):
        begin = row_start[query_order[q]]
        count = row_start[query_order[q] + 1] - begin
        for i in range(0, count, width):
            row = load_first(source + 4 * i, count - i, value)
            store_first(own.pairs + 4 * (begin + i), row, count - i)
        source += 4 * count
    release(owned[RESULTS])
    owned[RESULTS] = 0


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
    ascending order. ``transposed`` gives the transposed table: row j holds ``cell << index_bits(Nq)
    | query`` for each query that has point j as a neighbour. The third result is true where the
    table is its own transpose but for the numbering of the cells (m for M-1-m): the queries are the
    points, and no pair lies on a border, as in nearly all measured clouds.

    The search is a kernel on raw addresses, so everything is checked here, whoever calls.
    """
    check(points, point_offsets, queries, query_offsets, cell_size, kernel_size, dilation)
    same = points is queries and point_offsets is query_offsets
    source, seekers = _grids(
        points, point_offsets, queries, query_offsets, cell_size, kernel_size, dilation
    )
    if transposed:
        source, seekers = seekers, source
    bits = index_bits(len(source.key))
    kernel = KERNEL(
        pitch=dilation * cell_size,
        half=cell_size / 2,
        centre=(kernel_size - 1) // 2,
        dilation=dilation,
    )
    reach = reach_arguments(source.frame, cell_size, kernel_size, dilation)
    row_start, pairs, symmetric = _table(source, seekers, kernel, reach, bits, transposed)
    return torch.from_numpy(row_start), pairs, torch.tensor(same and symmetric)


def _grids(
    points: Tensor,
    point_offsets: Tensor,
    queries: Tensor,
    query_offsets: Tensor,
    cell_size: float,
    kernel_size: int,
    dilation: int,
) -> tuple[Grid, Grid]:
    """Points and queries sorted into one frame; one grid where they are the same."""
    same = points is queries and point_offsets is query_offsets
    point_offsets = point_offsets.to("cpu").contiguous()
    query_offsets = point_offsets if same else query_offsets.to("cpu").contiguous()
    exact = grid.as_float64(points)
    asked = exact if same else grid.as_float64(queries)
    corners = grid.bounds("cell_search", exact, point_offsets)
    if not same:
        others = grid.bounds("cell_search", asked, query_offsets)
        corners[:, 0] = np.minimum(corners[:, 0], others[:, 0])
        corners[:, 1] = np.maximum(corners[:, 1], others[:, 1])
    edge = row_edge(cell_size, kernel_size, dilation)
    frame = grid.make_frame(corners, edge, cell_size / 2)
    source = grid.build_once(points, exact, point_offsets, frame)
    return source, source if same else grid.build(asked, query_offsets, frame)


def _table(
    source: Grid, seekers: Grid, kernel: Arguments, reach: Arguments, bits: int, mirrored: bool
) -> tuple[np.ndarray, Tensor, bool]:
    """(row_start, pairs, whether no pair is on a border) of the ``seekers`` among the ``source``.

    Tiles first write what they find into memory of their own, since nobody knows how much it is.
    """
    rows = len(seekers.key)
    tile_start = np.searchsorted(
        seekers.row_start[:-1], np.arange(0, max(1, rows), QUERIES_PER_TILE)
    )
    tile_start = np.append(np.unique(tile_start), len(seekers.row_key)).astype(np.int64)
    tiles = len(tile_start) - 1
    row_start = np.zeros(rows + 1, dtype=np.int64)
    counts = row_start[1:]
    owned = np.zeros((tiles, OWNED), dtype=np.int64)
    symmetric = np.zeros(tiles, dtype=np.int64)
    queries = seekers.arguments()
    arguments = SEARCH(
        tile_start=tile_start,
        counts=counts,
        owned=owned,
        symmetric=symmetric,
        index_bits=bits,
        mirrored=int(mirrored),
        points=source.arguments(),
        queries=queries,
        frame=source.frame.arguments(),
        kernel=kernel,
        reach=reach,
    )
    try:
        launch(search_tile, arguments, tiles)
        np.cumsum(counts, out=counts)
        # NumPy asks the kernel for huge pages, which halves the cost of first touching it all.
        pairs = torch.from_numpy(np.empty(int(row_start[-1]), dtype=np.int32))
        arguments = _COLLECT(
            tile_start=tile_start,
            row_start=row_start,
            pairs=pairs,
            owned=owned,
            rows=rows,
            queries=queries,
        )
        launch(_collect, arguments, tiles)
    except BaseException:
        free(owned.ravel())
        raise
    return row_start, pairs, bool(symmetric.all())
