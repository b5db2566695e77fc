"""Convolutions of points: a gather, alone or with its mix.

``mixed`` gathers and multiplies tile by tile, so that A ``[N, M·C]`` is never in memory. The input
gradient of a convolution is the same with the transposed table and the transposed weight; the
weights' gradients have loops of their own (``points_gradient``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise.convolution.cells import index_bits
from pointwise.engine.gpu.gathers import cells, cells_depthwise
from pointwise.engine.gpu.launch import launch, pieces
from pointwise.engine.gpu.mix import precision, product, sums_of, warps

ROWS = 64
"""How many points a program makes."""


@dataclass
class Gather:
    """What is read for each row: features, and the neighbours' table with its cells' borders."""

    x: Tensor  # [Np, C]
    row_start: Tensor  # [rows + 1] int64
    pairs: Tensor  # [P] int32
    cells: int
    bounds: Tensor  # [rows, M + 1] int32
    counts: Tensor  # [.., M + 1] int32: the bounds of the table that counts the points of each cell
    mode: int  # one of those of ``gathers.cells``
    mirrored: bool = False  # read the table as its own transpose: cell m stands for cell M-1-m

    @property
    def rows(self) -> int:
        return len(self.row_start) - 1

    @property
    def arguments(self) -> tuple:
        """The first arguments of every kernel that reads through a gather."""
        bits = index_bits(len(self.x))
        return (
            self.x, self.row_start, self.pairs, self.bounds, self.counts, self.rows,
            self.x.shape[1], self.cells, bits, (1 << bits) - 1,
        )  # fmt: skip


def over_table(
    x: Tensor, row_start: Tensor, pairs: Tensor, kernel_cells: int, mean: bool
) -> Gather:
    """The gather of ``x [Np, C]`` over a table of neighbours."""
    row_start, pairs = row_start.contiguous(), pairs.contiguous()
    bounds = cells.bounds(row_start, pairs, len(x), kernel_cells)
    mode = cells.MEAN if mean else cells.SUM
    return Gather(x.contiguous(), row_start, pairs, kernel_cells, bounds, bounds, mode.value)


def adjoint_over_table(
    grad: Tensor,
    table: tuple[Tensor, Tensor],
    transposed: tuple[Tensor | None, Tensor | None],
    kernel_cells: int,
    mean: bool,
    points: int,
) -> Gather:
    """The gather of ``grad [Nq, C]`` over the transposed table: the other gather's adjoint.

    Without a transposed table, the table itself is read from the other side (``mirrored``).
    """
    row_start, pairs = transposed
    if row_start is None or pairs is None:
        gather = over_table(grad, *table, kernel_cells, False)
        gather.mirrored = True
    else:
        gather = over_table(grad, row_start, pairs, kernel_cells, False)
        table = table[0].contiguous(), table[1].contiguous()
        gather.counts = cells.bounds(*table, points, kernel_cells)
    if mean:
        gather.mode = cells.ADJOINT_OF_MEAN.value
    return gather


CHANNELS_AT_ONCE = 32  # of a tile: those of four neighbours at a time have to fit into registers


def tile(size: int, most: int) -> int:
    """How wide the tiles of a program are, of ``size`` numbers: what a tensor core takes."""
    return max(16, min(most, triton.next_power_of_2(size)))


# --- every cell's mean, multiplied ----------------------------------------------------------------


@triton.jit
def _mixed(
    x, row_start, pairs, bounds, counts, rows, channels, kernel_cells, bits, low,
    weight, bias, out, columns,
    MODE: tl.constexpr, MIRRORED: tl.constexpr, BIASED: tl.constexpr, SUMS: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A tile of ``A @ weight + bias``, for ``weight [M, C, C_out]``."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = row < rows
    start = tl.load(row_start + row, mask=inside, other=0)
    total = tl.zeros([ROWS, COLUMNS], dtype=SUMS)
    for key in range(kernel_cells):
        first, count = cells.range_of(bounds, row, key, kernel_cells, inside)
        cell = kernel_cells - 1 - key if MIRRORED else key
        if tl.max(count, axis=0) > 0:
            for c in range(0, channels, CHANNELS):
                channel = c + tl.arange(0, CHANNELS)
                gathered = cells.fill(
                    x, pairs, counts, start + first, count, cell, channel, channels, kernel_cells,
                    low, MODE, SUMS, ROWS, CHANNELS,
                )  # fmt: skip
                line = (cell * channels + channel).to(tl.int64) * columns
                known = (channel < channels)[:, None] & (column < columns)[None, :]
                part = tl.load(weight + line[:, None] + column[None, :], mask=known, other=0)
                total = product(gathered, part, total, PRECISION)
    if BIASED:
        total += tl.load(bias + column, mask=column < columns, other=0).to(SUMS)[None, :]
    target = out + row[:, None] * columns + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), inside[:, None] & (column < columns)[None, :])


def mixed(gather: Gather, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``A @ weight + bias [rows, C_out]``, for A of every cell and ``weight [M, C, C_out]``."""
    x, columns = gather.x, weight.shape[2]
    out = x.new_empty(gather.rows, columns)
    wide = tile(columns, _most_columns(x.dtype))
    launch(
        _mixed, (pieces(gather.rows, ROWS), pieces(columns, wide)), x, *gather.arguments,
        weight.contiguous(), x if bias is None else bias.contiguous(), out, columns,
        MODE=gather.mode, MIRRORED=gather.mirrored, BIASED=bias is not None,
        SUMS=sums_of(x.dtype), PRECISION=precision(x.dtype), ROWS=ROWS,
        CHANNELS=tile(x.shape[1], CHANNELS_AT_ONCE), COLUMNS=wide, num_warps=warps(x.dtype),
    )  # fmt: skip
    return out


