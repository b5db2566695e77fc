"""Squeeze and excitation: each channel of an image times a factor that its channel means decide.

``factor = gate(wide · between(narrow · mean + b) + b')``, in two launches. A program of both has
some channels of an image. The first (``squeeze``) takes their means, and leaves behind what they
add to each hidden number. The second (``excite``) adds up what all programs left, computes the
factors of its channels, and applies them. How channels are cut depends on shapes alone, and so do
the results' bits.

Source: Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018, section 3.

Memory of one image in ``room``: what each program leaves, as wide as ``hidden`` padded to whole
registers; as much again for each program's hidden numbers; and a row of means, then factors.
"""

from __future__ import annotations

from pointwise.engine.cpu.activation import NONE, activate, quotient
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.launch import device, slot
from pointwise.engine.cpu.table import real
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load,
    load_first,
    number,
    peek,
    store,
    store_first,
    within,
)

# Entries of both: x, room, pixels, channels, channels of a program, programs of an image, the first
# weight (its bias), hidden numbers padded to registers, bytes of an image's room.
# Of ``excite`` then: low, high, kind of the activation between; the second weight, its bias, hidden
# numbers; low, high, kind of the gate; out; low, high, kind of what follows.
OUT = 18

# Sums of so many rows are added to the sum of all: fewer roundings of large numbers.
_RUN = 64


@device
def _sum_of(x, row, pixels, left, like):
    """The sum over all pixels, for the channels of one register."""
    total = broadcast(number(0, like))
    for begin in range(0, pixels, _RUN):
        some = broadcast(number(0, like))
        for p in range(begin, min(begin + _RUN, pixels)):
            some = some + load_first(x + p * row, left, like)
        total = total + some
    return total


@device
def _sums_of_four(x, row, pixels, sums, like):
    """``_sum_of`` for four whole registers, stored to ``sums``."""
    step = lanes_of(like) * bytes_of(like)
    zero = broadcast(number(0, like))
    a, b, c, d = zero, zero, zero, zero
    for begin in range(0, pixels, _RUN):
        e, f, g, h = zero, zero, zero, zero
        for p in range(begin, min(begin + _RUN, pixels)):
            at = x + p * row
            e = e + load(at, like)
            f = f + load(at + step, like)
            g = g + load(at + 2 * step, like)
            h = h + load(at + 3 * step, like)
        a, b, c, d = a + e, b + f, c + g, d + h
    store(sums, a)
    store(sums + step, b)
    store(sums + 2 * step, c)
    store(sums + 3 * step, d)


@device
def _squeeze(arguments, program, thread, like):
    size, width = bytes_of(like), lanes_of(like)
    pixels, channels = slot(arguments, 2), slot(arguments, 3)
    block, blocks, padded = slot(arguments, 4), slot(arguments, 5), slot(arguments, 7)
    image, part = program // blocks, program % blocks
    first = part * block
    end = min(first + block, channels)
    row, wide = channels * size, padded * size
    x = slot(arguments, 0) + image * pixels * row
    room = slot(arguments, 1) + image * slot(arguments, 8)
    means, left = room + 2 * blocks * wide, room + part * wide
    c = first
    while c < end:
        if c + 4 * width <= end:
            _sums_of_four(x + c * size, row, pixels, means + c * size, like)
            c += 4 * width
        else:
            store(means + c * size, _sum_of(x + c * size, row, pixels, end - c, like))
            c += width
    share = broadcast(number(pixels, like))
    for c in range(first, end, width):
        store(means + c * size, quotient(load(means + c * size, like), share))
    weight = slot(arguments, 6) + first * wide
    zero = broadcast(number(0, like))
    for j in range(0, wide, width * size):
        store(left + j, zero)
    # Four rows of the weight at a time: all of it is read in the order of memory.
    c = first
    while c + 4 <= end:
        mean = means + c * size
        p, q = broadcast(peek(mean, like)), broadcast(peek(mean + size, like))
        r, s = broadcast(peek(mean + 2 * size, like)), broadcast(peek(mean + 3 * size, like))
        for j in range(0, wide, width * size):
            at = weight + j
            total = fma(p, load(at, like), load(left + j, like))
            total = fma(q, load(at + wide, like), total)
            total = fma(r, load(at + 2 * wide, like), total)
            store(left + j, fma(s, load(at + 3 * wide, like), total))
        weight += 4 * wide
        c += 4
    while c < end:
        p = broadcast(peek(means + c * size, like))
        for j in range(0, wide, width * size):
            store(left + j, fma(p, load(weight + j, like), load(left + j, like)))
        weight += wide
        c += 1


