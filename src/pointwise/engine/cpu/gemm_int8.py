"""The matrix product of bytes: activations uint8, weights int8, sums int32, exact (``dots``).

A few neighbouring numbers of a row of A, one lane's, are multiplied with as many of a column of B
and added up, for a register of columns at once. What follows is done in float32, each operation
rounded once, so that plain PyTorch gives the same bits: ``sum·factor + shift``, plus a residual of
bytes, kept within bounds, and stored as it is or rounded to a byte.
"""

from __future__ import annotations

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.dots import DOTS, LANE_BYTES, dot
from pointwise.engine.cpu.vector import clamp, load_some, splat, store_some

LANES = DOTS.lanes  # columns of one register
GROUP = DOTS.group  # steps of depth of one lane
ROWS = DOTS.rows
FLOAT = np.float32(0)
_REGISTER = LANE_BYTES * LANES

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_F32 = ir.FloatType()
# Adding this to a number from 0 to 2²² leaves it, rounded half to even, in the lowest bits.
_ROUNDER = 12582912.0


def microkernel(rows: int, vectors: int):
    """C[rows, vectors·LANES] = finish(Σ_k A[r, k]·B[k, :] + start), rows and addresses in bytes.

    ``depth`` counts lanes of ``GROUP`` steps. ``start`` (int32), ``factor`` and ``shift`` (float32)
    are rows of whole registers. ``residual`` (or 0) are rows of uint8, each times ``times``. With
    ``as_bytes``, results are rounded to uint8; rows and columns beyond the valid ones are dropped.
    """

    @intrinsic
    def run(typingctx, a, a_row, b, b_next, depth, c, c_row, valid_rows, valid_columns, start,
            factor, shift, residual, residual_row, times, low, high, as_bytes):  # fmt: skip
        def codegen(context, builder, signature, arguments):
            a, a_row, b, b_next, depth, c, c_row, valid_rows, valid_columns = arguments[:9]
            start, factor, shift, residual, residual_row, times, low, high, as_bytes = arguments[9:]
            sums_of, floats_of = ir.VectorType(_I32, LANES), ir.VectorType(_F32, LANES)
            bytes_of = ir.VectorType(_I8, LANES)
            registers = [(r, v) for r in range(rows) for v in range(vectors)]

            def load(address, shape, offset=0):
                if offset:
                    address = builder.add(address, _I64(offset))
                return builder.load(builder.inttoptr(address, shape.as_pointer()), align=4)

            last = builder.sub(valid_rows, _I64(1))
            row_offsets = []
            for r in range(rows):
                inside = builder.icmp_signed("<", _I64(r), valid_rows)
                row_offsets.append(builder.mul(builder.select(inside, _I64(r), last), a_row))
            starts = [load(start, sums_of, _REGISTER * v) for v in range(vectors)]

            ready = builder.block
            loop = builder.append_basic_block("loop")
            done = builder.append_basic_block("done")
            builder.branch(loop)  # there is at least one group
            builder.position_at_end(loop)
            k, b_here, a_here = (builder.phi(_I64) for _ in range(3))
            sums = [builder.phi(sums_of) for _ in registers]
            for phi, begin in zip((k, b_here, a_here), (_I64(0), b, a), strict=True):
                phi.add_incoming(begin, ready)
            for phi, (_, v) in zip(sums, registers, strict=True):
                phi.add_incoming(starts[v], ready)
            panel = [
                load(builder.add(b_here, builder.mul(_I64(v), b_next)), sums_of)
                for v in range(vectors)
            ]
            results = []
            for r in range(rows):
                place = builder.inttoptr(builder.add(a_here, row_offsets[r]), _I32.as_pointer())
                numbers = splat(builder, builder.load(place, align=1), LANES)
                for v in range(vectors):
                    results.append(dot(builder, sums[r * vectors + v], numbers, panel[v], LANES))
            k_next = builder.add(k, _I64(1))
            k.add_incoming(k_next, loop)
            b_here.add_incoming(builder.add(b_here, _I64(_REGISTER)), loop)
            a_here.add_incoming(builder.add(a_here, _I64(LANE_BYTES)), loop)
            for phi, result in zip(sums, results, strict=True):
                phi.add_incoming(result, loop)
            builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done)

            builder.position_at_end(done)
            valid = [builder.sub(valid_columns, _I64(v * LANES)) for v in range(vectors)]
            factors = [load(factor, floats_of, _REGISTER * v) for v in range(vectors)]
            shifts = [load(shift, floats_of, _REGISTER * v) for v in range(vectors)]
            scales = splat(builder, times, LANES)
            has_residual = builder.icmp_signed("!=", residual, _I64(0))
            wants_bytes = builder.icmp_signed("!=", as_bytes, _I64(0))
            for r in range(rows):
                with builder.if_then(builder.icmp_signed("<", _I64(r), valid_rows)):
                    row = builder.add(c, builder.mul(_I64(r), c_row))
                    values = []
                    for v in range(vectors):
                        value = builder.sitofp(results[r * vectors + v], floats_of)
                        values.append(builder.fadd(builder.fmul(value, factors[v]), shifts[v]))
                    before = builder.block
                    with builder.if_then(has_residual):
                        other = builder.add(residual, builder.mul(_I64(r), residual_row))
                        added = []
                        for v in range(vectors):
                            place = builder.add(other, _I64(v * LANES))
                            more = load_some(builder, place, valid[v], bytes_of)
                            more = builder.uitofp(builder.zext(more, sums_of), floats_of)
                            added.append(builder.fadd(values[v], builder.fmul(more, scales)))
                        end = builder.block
                    merged = []
                    for value, more in zip(values, added, strict=True):
                        phi = builder.phi(floats_of)
                        phi.add_incoming(value, before)
                        phi.add_incoming(more, end)
                        merged.append(phi)
                    kept = [clamp(builder, value, low, high, LANES) for value in merged]
                    with builder.if_else(wants_bytes) as (as_they_fit, as_they_are):
                        with as_they_fit:
                            for v in range(vectors):
                                value = rounded(builder, kept[v], LANES)
                                place = builder.add(row, _I64(v * LANES))
                                value = builder.trunc(value, bytes_of)
                                store_some(builder, place, value, valid[v])
                        with as_they_are:
                            for v in range(vectors):
                                place = builder.add(row, _I64(4 * v * LANES))
                                store_some(builder, place, kept[v], valid[v])
            return context.get_dummy_value()

        whole, real = types.int64, types.float32
        return types.void(*[whole] * 14, real, real, real, whole), codegen

    return run


def rounded(builder, value, lanes: int):
    """Floats from 0 to 255 as int32 whose lowest byte is the nearest whole number."""
    more = ir.Constant(ir.VectorType(_F32, lanes), [_ROUNDER] * lanes)
    return builder.bitcast(builder.fadd(value, more), ir.VectorType(_I32, lanes))


_wide = microkernel(ROWS, 2)
_wide_few = microkernel(ROWS // 2, 2)
_narrow = microkernel(ROWS, 1)
_row = microkernel(2, 4)


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
                _narrow(*given)
                row += ROWS
            elif valid <= ROWS // 2:
                _wide_few(*given)
                row += ROWS // 2
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
