"""Convolutions of points: a gather, alone or with its mix; and the gradients of their weights.

A ``Gather`` says what is read for a row. ``forward`` gathers and multiplies tile by tile, as images
do (``mixed``); ``weight_gradient`` gathers the same tile again and multiplies its transpose by the
output's gradient. The input gradient of a convolution is a forward pass with the transposed gather
and the transposed weight.

Results do not depend on the number of threads: the weight gradient is summed in slabs whose number
follows from the shapes alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.gathers import cells, cells_depthwise, identity
from pointwise.engine.cpu.gemm import (
    ELEMENT,
    FROM_ROWS,
    ROWS,
    TILE_ROW,
    multiply,
)
from pointwise.engine.cpu.launch import Launch, device, launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.loops.mixed import Tiling, mixed_launch, mixed_of
from pointwise.engine.cpu.mix import MIX, mix_arguments, mix_tile
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import total_of
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    lanes_of,
    load_first,
    number,
    poke,
    store,
)
from pointwise.engine.cpu.weights import pack_matrix

IDENTITY, CELLS, CELLS_DEPTHWISE = 0, 1, 2

# A gathered tile should stay in the first-level cache with room for the weights beside it.
_TILE_BYTES = 24 * 1024
# For the weight gradient a tile is read once for every block of its columns: second level.
_GRADIENT_TILE_BYTES = 256 * 1024
_SLAB_BYTES = 8 * 1024 * 1024


_GATHER = Layout("Gather", "kind x_row channels rows", table=cells.CELLS)
_GATHERED = Layout("Gathered", "*x *out tile out_row", gather=_GATHER)
_WEIGHT_GRADIENT = Layout(
    "CloudWeightGradient",
    "*x *out *scratch *gradient tile depth columns padded scratch_row rows_per_slab",
    gather=_GATHER,
)
_DEPTHWISE_GRADIENT = Layout(
    "CloudDepthwiseGradient", "*x *out *gradient rows_per_slab slab", gather=_GATHER
)


@dataclass
class Gather:
    """What is read for each row: the kind of gather and its operands (contiguous CPU tensors)."""

    kind: int
    x: Tensor  # [Np, C]
    rows: int
    row_start: Tensor | None = None  # [rows + 1] int64
    pairs: Tensor | None = None  # [P] int32
    bits: int = 0
    mode: int = cells.SUM
    mirrored: bool = False  # read the table as its own transpose: cell m stands for cell M-1-m
    counts: Tensor | None = None  # [Np, M] int32, for ADJOINT_OF_MEAN
    cells: int = 1
    weight: Tensor | None = None  # [M, C], for CELLS_DEPTHWISE

    @property
    def width(self) -> int:
        """K, the number of gathered values in a row."""
        return self.x.shape[1] * (self.cells if self.kind == CELLS else 1)

    def arguments(self) -> Arguments:
        """The gather's part of a kernel's argument table; ``x`` itself is the kernel's."""
        table = cells.CELLS(
            row_start=self.row_start,
            pairs=self.pairs,
            counts=self.counts,
            weight=self.weight,
            bits=self.bits,
            mode=self.mode,
            cells=self.cells,
            mirrored=int(self.mirrored),
        )
        channels = self.x.shape[1]
        x_row = channels * self.x.element_size()
        return _GATHER(kind=self.kind, x_row=x_row, channels=channels, rows=self.rows, table=table)


@device
def _fill(target, target_row, first, rows, x, gather, like):
    """Gathers rows ``first … first + rows`` of ``x`` into ``target``."""
    x_row, channels = gather.x_row, gather.channels
    if gather.kind == CELLS:
        cells.fill(target, target_row, first, rows, x, x_row, channels, gather.table, like)
    elif gather.kind == CELLS_DEPTHWISE:
        cells_depthwise.fill(
            target, target_row, first, rows, x, x_row, channels, gather.table, like
        )
    else:
        identity.fill(target, target_row, first, rows, x, x_row, channels, like)


