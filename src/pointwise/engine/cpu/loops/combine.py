"""What is done to the pixels of one image, or of two, number by number.

COPY: ``x``. ADD: ``x + y``. MULTIPLY: ``x · y``. SCALE: each channel times a factor of its image,
``x[n, p, c] · y[n, c]``. AFFINE: ``x[p, c] · y[c] + z[c]``. Each is followed by an activation.
"""

from __future__ import annotations

import math

from pointwise.engine.cpu.activation import NONE, activate, exponential, quotient
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.launch import device, slot
from pointwise.engine.cpu.table import real
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    choose,
    fma,
    lanes_of,
    less,
    load_first,
    magnitude,
    number,
    store_first,
    within,
)

COPY, ADD, MULTIPLY, SCALE, AFFINE = range(5)

# Activations besides those of ``activation``.
HARDSIGMOID, GELU = 11, 12

# Entries: x, its row in bytes, out, its row, numbers in all, channels, rows of a program, which of
# the above, y, its row (SCALE: rows of an image), z, low, high (as float64), activation.
X, OUT, Y = 0, 2, 8


@device
def gelu(x, like):
    """``x · Φ(x)``, to about 2e-7 of x.

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
    tail = tail * t * exponential(size * size * minus) * broadcast(number(0.5, like))
    return x * choose(less(x, broadcast(number(0, like))), tail, one + tail * minus)


@device
def finish(rows, row_bytes, count, columns, kind, like):
    """Applies an activation in place to ``count`` rows of ``columns`` numbers."""
    if kind == NONE:
        return
    if kind < HARDSIGMOID:
        activate(rows, row_bytes, count, columns, kind, like)
        return
    size, width = bytes_of(like), lanes_of(like)
    sixth = broadcast(number(1, like) / number(6, like))
    three = broadcast(number(3, like))
    low, high = number(0, like), number(6, like)
    for r in range(count):
        row = rows + r * row_bytes
        for k in range(0, columns, width):
            x = load_first(row + k * size, columns - k, like)
            y = gelu(x, like) if kind == GELU else within(x + three, low, high) * sixth
            store_first(row + k * size, y, columns - k)


@device
def _combine(arguments, program, thread, like):
    size, width = bytes_of(like), lanes_of(like)
    total, channels, span = slot(arguments, 4), slot(arguments, 5), slot(arguments, 6)
    x_row, out_row, how = slot(arguments, 1), slot(arguments, 3), slot(arguments, 7)
    y_row = slot(arguments, 9)
    low, high = real(arguments, 11, like), real(arguments, 12, like)
    begin = program * span
    end = min(begin + span, -(-total // channels))
    for r in range(begin, end):
        columns = min(channels, total - r * channels)
        x, out = slot(arguments, X) + r * x_row, slot(arguments, OUT) + r * out_row
        y, z = slot(arguments, Y), slot(arguments, 10)
        if how == SCALE:
            y += r // y_row * channels * size
        elif how != AFFINE:
            y += r * y_row
        for k in range(0, columns, width):
            left, at = columns - k, k * size
            value = load_first(x + at, left, like)
            if how == ADD:
                value = value + load_first(y + at, left, like)
            elif how == AFFINE:
                value = fma(value, load_first(y + at, left, like), load_first(z + at, left, like))
            elif how != COPY:
                value = value * load_first(y + at, left, like)
            store_first(out + at, within(value, low, high), left)
        finish(out, out_row, 1, columns, slot(arguments, 13), like)


KERNELS = by_dtype(_combine, "combine")
