"""The depthwise gather on an image: a stencil, each channel with weights of its own.

``stencil`` makes the inner function through LLVM: some neighbouring points of a row at once, so
that each pixel is loaded once for all the points and taps that read it, one register of channels
after the other.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.launch import device, device_of
from pointwise.engine.cpu.vector import (
    call,
    clamp,
    first_lanes,
    masked_load,
    masked_store,
    splat,
    vector_of,
)


def stencil(points: int, taps: int, step: int, edge: bool):
    """``points`` neighbouring results of one row, over all channels.

    For kernels ``taps`` wide with ``step`` pixels from result to result and spread 1. ``taps=0``
    makes the general form, which is told taps, step and spread when it runs. With ``edge``, pixels
    outside ``0 … width`` are zero and not touched.
    """

    @intrinsic
    def run(
        typingctx,
        x,  # address of the first tap's pixel for the first point, inside the image or not
        pixel,  # bytes from pixel to pixel
        line,  # bytes from one row of taps to the next
        lines,  # rows of taps
        weight,  # [lines, taps, channels] of the first row of taps
        weight_tap,  # bytes from tap to tap
        weight_line,  # bytes from one row of taps to the next
        bias,  # [channels]
        low,  # results are kept within low … high
        high,
        out,
        out_pixel,  # bytes from point to point
        channels,
        first,  # the column of x
        width,
        geometry,  # general form: a UniTuple(int64, 3) of taps, step, spread
        like,
    ):
        vector = vector_of(like)
        size = vector.dtype.bitwidth // 8
        count = vector.count

        def codegen(context, builder, signature, arguments):
            (x, pixel, line, lines, weight, weight_tap, weight_line, bias, low, high, out) = (
                arguments[:11]
            )
            out_pixel, channels, first, width, geometry = arguments[11:16]
            i64 = ir.IntType(64)
            scalar = ir.FloatType() if size == 4 else ir.DoubleType()
            shape = ir.VectorType(scalar, count)
            general = taps == 0
            entry = builder.block
            if general:
                wide, stride, spread = (builder.extract_value(geometry, i) for i in range(3))

            def masked(address, mask):
                return masked_load(builder, address, mask, shape)

            def loaded(address, mask):
                if mask is not None:
                    return masked(address, mask)
                return builder.load(builder.inttoptr(address, shape.as_pointer()), align=size)

            def within(column):
                return builder.icmp_unsigned("<", column, width)

            def both(lanes, inside):
                if inside is None:
                    return lanes
                everywhere = splat(builder, inside, count)
                return everywhere if lanes is None else builder.and_(lanes, everywhere)

            # Whether each column that is read lies in the image, once for all channels.
            columns = [] if general else list(range((points - 1) * step + taps))
            inside = {c: within(builder.add(first, i64(c))) if edge else None for c in columns}

            def body(channel, lanes):
                """All ``points`` for one register of channels (``lanes``: the last, in part)."""
                here, weights = builder.add(x, channel), builder.add(weight, channel)
                start = loaded(builder.add(bias, channel), lanes)
                block = builder.block
                loop = builder.append_basic_block("line")
                done = builder.append_basic_block("lines_done")
                builder.cbranch(builder.icmp_signed(">", lines, i64(0)), loop, done)
                builder.position_at_end(loop)
                j = builder.phi(i64)
                j.add_incoming(i64(0), block)
                x_line = builder.phi(i64)
                x_line.add_incoming(here, block)
                w_line = builder.phi(i64)
                w_line.add_incoming(weights, block)
                sums = []
                for _ in range(points):
                    total = builder.phi(shape)
                    total.add_incoming(start, block)
                    sums.append(total)
                if general:
                    results = general_line(x_line, w_line, sums, lanes)
                else:
                    results = line_of(x_line, w_line, sums, lanes)
                end = builder.block
                after = builder.add(j, i64(1))
                j.add_incoming(after, end)
                x_line.add_incoming(builder.add(x_line, line), end)
                w_line.add_incoming(builder.add(w_line, weight_line), end)
                for total, result in zip(sums, results, strict=True):
                    total.add_incoming(result, end)
                builder.cbranch(builder.icmp_signed("<", after, lines), loop, done)
                builder.position_at_end(done)
                for p in range(points):
                    final = builder.phi(shape)
                    final.add_incoming(start, block)
                    final.add_incoming(results[p], end)
                    results[p] = final
                for p in range(points):
                    kept = clamp(builder, results[p], low, high, count)
                    where = builder.add(builder.add(out, builder.mul(i64(p), out_pixel)), channel)
                    if lanes is None:
                        pointer = builder.inttoptr(where, shape.as_pointer())
                        builder.store(kept, pointer, align=size)
                    else:
                        masked_store(builder, where, kept, lanes)

            def add_product(sum_, a, b):
                return call(builder, f"llvm.fma.v{count}f{size * 8}", shape, [a, b, sum_])

            def line_of(x_line, w_line, sums, lanes):
                weights = [
                    loaded(builder.add(w_line, builder.mul(i64(t), weight_tap)), lanes)
                    for t in range(taps)
                ]
                results = list(sums)
                for c in columns:
                    address = builder.add(x_line, builder.mul(i64(c), pixel))
                    value = loaded(address, both(lanes, inside[c]))
                    for p in range(points):
                        if 0 <= c - p * step < taps:
                            results[p] = add_product(results[p], value, weights[c - p * step])
                return results

            def general_line(x_line, w_line, sums, lanes):
                block = builder.block
                loop = builder.append_basic_block("tap")
                done = builder.append_basic_block("taps_done")
                builder.branch(loop)  # there is at least one tap
                builder.position_at_end(loop)
                t = builder.phi(i64)
                t.add_incoming(i64(0), block)
                totals = []
                for given in sums:
                    total = builder.phi(shape)
                    total.add_incoming(given, block)
                    totals.append(total)
                value = loaded(builder.add(w_line, builder.mul(t, weight_tap)), lanes)
                results = []
                for p in range(points):
                    column = builder.add(builder.mul(i64(p), stride), builder.mul(t, spread))
                    mask = both(lanes, within(builder.add(first, column)) if edge else None)
                    address = builder.add(x_line, builder.mul(column, pixel))
                    results.append(add_product(totals[p], loaded(address, mask), value))
                after = builder.add(t, i64(1))
                t.add_incoming(after, loop)
                for total, result in zip(totals, results, strict=True):
                    total.add_incoming(result, loop)
                builder.cbranch(builder.icmp_signed("<", after, wide), loop, done)
                builder.position_at_end(done)
                return results

            over_channels(builder, entry, channels, count, size, body)
            return context.get_dummy_value()

        numbers = [types.int64] * 8 + [like, like] + [types.int64] * 5
        return types.void(*numbers, types.UniTuple(types.int64, 3), like), codegen

    return run


def over_channels(builder, entry, channels, count: int, size: int, body) -> None:
    """``body(offset, lanes)`` for whole registers of channels (lanes None), then for the rest."""
    i64 = ir.IntType(64)
    whole = builder.mul(builder.sdiv(channels, i64(count)), i64(count * size))
    left = builder.srem(channels, i64(count))
    loop = builder.append_basic_block("channels")
    rest = builder.append_basic_block("rest")
    builder.cbranch(builder.icmp_signed(">", whole, i64(0)), loop, rest)
    builder.position_at_end(loop)
    channel = builder.phi(i64)
    channel.add_incoming(i64(0), entry)
    body(channel, None)
    after = builder.add(channel, i64(count * size))
    channel.add_incoming(after, builder.block)
    builder.cbranch(builder.icmp_signed("<", after, whole), loop, rest)
    builder.position_at_end(rest)
    with builder.if_then(builder.icmp_signed(">", left, i64(0))):
        body(whole, first_lanes(builder, left, count))


def rows_of(taps: int, step: int):
    """A function that makes rows of results, for kernels ``taps`` wide with this step.

    The row is cut into blocks of 8, 7 or 4 points, whichever fits it best; the last block begins
    early enough to end with the row, and makes some results a second time.
    """
    eight, eight_edge = stencil(8, taps, step, False), stencil(8, taps, step, True)
    seven, seven_edge = stencil(7, taps, step, False), stencil(7, taps, step, True)
    four, four_edge = stencil(4, taps, step, False), stencil(4, taps, step, True)
    one_edge = stencil(1, taps, step, True)

    @device_of(taps, step)
    def row(x, pixel, line, lines, weight, weight_tap, weight_line, bias, low, high, out,
            out_pixel, channels, origin, width, points, step, wide, spread, like):  # fmt: skip
        geometry = (wide, step, spread)
        block = _block(points)
        p = 0
        while p < points:
            p = min(p, max(0, points - block))
            first = origin + p * step
            here = x + first * pixel
            place = out + p * out_pixel
            last = first + (block - 1) * step + (wide - 1) * spread
            edge = first < 0 or last >= width
            if block == 8:
                if edge:
                    eight_edge(here, pixel, line, lines, weight, weight_tap, weight_line, bias, low,
                               high, place, out_pixel, channels, first, width, geometry,
                               like)  # fmt: skip
                else:
                    eight(here, pixel, line, lines, weight, weight_tap, weight_line, bias, low,
                          high, place, out_pixel, channels, first, width, geometry,
                          like)  # fmt: skip
            elif block == 7:
                if edge:
                    seven_edge(here, pixel, line, lines, weight, weight_tap, weight_line, bias, low,
                               high, place, out_pixel, channels, first, width, geometry,
                               like)  # fmt: skip
                else:
                    seven(here, pixel, line, lines, weight, weight_tap, weight_line, bias, low,
                          high, place, out_pixel, channels, first, width, geometry,
                          like)  # fmt: skip
            elif block == 4:
                if edge:
                    four_edge(here, pixel, line, lines, weight, weight_tap, weight_line, bias, low,
                              high, place, out_pixel, channels, first, width, geometry,
                              like)  # fmt: skip
                else:
                    four(here, pixel, line, lines, weight, weight_tap, weight_line, bias, low,
                         high, place, out_pixel, channels, first, width, geometry,
                         like)  # fmt: skip
            else:
                one_edge(here, pixel, line, lines, weight, weight_tap, weight_line, bias, low,
                         high, place, out_pixel, channels, first, width, geometry,
                         like)  # fmt: skip
            p += block

    @device_of(taps, step)
    def fill(out, out_pixel, out_line, first, rows, image, pixel, channels, height, width, points,
             step_y, step_x, taps_y, taps_x, origin_y, origin_x, spread_y, spread_x, weight,
             weight_tap, bias, low, high, like):  # fmt: skip
        """Rows ``first … first + rows`` of one image's results."""
        line = width * pixel
        for y in range(first, first + rows):
            top = y * step_y + origin_y
            # The taps whose row lies in the image: top + j·spread within 0 … height.
            begin = max(0, -(top // spread_y))
            end = min(taps_y, (height - 1 - top) // spread_y + 1)
            row(image + (top + begin * spread_y) * line, pixel, spread_y * line, end - begin,
                weight + begin * taps_x * weight_tap, weight_tap, taps_x * weight_tap, bias, low,
                high, out + (y - first) * out_line, out_pixel, channels, origin_x, width, points,
                step_x, taps_x, spread_x, like)  # fmt: skip

    return fill


@device
def _block(points):
    """How many points at once: what computes the fewest of them twice."""
    if points < 4:
        return 1
    best, least = 4, -(-points // 4) * 4 + points // 8  # small blocks load more
    for block in (7, 8):
        if points >= block and -(-points // block) * block <= least:
            best, least = block, -(-points // block) * block
    return best


# The shapes that networks use have rows of their own; (0, 0) is any other.
ROWS = {shape: rows_of(*shape) for shape in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (0, 0))}
