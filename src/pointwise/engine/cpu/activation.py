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
    load,
    load_first,
    number,
    store,
    store_first,
    within,
)

# What is more than keeping results within bounds. (gelu is left to PyTorch.)
NONE, HARDSWISH, SILU, SIGMOID = 0, 1, 2, 3


# eʳ for |r| ≤ ln 2 / 2: Taylor's series for float64, and for float32 the polynomial whose largest
# relative error there is smallest (2e-9, which Taylor's reaches with one term more).
_SERIES = {
    64: [1 / math.factorial(power) for power in range(14)],
    32: [1, 1, 0.49999994, 0.16666432, 0.041668002, 0.0083741555, 0.0013843654],
}


@intrinsic
def exponential(typingctx, a):
    """e to the power of each lane, to about two units in the last place.

    2ⁿ·eʳ with whole n and |r| ≤ ln 2 / 2, eʳ by a polynomial. What would be less than the smallest
    normal number becomes that one, and infinity comes half a power of two early.
    """
    double = a.dtype.bitwidth == 64

    def codegen(context, builder, signature, arguments):
        count, bits = a.count, a.dtype.bitwidth
        scalar = ir.DoubleType() if double else ir.FloatType()
        shape = ir.VectorType(scalar, count)
        whole = ir.VectorType(ir.IntType(bits), count)
        (x,) = arguments

        def every(value):
            return ir.Constant(shape, [value] * count)

        def fma(p, q, r):
            return call(builder, f"llvm.fma.v{count}f{bits}", shape, [p, q, r])

        # At most 2 to the power of what is infinity; a comparison that is false for NaN keeps it.
        least, most = (-708.396, 710.0) if double else (-87.3365, 89.0)
        kept = builder.select(builder.fcmp_ordered("<", x, every(least)), every(least), x)
        kept = builder.select(builder.fcmp_ordered(">", kept, every(most)), every(most), kept)
        # Added to so large a number, n lands in the lowest bits, and beside the bias of exponents.
        mantissa, bias = (52, 1023) if double else (23, 127)
        large = every(1.5 * 2**mantissa + bias)
        shifted = fma(kept, every(1 / math.log(2)), large)
        n = builder.fsub(shifted, large)
        # ln 2 in two parts, of which n times the first is exact.
        first = 0.6931471803691238 if double else 0.693359375
        second = 1.9082149292705877e-10 if double else -2.12194440e-4
        r = fma(n, every(-second), fma(n, every(-first), kept))
        *series, total = map(every, _SERIES[bits])
        for coefficient in reversed(series):
            total = fma(total, r, coefficient)
        exponent = ir.Constant(whole, [mantissa] * count)
        scale = builder.shl(builder.bitcast(shifted, whole), exponent)
        return builder.fmul(total, builder.bitcast(scale, shape))

    return a(a), codegen


@intrinsic
def quotient(typingctx, a, b):
    """a / b lane by lane."""

    def codegen(context, builder, signature, arguments):
        return builder.fdiv(*arguments)

    return a(a, b), codegen


@device
def _activated(x, kind, like):
    one = broadcast(number(1, like))
    if kind == HARDSWISH:
        sixth = broadcast(number(1, like) / number(6, like))
        return x * within(x + broadcast(number(3, like)), number(0, like), number(6, like)) * sixth
    sigmoid = quotient(one, one + exponential(x * broadcast(number(-1, like))))
    return x * sigmoid if kind == SILU else sigmoid


@device
def activate(rows, row_bytes, count, columns, kind, like):
    """Applies an activation in place to ``count`` rows of ``columns`` numbers."""
    size, width = bytes_of(like), lanes_of(like)
    whole = columns // width * width
    for r in range(count):
        row = rows + r * row_bytes
        for k in range(0, whole, width):
            store(row + k * size, _activated(load(row + k * size, like), kind, like))
        if whole < columns:
            last, left = row + whole * size, columns - whole
            store_first(last, _activated(load_first(last, left, like), kind, like), left)
