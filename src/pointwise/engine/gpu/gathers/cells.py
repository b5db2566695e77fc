"""The gather of the point-cloud convolution: one mean (or sum) of features per kernel cell.

A program holds a tile of rows, and a tile of their channels in registers. A row's pairs come cell
by cell, so that each of its cells is a range of them: where the ranges begin is found once for a
table (``bounds``). The adjoint is the same gather over the transposed table, each pair weighted by
one over the number of points in its cell.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise.convolution.cells import index_bits
from pointwise.engine.gpu.launch import launch, pieces

# How a cell's features are reduced, as on the CPU: summed; divided by their number; or each
# multiplied by one over the number of points in the cell it came from, the adjoint of the second.
SUM, MEAN, ADJOINT_OF_MEAN = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)

_TOGETHER = tl.constexpr(4)  # neighbours whose features are on their way from memory at a time


@triton.jit
def entry_of(pairs, at, here):
    """Pairs of a table, ``cell << bits | point``, as numbers that are never negative."""
    return tl.load(pairs + at, mask=here, other=0).to(tl.int64) & 0xFFFFFFFF


@triton.jit
def range_of(bounds, row, cell, cells, here):
    """(where the pairs of a cell begin among those of a row, how many there are)."""
    at = bounds + row * (cells + 1) + cell
    first = tl.load(at, mask=here, other=0)
    return first, tl.load(at + 1, mask=here, other=0) - first


@triton.jit
def count_of(bounds, row, cell, cells, here):
    """How many points are in a cell of a row; 1 where nobody asks."""
    _, count = range_of(bounds, row, cell, cells, here)
    return tl.where(here, count, 1)


@triton.jit
def fill(
    x, pairs, counts, start, count, cell, channel, channels, cells, low,
    MODE: tl.constexpr, SUMS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """``[ROWS, CHANNELS]``: what the neighbours in one ``cell`` of each row reduce to.

    ``start`` and ``count [ROWS]`` are the cell's first pair in each row and how many it has there,
    ``low`` the bits of a pair that hold its point.
    """
    total = tl.zeros([ROWS, CHANNELS], dtype=SUMS)
    for k in range(0, tl.max(count, axis=0), _TOGETHER):
        for ahead in tl.static_range(_TOGETHER):
            here = k + ahead < count
            point = entry_of(pairs, start + k + ahead, here) & low
            seen = here[:, None] & (channel < channels)[None, :]
            source = x + point[:, None] * channels + channel[None, :]
            values = tl.load(source, mask=seen, other=0).to(SUMS)
            if MODE == ADJOINT_OF_MEAN:
                values *= 1.0 / count_of(counts, point, cell, cells, here).to(SUMS)[:, None]
            total += values
    if MODE == MEAN:
        total *= 1.0 / tl.maximum(count, 1).to(SUMS)[:, None]
    return total


# --- where the cells of each row begin ------------------------------------------------------------


@triton.jit
def _find_bounds(
    row_start, pairs, bounds, rows, length, points, cells, bits, low,
    ROWS: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """How many pairs of some rows lie before each cell: they are all read, and checked with it."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    border = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    inside = row < rows
    begin = tl.load(row_start + row, mask=inside, other=0)
    end = tl.load(row_start + row + 1, mask=inside, other=0)
    sound = (begin >= 0) & (end >= begin) & (end <= length)
    sound &= ((row > 0) | (begin == 0)) & ((row < rows - 1) | (end == length))
    count = tl.where(inside & sound, end - begin, 0)
    found = tl.zeros([ROWS, CELLS], dtype=tl.int32)
    before = tl.zeros([ROWS], dtype=tl.int64)
    wrong = (inside & ~sound).to(tl.int32)
    for k in range(tl.max(count, axis=0).to(tl.int32)):
        here = k < count
        entry = entry_of(pairs, begin + k, here)
        cell = entry >> bits
        fits = (cell >= before) & (cell < cells) & ((entry & low) < points)
        wrong += (here & ~fits).to(tl.int32)
        before = tl.where(here, cell, before)
        found += (here[:, None] & (cell[:, None] < border[None, :])).to(tl.int32)
    tl.device_assert(wrong == 0, "pointwise: no table of these points and kernel cells")
    target = bounds + row[:, None] * (cells + 1) + border[None, :]
    tl.store(target, found, mask=inside[:, None] & (border <= cells)[None, :])


def bounds(row_start: Tensor, pairs: Tensor, points: int, cells: int) -> Tensor:
    """How many pairs of each row lie before each cell, and in all, ``[rows, M + 1]`` int32.

    Tables are checked once, by whoever calls an operator. One that was written to since where
    nobody saw it, so that it names other points or cells than there are, stops the device here
    (``device-side assert``), before a kernel follows it.
    """
    rows, bits = len(row_start) - 1, index_bits(points)
    found = torch.empty(rows, cells + 1, dtype=torch.int32, device=pairs.device)
    width = min(1024, triton.next_power_of_2(cells + 1))
    tile = max(1, min(64, 4096 // width))
    launch(
        _find_bounds, (pieces(rows, tile), pieces(cells + 1, width)), pairs,
        row_start, pairs, found, rows, len(pairs), points, cells, bits, (1 << bits) - 1,
        ROWS=tile, CELLS=width, debug=True, sanitize_overflow=False,
    )  # fmt: skip
    return found
