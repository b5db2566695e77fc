"""Every convolution: gather → mix, over tiles of rows that stay in cache; and its weight gradient.

A ``Gather`` says what is read for a row. ``forward`` gathers a tile, multiplies it by the packed
weight and stores the result; ``weight_gradient`` gathers the same tile again and multiplies its
transpose by the output's gradient. The input gradient of a convolution is a forward pass with the
transposed gather and the transposed weight.

Results do not depend on the number of threads: a row is computed by one program from start to end,
and the weight gradient is summed in slabs whose number follows from the shapes alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.gathers import cells, cells_depthwise, identity
from pointwise.engine.cpu.gemm import (
    ELEMENT,
    FROM_BIAS,
    FROM_NOTHING,
    FROM_ROWS,
    GENERAL,
    ROWS,
    TILE,
    TILE_ROW,
    multiply,
)
from pointwise.engine.cpu.launch import device, kernel, launch, slot, threads
from pointwise.engine.cpu.pack import pack, pad_row, padded_columns
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

IDENTITY, CELLS, CELLS_DEPTHWISE = 0, 1, 2

# A gathered tile should stay in the first-level cache with room for the weights beside it.
_TILE_BYTES = 24 * 1024
# For the weight gradient a tile is read once for every block of its columns: second level.
_GRADIENT_TILE_BYTES = 256 * 1024
_SLAB_BYTES = 8 * 1024 * 1024


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

    def arguments(self) -> list[int]:
        """The gather's part of a kernel's argument table (``_fill`` reads it)."""
        row_bytes = self.x.shape[1] * self.x.element_size()
        addresses = [
            0 if tensor is None else tensor.data_ptr()
            for tensor in (self.row_start, self.pairs, self.counts, self.weight)
        ]
        row_start, pairs, counts, weight = addresses
        return [self.kind, self.x.data_ptr(), row_bytes, self.x.shape[1], row_start, pairs,
                self.bits, self.mode, counts, self.cells, weight, self.rows,
                int(self.mirrored)]  # fmt: skip


_OWN = 13  # the first slot behind the gather's part


@device
def _fill(arguments, target, target_row, first, rows, like):
    """Gathers rows ``first … first + rows`` into ``target``."""
    kind, x, x_row, channels = (
        slot(arguments, 0),
        slot(arguments, 1),
        slot(arguments, 2),
        slot(arguments, 3),
    )
    row_start, pairs, bits = slot(arguments, 4), slot(arguments, 5), slot(arguments, 6)
    mode, counts, count = slot(arguments, 7), slot(arguments, 8), slot(arguments, 9)
    mirrored = slot(arguments, 12)
    if kind == CELLS:
        cells.fill(target, target_row, first, rows, x, x_row, channels, row_start, pairs, bits,
                   mode, counts, count, mirrored, like)  # fmt: skip
    elif kind == CELLS_DEPTHWISE:
        cells_depthwise.fill(target, target_row, first, rows, x, x_row, channels, row_start, pairs,
                             bits, mode, counts, count, mirrored, slot(arguments, 10),
                             like)  # fmt: skip
    else:
        identity.fill(target, target_row, first, rows, x, x_row, channels, like)


@device
def _forward(arguments, program, thread, like):
    tile, depth = slot(arguments, _OWN), slot(arguments, _OWN + 1)
    weight, bias, columns = (
        slot(arguments, _OWN + 2),
        slot(arguments, _OWN + 3),
        slot(arguments, _OWN + 4),
    )
    size = bytes_of(like)
    width = lanes_of(like)
    first = program * tile
    rows = min(tile, slot(arguments, 11) - first)
    out_row = columns * size
    out = slot(arguments, _OWN + 5) + first * out_row
    if weight == 0:  # a gather without a mix
        _fill(arguments, out, out_row, first, rows, like)
        return
    stride = GENERAL
    if slot(arguments, 0) == IDENTITY:
        a_row = slot(arguments, 2)
        a = slot(arguments, 1) + first * a_row
    else:
        a_row = slot(arguments, _OWN + 7)
        a = slot(arguments, _OWN + 6) + thread * tile * a_row
        _fill(arguments, a, a_row, first, rows, like)
        if a_row == TILE_ROW:
            stride = TILE
    start = FROM_NOTHING if bias == 0 else FROM_BIAS
    multiply(a, a_row, stride, size, weight, width * size, depth * width * size, depth,
             out, out_row, rows, columns, start, out, out_row, bias, number(-np.inf, like),
             number(np.inf, like), 0, 0, 0, like)  # fmt: skip


@kernel
def forward_float32(arguments, program, thread):
    """One tile of rows: gather, mix, store."""
    _forward(arguments, program, thread, np.float32(0))


@kernel
def forward_float64(arguments, program, thread):
    """One tile of rows: gather, mix, store."""
    _forward(arguments, program, thread, np.float64(0))


def _row_bytes(needed: int) -> int:
    """What lies between the rows of a gathered tile: an odd number of cache lines in any case."""
    return TILE_ROW if needed <= TILE_ROW - 64 else (-(-needed // 64) | 1) * 64


def forward(gather: Gather, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """``A @ weight + bias`` for the gathered A ``[rows, K]`` and ``weight [K, C_out]``.

    Without a weight, the gathered rows themselves.
    """
    dtype, size = gather.x.dtype, gather.x.element_size()
    depth = gather.width
    columns = depth if weight is None else weight.shape[1]
    out = torch.empty(gather.rows, columns, dtype=dtype)
    if out.numel() == 0 or depth == 0:  # nothing to add up; an empty weight has no address
        return out.zero_() if bias is None else out.copy_(bias)
    tile = ROWS * max(1, min(8, _TILE_BYTES // (ROWS * max(1, depth) * size)))
    row_bytes = _row_bytes(depth * size)
    scratch = torch.empty(threads() * tile * row_bytes, dtype=torch.uint8)
    packed = None if weight is None else pack(weight)
    padded = None if bias is None else pad_row(bias)
    arguments = gather.arguments() + [
        tile,
        depth,
        0 if packed is None else packed.data_ptr(),
        0 if padded is None else padded.data_ptr(),
        columns,
        out.data_ptr(),
        scratch.data_ptr(),
        row_bytes,
    ]
    compiled = forward_float32 if dtype == torch.float32 else forward_float64
    launch(compiled, arguments, -(-gather.rows // tile))
    return out


@device
def _weight_gradient(arguments, program, thread, like):
    """One slab of rows: Aᵀ·gradient and, in the row behind, the column sums of the gradient."""
    tile, depth = slot(arguments, _OWN), slot(arguments, _OWN + 1)
    gradient, columns = slot(arguments, _OWN + 2), slot(arguments, _OWN + 3)
    padded = slot(arguments, _OWN + 4)
    a_row = slot(arguments, _OWN + 6)
    rows_per_slab = slot(arguments, _OWN + 8)
    size = bytes_of(like)
    width = lanes_of(like)
    scratch = slot(arguments, _OWN + 5) + thread * tile * (a_row + padded * size)
    b = scratch + tile * a_row
    total = slot(arguments, _OWN + 7) + program * (depth + 1) * padded * size
    zero = broadcast(number(0, like))
    for k in range(0, (depth + 1) * padded, width):
        store(total + k * size, zero)
    last = min((program + 1) * rows_per_slab, slot(arguments, 11))
    for first in range(program * rows_per_slab, last, tile):
        rows = min(tile, last - first)
        _fill(arguments, scratch, a_row, first, rows, like)
        for r in range(rows):
            # A column of ones behind A makes the bias gradient part of the same product.
            poke(scratch + r * a_row + depth * size, number(1, like))
            for c in range(0, columns, width):
                source = gradient + ((first + r) * columns + c) * size
                place = b + (r * padded + c) * size
                store(place, load_first(source, columns - c, like))
        multiply(scratch, size, ELEMENT, a_row, b, padded * size, width * size, rows, total,
                 padded * size, depth + 1, padded, FROM_ROWS, total, padded * size, 0,
                 number(-np.inf, like), number(np.inf, like), 0, 0, 0, like)  # fmt: skip


@kernel
def weight_gradient_float32(arguments, program, thread):
    """One slab of the weight gradient."""
    _weight_gradient(arguments, program, thread, np.float32(0))


@kernel
def weight_gradient_float64(arguments, program, thread):
    """One slab of the weight gradient."""
    _weight_gradient(arguments, program, thread, np.float64(0))


@device
def _depthwise_gradient(arguments, program, thread, like):
    size = bytes_of(like)
    width = lanes_of(like)
    channels, count = slot(arguments, 3), slot(arguments, 9)
    rows_per_slab = slot(arguments, _OWN + 2)
    stride = slot(arguments, _OWN + 3)
    total = slot(arguments, _OWN + 1) + program * stride
    zero = broadcast(number(0, like))
    for k in range(0, stride // size, width):
        store(total + k * size, zero)
    first = program * rows_per_slab
    rows = min(rows_per_slab, slot(arguments, 11) - first)
    cells_depthwise.add_weight_gradient(
        total, first, rows, slot(arguments, 1), slot(arguments, 2), channels, slot(arguments, 4),
        slot(arguments, 5), slot(arguments, 6), slot(arguments, 7), count, slot(arguments, _OWN),
        channels * size, like)  # fmt: skip


@kernel
def depthwise_gradient_float32(arguments, program, thread):
    """One slab of the depthwise weights' gradient."""
    _depthwise_gradient(arguments, program, thread, np.float32(0))


@kernel
def depthwise_gradient_float64(arguments, program, thread):
    """One slab of the depthwise weights' gradient."""
    _depthwise_gradient(arguments, program, thread, np.float64(0))


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
    arguments = gather.arguments() + [
        tile,
        depth,
        gradient.data_ptr(),
        columns,
        padded,
        scratch.data_ptr(),
        row_bytes,
        totals.data_ptr(),
        per_slab,
    ]
    compiled = weight_gradient_float32 if dtype == torch.float32 else weight_gradient_float64
    launch(compiled, arguments, slabs)
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
    arguments = gather.arguments()
    arguments += [gradient.data_ptr(), totals.data_ptr(), per_slab, numbers * size]
    compiled = depthwise_gradient_float32 if dtype == torch.float32 else depthwise_gradient_float64
    launch(compiled, arguments, slabs)
    flat = total_of(totals)[: gather.cells * gather.x.shape[1]]
    return flat.view(gather.cells, gather.x.shape[1])
