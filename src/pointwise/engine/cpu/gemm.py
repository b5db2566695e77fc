"""The matrix product under every convolution: register-blocked microkernels emitted through LLVM.

``microkernel(rows, vectors, …)`` makes a Numba function that adds ``rows × (vectors · lanes)``
outputs over ``depth`` steps, all accumulators in registers. ``multiply`` computes ``A·B`` (rows of
A are points) with it, ``multiply_turned`` ``Aᵀ·B`` (rows of A are channels).
"""

from __future__ import annotations

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.flow import chosen
from pointwise.engine.cpu.isa import ISA
from pointwise.engine.cpu.product import GENERAL, TILE, TURNED, Product
from pointwise.engine.cpu.vector import (
    Vector,
    bytes_of,
    clamp,
    lanes_of,
    number,
    store_lanes,
    vector_of,
)

# Accumulators and operands have to fit in the machine's registers. Written for two vectors of
# columns; one vector gets the same rows. x86 multiplies by numbers of A that lie in memory; Arm
# loads each into a register first, and LLVM a step's all at once: of 14 or 12 rows it then keeps
# sums on the stack, of 8 none.
ROWS = {"AVX-512": 14, "NEON": 8}.get(ISA.title, 6)
# The fewest rows whose sums, of two vectors, keep the multipliers busy; two such products leave
# less undone than one of all rows and the rest, where a tile has no more.
FEW = {14: 8}.get(ROWS, 4)

# What a product is added to: nothing, or these, or both.
FROM_NOTHING, FROM_ROWS, FROM_BIAS = 0, 1, 2

_I64 = ir.IntType(64)


def microkernel(
    kind: type[Floats], rows: int, vectors: int, walk: int, some: bool = False, asks: bool = False
):
    """C[rows, vectors·lanes] (+)= Σ_k A[r, k] · B[k, :], walked as ``Product`` says.

    Of ``some`` rows, and of the columns, only ``valid_rows`` and ``valid_columns`` are stored. The
    sum starts from zeros or, where ``start`` has FROM_ROWS, from the rows at ``source`` (which may
    be C), ``source_row`` bytes apart; with FROM_BIAS the row of ``vectors`` registers at ``bias``
    is added to that. What is stored is kept within ``low … high``. Of which ``kind`` numbers and
    products are says its class.
    """

    @intrinsic
    def run(
        typingctx,
        a,
        a_stride,
        b,
        b_stride,
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
        apart,
        like,
    ):
        vector = vector_of(like)

        def codegen(context, builder, signature, arguments):
            kind(builder, vector, (rows, vectors), walk, some, asks, arguments).emit()
            return context.get_dummy_value()

        whole = [types.int64] * 13
        return types.void(*whole, like, like, types.int64, types.int64, like), codegen

    return run


