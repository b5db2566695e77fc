"""Elementary functions of registers that are no activations."""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from pointwise.engine.cpu.activation import exponential, quotient
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    call,
    choose,
    equal,
    less,
    magnitude,
    multiply_add,
    negative,
    number,
    within,
)

# ln(1 + f) = f - f²/2 + f³·P(f) for √½ ≤ 1 + f < √2. Source: Moshier, Cephes, logf.c.
_LOGARITHM = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
              -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
_INFINITY, _NAN = float("inf"), float("nan")


@intrinsic
def logarithm(typingctx, a):
    """ln of each lane, to about one unit in the last place; LLVM's own for float64.

    Numbers below the smallest normal one count as that.
    """

    def codegen(context, builder, signature, arguments):
        if a.dtype.bitwidth == 64:
            shape = ir.VectorType(ir.DoubleType(), a.count)
            return call(builder, f"llvm.log.v{a.count}f64", shape, arguments)
        shape = ir.VectorType(ir.FloatType(), a.count)
        whole = ir.VectorType(ir.IntType(32), a.count)
        (x,) = arguments

        def every(value):
            return ir.Constant(shape, [value] * a.count)

        def lanes(value):
            return ir.Constant(whole, [value] * a.count)

        def is_below(p, q):
            return builder.fcmp_ordered("<", p, q)

        least = every(2.0**-126)
        bits = builder.bitcast(builder.select(is_below(x, least), least, x), whole)
        mantissa = builder.or_(builder.and_(bits, lanes(0x007FFFFF)), lanes(0x3F000000))
        exponent = builder.sub(builder.lshr(bits, lanes(23)), lanes(126))
        n, m = builder.sitofp(exponent, shape), builder.bitcast(mantissa, shape)  # m in ½ … 1
        is_low = is_below(m, every(0.70710677))
        n = builder.fsub(n, builder.select(is_low, every(1.0), every(0.0)))
        f = builder.fsub(builder.fadd(m, builder.select(is_low, m, every(0.0))), every(1.0))
        total = every(_LOGARITHM[0])
        for coefficient in _LOGARITHM[1:]:
            total = multiply_add(builder, total, f, every(coefficient))
        square = builder.fmul(f, f)
        total = builder.fmul(builder.fmul(total, f), square)
        total = multiply_add(builder, n, every(-2.12194440e-4), total)
        total = multiply_add(builder, square, every(-0.5), total)
        total = multiply_add(builder, n, every(0.693359375), builder.fadd(f, total))
        total = builder.select(is_below(x, every(_INFINITY)), total, x)  # infinity, and NaN
        total = builder.select(is_below(x, every(0.0)), every(_NAN), total)
        zero = builder.fcmp_ordered("==", x, every(0.0))
        return builder.select(zero, every(-_INFINITY), total)

    return a(a), codegen


@device
def full_exponential(x, like):
    """``exponential``, and 0 below the smallest normal number."""
    zero = broadcast(number(0, like))
    least = -708.39 if bytes_of(like) == 8 else -87.336
    return choose(less(x, broadcast(number(least, like))), zero, exponential(x))


@device
def log1p_exp(x, like):
    """``ln(1 + eˣ)``: max(x, 0) + ln(1 + e), with e = e^-|x|.

    ln(1 + e) is ln(u) · e / (u - 1) with u = 1 + e as rounded, which makes up for the rounding.
    Source: Higham, "Accuracy and Stability of Numerical Algorithms", 1.14.1.
    """
    zero, one = broadcast(number(0, like)), broadcast(number(1, like))
    e = full_exponential(negative(magnitude(x)), like)
    u = one + e
    above = u - one
    small = choose(equal(above, zero), e, quotient(logarithm(u) * e, above))
    return within(x, number(0, like), number(_INFINITY, like)) + small
