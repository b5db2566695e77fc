"""The gradient of the depthwise stencil's weights: the gather again, summed over the points."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.gathers.stencil import over_channels
from pointwise.engine.cpu.vector import (
    bytes_of,
    load_lanes,
    multiply_add,
    splat,
    store_lanes,
    vector_of,
)
from pointwise.engine.cpu.window import WINDOW


def stencil_gradient(points: int, taps: int, stride: int, edge: bool):
    """Adds to the weights' gradient of one row of taps what ``points`` neighbouring results give.

    For every channel and tap t: Σ_p x[p·stride + t]·grad[p], for kernels ``taps`` wide with this
    stride and dilation 1. ``taps=0`` makes the general form, which reads all three from the window.
    With ``edge``, pixels outside the image are zero and not touched.
    """

    @intrinsic
    def run(
        typingctx,
        x,  # address of the first tap's pixel for the first point, inside the image or not
        column,  # where that is in its row
        grad,  # of the first point
        total,  # [taps, channels], added to
        window,
        like,
    ):
        vector = vector_of(like)
        size = vector.dtype.bitwidth // 8
        count = vector.count

        def codegen(context, builder, signature, arguments):
            x, column, grad, total = arguments[:4]
            window = WINDOW.tuple(*unpack_tuple(builder, arguments[4]))
            i64 = ir.IntType(64)
            scalar = ir.FloatType() if size == 4 else ir.DoubleType()
            shape = ir.VectorType(scalar, count)
            entry = builder.block
            tap = builder.mul(window.channels, i64(size))  # bytes, as from point to point

            def loaded(address, mask):
                return load_lanes(builder, address, mask, shape)

            def within(offset):
                if not edge:
                    return None
                return builder.icmp_unsigned("<", builder.add(column, offset), window.width)

            def both(lanes, inside):
                if inside is None:
                    return lanes
                everywhere = splat(builder, inside, count)
                return everywhere if lanes is None else builder.and_(lanes, everywhere)

            def add_product(sum_, a, b):
                return multiply_add(builder, a, b, sum_)

            columns = [] if taps == 0 else list(range((points - 1) * stride + taps))
            inside = {c: within(i64(c)) for c in columns}

            def body(channel, lanes):
                here, above = builder.add(x, channel), builder.add(grad, channel)
                slopes = [
                    loaded(builder.add(above, builder.mul(i64(p), tap)), lanes)
                    for p in range(points)
                ]
                sums = builder.add(total, channel)
                if taps == 0:
                    return general(here, slopes, sums, lanes)
                results = [
                    loaded(builder.add(sums, builder.mul(i64(t), tap)), lanes) for t in range(taps)
                ]
                for c in columns:
                    address = builder.add(here, builder.mul(i64(c), window.pixel))
                    value = loaded(address, both(lanes, inside[c]))
                    for t in range(taps):
                        p, rest = divmod(c - t, stride)
                        if rest == 0 and 0 <= p < points:
                            results[t] = add_product(results[t], value, slopes[p])
                for t in range(taps):
                    store_lanes(
                        builder, builder.add(sums, builder.mul(i64(t), tap)), results[t], lanes
                    )

            def general(here, slopes, sums, lanes):
                block = builder.block
                loop = builder.append_basic_block("tap")
                done = builder.append_basic_block("taps_done")
                builder.branch(loop)
                builder.position_at_end(loop)
                t = builder.phi(i64)
                t.add_incoming(i64(0), block)
                place = builder.add(sums, builder.mul(t, tap))
                result = loaded(place, lanes)
                for p in range(points):
                    offset = builder.add(
                        builder.mul(i64(p), window.stride_x), builder.mul(t, window.dilation_x)
                    )
                    address = builder.add(here, builder.mul(offset, window.pixel))
                    value = loaded(address, both(lanes, within(offset)))
                    result = add_product(result, value, slopes[p])
                store_lanes(builder, place, result, lanes)
                after = builder.add(t, i64(1))
                t.add_incoming(after, loop)
                builder.cbranch(builder.icmp_signed("<", after, window.taps_x), loop, done)
                builder.position_at_end(done)

            over_channels(builder, entry, window.channels, count, size, body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4, window, like), codegen

    return run


def rows_gradient_of(taps: int, stride: int):
    """A function that adds what rows of results give to the gradient of the taps."""
    eight = stencil_gradient(8, taps, stride, False)
    eight_edge = stencil_gradient(8, taps, stride, True)
    seven = stencil_gradient(7, taps, stride, False)
    seven_edge = stencil_gradient(7, taps, stride, True)
    one_edge = stencil_gradient(1, taps, stride, True)

    @device_of(taps, stride)
    def row(x, grad, total, window, like):
        """A row of results, for the row of pixels at ``x`` that a row of taps reads."""
        point = window.channels * bytes_of(like)
        p = 0
        while p < window.points:
            left = window.points - p
            block = 1
            if left >= 8 and left != 14 and left != 7:
                block = 8
            elif left >= 7:
                block = 7
            first = p * window.stride_x - window.padding_x
            last = first + (block - 1) * window.stride_x + (window.taps_x - 1) * window.dilation_x
            edge = first < 0 or last >= window.width
            here, above = x + first * window.pixel, grad + p * point
            if block == 8:
                if edge:
                    eight_edge(here, first, above, total, window, like)
                else:
                    eight(here, first, above, total, window, like)
            elif block == 7:
                if edge:
                    seven_edge(here, first, above, total, window, like)
                else:
                    seven(here, first, above, total, window, like)
            else:
                one_edge(here, first, above, total, window, like)
            p += block

    @device_of(taps, stride)
    def add(total, grad, first, rows, image, window, like):
        """Adds what rows ``first … first + rows`` of one image's results give to ``total``.

        ``total`` is ``[taps, channels]``, ``grad`` the gradient of the first of the rows.
        """
        tap = window.channels * bytes_of(like)
        line = window.width * window.pixel
        for y in range(first, first + rows):
            top = y * window.stride_y - window.padding_y
            # The taps whose row lies in the image: top + j·dilation within 0 … height.
            begin = max(0, -(top // window.dilation_y))
            end = min(window.taps_y, (window.height - 1 - top) // window.dilation_y + 1)
            above = grad + (y - first) * window.points * tap
            for j in range(begin, end):
                x = image + (top + j * window.dilation_y) * line
                row(x, above, total + j * window.taps_x * tap, window, like)

    return add


GRADIENT_ROWS = {
    shape: rows_gradient_of(*shape) for shape in ((3, 1), (3, 2), (5, 1), (5, 2), (0, 0))
}
"""By (taps, stride); (0, 0) is any other."""