def _most_columns(dtype: torch.dtype) -> int:
    """How many results of a point stay in registers beside what is gathered for them."""
    return {torch.float64: 32, torch.float32: 64}.get(dtype, 128)


# --- each channel by itself -----------------------------------------------------------------------


@triton.jit
def _gathered(
    x, row_start, pairs, bounds, counts, rows, channels, kernel_cells, bits, low,
    weight, out,
    MODE: tl.constexpr, MIRRORED: tl.constexpr, SHIFT: tl.constexpr, SUMS: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A tile of the rows of a depthwise gather, or of a shift."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = row < rows
    start = tl.load(row_start + row, mask=inside, other=0)
    length = (tl.load(row_start + row + 1, mask=inside, other=0) - start).to(tl.int32)
    total = cells_depthwise.fill(
        x, weight, pairs, counts, start, length, row, channel, channels, kernel_cells, bits, low,
        MODE, MIRRORED, SHIFT, SUMS, ROWS, CHANNELS,
    )  # fmt: skip
    target = out + row[:, None] * channels + channel[None, :]
    seen = inside[:, None] & (channel < channels)[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=seen)


def gathered(gather: Gather, weight: Tensor | None) -> Tensor:
    """The rows ``[rows, C]`` of a depthwise gather with ``weight [M, C]``; without one, a shift."""
    x, channels = gather.x, gather.x.shape[1]
    out = x.new_empty(gather.rows, channels)
    wide = tile(channels, CHANNELS_AT_ONCE)
    launch(
        _gathered, (pieces(gather.rows, ROWS), pieces(channels, wide)), x, *gather.arguments,
        x if weight is None else weight.contiguous(), out,
        MODE=gather.mode, MIRRORED=gather.mirrored, SHIFT=weight is None, SUMS=sums_of(x.dtype),
        ROWS=ROWS, CHANNELS=wide,
    )  # fmt: skip
    return out


# --- each channel by itself, then multiplied ------------------------------------------------------


@triton.jit
def _separable(
    x, row_start, pairs, bounds, counts, rows, channels, kernel_cells, bits, low,
    depthwise, pointwise, bias, out, columns,
    MODE: tl.constexpr, BIASED: tl.constexpr, SUMS: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some rows of a depthwise gather times ``pointwise [C, C_out]``, plus a bias."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = row < rows
    start = tl.load(row_start + row, mask=inside, other=0)
    length = (tl.load(row_start + row + 1, mask=inside, other=0) - start).to(tl.int32)
    total = tl.zeros([ROWS, COLUMNS], dtype=SUMS)
    for c in range(0, channels, CHANNELS):
        channel = c + tl.arange(0, CHANNELS)
        gathered = cells_depthwise.fill(
            x, depthwise, pairs, counts, start, length, row, channel, channels, kernel_cells, bits,
            low, MODE, False, False, SUMS, ROWS, CHANNELS,
        )  # fmt: skip
        known = (channel < channels)[:, None] & (column < columns)[None, :]
        part = pointwise + channel[:, None] * columns + column[None, :]
        total = product(gathered, tl.load(part, mask=known, other=0), total, PRECISION)
    if BIASED:
        total += tl.load(bias + column, mask=column < columns, other=0).to(SUMS)[None, :]
    target = out + row[:, None] * columns + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), inside[:, None] & (column < columns)[None, :])


def separable(gather: Gather, depthwise: Tensor, pointwise: Tensor, bias: Tensor | None) -> Tensor:
    """``gathered(gather, depthwise) @ pointwise + bias``, for ``pointwise [C, C_out]``.

    In one kernel where a program can hold all results of its points; what lies between the halves
    then never leaves the registers.
    """
    x, columns = gather.x, pointwise.shape[1]
    if columns > _most_columns(x.dtype):
        between = gathered(gather, depthwise)
        return between @ pointwise if bias is None else torch.addmm(bias, between, pointwise)
    out = x.new_empty(gather.rows, columns)
    launch(
        _separable, (pieces(gather.rows, ROWS), min(columns, 1)), x, *gather.arguments,
        depthwise.contiguous(), pointwise.contiguous(), x if bias is None else bias.contiguous(),
        out, columns, MODE=gather.mode, BIASED=bias is not None,
        SUMS=sums_of(x.dtype), PRECISION=precision(x.dtype), ROWS=ROWS,
        CHANNELS=tile(x.shape[1], CHANNELS_AT_ONCE), COLUMNS=tile(columns, _most_columns(x.dtype)),
        num_warps=warps(x.dtype),
    )  # fmt: skip
    return out
