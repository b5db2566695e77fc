"""The depthwise gather on an image of bytes: a stencil, each channel with int8 weights of its own.

Four rows of taps at a time: the bytes of four pixels above one another are woven together, so that
one instruction multiplies and adds four taps of a channel. What is woven serves all points of the
row that read it. Weaving mixes up channels within a register, and packing the sums into bytes puts
them back; factors and weights are stored in the order that lies between.

So a block of points differs from that of floats in all its arithmetic. What surrounds it, the rows
and their blocks, edges, and loops over channels and taps, is the same.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.convolution.window import Window
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.flow import repeat
from pointwise.engine.cpu.gathers.stencil_rows import (
    choose_block,
    entries_of,
    over_channels,
    rows_of,
)
from pointwise.engine.cpu.gemm_int8 import dot_bytes
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import call, first_lanes, masked_load, masked_store, poke
from pointwise.engine.cpu.window import WINDOW

STENCIL_INT8 = Layout("StencilInt8", "*weight *start *factor *shift *blank")
"""``weight [C/64, groups, taps, 4, 16, 4]``; ``start`` (int32), ``factor`` and ``shift`` (float32)
``[C/64, 4, 16]``, in the order of ``woven``; ``blank [C]`` is a pixel of what stands for zero."""

_I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
_F32 = ir.FloatType()
LINES = 4  # rows of taps that are multiplied at once
CHANNELS = 64  # in the order of a whole register, channels are stored
BLOCKS = (4, 1)
"""Points that are made at once."""


def woven(count: int = CHANNELS) -> list[int]:
    """Which channel of ``count`` stands at each place after weaving: register by register."""
    lanes = count // 16  # of 128 bits
    return [16 * lane + 4 * r + i for r in range(4) for lane in range(lanes) for i in range(4)]


class _Block:
    """The LLVM of a block of points, for kernels ``taps`` wide, ``stride`` apart."""

    def __init__(self, builder, taps: int, stride: int, arguments) -> None:
        self.builder, self.taps, self.stride = builder, taps, stride
        self.rows, self.groups, self.weight, self.first, self.out, self.out_pixel = arguments[:6]
        self.window = entries_of(builder, arguments[6], WINDOW)
        self.stencil = entries_of(builder, arguments[7], STENCIL_INT8)

    def plus(self, a, b):
        return self.builder.add(a, _I64(b) if isinstance(b, int) else b)

    def multiple(self, a, number: int):
        return self.builder.mul(a, _I64(number))

    def load(self, address, shape, lanes=None):
        if lanes is not None:
            return masked_load(self.builder, address, lanes, shape)
        return self.builder.load(self.builder.inttoptr(address, shape.as_pointer()), align=1)

    def quarters(self, address, shape, count: int) -> list:
        """What is stored for ``count`` channels: four registers of 32-bit lanes."""
        return [self.load(self.plus(address, count * r), shape) for r in range(4)]

    def make(self, points: int, edge: bool) -> None:
        """``points`` results over all channels; with ``edge``, columns outside are ``blank``."""
        columns = range((points - 1) * self.stride + self.taps)
        places = [self.plus(self.first, c) for c in columns]
        inside = None
        if edge:
            width = self.window.width
            inside = [self.builder.icmp_unsigned("<", place, width) for place in places]

        def body(channel, lanes) -> None:
            if lanes is None:
                self.registers(channel, None, CHANNELS, points, places, inside)
                return
            # The last channels: up to half a register, or more.
            left = self.builder.sub(self.window.channels, channel)
            few = self.builder.icmp_signed("<=", left, _I64(CHANNELS // 2))
            with self.builder.if_else(few) as (half, whole):
                with half:
                    some = first_lanes(self.builder, left, CHANNELS // 2)
                    self.registers(channel, some, CHANNELS // 2, points, places, inside)
                with whole:
                    self.registers(channel, lanes, CHANNELS, points, places, inside)

        over_channels(self.builder, self.builder.block, self.window.channels, CHANNELS, 1, body)

    def registers(self, channel, lanes, count: int, points: int, places, inside) -> None:
        """``count`` channels (``lanes``: some of them) of all ``points``.

        Weights and factors of 32 channels are those of the first half of each register.
        """
        builder, taps = self.builder, self.taps
        dots = count // 4
        sums_of, floats_of = ir.VectorType(_I32, dots), ir.VectorType(_F32, dots)
        bytes_of = ir.VectorType(_I8, count)
        offset = self.multiple(channel, 4)
        start = self.quarters(self.plus(self.stencil.start, offset), sums_of, count)
        first_weight = self.plus(
            self.weight, builder.mul(channel, self.multiple(self.groups, 4 * taps))
        )

        def group(weights, rows, *sums):
            """``sums`` plus what four rows of taps give."""
            lines = []
            for j in range(LINES):
                entry = builder.inttoptr(self.plus(rows, 16 * j), _I64.as_pointer())
                lines.append((builder.load(entry), builder.load(builder.gep(entry, [_I64(1)]))))
            results = list(sums)
            for c, place in enumerate(places):
                pixels = []
                for line, pixel in lines:
                    here = self.plus(line, builder.mul(place, pixel))
                    if inside is not None:
                        here = builder.select(inside[c], here, self.stencil.blank)
                    pixels.append(self.load(self.plus(here, channel), bytes_of, lanes))
                quads = _weave(builder, pixels, count)
                for p in range(points):
                    tap = c - p * self.stride
                    if not 0 <= tap < taps:
                        continue
                    for r in range(4):
                        weight = self.load(self.plus(weights, (tap * 4 + r) * count), sums_of)
                        results[4 * p + r] = dot_bytes(
                            builder, results[4 * p + r], quads[r], weight, dots
                        )
            return self.plus(weights, 4 * taps * count), self.plus(rows, 16 * LINES), *results

        state = [first_weight, self.rows, *start * points]
        sums = repeat(builder, self.groups, state, group)[2:]
        factors = self.quarters(self.plus(self.stencil.factor, offset), floats_of, count)
        shifts = self.quarters(self.plus(self.stencil.shift, offset), floats_of, count)
        most = ir.Constant(floats_of, [255.0] * dots)
        for p in range(points):
            numbers = []
            for r in range(4):
                value = builder.sitofp(sums[4 * p + r], floats_of)
                value = builder.fadd(builder.fmul(value, factors[r]), shifts[r])
                small = builder.fcmp_ordered("<", value, most)
                numbers.append(_to_int(builder, builder.select(small, value, most), dots))
            result = _pack(builder, numbers, count)
            place = self.plus(self.plus(self.out, self.multiple(self.out_pixel, p)), channel)
            if lanes is None:
                builder.store(result, builder.inttoptr(place, bytes_of.as_pointer()), align=1)
            else:
                masked_store(builder, place, result, lanes)


def _block_of(taps: int, stride: int):
    """A function that makes one block of neighbouring results of a row, over all channels."""

    @intrinsic
    def block(
        typingctx,
        points,  # one of BLOCKS
        at_edge,  # whether some of the columns may lie outside the image
        rows,  # for each row of taps the address of its pixel in column 0, and bytes to the next
        groups,  # of four rows of taps
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
            choose_block(builder, points, at_edge, BLOCKS, _Block(builder, taps, stride, rest).make)
            return context.get_dummy_value()

        numbers = [types.int64] * 6
        signature = types.void(types.int64, types.boolean, *numbers, window, stencil, like)
        return signature, codegen

    return block


def _weave(builder, rows, count: int):
    """Four registers of bytes as four registers of the four bytes of each channel."""

    def unpack(a, b, shape, size, high):
        per = 16 // size  # elements of 128 bits
        lanes = count // 16
        order = []
        for lane in range(lanes):
            for i in range(per // 2):
                place = lane * per + i + (per // 2 if high else 0)
                order += [place, place + lanes * per]
        mask = ir.Constant(ir.VectorType(_I32, len(order)), order)
        return builder.shuffle_vector(builder.bitcast(a, shape), builder.bitcast(b, shape), mask)

    bytes_of, words_of = ir.VectorType(_I8, count), ir.VectorType(_I16, count // 2)
    dots_of = ir.VectorType(_I32, count // 4)
    quads = []
    for high in (False, True):
        one = unpack(rows[0], rows[1], bytes_of, 1, high)
        two = unpack(rows[2], rows[3], bytes_of, 1, high)
        for upper in (False, True):
            quads.append(builder.bitcast(unpack(one, two, words_of, 2, upper), dots_of))
    return quads


def _to_int(builder, value, lanes: int):
    """The nearest whole numbers, half to even; what is too large to an int32 becomes -2³¹."""
    whole = ir.VectorType(_I32, lanes)
    if lanes == 8:
        return call(builder, "llvm.x86.avx.cvt.ps2dq.256", whole, [value])
    zero = ir.Constant(whole, [0] * lanes)
    arguments = [value, zero, ir.IntType(16)(-1), _I32(4)]
    return call(builder, "llvm.x86.avx512.mask.cvtps2dq.512", whole, arguments)


def _pack(builder, wholes, count: int):
    """Four registers of int32 as one of uint8, each kept within 0 … 255."""
    words_of, bytes_of = ir.VectorType(_I16, count // 2), ir.VectorType(_I8, count)
    if count == 64:
        words, whole = "llvm.x86.avx512.packssdw.512", "llvm.x86.avx512.packuswb.512"
    else:
        words, whole = "llvm.x86.avx2.packssdw", "llvm.x86.avx2.packuswb"
    low = call(builder, words, words_of, wholes[:2])
    high = call(builder, words, words_of, wholes[2:])
    return call(builder, whole, bytes_of, [low, high])


@device
def _taps_of(y, image, window, stencil, scratch, like):
    """Notes in ``scratch`` where the rows of taps of result row ``y`` lie.

    They are filled up to a multiple of four by rows of the one pixel ``blank``, as are those that
    lie outside the image. Returns (scratch, groups of four rows, weight).
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
ROWS = {
    shape: rows_of(_taps_of, _block_of(*shape), _points_of_block, _finish, "int8", *shape)
    for shape in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))
}


def scratch_bytes(window: Window) -> int:
    """Memory that each thread needs, to note where its rows of taps lie."""
    return 16 * LINES * -(-window.y.taps // LINES)
