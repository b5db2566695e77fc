"""The depthwise gather on an image of bytes: a stencil, each channel with int8 weights of its own.

A few rows of taps at a time, as many as a lane adds up (``dots``): the bytes of pixels above one
another are woven together, so that one instruction multiplies and adds their taps of a channel.
What is woven serves all points of the row that read it. Factors and weights are stored in the
order of the channels that are woven.

So a block of points differs from that of floats in all its arithmetic. What surrounds it, the rows
and their blocks, edges, and loops over channels and taps, is the same.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.convolution.window import Window
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.dots import DOTS, LANE_BYTES, dot
from pointwise.engine.cpu.flow import repeat
from pointwise.engine.cpu.gathers.stencil_rows import (
    choose_block,
    entries_of,
    rows_of,
)
from pointwise.engine.cpu.gathers.weave import (
    CHANNELS,
    HALF,
    LINES,
    POINTS,
    narrowed,
    registers_of,
    weave,
)
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.narrow import scaled
from pointwise.engine.cpu.vector import load_lanes, load_some, poke, store_lanes, store_some
from pointwise.engine.cpu.window import WINDOW

STENCIL_INT8 = Layout("StencilInt8", "*weight *start *factor *shift *blank")
"""Of each span of channels (``weave.spans``), in their order there: ``weight [groups, taps,
registers, lanes, LINES]``; ``start`` (int32), ``factor`` and ``shift`` (float32) ``[registers,
lanes]``. ``blank [C]`` is a pixel of what stands for zero."""

_I8, _I32, _I64 = (ir.IntType(n) for n in (8, 32, 64))
_F32 = ir.FloatType()


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

    def row_of(self, address, shape, count: int) -> list:
        """``count`` registers that follow one another."""
        step = LANE_BYTES * shape.count
        return [self.load(self.plus(address, step * r), shape) for r in range(count)]

    def make(self, points: int, edge: bool) -> None:
        """``points`` results over all channels (``spans``); with ``edge``, columns may lie outside
        and are ``blank``."""
        builder, channels = self.builder, self.window.channels
        count = (points - 1) * self.stride + self.taps
        columns: list[Any] = [None] * count
        if edge:
            places = [self.plus(self.first, c) for c in range(count)]
            columns = [builder.icmp_unsigned("<", at, self.window.width) for at in places]

        def span(place, count: int, some=None):
            channel = _I64(0)
            if some is None:
                last = builder.sub(channels, _I64(count))
                channel = builder.select(builder.icmp_signed("<", place, last), place, last)
            self.registers(channel, place, count, some, points, columns)
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

    def registers(self, channel, place, count: int, some, points: int, columns) -> None:
        """``count`` channels of all ``points``, of which only ``some`` are there if it is given.

        ``place`` is the first one's among weights and factors. ``columns`` say for each column
        that is read whether it lies in the image; None for all do.
        """
        builder, taps = self.builder, self.taps
        parts, lanes = registers_of(count)
        sums_of, floats_of = ir.VectorType(_I32, lanes), ir.VectorType(_F32, lanes)
        bytes_of = ir.VectorType(_I8, count)
        blank = self.plus(self.stencil.blank, channel)
        offset = self.multiple(place, LANE_BYTES)
        start = self.row_of(self.plus(self.stencil.start, offset), sums_of, parts)
        first_weight = self.plus(self.weight, builder.mul(offset, self.multiple(self.groups, taps)))

        def group(weights, rows, *sums):
            """``sums`` plus what some rows of taps give."""
            lines, steps = [], []  # where the pixels of a column lie, and how far to the next
            for j in range(LINES):
                entry = builder.inttoptr(self.plus(rows, 16 * j), _I64.as_pointer())
                pixel = builder.load(builder.gep(entry, [_I64(1)]))
                first = self.plus(builder.load(entry), builder.mul(self.first, pixel))
                lines.append(self.plus(first, channel))
                steps.append(pixel)
            results = list(sums)
            for c, inside in enumerate(columns):
                pixels = []
                for j, here in enumerate(lines):
                    at = here if inside is None else builder.select(inside, here, blank)
                    pixels.append(self.load(at, bytes_of, some))
                    lines[j] = self.plus(here, steps[j])
                numbers = weave(builder, pixels, count)
                for p in range(points):
                    tap = c - p * self.stride
                    if not 0 <= tap < taps:
                        continue
                    own = self.plus(weights, tap * LANE_BYTES * count)
                    for r, weight in enumerate(self.row_of(own, sums_of, parts)):
                        total = results[parts * p + r]
                        results[parts * p + r] = dot(builder, total, numbers[r], weight, lanes)
            after = self.plus(weights, LANE_BYTES * taps * count)
            return after, self.plus(rows, 16 * LINES), *results

        state = [first_weight, self.rows, *start * points]
        sums = repeat(builder, self.groups, state, group)[2:]
        factors = self.row_of(self.plus(self.stencil.factor, offset), floats_of, parts)
        shifts = self.row_of(self.plus(self.stencil.shift, offset), floats_of, parts)
        for p in range(points):
            values = scaled(builder, sums[parts * p : parts * (p + 1)], factors, shifts)
            result = narrowed(builder, values, self.size)
            target = self.plus(self.out, self.multiple(self.out_pixel, p))
            target = self.plus(target, self.multiple(channel, self.size))
            if some is None or self.size > 1:  # rows of a tile have room for whole registers
                store_lanes(builder, target, result, None)
            else:
                store_some(builder, target, result, some)


def _block_of(taps: int, stride: int, size: int):
    """A function that makes one block of neighbouring results of a row, over all channels."""

    @intrinsic
    def block(
        typingctx,
        points,  # POINTS or 1
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
            make = _Block(builder, taps, stride, size, rest).make
            choose_block(builder, points, at_edge, (POINTS, 1), make)
            return context.get_dummy_value()

        numbers = [types.int64] * 6
        signature = types.void(types.int64, types.boolean, *numbers, window, stencil, like)
        return signature, codegen

    return block


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
    return POINTS if points >= POINTS else 1


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
