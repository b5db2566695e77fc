"""The matrix product of bytes: activations uint8, weights int8, sums int32, exact (``dots``).

A few neighbouring numbers of a row of A, one lane's, are multiplied with as many of a column of B
and added up, for a register of columns at once. What follows is done in float32, each operation
rounded once, so that plain PyTorch gives the same bits: ``sum·factor + shift``, plus a residual of
bytes, kept within bounds, and stored as it is or rounded to a byte.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.dots import DOTS, LANE_BYTES, dot
from pointwise.engine.cpu.flow import chosen
from pointwise.engine.cpu.narrow import ordered_bytes, scaled
from pointwise.engine.cpu.product import GENERAL, Product
from pointwise.engine.cpu.vector import clamp, load_lanes, load_some, splat, store_lanes, store_some

LANES = DOTS.lanes  # columns of one register
GROUP = DOTS.group  # steps of depth of one lane
ROWS = DOTS.rows
FLOAT = np.float32(0)
_REGISTER = LANE_BYTES * LANES

_I64, _F32 = ir.IntType(64), ir.FloatType()
_SUMS, _FLOATS = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(_F32, LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
# Adding this to a number from 0 to 2²² leaves it, rounded half to even, in the lowest bits.
_ROUNDER = 12582912.0


def microkernel(rows: int, vectors: int, some: bool = False):
    """C[rows, vectors·LANES] = finish(Σ_k A[r, k]·B[k, :] + start), walked as ``Product`` says.

    ``depth`` counts lanes of ``GROUP`` steps. ``start`` (int32), ``factor`` and ``shift`` (float32)
    are rows of whole registers. ``residual`` (or 0) are rows of uint8, each times ``times``. With
    ``as_bytes``, results are rounded to uint8; others are kept within ``low … high``. Of ``some``
    rows, and of the columns, only the valid ones are stored.
    """

    @intrinsic
    def run(typingctx, a, a_row, b, b_next, depth, c, c_row, valid_rows, valid_columns, start,
            factor, shift, residual, residual_row, times, low, high, as_bytes):  # fmt: skip
        def codegen(context, builder, signature, arguments):
            _Bytes(builder, (rows, vectors), some, arguments).emit()
            return context.get_dummy_value()

        whole, real = types.int64, types.float32
        return types.void(*[whole] * 14, real, real, real, whole), codegen

    return run


class _Bytes(Product):
    """The LLVM of one microkernel. An element is a lane."""

    def __init__(self, builder, sizes, some, arguments) -> None:
        super().__init__(builder, sizes, _SUMS, LANE_BYTES, GENERAL, some, asks=False)
        self.a, self.a_stride, self.b, self.b_stride, self.depth, self.c = arguments[:6]
        self.c_row, self.valid_rows, self.valid_columns = arguments[6:9]
        self.start, self.factor, self.shift, self.residual, self.residual_row = arguments[9:14]
        self.times_residual, self.low, self.high, self.as_bytes = arguments[14:]

    def multiply_add(self, numbers, values, total):
        return dot(self.builder, total, numbers, values, LANES)

    def emit(self) -> None:
        begin = self.row_of(self.start, _SUMS)
        sums = self.multiplied([begin[v] for _, v in self.places])
        builder = self.builder
        self.factors, self.shifts = (self.row_of(x, _FLOATS) for x in (self.factor, self.shift))
        self.has_residual = builder.icmp_signed("!=", self.residual, _I64(0))
        self.wants_bytes = builder.icmp_signed("!=", self.as_bytes, _I64(0))
        rows = [sums[r * self.vectors : (r + 1) * self.vectors] for r in range(self.rows)]
        if self.some:
            self.finish(rows)
            return
        # Most tiles are whole, and end in bytes without a residual: no question for each row.
        columns = builder.icmp_signed(">=", self.valid_columns, _I64(self.vectors * LANES))
        plain = builder.and_(
            builder.and_(columns, self.wants_bytes), builder.not_(self.has_residual)
        )
        with builder.if_else(plain) as (plainly, with_questions):
            with plainly:
                for r, own in enumerate(rows):
                    self.store_bytes(r, self.scaled(own))
            with with_questions:
                self.finish(rows)

    def row_of(self, address, shape) -> list:
        """A row of whole registers."""
        return [
            load_lanes(self.builder, self.plus(address, self.column(v)), None, shape)
            for v in range(self.vectors)
        ]

    def finish(self, rows: list) -> None:
        """From the sums of rows to what is stored of them."""
        builder = self.builder
        for r, sums in enumerate(rows):
            with self.if_valid(r):
                values = self.scaled(sums)
                values = chosen(
                    builder,
                    self.has_residual,
                    partial(self.added, r, values),
                    partial(list, values),
                )
                with builder.if_else(self.wants_bytes) as (as_bytes, as_they_are):
                    with as_bytes:
                        self.store_bytes(r, values, some=True)
                    with as_they_are:
                        self.store_floats(r, values)

    def scaled(self, sums: list) -> list:
        return scaled(self.builder, sums, self.factors, self.shifts)

    def store_bytes(self, r: int, values: list, some: bool = False) -> None:
        row = self.plus(self.c, self.times(_I64(r), self.c_row))
        at_once = 2 if LANES == 8 and self.vectors > 1 else 1
        for v in range(0, self.vectors, at_once):
            part = as_bytes_of(self.builder, values[v : v + at_once])
            place = self.plus(row, _I64(v * LANES))
            if some:
                store_some(self.builder, place, part, self.left(v))
            else:
                store_lanes(self.builder, place, part, None)

    def store_floats(self, r: int, values: list) -> None:
        row = self.plus(self.c, self.times(_I64(r), self.c_row))
        for v, value in enumerate(values):
            kept = clamp(self.builder, value, self.low, self.high, LANES)
            store_some(self.builder, self.plus(row, self.column(v)), kept, self.left(v))

    def added(self, r: int, values: list) -> list:
        """The values of row ``r`` and what the residual adds to them."""
        builder = self.builder
        row = self.plus(self.residual, self.times(_I64(r), self.residual_row))
        scales = splat(builder, self.times_residual, LANES)
        added = []
        for v, value in enumerate(values):
            more = load_some(builder, self.plus(row, _I64(v * LANES)), self.left(v), _BYTES)
            more = builder.uitofp(builder.zext(more, _SUMS), _FLOATS)
            added.append(builder.fadd(value, builder.fmul(more, scales)))
        return added


def as_bytes_of(builder, values: list):
    """Registers as bytes in order, each rounded and kept within 0 … 255."""
    if LANES == 8:
        return ordered_bytes(builder, values)
    kept = clamp(builder, values[0], _F32(0), _F32(255), LANES)
    return builder.trunc(rounded(builder, kept, LANES), _BYTES)


def rounded(builder, value, lanes: int):
    """Floats from 0 to 255 as int32 whose lowest byte is the nearest whole number."""
    more = ir.Constant(ir.VectorType(_F32, lanes), [_ROUNDER] * lanes)
    return builder.bitcast(builder.fadd(value, more), ir.VectorType(ir.IntType(32), lanes))


_wide = microkernel(ROWS, 2)
_wide_some = microkernel(ROWS, 2, some=True)
_wide_few = microkernel(ROWS // 2, 2, some=True)
_narrow = microkernel(ROWS, 1)
_narrow_some = microkernel(ROWS, 1, some=True)
_row = microkernel(2, 4, some=True)


@device
def multiply(a, a_row, b, depth, c, c_row, rows, columns, start, factor, shift, residual, times,
             low, high, as_bytes):  # fmt: skip
    """The microkernel over a whole tile; ``residual`` has rows of bytes, as many as C has columns.

    ``depth`` counts lanes; ``b`` is ``[columns/LANES, depth, LANES, GROUP]``. Rows of the residual
    lie as far apart as those of C in elements.
    """
    size = 1 if as_bytes != 0 else 4
    residual_row = c_row // size
    next_panel = depth * _REGISTER
    column = 0
    while column < columns:
        left = columns - column
        wide = 4 * LANES if rows <= 2 and left >= 4 * LANES else 2 * LANES
        wide = wide if left > LANES else LANES
        row = 0
        while row < rows:
            valid = rows - row
            given = (
                a + row * a_row, a_row, b + column // LANES * next_panel, next_panel, depth,
                c + row * c_row + column * size, c_row, valid, left, start + 4 * column,
                factor + 4 * column, shift + 4 * column,
                residual + row * residual_row + column if residual != 0 else 0, residual_row,
                times, low, high, as_bytes,
            )  # fmt: skip
            if wide == 4 * LANES:
                _row(*given)
                row += 2
            elif wide == LANES:
                if valid < ROWS:
                    _narrow_some(*given)
                else:
                    _narrow(*given)
                row += ROWS
            elif valid <= ROWS // 2:
                _wide_few(*given)
                row += ROWS // 2
            elif valid < ROWS:
                _wide_some(*given)
                row += ROWS
            else:
                _wide(*given)
                row += ROWS
        column += wide


def pack(matrix: Tensor) -> Tensor:
    """``[C, K]`` as ``[C/LANES, K/GROUP, LANES, GROUP]``, zeros behind the last column and step."""
    columns, depth = matrix.shape
    panels, groups = -(-columns // LANES), -(-depth // GROUP)
    wide = torch.zeros(panels * LANES, groups * GROUP, dtype=DOTS.dtype)
    wide[:columns, :depth] = matrix
    return wide.view(panels, LANES, groups, GROUP).transpose(1, 2).contiguous()


def pad(row: Tensor, to: int = LANES) -> Tensor:
    """A row with zeros up to a multiple of ``to``."""
    padded = torch.zeros(-(-len(row) // to) * to, dtype=row.dtype)
    padded[: len(row)] = row
    return padded
