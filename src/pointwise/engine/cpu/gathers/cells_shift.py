"""The gather of the shift convolution on a cloud: each channel from its own kernel cell.

Row i of the gathered matrix A ``[N, C]`` holds ⌊C/M⌋ channels from each of the M cells around query
i, in the order of the cells, what is left over from the cell in the middle: the mean (or sum) of
the neighbours there, zeros where there are none. Its adjoint is the same gather over the transposed
table, as that of ``cells``.
"""

from __future__ import annotations

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.cells import (
    ADJOINT_OF_MEAN,
    MEAN,
    entry_of,
    pairs_of,
    reciprocal,
    share_of,
)
from pointwise.engine.cpu.gathers.prologue import zeros
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load_first,
    number,
    store_first,
)


@device
def _reduce(target, x, x_row, begin, end, cell, first, count, table, like):
    """``count`` channels from ``first`` on of the pairs ``begin … end``, all of one cell."""
    size, width = bytes_of(like), lanes_of(like)
    mask = (1 << table.bits) - 1
    outward = number(1, like)
    if table.mode == MEAN:
        outward = reciprocal(end - begin, like)
    for c in range(first, first + count, width):
        left = first + count - c
        total = broadcast(number(0, like))
        for p in range(begin, end):
            point = entry_of(table, p) & mask
            inward = number(1, like)
            if table.mode == ADJOINT_OF_MEAN:
                inward = share_of(table, point, cell, like)
            total = fma(load_first(x + point * x_row + c * size, left, like), broadcast(inward),
                        total)  # fmt: skip
        store_first(target + c * size, total * broadcast(outward), left)


@device
def fill(target, target_row, first, rows, x, x_row, channels, table, like):
    """Writes rows ``first … first + rows`` of A to ``target``; strides and addresses in bytes."""
    bits, cells = table.bits, table.cells
    group = channels // cells
    shared = group * cells  # behind these channels, all come from the middle
    for r in range(rows):
        row = target + r * target_row
        zeros(row, channels, like)
        p, end = pairs_of(table, first + r)
        while p < end:
            key = entry_of(table, p) >> bits
            begin = p
            while p < end and entry_of(table, p) >> bits == key:
                p += 1
            cell = cells - 1 - key if table.mirrored else key
            _reduce(row, x, x_row, begin, p, cell, cell * group, group, table, like)
            if cell == cells // 2:
                _reduce(row, x, x_row, begin, p, cell, shared, channels - shared, table, like)
