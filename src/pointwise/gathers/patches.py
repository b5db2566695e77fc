"""The gather of the standard convolution on an image: the k×k patch around each point.

Row r of the gathered matrix A ``[points, taps·C]`` holds the pixels that point r reads, tap by tap;
zeros where a tap lies outside the image.
"""

from __future__ import annotations

from pointwise.engine.cpu.launch import device
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load,
    load_first,
    number,
    store,
    store_first,
    within,
)


@device
def fill(target, target_row, first, rows, images, pixel, channels, height, width, lines, points,
         step_y, step_x, taps_y, taps_x, origin_y, origin_x, spread_y, spread_x, scale, shift, low,
         high, like):  # fmt: skip
    """Writes rows ``first … first + rows`` of A to ``target``; addresses and strides in bytes.

    Where ``scale`` is an address, what is read of channel c becomes ``x·scale[c] + shift[c]``, kept
    within ``low … high``: the previous layer's normalisation.
    """
    size = bytes_of(like)
    tap_bytes = channels * size
    # Neighbouring taps of a row lie side by side, unless something has to be done to them.
    joined = spread_x == 1 and pixel == tap_bytes and scale == 0
    x = first % points
    y = first // points % lines
    image = images + first // (points * lines) * height * width * pixel
    for r in range(rows):
        place = target + r * target_row
        left = x * step_x + origin_x
        inside = joined and left >= 0 and left + taps_x <= width
        for j in range(taps_y):
            line = y * step_y + origin_y + j * spread_y
            if line < 0 or line >= height:
                zeros(place, taps_x * channels, like)
                place += taps_x * tap_bytes
            elif inside:
                copy(place, image + (line * width + left) * pixel, taps_x * channels, like)
                place += taps_x * tap_bytes
            else:
                for i in range(taps_x):
                    column = left + i * spread_x
                    if column < 0 or column >= width:
                        zeros(place, channels, like)
                    elif scale == 0:
                        copy(place, image + (line * width + column) * pixel, channels, like)
                    else:
                        normalise(place, image + (line * width + column) * pixel, channels, scale,
                                  shift, low, high, like)  # fmt: skip
                    place += tap_bytes
        x += 1
        if x == points:
            x = 0
            y += 1
            if y == lines:
                y = 0
                image += height * width * pixel


@device
def zeros(target, count, like):
    """Writes ``count`` zeros."""
    size, width = bytes_of(like), lanes_of(like)
    zero = broadcast(number(0, like))
    whole = count // width * width
    for k in range(0, whole, width):
        store(target + k * size, zero)
    if whole < count:
        store_first(target + whole * size, zero, count - whole)


@device
def copy(target, source, count, like):
    """Copies ``count`` numbers."""
    size, width = bytes_of(like), lanes_of(like)
    whole = count // width * width
    for k in range(0, whole, width):
        store(target + k * size, load(source + k * size, like))
    if whole < count:
        value = load_first(source + whole * size, count - whole, like)
        store_first(target + whole * size, value, count - whole)


@device
def normalise(target, source, count, scale, shift, low, high, like):
    """``source·scale + shift`` within ``low … high``, for ``count`` channels of one pixel."""
    size, width = bytes_of(like), lanes_of(like)
    whole = count // width * width
    for k in range(0, whole, width):
        at = k * size
        value = fma(load(source + at, like), load(scale + at, like), load(shift + at, like))
        store(target + at, within(value, low, high))
    if whole < count:
        at, left = whole * size, count - whole
        value = fma(load_first(source + at, left, like), load_first(scale + at, left, like),
                    load_first(shift + at, left, like))  # fmt: skip
        store_first(target + at, within(value, low, high), left)