@device
def _fill_tile(target, target_row, first, rows, x, gather, prologue, channel, like):
    """``_fill`` as the loop of ``mixed_of`` calls it; points have no prologue."""
    _fill(target, target_row, first, rows, x, gather, like)


@device
def _gathered(arguments, program, thread, like):
    """One tile of rows, gathered into the result: a gather without a mix."""
    own = _GATHERED(arguments)
    first = program * own.tile
    rows = min(own.tile, own.gather.rows - first)
    _fill(own.out + first * own.out_row, own.out_row, first, rows, own.x, own.gather, like)


_MIXED, _mixed = mixed_of("cells", _GATHER, _fill_tile, MIX, mix_tile)
_MIXED_KERNELS = by_dtype(_mixed, "mixed_cells")
_GATHERED_KERNELS = by_dtype(_gathered, "gathered_cells")


def _row_bytes(needed: int) -> int:
    """What lies between the rows of a gathered tile: an odd number of cache lines in any case."""
    return TILE_ROW if needed <= TILE_ROW - 64 else (-(-needed // 64) | 1) * 64


def forward(gather: Gather, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """``A @ weight + bias`` for the gathered A ``[rows, K]`` and ``weight [K, C_out]``.

    Without a weight, the gathered rows themselves.
    """
    x, rows, depth = gather.x, gather.rows, gather.width
    size = x.element_size()
    columns = depth if weight is None else weight.shape[1]
    out = torch.empty(rows, columns, dtype=x.dtype)
    if out.numel() == 0 or depth == 0:  # nothing to add up; an empty weight has no address
        return out.zero_() if bias is None else out.copy_(bias)
    tile = ROWS * max(1, min(8, _TILE_BYTES // (ROWS * depth * size)))
    out_row = columns * size
    if weight is None:
        arguments = _GATHERED(x=x, out=out, tile=tile, out_row=out_row, gather=gather.arguments())
        return Launch(_GATHERED_KERNELS[x.dtype], arguments, -(-rows // tile), out).run()
    direct = gather.kind == IDENTITY
    return mixed_launch(
        _MIXED_KERNELS[x.dtype],
        _MIXED,
        x,
        out,
        Tiling(rows, tile, columns, tile, _row_bytes(depth * size), direct, 1, -(-rows // tile), 1),
        gather.arguments(),
        mix_arguments(pack_matrix(weight, bias), out_row, "none"),
    ).run()


@device
def _weight_gradient(arguments, program, thread, like):
    """One slab of rows: Aᵀ·gradient and, in the row behind, the column sums of the gradient."""
    own = _WEIGHT_GRADIENT(arguments)
    tile, depth, columns, padded = own.tile, own.depth, own.columns, own.padded
    a_row = own.scratch_row
    size = bytes_of(like)
    width = lanes_of(like)
    scratch = own.scratch + thread * tile * (a_row + padded * size)
    b = scratch + tile * a_row
    total = own.out + program * (depth + 1) * padded * size
    zero = broadcast(number(0, like))
    for k in range(0, (depth + 1) * padded, width):
        store(total + k * size, zero)
    last = min((program + 1) * own.rows_per_slab, own.gather.rows)
    for first in range(program * own.rows_per_slab, last, tile):
        rows = min(tile, last - first)
        _fill(scratch, a_row, first, rows, own.x, own.gather, like)
        for r in range(rows):
            # A column of ones behind A makes the bias gradient part of the same product.
            poke(scratch + r * a_row + depth * size, number(1, like))
            for c in range(0, columns, width):
                source = own.gradient + ((first + r) * columns + c) * size
                place = b + (r * padded + c) * size
                store(place, load_first(source, columns - c, like))
        multiply(scratch, size, ELEMENT, a_row, b, padded * size, width * size, rows, total,
                 padded * size, depth + 1, padded, FROM_ROWS, total, padded * size, 0,
                 number(-np.inf, like), number(np.inf, like), 0, 0, 0, like)  # fmt: skip


@device
def _depthwise_gradient(arguments, program, thread, like):
    """One slab of rows of the depthwise weights' gradient."""
    own = _DEPTHWISE_GRADIENT(arguments)
    size = bytes_of(like)
    width = lanes_of(like)
    channels = own.gather.channels
    total = own.out + program * own.slab
    zero = broadcast(number(0, like))
    for k in range(0, own.slab // size, width):
        store(total + k * size, zero)
    first = program * own.rows_per_slab
    rows = min(own.rows_per_slab, own.gather.rows - first)
    cells_depthwise.add_weight_gradient(
        total, first, rows, own.x, own.gather.x_row, channels, own.gather.table, own.gradient,
        channels * size, like)  # fmt: skip


_WEIGHT_GRADIENT_KERNELS = by_dtype(_weight_gradient, "cloud_weight_gradient")
_DEPTHWISE_GRADIENT_KERNELS = by_dtype(_depthwise_gradient, "cloud_depthwise_gradient")


def _slabs(rows: int, numbers: int, size: int) -> tuple[int, int]:
    """(slabs, rows in each), from the shapes alone."""
    most = max(8, min(64, _SLAB_BYTES // (numbers * size)))
    per_slab = max(64, -(-rows // most))
    return -(-rows // per_slab), per_slab


def weight_gradient(gather: Gather, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """(``Aᵀ @ gradient [K, C_out]``, the sum of ``gradient`` over rows ``[C_out]``)."""
    dtype, size = gather.x.dtype, gather.x.element_size()
    depth, columns = gather.width, gradient.shape[1]
    padded = padded_columns(columns, dtype)
    if gather.rows == 0 or columns == 0:
        return torch.zeros(depth, columns, dtype=dtype), torch.zeros(columns, dtype=dtype)
    slabs, per_slab = _slabs(gather.rows, (depth + 1) * padded, size)
    row_bytes = _row_bytes((depth + 1) * size)
    tile = max(16, min(128, _GRADIENT_TILE_BYTES // row_bytes))
    # The kernel reads A's columns ROWS at a time, past the last one too.
    scratch = torch.empty(
        threads() * tile * (row_bytes + padded * size) + ROWS * size, dtype=torch.uint8
    )
    totals = torch.empty(slabs, (depth + 1) * padded, dtype=dtype)
    arguments = _WEIGHT_GRADIENT(
        x=gather.x,
        out=totals,
        scratch=scratch,
        gradient=gradient,
        tile=tile,
        depth=depth,
        columns=columns,
        padded=padded,
        scratch_row=row_bytes,
        rows_per_slab=per_slab,
        gather=gather.arguments(),
    )
    launch(_WEIGHT_GRADIENT_KERNELS[dtype], arguments, slabs)
    total = total_of(totals).view(depth + 1, padded)
    return total[:depth, :columns], total[depth, :columns]


def depthwise_gradient(gather: Gather, gradient: Tensor) -> Tensor:
    """``[M, C]``: the gradient of a depthwise gather's own weights."""
    dtype, size = gather.x.dtype, gather.x.element_size()
    numbers = padded_columns(gather.cells * gather.x.shape[1], dtype)
    if gather.rows == 0 or numbers == 0:
        return torch.zeros(gather.cells, gather.x.shape[1], dtype=dtype)
    slabs, per_slab = _slabs(gather.rows, numbers, size)
    totals = torch.empty(slabs, numbers, dtype=dtype)
    arguments = _DEPTHWISE_GRADIENT(
        x=gather.x,
        out=totals,
        gradient=gradient,
        rows_per_slab=per_slab,
        slab=numbers * size,
        gather=gather.arguments(),
    )
    launch(_DEPTHWISE_GRADIENT_KERNELS[dtype], arguments, slabs)
    flat = total_of(totals)[: gather.cells * gather.x.shape[1]]
    return flat.view(gather.cells, gather.x.shape[1])
