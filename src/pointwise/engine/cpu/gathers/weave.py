"""How the bytes of pixels above one another come into the lanes of registers, by channel.

As many rows are woven as a lane adds up (``dots``). With VNNI four bytes of a channel come into a
lane, and the channels out of order, until results are packed into bytes again; with AVX2 two bytes,
widened to 16 bits, in order.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir

from pointwise.engine.cpu.dots import DOTS
from pointwise.engine.cpu.isa import ISA
from pointwise.engine.cpu.narrow import ordered_bytes, ordered_words, woven_bytes

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
LINES = DOTS.group  # rows of taps that are multiplied at once
_IN_ORDER = LINES == 2
CHANNELS = (2 if _IN_ORDER else 4) * DOTS.lanes  # computed at once
HALF = CHANNELS // 2
POINTS = 4 if _IN_ORDER or ISA.registers == 32 else 2
"""As many points at once as have room for their sums."""


class Span(NamedTuple):
    """Channels that are computed at once."""

    first: int  # channel
    place: int  # among those of the weight
    channels: int  # CHANNELS or HALF


def spans(channels: int) -> list[Span]:
    """How the channels of an image are computed: by whole registers, then by one or two halves.

    The last of each begins early enough to end with the last channel, and makes some results a
    second time; only fewer channels than a half has need a mask.
    """
    wholes = (channels + HALF - 1) // CHANNELS if channels >= CHANNELS else 0
    places = [(place, CHANNELS) for place in range(0, wholes * CHANNELS, CHANNELS)]
    places += [(place, HALF) for place in range(wholes * CHANNELS, channels, HALF)]
    return [Span(max(0, min(place, channels - count)), place, count) for place, count in places]


def registers_of(count: int) -> tuple[int, int]:
    """(registers of 32-bit lanes, lanes of each) for ``count`` channels."""
    lanes = DOTS.lanes if _IN_ORDER else count // 4
    return count // lanes, lanes


def woven(count: int = CHANNELS) -> list[int]:
    """Which channel of ``count`` stands at each place after weaving: register by register."""
    if _IN_ORDER:
        return list(range(count))
    lanes = count // 16  # of 128 bits
    return [16 * lane + 4 * r + i for r in range(4) for lane in range(lanes) for i in range(4)]


def weave(builder, rows, count: int) -> list:
    """A register of bytes of each of ``LINES`` rows as registers of lanes, by channel."""
    return (_weave_two if _IN_ORDER else _weave_four)(builder, rows, count)


def _weave_four(builder, rows, count: int) -> list:
    bytes_of, words_of = ir.VectorType(_I8, count), ir.VectorType(_I16, count // 2)
    dots_of = ir.VectorType(_I32, count // 4)
    quads = []
    for high in (False, True):
        one = _unpack(builder, rows[0], rows[1], bytes_of, high)
        two = _unpack(builder, rows[2], rows[3], bytes_of, high)
        for upper in (False, True):
            quads.append(builder.bitcast(_unpack(builder, one, two, words_of, upper), dots_of))
    return quads


def _unpack(builder, a, b, shape, high: bool):
    """Elements of ``a`` and ``b`` by turns, of the lower or the higher half of each 128 bits."""
    per = 128 // shape.element.width
    order = []
    for first in range(0, shape.count, per):
        for i in range(per // 2):
            place = first + i + (per // 2 if high else 0)
            order += [place, place + shape.count]
    return _shuffled(builder, builder.bitcast(a, shape), builder.bitcast(b, shape), order)


def _weave_two(builder, rows, count: int) -> list:
    pairs = []
    for first in range(0, count, DOTS.lanes):
        order = [place for c in range(first, first + DOTS.lanes) for place in (c, c + count)]
        both = _shuffled(builder, rows[0], rows[1], order)
        wide = builder.zext(both, ir.VectorType(_I16, len(order)))
        pairs.append(builder.bitcast(wide, ir.VectorType(_I32, DOTS.lanes)))
    return pairs


def _shuffled(builder, a, b, order: list[int]):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), order))


def narrowed(builder, values: list, size: int):
    """Results in float32, register by register as woven, as numbers of ``size`` bytes in order."""
    if not _IN_ORDER:
        return woven_bytes(builder, values)
    return (ordered_bytes if size == 1 else ordered_words)(builder, values)
