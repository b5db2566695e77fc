"""The gradient of the depthwise stencil's weights: the gather again, summed over the points."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.gathers.stencil import over_channels
from pointwise.engine.cpu.launch import device_of
from pointwise.engine.cpu.vector import (
    bytes_of,
    call,
    masked_load,
    masked_store,
    splat,
    vector_of,
)


def stencil_gradient(points: int, taps: int, step: int, edge: bool):
    """Adds to the weights' gradient of one row of taps what ``points`` neighbouring results give.

    For every channel and tap t: Σ_p x[p·step + t]·grad[p]. Arguments as of ``stencil``, where
    ``total [taps, channels]`` takes the place of the weight.
    """

    @intrinsic
    def run(typingctx, x, pixel, grad, grad_pixel, total, total_tap, channels, first, width,
            geometry, like):  # fmt: skip
        vector = vector_of(like)
        size = vector.dtype.bitwidth // 8
        count = vector.count

        def codegen(context, builder, signature, arguments):
            x, pixel, grad, grad_pixel, total, total_tap, channels, first, width, geometry = (
                arguments[:10]
            )
            i64 = ir.IntType(64)
            scalar = ir.FloatType() if size == 4 else ir.DoubleType()
            shape = ir.VectorType(scalar, count)
            entry = builder.block
            wide, stride, spread = (builder.extract_value(geometry, i) for i in range(3))

            def loaded(address, mask):
                if mask is not None:
                    return masked_load(builder, address, mask, shape)
                return builder.load(builder.inttoptr(address, shape.as_pointer()), align=size)

            def stored(address, value, mask):
                if mask is not None:
                    return masked_store(builder, address, value, mask)
                pointer = builder.inttoptr(address, shape.as_pointer())
                return builder.store(value, pointer, align=size)

            def within(column):
                if not edge:
                    return None
                return builder.icmp_unsigned("<", builder.add(first, column), width)

            def both(lanes, inside):
                if inside is None:
                    return lanes
                everywhere = splat(builder, inside, count)
                return everywhere if lanes is None else builder.and_(lanes, everywhere)

            def add_product(sum_, a, b):
                return call(builder, f"llvm.fma.v{count}f{size * 8}", shape, [a, b, sum_])

            columns = [] if taps == 0 else list(range((points - 1) * step + taps))
            inside = {c: within(i64(c)) for c in columns}

            def body(channel, lanes):
                here, above = builder.add(x, channel), builder.add(grad, channel)
                slopes = [
                    loaded(builder.add(above, builder.mul(i64(p), grad_pixel)), lanes)
                    for p in range(points)
                ]
                sums = builder.add(total, channel)
                if taps == 0:
                    return general(here, slopes, sums, lanes)
                results = [
                    loaded(builder.add(sums, builder.mul(i64(t), total_tap)), lanes)
                    for t in range(taps)
                ]
                for c in columns:
                    address = builder.add(here, builder.mul(i64(c), pixel))
                    value = loaded(address, both(lanes, inside[c]))
                    for t in range(taps):
                        p, apart = divmod(c - t, step)
                        if apart == 0 and 0 <= p < points:
                            results[t] = add_product(results[t], value, slopes[p])
                for t in range(taps):
                    stored(builder.add(sums, builder.mul(i64(t), total_tap)), results[t], lanes)

            def general(here, slopes, sums, lanes):
                block = builder.block
                loop = builder.append_basic_block("tap")
                done = builder.append_basic_block("taps_done")
                builder.branch(loop)
                builder.position_at_end(loop)
                t = builder.phi(i64)
                t.add_incoming(i64(0), block)
                place = builder.add(sums, builder.mul(t, total_tap))
                result = loaded(place, lanes)
                for p in range(points):
                    column = builder.add(builder.mul(i64(p), stride), builder.mul(t, spread))
                    address = builder.add(here, builder.mul(column, pixel))
                    value = loaded(address, both(lanes, within(column)))
                    result = add_product(result, value, slopes[p])
                stored(place, result, lanes)
                after = builder.add(t, i64(1))
                t.add_incoming(after, loop)
                builder.cbranch(builder.icmp_signed("<", after, wide), loop, done)
                builder.position_at_end(done)

            over_channels(builder, entry, channels, count, size, body)
            return context.get_dummy_value()

        numbers = [types.int64] * 9
        return types.void(*numbers, types.UniTuple(types.int64, 3), like), codegen

    return run


def rows_gradient_of(taps: int, step: int):
    """A function that adds what rows of results give to the gradient of the taps."""
    eight, eight_edge = (
        stencil_gradient(8, taps, step, False),
        stencil_gradient(8, taps, step, True),
    )
    seven, seven_edge = (
        stencil_gradient(7, taps, step, False),
        stencil_gradient(7, taps, step, True),
    )
    one_edge = stencil_gradient(1, taps, step, True)

    @device_of(taps, step)
    def row(x, pixel, grad, grad_pixel, total, total_tap, channels, origin, width, points, step,
            wide, spread, like):  # fmt: skip
        geometry = (wide, step, spread)
        p = 0
        while p < points:
            left = points - p
            block = 1
            if left >= 8 and left != 14 and left != 7:
                block = 8
            elif left >= 7:
                block = 7
            first = origin + p * step
            here = x + first * pixel
            above = grad + p * grad_pixel
            last = first + (block - 1) * step + (wide - 1) * spread
            edge = first < 0 or last >= width
            if block == 8:
                if edge:
                    eight_edge(here, pixel, above, grad_pixel, total, total_tap, channels, first,
                               width, geometry, like)  # fmt: skip
                else:
                    eight(here, pixel, above, grad_pixel, total, total_tap, channels, first, width,
                          geometry, like)  # fmt: skip
            elif block == 7:
                if edge:
                    seven_edge(here, pixel, above, grad_pixel, total, total_tap, channels, first,
                               width, geometry, like)  # fmt: skip
                else:
                    seven(here, pixel, above, grad_pixel, total, total_tap, channels, first, width,
                          geometry, like)  # fmt: skip
            else:
                one_edge(here, pixel, above, grad_pixel, total, total_tap, channels, first, width,
                         geometry, like)  # fmt: skip
            p += block

    @device_of(taps, step)
    def add(total, grad, first, rows, image, pixel, channels, height, width,
                            points, step_y, step_x, taps_y, taps_x, origin_y, origin_x, spread_y,
                            spread_x, like):  # fmt: skip
        """Adds what rows ``first … first + rows`` of one image's results give to ``total``.

        ``total`` is ``[taps, channels]``.
        """
        tap = channels * bytes_of(like)
        for y in range(first, first + rows):
            top = y * step_y + origin_y
            begin = max(0, -(top // spread_y))
            end = min(taps_y, (height - 1 - top) // spread_y + 1)
            for j in range(begin, end):
                row(image + (top + j * spread_y) * width * pixel, pixel,
                    grad + (y - first) * points * tap, tap, total + j * taps_x * tap, tap, channels,
                    origin_x, width, points, step_x, taps_x, spread_x, like)  # fmt: skip

    return add


GRADIENT_ROWS = {
    shape: rows_gradient_of(*shape) for shape in ((3, 1), (3, 2), (5, 1), (5, 2), (0, 0))
}
