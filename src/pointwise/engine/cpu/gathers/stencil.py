"""The depthwise gather on an image: a stencil, each channel with weights of its own.

The inner function is LLVM: some neighbouring points of a row at once, so that each pixel is loaded
once for all the points and taps that read it, one register of channels after the other.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import activate
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.flow import repeat
from pointwise.engine.cpu.gathers.stencil_rows import (
    choose_block,
    entries_of,
    over_channels,
    rows_of,
)
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    Vector,
    clamp,
    load_lanes,
    multiply_add,
    splat,
    store_lanes,
    vector_of,
)
from pointwise.engine.cpu.window import WINDOW

STENCIL = Layout("Stencil", "*weight *bias tap low:real high:real activation")
"""``weight [taps_y, taps_x, C]``, whose taps lie ``tap`` bytes apart, ``bias [C]``; results are
kept within ``low … high``, then comes the function ``activation``."""

_Stencil = STENCIL.tuple


@device
def from_channel(stencil, offset):
    """The stencil of the channels from ``offset`` bytes on."""
    return _Stencil(stencil.weight + offset, stencil.bias + offset, stencil.tap, stencil.low,
                    stencil.high, stencil.activation)  # fmt: skip


BLOCKS = (8, 7, 4, 1)
"""Points that are made at once."""


class _Block:
    """The LLVM of a block of points, for kernels ``taps`` wide, ``stride`` apart, dilation 1.

    ``taps=0`` makes the general form, which takes all three from the window when it runs.
    """

    def __init__(self, builder, vector: Vector, taps: int, stride: int, arguments) -> None:
        self.builder, self.taps, self.stride = builder, taps, stride
        self.x, self.lines, self.weight, self.first, self.out, self.out_pixel = arguments[:6]
        self.window = entries_of(builder, arguments[6], WINDOW)
        self.stencil = entries_of(builder, arguments[7], STENCIL)
        self.count, self.size = vector.count, vector.dtype.bitwidth // 8
        self.scalar = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.shape = ir.VectorType(self.scalar, self.count)
        self.low, self.high = (
            builder.fptrunc(bound, self.scalar) if self.size == 4 else bound
            for bound in (self.stencil.low, self.stencil.high)
        )
        pitch = self.multiple(self.window.width, self.window.pixel)
        self.next_line = self.multiple(self.window.dilation_y, pitch)
        self.tap = self.stencil.tap
        self.tap_line = self.multiple(self.window.taps_x, self.tap)

    # --- numbers and registers ---

    def plus(self, a, b):
        return self.builder.add(a, b)

    def multiple(self, a, b):
        a, b = (ir.IntType(64)(x) if isinstance(x, int) else x for x in (a, b))
        return self.builder.mul(a, b)

    def load(self, address, lanes):
        return load_lanes(self.builder, address, lanes, self.shape)

    def fma(self, a, b, c):
        return multiply_add(self.builder, a, b, c)

    def is_inside(self, column):
        """Whether a column, counted from the first, lies in the image."""
        return self.builder.icmp_unsigned("<", self.plus(self.first, column), self.window.width)

    def both(self, lanes, inside):
        """The lanes that are read: all (None), or none of a pixel that is not ``inside``."""
        if inside is None:
            return lanes
        everywhere = splat(self.builder, inside, self.count)
        return everywhere if lanes is None else self.builder.and_(lanes, everywhere)

    # --- the sums ---

    def make(self, points: int, edge: bool) -> None:
        """``points`` results over all channels; with ``edge``, pixels outside the image are zero.

        They are not touched.
        """
        columns = range((points - 1) * self.stride + self.taps) if self.taps else ()
        # Whether each column that is read lies in the image, once for all channels.
        inside = {c: self.is_inside(ir.IntType(64)(c)) if edge else None for c in columns}

        def body(channel, lanes) -> None:
            def line(x, weight, *sums):
                if self.taps:
                    results = self.add_line(x, weight, sums, lanes, inside)
                else:
                    results = self.add_any_line(x, weight, sums, lanes, edge)
                return self.plus(x, self.next_line), self.plus(weight, self.tap_line), *results

            begin = self.plus(self.x, self.multiple(self.first, self.window.pixel))
            places = [self.plus(place, channel) for place in (begin, self.weight)]
            bias = self.load(self.plus(self.stencil.bias, channel), lanes)
            results = repeat(self.builder, self.lines, [*places, *[bias] * points], line)[2:]
            for p, result in enumerate(results):
                result = clamp(self.builder, result, self.low, self.high, self.count)
                place = self.plus(self.out, self.multiple(p, self.out_pixel))
                store_lanes(self.builder, self.plus(place, channel), result, lanes)

        over_channels(self.builder, self.builder.block, self.window.channels, self.count, self.size,
                      body)  # fmt: skip

    def add_line(self, x, weight, sums, lanes, inside) -> list:
        """``sums`` plus what one row of taps gives, each column loaded once."""
        weights = [
            self.load(self.plus(weight, self.multiple(t, self.tap)), lanes)
            for t in range(self.taps)
        ]
        results = list(sums)
        for c in inside:
            place = self.plus(x, self.multiple(c, self.window.pixel))
            value = self.load(place, self.both(lanes, inside[c]))
            for p, result in enumerate(results):
                tap = c - p * self.stride
                if 0 <= tap < self.taps:
                    results[p] = self.fma(value, weights[tap], result)
        return results

    def add_any_line(self, x, weight, sums, lanes, edge: bool) -> list:
        """The same for any number of taps, with any stride and dilation."""
        window = self.window

        def tap(offset, weight, *sums):
            value = self.load(weight, lanes)
            results = []
            for p, sum_ in enumerate(sums):
                column = self.plus(self.multiple(p, window.stride_x), offset)
                mask = self.both(lanes, self.is_inside(column) if edge else None)
                pixel = self.load(self.plus(x, self.multiple(column, window.pixel)), mask)
                results.append(self.fma(pixel, value, sum_))
            return self.plus(offset, window.dilation_x), self.plus(weight, self.tap), *results

        return repeat(self.builder, window.taps_x, [ir.IntType(64)(0), weight, *sums], tap)[2:]


def block_of(taps: int, stride: int):
    """A function that makes one block of neighbouring results of a row, over all channels.

    For kernels ``taps`` wide with this ``stride`` and dilation 1; (0, 0) is for any other.
    """

    @intrinsic
    def block(
        typingctx,
        points,  # one of BLOCKS
        at_edge,  # whether some of the columns may lie outside the image
        x,  # the pixel in column 0 that the first row of taps reads
        lines,  # rows of taps
        weight,  # of the first row of taps
        first,  # the column of the first tap of the first point, inside the image or not
        out,
        out_pixel,  # bytes from point to point
        window,
        stencil,
        like,
    ):
        vector = vector_of(like)

        def codegen(context, builder, signature, arguments):
            points, at_edge, *rest = arguments
            block = _Block(builder, vector, taps, stride, rest)
            choose_block(builder, points, at_edge, BLOCKS, block.make)
            return context.get_dummy_value()

        numbers = [types.int64] * 6
        signature = types.void(types.int64, types.boolean, *numbers, window, stencil, like)
        return signature, codegen

    return block


@device
def _taps_of(y, image, window, stencil, scratch, like):
    """(first pixel, rows, weight) of the rows of taps that lie in the image, for result row y."""
    top = y * window.stride_y - window.padding_y
    # top + j·dilation within 0 … height.
    begin = max(0, -(top // window.dilation_y))
    end = min(window.taps_y, (window.height - 1 - top) // window.dilation_y + 1)
    x = image + (top + begin * window.dilation_y) * window.width * window.pixel
    weight = stencil.weight + begin * window.taps_x * stencil.tap
    return x, end - begin, weight


@device
def _points_of_block(points):
    """How many points at once: what computes the fewest of them twice."""
    if points < 4:
        return 1
    best, least = 4, -(-points // 4) * 4 + points // 8  # small blocks load more
    for block in (7, 8):
        if points >= block and -(-points // block) * block <= least:
            best, least = block, -(-points // block) * block
    return best


@device
def _finish(out, out_pixel, count, window, stencil, like):
    """Applies the activation, if there is one; then points have to follow one another."""
    activate(stencil.activation, out, out_pixel, count, window.channels)


# The shapes that networks use have rows of their own; (0, 0) is any other.
ROWS = {
    shape: rows_of(_taps_of, block_of(*shape), _points_of_block, _finish, *shape)
    for shape in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (0, 0))
}


def scratch_bytes(window: Window) -> int:
    """Memory that each thread needs: none."""
    return 0