class Floats(Product):
    """The LLVM of one microkernel."""

    def __init__(self, builder, vector: Vector, sizes, walk, some, asks, arguments) -> None:
        size, width = vector.dtype.bitwidth // 8, vector.count
        shape = ir.VectorType(ir.FloatType() if size == 4 else ir.DoubleType(), width)
        super().__init__(builder, sizes, shape, size, walk, some, asks)
        self.a, self.a_stride, self.b, self.b_stride, self.depth, self.c = arguments[:6]
        self.c_row, self.valid_rows, self.valid_columns, self.start = arguments[6:10]
        self.source, self.source_row, self.bias, self.low, self.high = arguments[10:15]
        self.ahead, self.apart = arguments[15:17]
        columns = _I64(self.vectors * self.width)
        self.is_whole = builder.icmp_signed(">=", self.valid_columns, columns)

    def emit(self) -> None:
        # Minus zero: x + (-0) is x, also where x is -0.
        sums: list = [ir.Constant(self.shape, [-0.0] * self.width)] * len(self.places)
        sums = self.added_if(FROM_ROWS, sums, self.from_rows)
        sums = self.added_if(FROM_BIAS, sums, self.from_bias)
        self.store(self.multiplied(sums))

    # --- before and behind it ---

    def added_if(self, bit: int, sums: list, more) -> list:
        """``sums`` plus ``more()`` where ``start`` has the bit."""
        builder = self.builder
        wanted = builder.icmp_signed("!=", builder.and_(self.start, _I64(bit)), _I64(0))

        def added() -> list:
            return [builder.fadd(total, value) for total, value in zip(sums, more(), strict=True)]

        return chosen(builder, wanted, added, lambda: sums)

    def from_rows(self) -> list:
        def loaded(masked: bool) -> list:
            values = []
            for r, v in self.places:
                row = self.times(self.valid(r) if self.some else _I64(r), self.source_row)
                place = self.plus(self.plus(self.source, row), self.column(v))
                values.append(self.load(place, self.mask(v) if masked else None))
            return values

        return chosen(self.builder, self.is_whole, lambda: loaded(False), lambda: loaded(True))

    def from_bias(self) -> list:
        row = [self.load(self.plus(self.bias, self.column(v))) for v in range(self.vectors)]
        return [row[v] for _, v in self.places]

    def store(self, sums: list) -> None:
        kept = [clamp(self.builder, total, self.low, self.high, self.width) for total in sums]
        # A masked store is microcode on some processors: only where a row ends in a register.
        with self.builder.if_else(self.is_whole) as (whole, partial):
            with whole:
                self.store_rows(kept, masked=False)
            with partial:
                self.store_rows(kept, masked=True)

    def store_rows(self, kept: list, masked: bool) -> None:
        for r in range(self.rows):
            with self.if_valid(r):
                row = self.plus(self.c, self.times(_I64(r), self.c_row))
                for v in range(self.vectors):
                    value, place = kept[r * self.vectors + v], self.plus(row, self.column(v))
                    store_lanes(self.builder, place, value, self.mask(v) if masked else None)


