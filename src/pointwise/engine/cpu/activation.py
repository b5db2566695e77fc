"""Activations over rows of results that are still in the cache."""

from __future__ import annotations

import math

from llvmlite import ir
from numba.extending import intrinsic

from pointwise.engine.cpu.launch import device
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    call,
    lanes_of,
    load_first,
    number,
    store_first,
    within,
)

# What is more than keeping results within bounds. (gelu is left to PyTorch.)
NONE, HARDSWISH, SILU, SIGMOID = 0, 1, 2, 3


@intrinsic
def exponential(typingctx, a):
    """e to the power of each lane, to about two units in the last place.

    2ⁿ·eʳ with whole n and |r| ≤ ln 2 / 2, eʳ by its Taylor series.
    """
    double = a.dtype.bitwidth == 64

    def codegen(context, builder, signature, arguments):
        count, bits = a.count, a.dtype.bitwidth
        scalar = ir.DoubleType() if double else ir.FloatType()
        shape = ir.VectorType(scalar, count)
        whole = ir.VectorType(ir.IntType(bits), count)
        suffix = f"v{count}f{bits}"
        (x,) = arguments

        def every(value):
            return ir.Constant(shape, [value] * count)

        def fma(p, q, r):
            return call(builder, f"llvm.fma.{suffix}", shape, [p, q, r])

        # Beyond these, the result is 0 or infinity; a comparison that is false for NaN keeps it.
        least, most = (-745.2, 709.8) if double else (-104.0, 88.8)
        small = builder.fcmp_ordered("<", x, every(least))
        large = builder.fcmp_ordered(">", x, every(most))
        kept = builder.select(small, every(least), builder.select(large, every(most), x))
        n = call(builder, f"llvm.rint.{suffix}", shape,
                 [builder.fmul(kept, every(1 / math.log(2)))])  # fmt: skip
        # ln 2 in two parts, of which n times the first is exact.
        first = 0.6931471803691238 if double else 0.693359375
        second = 1.9082149292705877e-10 if double else -2.12194440e-4
        r = fma(n, every(-second), fma(n, every(-first), kept))
        degree = 13 if double else 7
        total = every(1 / math.factorial(degree))
        for power in range(degree - 1, -1, -1):
            total = fma(total, r, every(1 / math.factorial(power)))
        # 2ⁿ in two factors: one alone would overflow where the product does not.
        power = builder.fptosi(n, whole)
        half = builder.ashr(power, ir.Constant(whole, [1] * count))
        mantissa, bias = (52, 1023) if double else (23, 127)
        for part in (half, builder.sub(power, half)):
            biased = builder.add(part, ir.Constant(whole, [bias] * count))
            shifted = builder.shl(biased, ir.Constant(whole, [mantissa] * count))
            total = builder.fmul(total, builder.bitcast(shifted, shape))
        return builder.select(builder.fcmp_unordered("uno", x, x), x, total)

    return a(a), codegen


@intrinsic
def quotient(typingctx, a, b):
    """a / b lane by lane."""

    def codegen(context, builder, signature, arguments):
        return builder.fdiv(*arguments)

    return a(a, b), codegen


@device
def activate(rows, row_bytes, count, columns, kind, like):
    """Applies an activation in place to ``count`` rows of ``columns`` numbers."""
    size, width = bytes_of(like), lanes_of(like)
    one = broadcast(number(1, like))
    three = broadcast(number(3, like))
    sixth = broadcast(number(1, like) / number(6, like))
    minus = broadcast(number(-1, like))
    low, high = number(0, like), number(6, like)
    for r in range(count):
        row = rows + r * row_bytes
        for k in range(0, columns, width):
            x = load_first(row + k * size, columns - k, like)
            if kind == HARDSWISH:
                y = x * within(x + three, low, high) * sixth
            else:
                y = quotient(one, one + exponential(x * minus))
                if kind == SILU:
                    y = x * y
            store_first(row + k * size, y, columns - k)
