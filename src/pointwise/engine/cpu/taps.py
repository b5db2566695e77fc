"""The matrix product of pixels where they lie: each row of A is what one point reads, tap by tap.

Nothing is gathered: a row begins at a point's first tap, and the others lie at fixed distances from
it. So it is for images with room around them (``gathers.band``), or points whose taps all exist.
Sums are those of the product over gathered patches, number by number in the same order.

Groups narrower than a register share one: each of its lanes reads the channels of its own group, by
shuffling the register that holds them all. (A weight with zeros between the groups would multiply
several times as much, and spread what is not finite.)
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.flow import repeat
from pointwise.engine.cpu.gemm import ROWS as ROWS_OF_TWO
from pointwise.engine.cpu.gemm import Floats
from pointwise.engine.cpu.isa import ISA
from pointwise.engine.cpu.product import GENERAL
from pointwise.engine.cpu.vector import bytes_of, lanes_of, vector_of

# Rows of one register of columns each: their sums, a register of the weight and one of A.
ROWS = {"AVX-512": 28, "NEON": 16}.get(ISA.title, 14)

_I64 = ir.IntType(64)


def _microkernel(rows: int, shared: int, some: bool = False, vectors: int = 1):
    """C[rows, vectors·lanes] = Σ A[r, tap, k] · B[tap, k, :], with the epilogue of ``gemm``.

    Rows of A lie ``a_stride`` bytes apart, taps ``by_tap`` and ``by_line``, and a tap has ``depth``
    numbers; if groups are ``shared`` channels wide, it is a register of them. Registers of B lie
    ``b_stride`` apart.
    """

    @intrinsic
    def run(
        typingctx,
        a,
        a_stride,
        b,
        b_stride,
        depth,
        taps_y,
        taps_x,
        by_line,
        by_tap,
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
        like,
    ):
        vector = vector_of(like)

        def codegen(context, builder, signature, arguments):
            _Taps(builder, vector, (rows, vectors), shared, some, arguments).emit()
            return context.get_dummy_value()

        return types.void(*[types.int64] * 17, like, like, like), codegen

    return run


class _Taps(Floats):
    """The LLVM of one microkernel."""

    def __init__(self, builder, vector, sizes: tuple[int, int], shared: int, some: bool,
                 arguments) -> None:  # fmt: skip
        none = _I64(0)
        given = [*arguments[:5], *arguments[9:19], none, none]
        super().__init__(builder, vector, sizes, GENERAL, some, False, given)
        self.taps_y, self.taps_x, self.by_line, self.by_tap = arguments[5:9]
        self.shared = shared

    def multiplied(self, sums: list) -> list:
        """``sums`` plus the product, tap after tap."""
        step = self.times(self.depth, _I64(self.register))

        def tap(a, b, *sums):
            self.a, self.b = a, b
            after = self.of_shared(sums) if self.shared else super(_Taps, self).multiplied([*sums])
            return self.plus(a, self.by_tap), self.plus(b, step), *after

        def line(a, b, *sums):
            _, b, *after = repeat(self.builder, self.taps_x, [a, b, *sums], tap)
            return self.plus(a, self.by_line), b, *after

        return repeat(self.builder, self.taps_y, [self.a, self.b, *sums], line)[2:]

    def of_shared(self, sums) -> list:
        """``sums`` plus one tap's, of groups that share a register."""
        begins, rows = self.rows_of_a()
        for k in range(self.shared):
            weight = self.load(self.plus(self.b, _I64(k * self.register)))
            own = [lane // self.shared * self.shared + k for lane in range(self.width)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), self.width), own)
            results = []
            for (number, added), total in zip(rows, sums, strict=True):
                pixel = self.load(self.plus(begins[number], added))
                lanes = self.builder.shuffle_vector(
                    pixel, ir.Constant(self.shape, ir.Undefined), mask
                )
                results.append(self.multiply_add(lanes, weight, total))
            sums = results
        return sums


def points_of(shared: int):
    """The product for a line of points, of groups that are ``shared`` channels wide, or wider (0).

    ``(a, a_stride, b, depth, taps_y, taps_x, by_line, by_tap, c, c_row, points, columns, start,
    source, source_row, bias, low, high, like)``, as the microkernel's, of up to a register of
    columns.
    """
    whole, some = _microkernel(ROWS, shared), _microkernel(ROWS, shared, some=True)
    half, few = _microkernel(ROWS // 2, shared), _microkernel(ROWS // 2, shared, some=True)

    @device_of(shared)
    def line(a, a_stride, b, depth, taps_y, taps_x, by_line, by_tap, c, c_row, points, columns,
             start, source, source_row, bias, low, high, like):  # fmt: skip
        point = 0
        while point < points:
            left = points - point
            given = (
                a + point * a_stride, a_stride, b, 0, depth, taps_y, taps_x, by_line, by_tap,
                c + point * c_row, c_row, left, columns, start, source + point * source_row,
                source_row, bias, low, high, like,
            )  # fmt: skip
            if left >= ROWS:
                whole(*given)
                point += ROWS
            elif left == ROWS // 2:
                half(*given)
                point += ROWS // 2
            elif left < ROWS // 2:
                few(*given)
                point += ROWS // 2
            else:
                some(*given)
                point += ROWS

    return line


_one_register = points_of(0)
_wide = _microkernel(ROWS_OF_TWO, 0, vectors=2)
_wide_some = _microkernel(ROWS_OF_TWO, 0, some=True, vectors=2)
_wide_few = _microkernel(ROWS_OF_TWO // 2, 0, some=True, vectors=2)


@device
def multiply_where_they_lie(
    a, a_stride, b, b_next, depth, taps_y, taps_x, by_line, by_tap, c, c_row, points, columns,
    start, source, source_row, bias, low, high, like,
):  # fmt: skip
    """The product for a line of points, of any number of columns.

    Panels of B, a register wide, lie ``b_next`` apart. All else is the microkernel's.
    """
    size, width = bytes_of(like), lanes_of(like)
    column = 0
    while columns - column > width:
        at = column * size
        for point in range(0, points, ROWS_OF_TWO):
            left = points - point
            given = (
                a + point * a_stride, a_stride, b + column // width * b_next, b_next, depth,
                taps_y, taps_x, by_line, by_tap, c + point * c_row + at, c_row, left,
                columns - column, start, source + point * source_row + at, source_row, bias + at,
                low, high, like,
            )  # fmt: skip
            if left >= ROWS_OF_TWO:
                _wide(*given)
            elif left > ROWS_OF_TWO // 2:
                _wide_some(*given)
            else:
                _wide_few(*given)
        column += 2 * width
    if column < columns:
        at = column * size
        _one_register(
            a, a_stride, b + column // width * b_next, depth, taps_y, taps_x, by_line, by_tap,
            c + at, c_row, points, columns - column, start, source + at, source_row, bias + at, low,
            high, like,
        )  # fmt: skip
