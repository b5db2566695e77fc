"""What is done to the pixels of one image, or of two, number by number.

COPY: ``x``. ADD: ``x + y``. MULTIPLY: ``x · y``. SCALE: each channel times a factor of its image,
``x[n, p, c] · y[n, c]``. AFFINE: ``x[p, c] · y[c] + z[c]``. Each is followed by an activation.
"""

from __future__ import annotations

from pointwise.engine.cpu.activation import activate
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.launch import device, slot
from pointwise.engine.cpu.table import real
from pointwise.engine.cpu.vector import (
    bytes_of,
    fma,
    lanes_of,
    load_first,
    store_first,
    within,
)

COPY, ADD, MULTIPLY, SCALE, AFFINE = range(5)

# Entries: x, its row in bytes, out, its row, numbers in all, channels, rows of a program, which of
# the above, y, its row (SCALE: rows of an image), z, low, high (as float64), activation.
X, OUT, Y = 0, 2, 8


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
        activate(out, out_row, 1, columns, slot(arguments, 13), like)


KERNELS = by_dtype(_combine, "combine")
