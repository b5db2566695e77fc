"""Pooling on images, channels_last: the largest or the mean of the pixels of a window, or of all.

The entries of ``pool``'s table are those of a window (see ``conv_images.windowed``), then out, the
kind, and how many pixels a mean is of (0: those inside the image).
"""

from __future__ import annotations

from pointwise.engine.cpu.activation import quotient
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.launch import device, slot
from pointwise.engine.cpu.vector import (
    at_most,
    broadcast,
    bytes_of,
    choose,
    lanes_of,
    load_first,
    number,
    store_first,
)

LARGEST, MEAN = range(2)
OUT = 15  # the first entry behind the window


@device
def _larger(a, b):
    """The larger lane by lane; NaN wins, as in PyTorch."""
    return choose(at_most(a, a), choose(at_most(b, a), a, b), a)


@device
def _pool(arguments, program, thread, like):
    """One row of results."""
    size, width = bytes_of(like), lanes_of(like)
    pixel, channels = slot(arguments, 1), slot(arguments, 2)
    high, wide = slot(arguments, 3), slot(arguments, 4)
    lines, points = slot(arguments, 5), slot(arguments, 6)
    step_y, step_x = slot(arguments, 7), slot(arguments, 8)
    taps_y, taps_x = slot(arguments, 9), slot(arguments, 10)
    origin_y, origin_x = slot(arguments, 11), slot(arguments, 12)
    spread_y, spread_x = slot(arguments, 13), slot(arguments, 14)
    kind, of = slot(arguments, OUT + 1), slot(arguments, OUT + 2)
    image = slot(arguments, 0) + program // lines * high * wide * pixel
    top = program % lines * step_y + origin_y
    out = slot(arguments, OUT) + program * points * channels * size
    for p in range(points):
        left = p * step_x + origin_x
        for c in range(0, channels, width):
            more = channels - c
            total = broadcast(number(0 if kind == MEAN else -float("inf"), like))
            count = 0
            for j in range(taps_y):
                y = top + j * spread_y
                if y < 0 or y >= high:
                    continue
                for i in range(taps_x):
                    x = left + i * spread_x
                    if x < 0 or x >= wide:
                        continue
                    value = load_first(image + (y * wide + x) * pixel + c * size, more, like)
                    total = total + value if kind == MEAN else _larger(total, value)
                    count += 1
            if kind == MEAN:
                total = quotient(total, broadcast(number(count if of == 0 else of, like)))
            store_first(out + c * size, total, more)
        out += channels * size


# Sums of so many rows are added to the sum of all: fewer roundings of large numbers.
_RUN = 64


@device
def _mean(arguments, program, thread, like):
    """The mean of all pixels of an image, for some of its channels.

    Entries: x, out, pixels, channels, channels of a program, how many programs an image has.
    """
    size, width = bytes_of(like), lanes_of(like)
    pixels, channels = slot(arguments, 2), slot(arguments, 3)
    block, blocks = slot(arguments, 4), slot(arguments, 5)
    image, first = program // blocks, program % blocks * block
    x = slot(arguments, 0) + image * pixels * channels * size
    out = slot(arguments, 1) + image * channels * size
    share = broadcast(number(pixels, like))
    for c in range(first, min(first + block, channels), width):
        left = min(block - (c - first), channels - c)
        total = broadcast(number(0, like))
        for begin in range(0, pixels, _RUN):
            some = broadcast(number(0, like))
            for p in range(begin, min(begin + _RUN, pixels)):
                some = some + load_first(x + (p * channels + c) * size, left, like)
            total = total + some
        store_first(out + c * size, quotient(total, share), left)


POOL = by_dtype(_pool, "pool")
MEANS = by_dtype(_mean, "mean_of_images")
