"""Activations in kernels: each one's formula and slope, and how kernels come by them.

The table is ``convolution/epilogue.py``. Each of its rows that is not a clamp has two functions
here, of one register and a number ``like`` of its type: ``NAME(x, like)`` and its derivative,
``NAME_slope(x, like)``. A kernel applies the formula by calling a function whose address it is
given (``activate``), and chooses the slope by the row's place in the table (``slope``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.convolution.epilogue import ACTIVATIONS, LEAKS, kernel_form
from pointwise.convolution.epilogue import CLAMP_ONLY as CLAMP_ONLY
from pointwise.engine.cpu.by_dtype import ZEROS
from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.launch import kernel
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.vector import (
    at_most,
    broadcast,
    bytes_of,
    choose,
    equal,
    fma,
    lanes_of,
    less,
    load,
    load_first,
    magnitude,
    multiply_add,
    number,
    quotient,
    store,
    store_first,
    within,
)

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
            return multiply_add(builder, p, q, r)

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


# --- formulas and slopes --------------------------------------------------------------------------


@device
def hardswish(x, like):
    """``x · clamp(x + 3, 0, 6) / 6``."""
    sixth = broadcast(number(1, like) / number(6, like))
    return x * within(x + broadcast(number(3, like)), number(0, like), number(6, like)) * sixth


@device
def hardswish_slope(x, like):
    """0 up to -3, 1 from 3 on, ``x / 3 + 1 / 2`` between."""
    zero, one = broadcast(number(0, like)), broadcast(number(1, like))
    third = broadcast(number(1, like) / number(3, like))
    slope = fma(x, third, broadcast(number(0.5, like)))
    slope = choose(at_most(x, broadcast(number(-3, like))), zero, slope)
    return choose(at_most(broadcast(number(3, like)), x), one, slope)


@device
def hardsigmoid(x, like):
    """``clamp(x + 3, 0, 6) / 6``."""
    sixth = broadcast(number(1, like) / number(6, like))
    return within(x + broadcast(number(3, like)), number(0, like), number(6, like)) * sixth


@device
def hardsigmoid_slope(x, like):
    """1 / 6 between -3 and 3, else 0."""
    zero = broadcast(number(0, like))
    sixth = broadcast(number(1, like) / number(6, like))
    slope = choose(less(x, broadcast(number(3, like))), sixth, zero)
    return choose(less(broadcast(number(-3, like)), x), slope, zero)


@device
def sigmoid(x, like):
    """``1 / (1 + e⁻ˣ)``."""
    one = broadcast(number(1, like))
    return quotient(one, one + exponential(x * broadcast(number(-1, like))))


@device
def sigmoid_slope(x, like):
    """``σ · (1 - σ)``."""
    share = sigmoid(x, like)
    return share * (broadcast(number(1, like)) - share)


@device
def silu(x, like):
    """``x · σ(x)``."""
    return x * sigmoid(x, like)


@device
def silu_slope(x, like):
    """``x · σ · (1 - σ) + σ``."""
    share = sigmoid(x, like)
    return fma(x, share * (broadcast(number(1, like)) - share), share)


@device
def _normal(x, like):
    """``Φ(x)``, to about 2e-7, and ``e^(-x²/2)``.

    Φ of a negative number is small, and comes from e^(-x²/2) times a polynomial in 1 / (1 + p|x|).
    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26.
    """
    one, minus = broadcast(number(1, like)), broadcast(number(-1, like))
    size = magnitude(x) * broadcast(number(math.sqrt(0.5), like))
    t = quotient(one, fma(size, broadcast(number(0.3275911, like)), one))
    tail = broadcast(number(1.061405429, like))
    tail = fma(tail, t, broadcast(number(-1.453152027, like)))
    tail = fma(tail, t, broadcast(number(1.421413741, like)))
    tail = fma(tail, t, broadcast(number(-0.284496736, like)))
    tail = fma(tail, t, broadcast(number(0.254829592, like)))
    bell = exponential(size * size * minus)
    tail = tail * t * bell * broadcast(number(0.5, like))
    return choose(less(x, broadcast(number(0, like))), tail, one + tail * minus), bell


@device
def gelu(x, like):
    """``x · Φ(x)``, to about 2e-7 of x."""
    share, _ = _normal(x, like)
    return x * share


@device
def gelu_slope(x, like):
    """``Φ(x) + x · e^(-x²/2) / √(2π)``."""
    share, bell = _normal(x, like)
    # Beyond, the bell is 0, but ``exponential`` ends at the smallest normal number.
    near = within(x, number(-32, like), number(32, like))
    return fma(near * broadcast(number(1 / math.sqrt(2 * math.pi), like)), bell, share)


@device
def _mish(x, like):
    """``eˣ``, and ``tanh(ln(1 + eˣ))``: n / (n + 2) with n = eˣ(eˣ + 2), for x up to 22."""
    zero, two = broadcast(number(0, like)), broadcast(number(2, like))
    # ``exponential`` ends at the smallest normal number, which is too much times a large x.
    e = choose(less(x, broadcast(number(-800, like))), zero, exponential(x))
    n = e * (e + two)
    return e, quotient(n, n + two)


@device
def mish(x, like):
    """``x · tanh(ln(1 + eˣ))``. Source: Misra, "Mish", BMVC 2020."""
    _, share = _mish(_up_to_22(x, like), like)
    return x * share


@device
def mish_slope(x, like):
    """``t + x · (1 - t²) · σ(x)``, t being the tanh: ``(1 - t²)·σ`` is 4eˣ(eˣ + 1) / (n + 2)²."""
    near = _up_to_22(x, like)
    e, share = _mish(near, like)
    one, two = broadcast(number(1, like)), broadcast(number(2, like))
    below = fma(e, e + two, two)
    rise = quotient(broadcast(number(4, like)) * e * (e + one), below * below)
    return fma(near, rise, share)


@device
def _up_to_22(x, like):
    """From where on the tanh is 1, and squares of eˣ are no infinity yet."""
    return within(x, number(-math.inf, like), number(22, like))


# Cephes' rational approximation of (tanh(x) - x) / x³ for |x| < 0.625, in x².
_TANH_TOP = (-1614.6876844170845, -99.28772310019186, -0.964399179425052)
_TANH_BOTTOM = (4844.063053251255, 2235.4883906010045, 112.81167849163293, 1.0)


@device
def tanh(x, like):
    """``(e²ˣ - 1) / (e²ˣ + 1)``, near 0 by a rational function, as nothing is left of e²ˣ - 1.

    Source: Moshier, Cephes mathematical library, tanh.c.
    """
    one, two = broadcast(number(1, like)), broadcast(number(2, like))
    size = within(magnitude(x), number(0, like), number(22, like))  # beyond, it is 1
    large = one + quotient(two, exponential(size * two) + one) * broadcast(number(-1, like))
    large = choose(less(x, broadcast(number(0, like))), large * broadcast(number(-1, like)), large)
    square = x * x
    top = fma(square, broadcast(number(_TANH_TOP[2], like)), broadcast(number(_TANH_TOP[1], like)))
    top = fma(square, top, broadcast(number(_TANH_TOP[0], like)))
    bottom = square + broadcast(number(_TANH_BOTTOM[2], like))
    bottom = fma(square, bottom, broadcast(number(_TANH_BOTTOM[1], like)))
    bottom = fma(square, bottom, broadcast(number(_TANH_BOTTOM[0], like)))
    small = fma(x * square, quotient(top, bottom), x)
    near = choose(less(magnitude(x), broadcast(number(0.625, like))), small, large)
    return choose(equal(x, x), near, x)


@device
def tanh_slope(x, like):
    """``1 - tanh²``."""
    t = tanh(x, like)
    return broadcast(number(1, like)) + t * t * broadcast(number(-1, like))


@device
def elu(x, like):
    """x, and ``eˣ - 1`` below 0, which is ``2t / (1 - t)`` with t = tanh(x / 2)."""
    zero, one, two = broadcast(number(0, like)), broadcast(number(1, like)), number(2, like)
    t = tanh(
        within(x, number(-math.inf, like), number(0, like)) * broadcast(number(0.5, like)), like
    )
    below = quotient(t * broadcast(two), one + t * broadcast(number(-1, like)))
    return choose(less(x, zero), below, x)


@device
def elu_slope(x, like):
    """1, and ``eˣ`` below 0."""
    zero, one = broadcast(number(0, like)), broadcast(number(1, like))
    return choose(less(zero, x), one, elu(x, like) + one)


def _leaky_of(leak: float) -> tuple[Any, Any]:
    """x, and below 0 ``leak`` times x, which is less than x above; and the slope."""
    assert 0 < leak < 1

    @device_of(leak)
    def leaky_relu(x, like):
        below = x * broadcast(number(leak, like))
        return choose(less(x, below), below, x)

    @device_of(leak)
    def leaky_relu_slope(x, like):
        one = broadcast(number(1, like))
        below = broadcast(number(leak, like))
        return choose(less(broadcast(number(0, like)), x), one, below)

    return leaky_relu, leaky_relu_slope


_LEAKY = {name: _leaky_of(leak) for name, leak in LEAKS.items()}


def formula(name: str) -> Any:
    """The function ``f(x, like)`` of a row of the table that is no clamp."""
    return _LEAKY[name][0] if name in _LEAKY else globals()[name]


def _formula_slope(name: str) -> Any:
    return _LEAKY[name][1] if name in _LEAKY else globals()[f"{name}_slope"]


# --- by number ------------------------------------------------------------------------------------

FORM = Layout("Form", "low:real high:real activation")
"""The bounds that a kernel clamps to, and the function that it then applies."""


def form_arguments(activation: str, dtype: torch.dtype) -> Arguments:
    """``kernel_form`` as kernels read it."""
    low, high, kind = kernel_form(activation, dtype)
    return FORM(low=low, high=high, activation=activation_function(kind, dtype))


def _over_rows(name: str) -> Any:
    """What applies a formula to ``count`` rows of ``columns`` numbers.

    Results have an address of their own also where they take the place of what they are made of:
    LLVM would make stores with a mask of a formula that leaves some numbers as they are, and those
    are slow on some processors.
    """
    function = formula(name)

    @device_of(name)
    def apply(rows, row_bytes, out, out_row, count, columns, like):
        size, width = bytes_of(like), lanes_of(like)
        if row_bytes == out_row == columns * size:  # rows without gaps are one
            count, columns = min(count, 1), count * columns
        whole = columns // width * width
        left = columns - whole
        for r in range(count):
            row, result = rows + r * row_bytes, out + r * out_row
            for k in range(0, whole, width):
                store(result + k * size, function(load(row + k * size, like), like))
            if left > 0:
                value = load_first(row + whole * size, left, like)
                store_first(result + whole * size, function(value, like), left)

    return apply


def _over_rows_of(name: str, dtype: torch.dtype) -> kernel:
    apply, like = _over_rows(name), ZEROS[dtype]

    def run(rows, row_bytes, out, out_row, count, columns):
        apply(rows, row_bytes, out, out_row, count, columns, like)

    return kernel(run, f"{name}_{dtype}", ((types.int64,) * 6, types.void))


_FUNCTIONS = {
    (kind, dtype): _over_rows_of(row.name, dtype)
    for kind, row in enumerate(ACTIVATIONS.values())
    if row.bounds is None
    for dtype in ZEROS
}


def activation_function(kind: int, dtype: torch.dtype) -> int:
    """The address of the function that ``activate`` calls; 0 where clamping is all there is.

    It is compiled by itself: in each kernel, the formulas of all activations would take longer to
    compile than the kernel.
    """
    return 0 if kind == CLAMP_ONLY else _FUNCTIONS[kind, dtype].address


@intrinsic
def _apply(typingctx, function, rows, row_bytes, out, out_row, count, columns):
    def codegen(context, builder, signature, values):
        own = [types.int64] * 6
        shape = context.call_conv.get_function_type(types.none, own)
        address = builder.inttoptr(values[0], shape.as_pointer())
        context.call_conv.call_function(builder, address, types.none, own, values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), codegen


@device
def activate(function, rows, row_bytes, count, columns):
    """Applies an ``activation_function``, or 0, in place to rows that are in the cache."""
    if function != 0:
        _apply(function, rows, row_bytes, rows, row_bytes, count, columns)


@device
def activated(function, rows, row_bytes, out, out_row, count, columns):
    """Writes what an ``activation_function``, which is not 0, makes of rows to others."""
    _apply(function, rows, row_bytes, out, out_row, count, columns)


def _slope_or(name: str, kind: int, otherwise: Any) -> Any:
    function = _formula_slope(name)

    @device_of(name)
    def slope(x, given, like):
        return function(x, like) if given == kind else otherwise(x, given, like)

    return slope


@device
def _one(x, kind, like):
    return broadcast(number(1, like))


def _by_kind(choice: Any, otherwise: Any) -> Any:
    """``choice`` among all rows of the table that are not clamps, and ``otherwise`` for those."""
    for kind, row in reversed(list(enumerate(ACTIVATIONS.values()))):
        if row.bounds is None:
            otherwise = choice(row.name, kind, otherwise)
    return otherwise


slope = _by_kind(_slope_or, _one)
"""``slope(x, kind, like)``: the derivative at x; 1 of what clamps, whose bounds tell the rest."""
