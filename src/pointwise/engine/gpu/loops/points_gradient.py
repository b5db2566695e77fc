"""The weights' gradients of convolutions of points, with the gather done again instead of kept.

A program goes through a slab of the rows for one kernel cell, and writes what its rows add up to;
the slabs are then added up in their order. How many there are follows from the sizes alone, so that
the same call gives the same bits, and nothing is added up by atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pointwise.engine.gpu.gathers import cells
from pointwise.engine.gpu.gathers.prologue import type_of_sums
from pointwise.engine.gpu.launch import launch, pieces
from pointwise.engine.gpu.loops.points import CHANNELS_AT_ONCE, ROWS, Gather, tile
from pointwise.engine.gpu.mix import precision, product, sums_of, warps

_PROGRAMS = 2048  # enough to fill a large device a few times over
_LEAST = 4 * ROWS  # rows of a slab


def _slabs(rows: int, programs: int) -> tuple[int, int]:
    """(how many slabs, how many rows each has) where each slab has so many ``programs``."""
    slabs = max(1, min(pieces(rows, _LEAST), _PROGRAMS // max(1, programs)))
    span = pieces(pieces(rows, slabs), ROWS) * ROWS
    return pieces(rows, span) if rows else 0, span


# --- of a mix -------------------------------------------------------------------------------------


@triton.jit
def _of_mixed(
    x, row_start, pairs, bounds, counts, rows, channels, kernel_cells, bits, low,
    grad, sums, span, columns,
    MODE: tl.constexpr, SUMS: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Σ_i (reduced features of a cell) ⊗ gradient_i over a slab, ``[slabs, M, C, C_out]``."""
    cell, slab = tl.program_id(0), tl.program_id(2).to(tl.int64)
    across = tl.cdiv(columns, COLUMNS)
    channel = tl.program_id(1) // across * CHANNELS + tl.arange(0, CHANNELS)
    column = tl.program_id(1) % across * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([CHANNELS, COLUMNS], dtype=SUMS)
    for r in range(0, tl.minimum(span, rows - slab * span).to(tl.int32), ROWS):
        row = slab * span + r + tl.arange(0, ROWS)
        inside = row < rows
        first, count = cells.range_of(bounds, row, cell, kernel_cells, inside)
        if tl.max(count, axis=0) > 0:
            start = tl.load(row_start + row, mask=inside, other=0) + first
            gathered = cells.fill(
                x, pairs, counts, start, count, cell, channel, channels, kernel_cells, low,
                MODE, SUMS, ROWS, CHANNELS,
            )  # fmt: skip
            seen = inside[:, None] & (column < columns)[None, :]
            slope = tl.load(grad + row[:, None] * columns + column[None, :], mask=seen, other=0)
            total = product(tl.trans(gathered), slope, total, PRECISION)
    line = ((slab * kernel_cells + cell) * channels + channel) * columns
    known = (channel < channels)[:, None] & (column < columns)[None, :]
    tl.store(sums + line[:, None] + column[None, :], total, mask=known)


def of_mixed(gather: Gather, grad: Tensor) -> Tensor:
    """``Aᵀ @ grad [M, C, C_out]``, for A of every cell and ``grad [rows, C_out]``."""
    x, grad = gather.x, grad.contiguous()
    channels, columns = x.shape[1], grad.shape[1]
    deep, wide = tile(channels, CHANNELS_AT_ONCE), tile(columns, 64)
    blocks = pieces(channels, deep) * pieces(columns, wide)
    slabs, span = _slabs(gather.rows, gather.cells * blocks)
    sums = _partial(x, slabs, gather.cells, channels, columns)
    launch(
        _of_mixed, (gather.cells, blocks, slabs), x, *gather.arguments, grad, sums, span, columns,
        MODE=gather.mode, SUMS=sums_of(x.dtype), PRECISION=precision(x.dtype),
        ROWS=ROWS, CHANNELS=deep, COLUMNS=wide, num_warps=warps(x.dtype),
    )  # fmt: skip
    return sums.sum(0).to(x.dtype)


def _partial(x: Tensor, *size: int) -> Tensor:
    """Room for what slabs add up to."""
    return x.new_empty(size, dtype=type_of_sums(x))


# --- of each channel by itself --------------------------------------------------------------------


@triton.jit
def _of_depthwise(
    x, row_start, pairs, bounds, counts, rows, channels, kernel_cells, bits, low,
    grad, sums, span,
    MODE: tl.constexpr, SUMS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Σ_i (reduced features of a cell) ⊙ gradient_i over a slab, ``[slabs, M, C]``."""
    cell, slab = tl.program_id(0), tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    total = tl.zeros([ROWS, CHANNELS], dtype=SUMS)
    for r in range(0, tl.minimum(span, rows - slab * span).to(tl.int32), ROWS):
        row = slab * span + r + tl.arange(0, ROWS)
        inside = row < rows
        first, count = cells.range_of(bounds, row, cell, kernel_cells, inside)
        if tl.max(count, axis=0) > 0:
            start = tl.load(row_start + row, mask=inside, other=0) + first
            gathered = cells.fill(
                x, pairs, counts, start, count, cell, channel, channels, kernel_cells, low,
                MODE, SUMS, ROWS, CHANNELS,
            )  # fmt: skip
            seen = inside[:, None] & known[None, :]
            slope = tl.load(grad + row[:, None] * channels + channel[None, :], mask=seen, other=0)
            total += gathered * slope.to(SUMS)
    line = (slab * kernel_cells + cell) * channels
    tl.store(sums + line + channel, tl.sum(total, axis=0), mask=known)


def of_depthwise(gather: Gather, grad: Tensor) -> Tensor:
    """The gradient ``[M, C]`` of a depthwise gather's weight, for ``grad [rows, C]``."""
    x, channels = gather.x, gather.x.shape[1]
    wide = tile(channels, CHANNELS_AT_ONCE)
    blocks = pieces(channels, wide)
    slabs, span = _slabs(gather.rows, gather.cells * blocks)
    sums = _partial(x, slabs, gather.cells, channels)
    launch(
        _of_depthwise, (gather.cells, blocks, slabs), x, *gather.arguments, grad.contiguous(),
        sums, span, MODE=gather.mode, SUMS=sums_of(x.dtype), ROWS=ROWS, CHANNELS=wide,
    )  # fmt: skip
    return sums.sum(0).to(x.dtype)
