"""Search with SciPy's kd-tree: the alternative to the grid, for comparison and as its check."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.cells import cells_of, index_bits
from pointwise.engine.cpu.search import grid
from pointwise.engine.search import check_size, reach_of
from pointwise.extras import import_extra

_QUERIES_AT_ONCE = 4096


def kdtree_search(
    points: Tensor,
    point_offsets: Tensor,
    queries: Tensor,
    query_offsets: Tensor,
    cell_size: float,
    kernel_size: int,
    dilation: int,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same table as ``grid_search``, bit for bit, from one kd-tree per cloud."""
    check_size("kdtree_search", cell_size)
    tree_of = import_extra("scipy.spatial", "bench").cKDTree
    at, seek = grid.as_float64(points).numpy(), grid.as_float64(queries).numpy()
    grid.bounds("kdtree_search", torch.from_numpy(at), point_offsets.cpu())
    grid.bounds("kdtree_search", torch.from_numpy(seek), query_offsets.cpu())
    sign = 1.0
    sources, seekers = (at, point_offsets.tolist()), (seek, query_offsets.tolist())
    if transposed:
        sources, seekers, sign = seekers, sources, -1.0
    radius = reach_of(cell_size, kernel_size, dilation) * (1 + 1e-6)
    shift = index_bits(len(sources[0]))
    symmetric = points is queries and point_offsets is query_offsets
    found: list[np.ndarray] = []
    counts = np.zeros(len(seekers[0]), dtype=np.int64)
    for cloud in range(len(seekers[1]) - 1):
        first, last = sources[1][cloud : cloud + 2]
        begin, end = seekers[1][cloud : cloud + 2]
        if first == last or begin == end:
            continue
        tree = tree_of(sources[0][first:last])
        for start in range(begin, end, _QUERIES_AT_ONCE):
            here = seekers[0][start : min(start + _QUERIES_AT_ONCE, end)]
            lists = tree.query_ball_point(here, radius, p=np.inf, workers=torch.get_num_threads())
            lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
            index = np.concatenate([np.asarray(row, dtype=np.int64) for row in lists]) + first
            row = np.repeat(np.arange(len(here)), lengths)
            offset = sign * (sources[0][index] - here[row])
            cell, mirrored = cells_of(offset, cell_size, kernel_size, dilation)
            inside = cell >= 0
            symmetric &= bool(mirrored[inside].all())
            packed = (cell[inside] << shift) | index[inside]
            row = row[inside]
            found.append(packed[np.lexsort((packed, row))].astype(np.uint32))
            counts[start : start + len(here)] = np.bincount(row, minlength=len(here))
    row_start = np.concatenate(([0], np.cumsum(counts)))
    pairs = np.concatenate(found) if found else np.empty(0, dtype=np.uint32)
    device = points.device
    table = torch.from_numpy(row_start), torch.from_numpy(pairs.view(np.int32))
    return table[0].to(device), table[1].to(device), torch.tensor(symmetric, device=device)
