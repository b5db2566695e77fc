"""The depthwise gather on an image of bytes: a stencil, each channel with int8 weights of its own.

A few rows of taps at a time, as many as a lane adds up (``dots``): the bytes of pixels above one
another are woven together, so that one instruction multiplies and adds their taps of a channel.
What is woven serves all points of the row that read it. Weaving mixes up channels within a
register, and packing the sums into bytes puts them back; factors and weights are stored in the
order that lies between.

So a block of points differs from that of floats in all its arithmetic. What surrounds it, the rows
and their blocks, edges, and loops over channels and taps, is the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.convolution.window import Window
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.dots import DOTS, dot
from pointwise.engine.cpu.flow import repeat
from pointwise.engine.cpu.gathers.stencil_rows import (
    choose_block,
    entries_of,
    rows_of,
)
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import call, load_lanes, load_some, poke, store_lanes, store_some
from pointwise.engine.cpu.window import WINDOW

STENCIL_INT8 = Layout("StencilInt8", "*weight *start *factor *shift *blank")
"""``weight [C/CHANNELS, groups, taps, 4, lanes, group]``; ``start`` (int32), ``factor`` and
``shift`` (float32) ``[C/CHANNELS, 4, lanes]``, in the order of ``woven``, whole registers and then
the halves of ``blocks_of``; ``blank [C]`` is a pixel of what stands for zero."""

_I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
_F32 = ir.FloatType()
LINES = DOTS.group  # rows of taps that are multiplied at once
CHANNELS = 4 * DOTS.lanes  # in the order of a whole register, channels are stored
BLOCKS = (4, 1)
"""Points that are made at once."""


HALF = CHANNELS // 2


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


def woven(count: int = CHANNELS) -> list[int]:
    """Which channel of ``count`` stands at each place after weaving: register by register."""
    lanes = count // 16  # of 128 bits
    return [16 * lane + 4 * r + i for r in range(4) for lane in range(lanes) for i in range(4)]


class _Block:
    """The LLVM of a block of points, for kernels ``taps`` wide, ``stride`` apart.

    Results are numbers of ``size`` bytes.
    """

    def __init__(self, builder, taps: int, stride: int, size: int, arguments) -> None:
        self.builder, self.taps, self.stride, self.size = builder, taps, stride, size
        self.rows, self.groups, self.weight, self.first, self.out, self.out_pixel = arguments[:6]
        self.window = entries_of(builder, arguments[6], WINDOW)
        self.stencil = entries_of(builder, arguments[7], STENCIL_INT8)

    def plus(self, a, b):
        return self.builder.add(a, _I64(b) if isinstance(b, int) else b)

    def multiple(self, a, number: int):
        return self.builder.mul(a, _I64(number))

    def load(self, address, shape, some=None):
        if some is not None:
            return load_some(self.builder, address, some, shape)
        return load_lanes(self.builder, address, None, shape)

    def quarters(self, address, shape, count: int) -> list:
        """What is stored for ``count`` channels: four registers of 32-bit lanes."""
        return [self.load(self.plus(address, count * r), shape) for r in range(4)]

    def make(self, points: int, edge: bool) -> None:
        """``points`` results over all channels (``spans``); with ``edge``, columns may lie outside
        and are ``blank``."""
        builder, channels = self.builder, self.window.channels
        columns = range((points - 1) * self.stride + self.taps)
        places = [self.plus(self.first, c) for c in columns]
        inside = None
        if edge:
            inside = [builder.icmp_unsigned("<", at, self.window.width) for at in places]

        def span(place, count: int, some=None):
            channel = _I64(0)
            if some is None:
                last = builder.sub(channels, _I64(count))
                channel = builder.select(builder.icmp_signed("<", place, last), place, last)
            self.registers(channel, place, count, some, points, places, inside)
            return (self.plus(place, count),)

        few = builder.icmp_signed("<", channels, _I64(HALF))
        with builder.if_else(few) as (by_mask, by_registers):
            with by_mask:
                span(_I64(0), HALF, channels)
            with by_registers:
                more = self.plus(channels, HALF - 1)
                enough = builder.icmp_signed(">=", channels, _I64(CHANNELS))
                wholes = builder.sdiv(more, _I64(CHANNELS))
                wholes = builder.select(enough, wholes, _I64(0))
                (place,) = repeat(builder, wholes, [_I64(0)], lambda at: span(at, CHANNELS))
                halves = builder.sdiv(builder.sub(more, place), _I64(HALF))
                repeat(builder, halves, [place], lambda at: span(at, HALF))

    def registers(self, channel, place, count: int, some, points: int, columns, inside) -> None:
        """``count`` channels of all ``points``, of which only ``some`` are there if it is given.

        ``place`` is the first one's among weights and factors.
        """
        builder, taps = self.builder, self.taps
        lanes = count // 4
        sums_of, floats_of = ir.VectorType(_I32, lanes), ir.VectorType(_F32, lanes)
        bytes_of = ir.VectorType(_I8, count)
        offset = self.multiple(place, 4)
        start = self.quarters(self.plus(self.stencil.start, offset), sums_of, count)
        first_weight = self.plus(self.weight, builder.mul(offset, self.multiple(self.groups, taps)))

        def group(weights, rows, *sums):
            """``sums`` plus what some rows of taps give."""
            lines = []
            for j in range(LINES):
                entry = builder.inttoptr(self.plus(rows, 16 * j), _I64.as_pointer())
                lines.append((builder.load(entry), builder.load(builder.gep(entry, [_I64(1)]))))
            results = list(sums)
            for c, column in enumerate(columns):
                pixels = []
                for line, pixel in lines:
                    here = self.plus(line, builder.mul(column, pixel))
                    if inside is not None:
                        here = builder.select(inside[c], here, self.stencil.blank)
                    pixels.append(self.load(self.plus(here, channel), bytes_of, some))
                quarters = _weave(builder, pixels, count)
                for p in range(points):
                    tap = c - p * self.stride
                    if not 0 <= tap < taps:
                        continue
                    for r in range(4):
                        weight = self.load(self.plus(weights, (tap * 4 + r) * count), sums_of)
                        results[4 * p + r] = dot(
                            builder, results[4 * p + r], quarters[r], weight, lanes
                        )
            return self.plus(weights, 4 * taps * count), self.plus(rows, 16 * LINES), *results

        state = [first_weight, self.rows, *start * points]
        sums = repeat(builder, self.groups, state, group)[2:]
        factors = self.quarters(self.plus(self.stencil.factor, offset), floats_of, count)
        shifts = self.quarters(self.plus(self.stencil.shift, offset), floats_of, count)
        most = ir.Constant(floats_of, [255.0] * lanes)
        for p in range(points):
            numbers = []
            for r in range(4):
                value = builder.sitofp(sums[4 * p + r], floats_of)
                value = builder.fadd(builder.fmul(value, factors[r]), shifts[r])
                small = builder.fcmp_ordered("<", value, most)
                numbers.append(_to_int(builder, builder.select(small, value, most), lanes))
            target = self.plus(self.out, self.multiple(self.out_pixel, p))
            self.write(target, channel, numbers, count, some)

    def write(self, target, channel, numbers, count: int, some) -> None:
        """Results as bytes, or as wide as what the matrix product multiplies."""
        builder = self.builder
        place = self.plus(target, self.multiple(channel, self.size))
        if self.size == 1:
            result = _pack(builder, numbers, count)
            if some is not None:
                store_some(builder, place, result, some)
            else:
                store_lanes(builder, place, result, None)
        else:  # into a tile, whose rows have room for whole registers
            for half, result in enumerate(_widen(builder, numbers, count)):
                store_lanes(builder, self.plus(place, half * count), result, None)


def _block_of(taps: int, stride: int, size: int):
    """A function that makes one block of neighbouring results of a row, over all channels."""

    @intrinsic
    def block(
        typingctx,
        points,  # one of BLOCKS
        at_edge,  # whether some of the columns may lie outside the image
        rows,  # for each row of taps the address of its pixel in column 0, and bytes to the next
        groups,  # of LINES rows of taps
        weight,
        first,  # the column of the first tap of the first point, inside the image or not
        out,
        out_pixel,  # bytes from point to point
        window,
        stencil,
        like,
    ):
        def codegen(context, builder, signature, arguments):
            points, at_edge, *rest = arguments
            choose_block(
                builder, points, at_edge, BLOCKS, _Block(builder, taps, stride, size, rest).make
            )
            return context.get_dummy_value()

        numbers = [types.int64] * 6
        signature = types.void(types.int64, types.boolean, *numbers, window, stencil, like)
        return signature, codegen

    return block


def _weave(builder, rows, count: int):
    """A register of bytes of each of ``rows`` as four of 32-bit lanes, a channel's bytes in each.

    In lanes of two, bytes become numbers of 16 bits.
    """
    bytes_of, words_of = ir.VectorType(_I8, count), ir.VectorType(_I16, count // 2)
    zero = ir.Constant(bytes_of, [0] * count)
    quarters = []
    for high in (False, True):
        if LINES == 4:
            low = _unpack(builder, rows[0], rows[1], bytes_of, high)
            top = _unpack(builder, rows[2], rows[3], bytes_of, high)
            shape = words_of
        else:
            low, top = _unpack(builder, rows[0], rows[1], bytes_of, high), zero
            shape = bytes_of
        for upper in (False, True):
            quarters.append(_unpack(builder, low, top, shape, upper))
    return [builder.bitcast(x, ir.VectorType(_I32, count // 4)) for x in quarters]


def _unpack(builder, a, b, shape, high: bool):
    """The elements of ``a`` and ``b`` by turns, of the lower or higher half of each 128 bits."""
    lanes = shape.count * shape.element.width // 128
    per = shape.count // lanes
    order = []
    for lane in range(lanes):
        for i in range(per // 2):
            place = lane * per + i + (per // 2 if high else 0)
            order += [place, place + shape.count]
    mask = ir.Constant(ir.VectorType(_I32, len(order)), order)
    return builder.shuffle_vector(builder.bitcast(a, shape), builder.bitcast(b, shape), mask)


def _to_int(builder, value, lanes: int):
    """The nearest whole numbers, half to even; what is too large to an int32 becomes -2³¹."""
    whole = ir.VectorType(_I32, lanes)
    if lanes < 16:
        name = {4: "llvm.x86.sse2.cvtps2dq", 8: "llvm.x86.avx.cvt.ps2dq.256"}[lanes]
        return call(builder, name, whole, [value])
    zero = ir.Constant(whole, [0] * lanes)
    arguments = [value, zero, ir.IntType(16)(-1), _I32(4)]
    return call(builder, "llvm.x86.avx512.mask.cvtps2dq.512", whole, arguments)


# The instructions that pack int32 into int16 and those into uint8 or uint16, by how many channels.
_TO_WORDS = {16: "sse2.packssdw.128", 32: "avx2.packssdw", 64: "avx512.packssdw.512"}
_TO_BYTES = {16: "sse2.packuswb.128", 32: "avx2.packuswb", 64: "avx512.packuswb.512"}
_TO_UNSIGNED = {16: "sse41.packusdw", 32: "avx2.packusdw"}


def _pack(builder, wholes, count: int):
    """Four registers of int32 as one of uint8, each kept within 0 … 255."""
    words_of, bytes_of = ir.VectorType(_I16, count // 2), ir.VectorType(_I8, count)
    words = f"llvm.x86.{_TO_WORDS[count]}"
    low = call(builder, words, words_of, wholes[:2])
    high = call(builder, words, words_of, wholes[2:])
    return call(builder, f"llvm.x86.{_TO_BYTES[count]}", bytes_of, [low, high])


def _widen(builder, wholes, count: int) -> list:
    """Four registers of int32, up to 255, as ``count`` of 16 bits from 0 up: in two registers."""
    words_of = ir.VectorType(_I16, count // 2)
    name = f"llvm.x86.{_TO_UNSIGNED[count]}"
    low = call(builder, name, words_of, wholes[:2])
    high = call(builder, name, words_of, wholes[2:])
    # Each has half of every 128 bits' channels.
    per = 8
    order: list[int] = []
    for lane in range(words_of.count // per):
        order += range(lane * per, (lane + 1) * per)
        order += range(words_of.count + lane * per, words_of.count + (lane + 1) * per)
    half = len(order) // 2
    return [
        builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(_I32, half), part))
        for part in (order[:half], order[half:])
    ]


@device
def _taps_of(y, image, window, stencil, scratch, like):
    """Notes in ``scratch`` where the rows of taps of result row ``y`` lie.

    They are filled up to whole groups by rows of the one pixel ``blank``, as are those that lie
    outside the image. Returns (scratch, groups of rows, weight).
    """
    groups = (window.taps_y + LINES - 1) // LINES
    for j in range(groups * LINES):
        line = y * window.stride_y - window.padding_y + j
        if j < window.taps_y and line >= 0 and line < window.height:
            poke(scratch + 16 * j, image + line * window.width * window.pixel)
            poke(scratch + 16 * j + 8, window.pixel)
        else:
            poke(scratch + 16 * j, stencil.blank)
            poke(scratch + 16 * j + 8, 0)
    return scratch, groups, stencil.weight


@device
def _points_of_block(points):
    return 4 if points >= 4 else 1


@device
def _finish(out, out_pixel, count, window, stencil, like):
    """Bytes are whole when their block is."""


# The shapes that have rows: taps and stride. Others stay float32.
_SHAPES = ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))


def _rows_of_size(size: int) -> dict[tuple[int, int], Any]:
    return {
        shape: rows_of(
            _taps_of, _block_of(*shape, size), _points_of_block, _finish, "int8", *shape, size
        )
        for shape in _SHAPES
    }


ROWS = _rows_of_size(1)
"""Those that make bytes."""
ROWS_FOR_MIX = ROWS if DOTS.size == 1 else _rows_of_size(DOTS.size)
"""Those that make what the matrix product multiplies."""


def scratch_bytes(window: Window) -> int:
    """Memory that each thread needs, to note where its rows of taps lie."""
    return 16 * LINES * -(-window.y.taps // LINES)
