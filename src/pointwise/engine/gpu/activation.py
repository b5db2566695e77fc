"""Activations in kernels for GPUs: each one's formula and slope, by its name in the table.

The table is ``convolution/epilogue.py``. Each of its rows that is not a clamp has a formula and a
slope here, as in ``engine/cpu/activation.py``. Which one a kernel needs is known when it is
compiled, so that only that one is in it.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from pointwise.convolution.epilogue import ACTIVATIONS, LEAKS

# Triton compares what a kernel depends on with a copy of it, and functions are no copies.
_BOUNDS = {name: row.bounds for name, row in ACTIVATIONS.items() if row.bounds is not None}
_ROOT_HALF = tl.constexpr(math.sqrt(0.5))
_BELL = tl.constexpr(1 / math.sqrt(2 * math.pi))


@triton.constexpr_function
def is_clamp(name: str) -> bool:
    """Whether clamping between its bounds is all that an activation does."""
    return name in _BOUNDS


@triton.constexpr_function
def low_of(name: str) -> float:
    """The lower bound of an activation that clamps."""
    return _BOUNDS[name][0]


@triton.constexpr_function
def high_of(name: str) -> float:
    """The upper bound of an activation that clamps."""
    return _BOUNDS[name][1]


@triton.constexpr_function
def leak_of(name: str) -> float:
    """The slope below 0 of a leaky ReLU; 0 for others."""
    return LEAKS[name] if name in LEAKS else 0.0  # noqa: SIM401  (Triton follows no methods)


@triton.constexpr_function
def is_finite(number: float) -> bool:
    """Whether a bound is one."""
    return number - number == 0.0  # not of infinities


@triton.jit
def within(x, LOW: tl.constexpr, HIGH: tl.constexpr):
    """x between two bounds; comparisons are false for NaN, which stays."""
    if is_finite(LOW):
        x = tl.where(x < LOW, LOW, x)
    if is_finite(HIGH):
        x = tl.where(x > HIGH, HIGH, x)
    return x


@triton.jit
def _sigmoid(x):
    """``1 / (1 + e⁻ˣ)``."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    """``(1 - e⁻²ˣ) / (1 + e⁻²ˣ)`` of the magnitude, and near 0, where nothing is left of the
    numerator, ``x + x³·p(x²) / q(x²)``. Source: Moshier, Cephes mathematical library, tanh.c."""
    size = tl.abs(x)
    e = tl.exp(-2.0 * size)
    large = (1.0 - e) / (1.0 + e)
    large = tl.where(x < 0.0, -large, large)
    square = x * x
    top = (square * -0.964399179425052 - 99.28772310019186) * square - 1614.6876844170845
    bottom = (square + 112.81167849163293) * square + 2235.4883906010045
    bottom = bottom * square + 4844.063053251255
    return tl.where(size < 0.625, x + x * square * (top / bottom), large)


@triton.jit
def _mish_share(x):
    """``tanh(ln(1 + eˣ))``: n / (n + 2) with n = eˣ(eˣ + 2), for x up to 22; beyond, it is 1."""
    e = tl.exp(tl.where(x > 22.0, 22.0, x))
    n = e * (e + 2.0)
    return n / (n + 2.0)


@triton.jit
def _elu(x):
    """x, and ``eˣ - 1`` below 0, which is ``2t / (1 - t)`` with t = tanh(x / 2)."""
    t = _tanh(tl.where(x > 0.0, 0.0, x) * 0.5)
    return tl.where(x < 0.0, 2.0 * t / (1.0 - t), x)


@triton.jit
def activate(x, NAME: tl.constexpr):
    """The activation of that name, of float32 or float64."""
    if is_clamp(NAME):
        x = within(x, low_of(NAME), high_of(NAME))
    elif leak_of(NAME) > 0.0:
        x = tl.where(x < 0.0, x * leak_of(NAME), x)
    elif NAME == "hardswish":
        x = x * within(x + 3.0, 0.0, 6.0) / 6.0
    elif NAME == "hardsigmoid":
        x = within(x + 3.0, 0.0, 6.0) / 6.0
    elif NAME == "silu":
        x = x * _sigmoid(x)
    elif NAME == "sigmoid":
        x = _sigmoid(x)
    elif NAME == "gelu":
        x = x * 0.5 * (1.0 + tl.erf(x * _ROOT_HALF))
    elif NAME == "mish":
        x = x * _mish_share(x)
    elif NAME == "tanh":
        x = _tanh(x)
    elif NAME == "elu":
        x = _elu(x)
    else:
        tl.static_assert(False, "an activation without a formula for GPUs")
    return x


@triton.jit
def slope(x, NAME: tl.constexpr):
    """The derivative of the activation of that name; at the bounds of a clamp it is 0."""
    one = tl.full(x.shape, 1.0, x.dtype)
    if is_clamp(NAME):
        found = one
        if is_finite(low_of(NAME)):
            found = tl.where(x <= low_of(NAME), 0.0, found)
        if is_finite(high_of(NAME)):
            found = tl.where(x >= high_of(NAME), 0.0, found)
    elif leak_of(NAME) > 0.0:
        found = tl.where(x > 0.0, one, one * leak_of(NAME))
    elif NAME == "hardswish":
        found = tl.where(x <= -3.0, 0.0, x / 3.0 + 0.5)
        found = tl.where(x >= 3.0, 1.0, found)
    elif NAME == "hardsigmoid":
        found = tl.where((x > -3.0) & (x < 3.0), one / 6.0, 0.0)
    elif NAME == "silu":
        share = _sigmoid(x)
        found = x * share * (1.0 - share) + share
    elif NAME == "sigmoid":
        share = _sigmoid(x)
        found = share * (1.0 - share)
    elif NAME == "gelu":
        found = 0.5 * (1.0 + tl.erf(x * _ROOT_HALF)) + x * _BELL * tl.exp(-0.5 * x * x)
    elif NAME == "mish":
        e = tl.exp(tl.where(x > 22.0, 22.0, x))
        below = e * (e + 2.0) + 2.0
        rise = 4.0 * e * (e + 1.0) / (below * below)
        found = tl.where(x > 22.0, 22.0, x) * rise + _mish_share(x)
    elif NAME == "tanh":
        t = _tanh(x)
        found = 1.0 - t * t
    elif NAME == "elu":
        found = tl.where(x > 0.0, one, _elu(x) + 1.0)
    else:
        tl.static_assert(False, "an activation without a slope for GPUs")
    return found
