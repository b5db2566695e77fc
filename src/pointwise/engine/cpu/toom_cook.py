"""Short convolutions with few multiplications: Toom and Cook's algorithm, and its vectors.

``m`` outputs of a filter of r taps are ``A·((G·w) ⊙ (B·x))`` for ``n = m + r - 1`` inputs x: n
products instead of m·r. In both directions of an image that is Winograd's minimal filtering (Lavin
and Gray, CVPR 2016, https://arxiv.org/abs/1509.09308, equation 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.vector import multiply_add, splat, vector_of

Matrix = list[list[Fraction]]


def matrices(points: Sequence[Fraction], taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """``A [m, n]``, ``G [n, taps]`` and ``B [n, n]`` for n - 1 points and infinity.

    Both polynomials are evaluated at the points, multiplied there, and interpolated. Any points
    that differ are right; how much of a float's precision is lost hangs on them.
    """
    n = len(points) + 1
    m = n - taps + 1
    others = [[p for p in points if p != q] for q in points]
    a = [[p**i for p in points] + [Fraction(i == m - 1)] for i in range(m)]
    g = [
        [q**j / _apart(q, rest) for j in range(taps)]
        for q, rest in zip(points, others, strict=True)
    ]
    g.append([Fraction(j == taps - 1) for j in range(taps)])
    b = [[*_with_roots(rest), Fraction(0)] for rest in others] + [_with_roots(points)]
    return a, g, b


def _apart(point: Fraction, others: Sequence[Fraction]) -> Fraction:
    return prod((point - other for other in others), start=Fraction(1))


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the polynomial with these roots, the constant one first."""
    found = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *found], [*found, Fraction(0)]
        found = [x - root * y for x, y in zip(shifted, scaled, strict=True)]
    return found


def times(matrix: Matrix):
    """A Numba function: ``matrix · X · matrixᵀ`` for a square X of registers, each lane for itself.

    ``run(source, source_line, source_step, target, target_line, target_step, like)``: neighbouring
    registers of a line lie so many bytes apart, and so many neighbouring lines.
    """

    @intrinsic
    def run(typingctx, source, source_line, source_step, target, target_line, target_step, like):
        vector = vector_of(like)
        size, width = vector.dtype.bitwidth // 8, vector.count

        def codegen(context, builder, signature, arguments):
            source, source_line, source_step, target, target_line, target_step, _ = arguments
            scalar = ir.FloatType() if size == 4 else ir.DoubleType()
            shape = ir.VectorType(scalar, width)
            i64 = ir.IntType(64)

            def at(address, line, j, step, i):
                place = builder.add(address, builder.mul(line, i64(j)))
                place = builder.add(place, builder.mul(step, i64(i)))
                return builder.inttoptr(place, shape.as_pointer())

            taps = range(len(matrix[0]))
            lines = []
            for j in taps:
                line = [
                    builder.load(at(source, source_line, j, source_step, i), align=size)
                    for i in taps
                ]
                lines.append(_product(builder, matrix, line, shape))
            for i, column in enumerate(zip(*lines, strict=True)):
                for j, value in enumerate(_product(builder, matrix, column, shape)):
                    builder.store(value, at(target, target_line, j, target_step, i), align=size)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(whole, whole, whole, whole, whole, whole, like), codegen

    return run


def _product(builder, matrix: Matrix, column, shape) -> list:
    """The matrix times a column. Points p and -p share what is even in p, and what is odd."""
    rows, values = [list(row) for row in matrix], list(column)
    for a, b in _mirrored(list(zip(*matrix, strict=True))):
        one, other = values[a], values[b]
        values[a], values[b] = builder.fadd(one, other), builder.fsub(one, other)
        for row in rows:
            row[a], row[b] = (row[a], Fraction(0)) if row[a] == row[b] else (Fraction(0), row[a])

    found: list = [None] * len(rows)
    for a, b in _mirrored(rows):
        even = [x if x == y else Fraction(0) for x, y in zip(rows[a], rows[b], strict=True)]
        odd = [x - y for x, y in zip(rows[a], even, strict=True)]
        one, other = (_sum(builder, part, values, shape) for part in (even, odd))
        found[a], found[b] = builder.fadd(one, other), builder.fsub(one, other)
    return [
        _sum(builder, row, values, shape) if value is None else value
        for row, value in zip(rows, found, strict=True)
    ]


def _mirrored(rows: Sequence[Sequence[Fraction]]) -> list[tuple[int, int]]:
    """Pairs of rows that agree in some places, and have opposite signs in all others."""
    pairs: list[tuple[int, int]] = []
    for b, row in enumerate(rows):
        for a, other in enumerate(rows[:b]):
            taken = any(a in pair or b in pair for pair in pairs)
            same = [x == y for x, y in zip(other, row, strict=True) if x or y]
            mirrored = all(abs(x) == abs(y) for x, y in zip(other, row, strict=True))
            if mirrored and not taken and any(same) and not all(same):
                pairs.append((a, b))
    return pairs


def _sum(builder, row: Sequence[Fraction], values, shape):
    """A row of factors times values; zeros cost nothing, and factors of one come first."""
    total = None
    terms = [term for term in zip(row, values, strict=True) if term[0] != 0]
    for factor, value in sorted(terms, key=_is_scaled):
        total = _added(builder, total, float(factor), value, shape)
    return total


def _is_scaled(term) -> bool:
    return abs(term[0]) != 1


def _added(builder, total, factor: float, value, shape):
    """``total + factor · value``; None is nothing yet."""
    if factor == 1:
        return value if total is None else builder.fadd(total, value)
    if factor == -1 and total is not None:
        return builder.fsub(total, value)
    spread = splat(builder, shape.element(factor), shape.count)
    if total is None:
        return builder.fmul(spread, value)
    return multiply_add(builder, spread, value, total)
