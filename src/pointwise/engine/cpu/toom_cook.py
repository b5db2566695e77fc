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

from pointwise.engine.cpu.vector import call, splat, vector_of

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
    """A Numba function: ``matrix`` times a column of registers, each lane for itself.

    ``run(source, source_step, target, target_step, like)``: the registers of the column lie
    ``source_step`` bytes apart, those of the result ``target_step``. Zeros cost nothing.
    """

    @intrinsic
    def run(typingctx, source, source_step, target, target_step, like):
        vector = vector_of(like)
        size, width = vector.dtype.bitwidth // 8, vector.count

        def codegen(context, builder, signature, arguments):
            source, source_step, target, target_step, _ = arguments
            scalar = ir.FloatType() if size == 4 else ir.DoubleType()
            shape = ir.VectorType(scalar, width)

            def at(address, step, index):
                place = builder.add(address, builder.mul(step, ir.IntType(64)(index)))
                return builder.inttoptr(place, shape.as_pointer())

            column = [
                builder.load(at(source, source_step, j), align=size) for j in range(len(matrix[0]))
            ]
            for i, row in enumerate(matrix):
                total = None
                terms = [term for term in zip(row, column, strict=True) if term[0] != 0]
                for factor, value in sorted(terms, key=_is_scaled):
                    total = _added(builder, total, float(factor), value, shape)
                builder.store(total, at(target, target_step, i), align=size)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64, like), codegen

    return run


def _is_scaled(term) -> bool:
    """Factors of one come first: a sum begins with them at no cost."""
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
    size = 32 if isinstance(shape.element, ir.FloatType) else 64
    return call(builder, f"llvm.fma.v{shape.count}f{size}", shape, [spread, value, total])