@device
def _factors(weight, bias, hidden, count, out, low, high, like):
    """``hidden`` times some panels of the second weight, ``bias`` added, within bounds."""
    size, width = bytes_of(like), lanes_of(like)
    step = width * size
    panel = count * step
    zero = broadcast(number(0, like))
    a, b = zero, zero
    c, d = zero, zero
    even = count // 4 * 4
    for j in range(0, even, 4):  # four sums, so that none waits for itself
        at, from_ = weight + j * step, hidden + j * size
        a = fma(broadcast(peek(from_, like)), load(at, like), a)
        b = fma(broadcast(peek(from_ + size, like)), load(at + step, like), b)
        c = fma(broadcast(peek(from_ + 2 * size, like)), load(at + 2 * step, like), c)
        d = fma(broadcast(peek(from_ + 3 * size, like)), load(at + 3 * step, like), d)
    for j in range(even, count):
        a = fma(broadcast(peek(hidden + j * size, like)), load(weight + j * step, like), a)
    total = (a + b) + (c + d)
    if bias != 0:
        total = total + load(bias, like)
    store(out, within(total, low, high))
    return weight + panel


@device
def _excite(arguments, program, thread, like):
    size, width = bytes_of(like), lanes_of(like)
    pixels, channels = slot(arguments, 2), slot(arguments, 3)
    block, blocks, padded = slot(arguments, 4), slot(arguments, 5), slot(arguments, 7)
    image, part = program // blocks, program % blocks
    first = part * block
    end = min(first + block, channels)
    row, wide = channels * size, padded * size
    room = slot(arguments, 1) + image * slot(arguments, 8)
    factors, hidden = room + 2 * blocks * wide, room + (blocks + part) * wide
    bias = slot(arguments, 6)
    low, high = real(arguments, 9, like), real(arguments, 10, like)
    for j in range(0, wide, width * size):
        total = broadcast(number(0, like))
        for other in range(blocks):
            total = total + load(room + other * wide + j, like)
        if bias != 0:
            total = total + load(bias + j, like)
        store(hidden + j, within(total, low, high))
    activate(hidden, wide, 1, padded, slot(arguments, 11), like)
    count, bias = slot(arguments, 14), slot(arguments, 13)
    weight = slot(arguments, 12) + first // width * count * width * size
    low, high = real(arguments, 15, like), real(arguments, 16, like)
    for c in range(first, end, width):
        more = bias + c * size if bias != 0 else 0
        weight = _factors(weight, more, hidden, count, factors + c * size, low, high, like)
    activate(factors + first * size, row, 1, end - first, slot(arguments, 17), like)
    low, high = real(arguments, 19, like), real(arguments, 20, like)
    kind = slot(arguments, 21)
    x = slot(arguments, 0) + image * pixels * row
    out = slot(arguments, OUT) + image * pixels * row
    for p in range(pixels):
        for c in range(first, end, width):
            at, left = p * row + c * size, end - c
            value = load_first(x + at, left, like) * load(factors + c * size, like)
            store_first(out + at, within(value, low, high), left)
        if kind != NONE:
            activate(out + p * row + first * size, row, 1, end - first, kind, like)


SQUEEZE = by_dtype(_squeeze, "squeeze")
EXCITE = by_dtype(_excite, "excite")
