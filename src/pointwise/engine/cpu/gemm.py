"""The matrix product under every convolution: a register-blocked microkernel emitted through LLVM.

``microkernel(rows, vectors)`` makes a Numba function that adds ``rows × (vectors · lanes)`` outputs
over ``depth`` steps, all accumulators in registers. Both operands are walked by strides, so that
one source computes ``A·B`` (rows of A are points) and ``Aᵀ·B`` (rows of A are channels).
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.launch import device
from pointwise.engine.cpu.vector import (
    REGISTER_BYTES,
    bytes_of,
    call,
    clamp,
    first_lanes,
    lanes_of,
    masked_load,
    masked_store,
    prefetch,
    splat,
    vector_of,
)

# Accumulators and operands have to fit in the machine's registers: 32 with AVX-512 and on 64-bit
# Arm, 16 on older x86. Written for two vectors of columns; one vector gets the same rows.
ROWS = 14 if REGISTER_BYTES == 64 else 6


# Rows of a gathered tile lie this many bytes apart where they fit: an odd number of cache lines, so
# that rows do not share cache sets, and a constant, so that every operand of the inner loop is one
# register plus a number known to the assembler.
TILE_ROW = 65 * 64
# Strides of A that are compiled in; the others are read from an argument.
GENERAL, TILE, ELEMENT = 0, 1, 2
# What a product is added to: nothing, or these, or both.
FROM_NOTHING, FROM_ROWS, FROM_BIAS = 0, 1, 2


def microkernel(rows: int, vectors: int, stride: int):
    """C[rows, vectors·lanes] (+)= Σ_k A[r, k] · B[k, :], for addresses and strides in bytes.

    ``stride`` says what lies between the rows of A: ``a_row`` bytes, ``TILE_ROW``, or one element.
    With the last two, A must be readable over all ``rows``.

    ``valid_rows`` and ``valid_columns`` limit what is stored; rows beyond are computed from the
    last valid one and dropped. The register of B for step k and vector v is at ``b + k·b_step +
    v·b_next``. The sum starts from zeros or, where ``start`` has FROM_ROWS, from the rows at
    ``source`` (which may be C), ``source_row`` bytes apart; with FROM_BIAS the row of ``vectors``
    registers at ``bias`` is added to that. What is stored is kept within ``low … high``. Each step
    asks for the cache lines at ``ahead``, which moves on by ``ahead_step``, and ``apart`` from it.
    """

    @intrinsic
    def run(
        typingctx,
        a,
        a_row,
        a_step,
        b,
        b_step,
        b_next,
        depth,
        c,
        c_row,
        valid_rows,
        valid_columns,
        start,
        source,
        source_row,
        bias,
        low,
        high,
        ahead,
        ahead_step,
        apart,
        like,
    ):
        vector = vector_of(like)
        size = vector.dtype.bitwidth // 8
        width = vector.count

        def codegen(context, builder, signature, arguments):
            (a, a_row, a_step, b, b_step, b_next, depth) = arguments[:7]
            (c, c_row, valid_rows, valid_columns, start, source, source_row) = arguments[7:14]
            bias, low, high, ahead, ahead_step, apart = arguments[14:20]
            i64 = ir.IntType(64)
            scalar = ir.FloatType() if size == 4 else ir.DoubleType()
            shape = ir.VectorType(scalar, width)
            registers = [(r, v) for r in range(rows) for v in range(vectors)]

            def at(address, offset, element):
                return builder.inttoptr(builder.add(address, offset), element.as_pointer())

            def column(v):
                return i64(v * width * size)

            # Row addresses: rows past the last valid one read the last valid one again.
            last = builder.sub(valid_rows, i64(1))
            if stride == GENERAL:
                row_offsets = []
                for r in range(rows):
                    inside = builder.icmp_signed("<", i64(r), valid_rows)
                    row_offsets.append(builder.mul(builder.select(inside, i64(r), last), a_row))
            else:
                between = TILE_ROW if stride == TILE else size
                row_offsets = [i64(r * between) for r in range(rows)]

            def partial(address, v):
                left = builder.sub(valid_columns, i64(v * width))
                mask = first_lanes(builder, left, width)
                return masked_load(builder, builder.add(address, column(v)), mask, shape)

            def added_if(bit, values, more):
                """``values`` plus ``more(r, v)`` where ``start`` has the bit."""
                before = builder.block
                block = builder.append_basic_block("start")
                behind = builder.append_basic_block("started")
                wanted = builder.icmp_signed("!=", builder.and_(start, i64(bit)), i64(0))
                builder.cbranch(wanted, block, behind)
                builder.position_at_end(block)
                sums = [
                    builder.fadd(value, more(r, v))
                    for value, (r, v) in zip(values, registers, strict=True)
                ]
                builder.branch(behind)
                builder.position_at_end(behind)
                merged = []
                for value, total in zip(values, sums, strict=True):
                    phi = builder.phi(shape)
                    phi.add_incoming(value, before)
                    phi.add_incoming(total, block)
                    merged.append(phi)
                return merged

            def from_rows(r, v):
                inside = builder.icmp_signed("<", i64(r), valid_rows)
                row = builder.select(inside, i64(r), last)
                return partial(builder.add(source, builder.mul(row, source_row)), v)

            def from_bias(r, v):
                return builder.load(at(bias, column(v), shape), align=size)

            # Minus zero: x + (-0) is x, also where x is -0.
            starts: list = [ir.Constant(shape, [-0.0] * width)] * len(registers)
            starts = added_if(FROM_ROWS, starts, from_rows)
            starts = added_if(FROM_BIAS, starts, from_bias)

            ready = builder.block
            loop = builder.append_basic_block("loop")
            done = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", depth, i64(0)), loop, done)

            builder.position_at_end(loop)
            k = builder.phi(i64)
            k.add_incoming(i64(0), ready)
            a_here = builder.phi(i64)
            a_here.add_incoming(a, ready)
            b_here = builder.phi(i64)
            b_here.add_incoming(b, ready)
            line = builder.phi(i64)
            line.add_incoming(ahead, ready)
            sums = []
            for begin in starts:
                phi = builder.phi(shape)
                phi.add_incoming(begin, ready)
                sums.append(phi)
            b_values = [
                builder.load(at(b_here, builder.mul(i64(v), b_next), shape), align=size)
                for v in range(vectors)
            ]
            prefetch(builder, line)
            prefetch(builder, builder.add(line, apart))
            results = []
            for r in range(rows):
                value = builder.load(at(a_here, row_offsets[r], scalar), align=size)
                lanes = splat(builder, value, width)
                for v in range(vectors):
                    name = f"llvm.fma.v{width}f{size * 8}"
                    arguments = [lanes, b_values[v], sums[r * vectors + v]]
                    results.append(call(builder, name, shape, arguments))
            k_next = builder.add(k, i64(1))
            a_next = builder.add(a_here, a_step)
            b_next = builder.add(b_here, b_step)
            k.add_incoming(k_next, loop)
            line.add_incoming(builder.add(line, ahead_step), loop)
            a_here.add_incoming(a_next, loop)
            b_here.add_incoming(b_next, loop)
            for phi, result in zip(sums, results, strict=True):
                phi.add_incoming(result, loop)
            builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done)

            builder.position_at_end(done)
            finals = []
            for begin, result in zip(starts, results, strict=True):
                phi = builder.phi(shape)
                phi.add_incoming(begin, ready)
                phi.add_incoming(result, loop)
                finals.append(phi)
            for r in range(rows):
                with builder.if_then(builder.icmp_signed("<", i64(r), valid_rows)):
                    row = builder.add(c, builder.mul(i64(r), c_row))
                    for v in range(vectors):
                        mask = first_lanes(
                            builder, builder.sub(valid_columns, i64(v * width)), width
                        )
                        where = builder.add(row, column(v))
                        kept = clamp(builder, finals[r * vectors + v], low, high, width)
                        masked_store(builder, where, kept, mask)
            return context.get_dummy_value()

        whole = [types.int64] * 15
        return types.void(*whole, like, like, *[types.int64] * 3, like), codegen

    return run


_wide = microkernel(ROWS, 2, GENERAL)
_narrow = microkernel(ROWS, 1, GENERAL)
_wide_few = microkernel(ROWS // 2, 2, GENERAL)  # for the last rows of a tile
_row = microkernel(2, 4, GENERAL)  # for one or two rows: as fast as B comes in
_wide_tile = microkernel(ROWS, 2, TILE)
_narrow_tile = microkernel(ROWS, 1, TILE)
_wide_element = microkernel(ROWS, 2, ELEMENT)
_narrow_element = microkernel(ROWS, 1, ELEMENT)


@device
def multiply(a, a_row, stride, a_step, b, b_step, b_next, depth, c, c_row, rows, columns, start,
             source, source_row, bias, low, high, ahead, ahead_end, apart, like):  # fmt: skip
    """The microkernel over a whole tile: C[rows, columns] (+)= A·B, all strides in bytes.

    ``stride``, ``start`` and all behind it are the microkernel's. With TILE, A must be readable up
    to the next multiple of ``ROWS``; with ELEMENT, ``a_row`` is the size of an element. While it
    computes, it asks for what is read next: ``ahead … ahead_end``, and the same ``apart`` from it.
    """
    size = bytes_of(like)
    width = lanes_of(like)
    column = 0
    if rows <= 2 and stride != ELEMENT:
        while columns - column >= 4 * width:
            _row(a, a_row, a_step, b + (column // width) * b_next, b_step, b_next, depth,
                 c + column * size, c_row, rows, columns - column, start, source + column * size,
                 source_row, bias + column * size, low, high, a, 0, 0, like)  # fmt: skip
            column += 4 * width
    while column < columns:
        left = columns - column
        for row in range(0, rows, ROWS):
            valid = min(ROWS, rows - row)
            # Every step asks for a line of what is read next, as long as there is any.
            line, step, far = a + row * a_row, 0, 0
            if ahead < ahead_end:
                line, step, far = ahead, 64, apart
                ahead += depth * 64
            given = (
                a + row * a_row, a_row, a_step, b + (column // width) * b_next, b_step, b_next,
                depth, c + row * c_row + column * size, c_row, valid, left, start,
                source + row * source_row + column * size, source_row, bias + column * size, low,
                high, line, step, far, like,
            )  # fmt: skip
            if left > width:
                if stride == TILE:
                    _wide_tile(*given)
                elif stride == ELEMENT and valid == ROWS:
                    _wide_element(*given)
                elif valid <= ROWS // 2:
                    _wide_few(*given)
                else:
                    _wide(*given)
            elif stride == TILE:
                _narrow_tile(*given)
            elif stride == ELEMENT and valid == ROWS:
                _narrow_element(*given)
            else:
                _narrow(*given)
        column += 2 * width if left > width else width
