"""The gather of the point-cloud convolution: one mean (or sum) of features per kernel cell.

Row i of the gathered matrix A ``[N, M·C]`` holds, for each of the M kernel cells around query i,
the C features of the neighbours in that cell, reduced; an empty cell holds zeros. Its adjoint is
the same gather over the transposed table, with each pair weighted by one over the number of points
in its cell (Hua, Tran, Yeung, CVPR 2018, section 3).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    keep,
    lanes_of,
    load_first,
    number,
    peek,
    poke,
    store,
    store_first,
)

# How a cell's features are reduced: summed; divided by their number; or each multiplied by one over
# the number of points in the cell it came from, which is the adjoint of the second.
SUM, MEAN, ADJOINT_OF_MEAN = 0, 1, 2

CELLS = Layout("Cells", "*row_start *pairs *shares *weight bits mode cells mirrored")
"""A table of neighbours, and how its cells are reduced.

``row_start [rows + 1]`` int64; ``pairs [P]`` of ``cell << bits | point``; ``shares [N, M]``, one
over the number of points in each of M ``cells``, for ADJOINT_OF_MEAN; ``weight [M, C]`` of a
depthwise gather.
``mirrored`` reads the table as its own transpose: cell m stands for cell M-1-m.
"""


@device
def pairs_of(table, i):
    """The first pair of row i of a table, and the first of the next row."""
    at = table.row_start + 8 * i
    return peek(at, np.int64(0)), peek(at + 8, np.int64(0))


@device
def entry_of(table, p):
    """Pair p of a table: ``cell << bits | point``, as a number that is never negative."""
    return np.int64(peek(table.pairs + 4 * p, np.uint32(0)))


@device
def fill(target, target_row, first, rows, x, x_row, channels, table, like):
    """Writes rows ``first … first + rows`` of A to ``target``; strides and addresses in bytes.

    Each row has room up to the next whole register.
    """
    size = bytes_of(like)
    width = lanes_of(like)
    bits, mode, cells, mirrored = table.bits, table.mode, table.cells, table.mirrored
    mask = (1 << bits) - 1
    zero = broadcast(number(0, like))
    for r in range(rows):
        row = target + r * target_row
        for k in range(0, cells * channels, width):
            store(row + k * size, zero)
        begin, end = pairs_of(table, first + r)
        for c in range(0, channels, 4 * width):
            # Up to four registers of channels at a time; lanes past the last channel stay zero.
            left = channels - c
            s0, s1, s2, s3 = zero, zero, zero, zero
            before = np.int64(-1)
            run = 0
            for p in range(begin, end):
                # Neighbours come cell by cell. Where a cell ends cannot be predicted, so there is
                # no branch: every neighbour writes its cell's mean so far, and the last one stays.
                entry = entry_of(table, p)
                key = entry >> bits
                same = key == before
                before = key
                run = run * same + 1
                cell = cells - 1 - key if mirrored else key
                source = x + (entry & mask) * x_row + c * size
                place = row + (cell * channels + c) * size
                inward, outward = number(1, like), number(1, like)
                if mode == MEAN:
                    outward = reciprocal(run, like)
                elif mode == ADJOINT_OF_MEAN:
                    inward = share_of(table, entry & mask, cell, like)
                scale, weight = broadcast(outward), broadcast(inward)
                s0 = fma(load_first(source, left, like), weight, keep(same, s0))
                store_first(place, s0 * scale, left)
                if left > width:
                    s1 = fma(
                        load_first(source + width * size, left - width, like),
                        weight,
                        keep(same, s1),
                    )
                    store_first(place + width * size, s1 * scale, left - width)
                if left > 2 * width:
                    at = 2 * width
                    s2 = fma(
                        load_first(source + at * size, left - at, like), weight, keep(same, s2)
                    )
                    store_first(place + at * size, s2 * scale, left - at)
                if left > 3 * width:
                    at = 3 * width
                    s3 = fma(
                        load_first(source + at * size, left - at, like), weight, keep(same, s3)
                    )
                    store_first(place + at * size, s3 * scale, left - at)


@device
def share_of(table, point, cell, like):
    """One over the points in a cell of a query: of the forward table's, for ADJOINT_OF_MEAN."""
    return peek(table.shares + bytes_of(like) * (point * table.cells + cell), like)


@device
def reciprocal(count, like):
    """1 / count in the kernel's own precision."""
    return number(1, like) / number(count, like)


_ROWS = 4096


_SHARES = Layout("CellShares", "*row_start *pairs *shares bits rows cells")


@device
def _share(arguments, program, thread, like):
    """One over the number of neighbours that some of the queries have in each cell, if any."""
    own = _SHARES(arguments)
    size = bytes_of(like)
    for i in range(program * _ROWS, min((program + 1) * _ROWS, own.rows)):
        row = own.shares + i * own.cells * size
        for cell in range(own.cells):
            poke(row + cell * size, number(0, like))
        begin, end = pairs_of(own, i)
        before, run = np.int64(-1), 0
        for p in range(begin, end):  # cell by cell: the last one of each stays
            cell = entry_of(own, p) >> own.bits
            run = run * (cell == before) + 1
            before = cell
            poke(row + cell * size, reciprocal(run, like))


_KERNELS = by_dtype(_share, "cell_shares")


def cell_shares(
    row_start: Tensor, pairs: Tensor, bits: int, cells: int, dtype: torch.dtype
) -> Tensor:
    """One over the number of neighbours of each query in each cell, 0 of none: ``[N, M]``."""
    rows = len(row_start) - 1
    shares = torch.empty(rows, cells, dtype=dtype)
    arguments = _SHARES(
        row_start=row_start.contiguous(),
        pairs=pairs.contiguous(),
        shares=shares,
        bits=bits,
        rows=rows,
        cells=cells,
    )
    launch(_KERNELS[dtype], arguments, -(-rows // _ROWS))
    return shares