def multiply_of(kind: type[Floats]):
    """``multiply`` for one kind of numbers."""
    wide = microkernel(kind, ROWS, 2, GENERAL)
    wide_asks = microkernel(kind, ROWS, 2, GENERAL, asks=True)
    wide_some = microkernel(kind, ROWS, 2, GENERAL, some=True)  # for the last rows of a tile
    wide_few = microkernel(kind, ROWS // 2, 2, GENERAL, some=True)
    narrow = microkernel(kind, ROWS, 1, GENERAL)
    narrow_some = microkernel(kind, ROWS, 1, GENERAL, some=True)
    # For one or two rows: as fast as B comes in.
    few_rows = microkernel(kind, 2, 4, GENERAL, some=True)
    wide_tile = microkernel(kind, ROWS, 2, TILE, some=True, asks=True)
    wide_tile_few = microkernel(kind, FEW, 2, TILE, some=True, asks=True)
    narrow_tile = microkernel(kind, ROWS, 1, TILE, some=True)

    @device_of(kind.__name__)
    def multiply(a, a_row, is_tile, b, b_next, depth, c, c_row, rows, columns, start, source,
                 source_row, bias, low, high, ahead, ahead_end, apart, like):  # fmt: skip
        """C[rows, columns] (+)= A·B over a whole tile, all strides in bytes.

        Rows of A lie ``a_row`` apart; if ``is_tile``, that is TILE_ROW, and A must be readable up
        to the next multiple of ``ROWS``. Panels of B, a register wide, lie ``b_next`` apart.
        ``start`` and all behind it are the microkernel's. While it computes, it asks for what is
        read next: ``ahead … ahead_end``, and the same ``apart`` from it.
        """
        size = bytes_of(like)
        width = lanes_of(like)
        column = 0
        if rows <= 2:
            while columns - column >= 4 * width:
                few_rows(a, a_row, b + (column // width) * b_next, b_next, depth,
                         c + column * size, c_row, rows, columns - column, start,
                         source + column * size, source_row, bias + column * size, low, high, 0, 0,
                         like)  # fmt: skip
                column += 4 * width
        while column < columns:
            left = columns - column
            row = 0
            while row < rows:
                rest = rows - row
                few = is_tile and left > width and (rest <= FEW or ROWS < rest <= 2 * FEW)
                valid = min(FEW if few else ROWS, rest)
                asks = ahead < ahead_end
                line = ahead if asks else a
                far = apart if asks else 0
                given = (
                    a + row * a_row, a_row, b + (column // width) * b_next, b_next, depth,
                    c + row * c_row + column * size, c_row, valid, left, start,
                    source + row * source_row + column * size, source_row, bias + column * size,
                    low, high, line, far, like,
                )  # fmt: skip
                # As long as there is any, every step asks for a line of what is read next.
                ahead += asks * depth * 64
                row += valid
                if left > width:
                    if few:
                        wide_tile_few(*given)
                    elif is_tile:
                        wide_tile(*given)
                    elif valid < ROWS:
                        if valid <= ROWS // 2:
                            wide_few(*given)
                        else:
                            wide_some(*given)
                    elif asks:
                        wide_asks(*given)
                    else:
                        wide(*given)
                elif is_tile:
                    narrow_tile(*given)
                elif valid < ROWS:
                    narrow_some(*given)
                else:
                    narrow(*given)
            column += 2 * width if left > width else width

    return multiply


multiply = multiply_of(Floats)

_wide_turned = microkernel(Floats, ROWS, 2, TURNED, asks=True)
_wide_turned_some = microkernel(Floats, ROWS, 2, TURNED, some=True)
_narrow_turned = microkernel(Floats, ROWS, 1, TURNED, some=True)


@device
def multiply_turned(a, a_step, a_next, b, b_step, depth, c, c_row, rows, columns, start, source,
                    source_row, low, high, ahead, ahead_end, apart, like):  # fmt: skip
    """C[rows, columns] (+)= Aᵀ·B: ``depth`` rows of A ``a_step`` apart, of B ``b_step``.

    ``ROWS`` numbers of A's rows are followed by the next ones ``a_next`` bytes on. All else is as
    in ``multiply``; there is no bias.
    """
    size = bytes_of(like)
    width = lanes_of(like)
    column = 0
    while column < columns:
        left = columns - column
        for row in range(0, rows, ROWS):
            valid = min(ROWS, rows - row)
            asks = ahead < ahead_end
            line = ahead if asks else a
            far = apart if asks else 0
            given = (
                a + row // ROWS * a_next, a_step, b + column * size, b_step, depth,
                c + row * c_row + column * size, c_row, valid, left, start,
                source + row * source_row + column * size, source_row, 0, low, high, line, far,
                like,
            )  # fmt: skip
            ahead += asks * depth * 64
            if left <= width:
                _narrow_turned(*given)
            elif valid == ROWS:
                _wide_turned(*given)
            else:
                _wide_turned_some(*given)
        column += 2 * width if left > width else width


_wide_columns = microkernel(Floats, ROWS, 2, TURNED)
_wide_columns_few = microkernel(Floats, ROWS // 2, 2, TURNED, some=True)
_wide_columns_some = microkernel(Floats, ROWS, 2, TURNED, some=True)
_narrow_columns_some = microkernel(Floats, ROWS, 1, TURNED, some=True)


@device
def multiply_columns(a, a_step, b, b_step, depth, c, c_row, rows, columns, start, like):
    """``multiply_turned`` of an A that is small: its numbers are neighbours, nothing is asked for.

    Where ``start`` is FROM_ROWS, C is added to. Whole registers of B are read.
    """
    size, width = bytes_of(like), lanes_of(like)
    low, high = number(-math.inf, like), number(math.inf, like)
    column = 0
    while column < columns:
        left = columns - column
        for row in range(0, rows, ROWS):
            valid, place = min(ROWS, rows - row), c + row * c_row + column * size
            given = (
                a + row * size, a_step, b + column * size, b_step, depth, place, c_row, valid, left,
                start, place, c_row, 0, low, high, 0, 0, like,
            )  # fmt: skip
            if left <= width:
                _narrow_columns_some(*given)
            elif valid == ROWS:
                _wide_columns(*given)
            elif valid <= ROWS // 2:
                _wide_columns_few(*given)
            else:
                _wide_columns_some(*given)
        column += 2 * width if left > width else width
