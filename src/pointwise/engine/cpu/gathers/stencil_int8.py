"""The depthwise gather on an image of bytes: a stencil, each channel with int8 weights of its own.

Four rows of taps at a time: the bytes of four pixels above one another are woven together, so that
one instruction multiplies and adds four taps of a channel. What is woven serves all points of the
row that read it. Weaving mixes up channels within a register, and packing the sums into bytes puts
them back; factors and weights are stored in the order that lies between.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.gemm_int8 import dot_bytes
from pointwise.engine.cpu.launch import device_of
from pointwise.engine.cpu.vector import call, first_lanes, masked_load, masked_store, poke

_I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
_F32 = ir.FloatType()
LINES = 4  # rows of taps that are multiplied at once
CHANNELS = 64  # in the order of a whole register, channels are stored


def woven(count: int = CHANNELS) -> list[int]:
    """Which channel of ``count`` stands at each place after weaving: register by register."""
    lanes = count // 16  # of 128 bits
    return [16 * lane + 4 * r + i for r in range(4) for lane in range(lanes) for i in range(4)]


def stencil(points: int, taps: int, step: int, edge: bool):
    """``points`` neighbouring results of one row, over all channels, as uint8.

    ``table`` has, for each of ``4·groups`` rows of taps, the address of the pixel in column 0 of
    that row and the bytes from pixel to pixel. ``weight [C/64, groups, taps, 4, 16, 4]``; ``start``
    (int32), ``factor`` and ``shift`` (float32) ``[C/64, 4, 16]``, in the order of ``woven``. With
    ``edge``, columns outside ``0 … width`` are read from ``blank``.
    """

    @intrinsic
    def run(typingctx, table, groups, weight, start, factor, shift, out, out_pixel, channels, first,
            width, blank):  # fmt: skip
        def codegen(context, builder, signature, arguments):
            table, groups, weight, start, factor, shift = arguments[:6]
            out, out_pixel, channels, first, width, blank = arguments[6:]
            columns = range((points - 1) * step + taps)
            entry_of = _I64.as_pointer()

            def add(a, b):
                return builder.add(a, b if isinstance(b, ir.Value) else _I64(b))

            def load(address, shape):
                return builder.load(builder.inttoptr(address, shape.as_pointer()), align=1)

            inside = [
                builder.icmp_unsigned("<", add(first, c), width) if edge else None for c in columns
            ]
            places = [add(first, c) for c in columns]

            def body(channel, lanes, count):
                """All ``points`` for ``count`` channels (``lanes``: some of them).

                Weights and factors of 32 channels are those of the first half of each register.
                """
                dots = count // 4
                sums_of = ir.VectorType(_I32, dots)
                floats_of = ir.VectorType(_F32, dots)
                pixel_of = ir.VectorType(_I8, count)
                wide = builder.mul(channel, _I64(4))
                begins = [load(add(add(start, wide), 4 * dots * r), sums_of) for r in range(4)]
                of_channel = builder.mul(channel, builder.mul(groups, _I64(4 * taps)))
                first_weight = add(weight, of_channel)
                block = builder.block
                loop = builder.append_basic_block("group")
                done = builder.append_basic_block("groups_done")
                builder.branch(loop)
                builder.position_at_end(loop)
                g, weights, rows = (builder.phi(_I64) for _ in range(3))
                g.add_incoming(_I64(0), block)
                weights.add_incoming(first_weight, block)
                rows.add_incoming(table, block)
                sums = [[builder.phi(sums_of) for _ in range(4)] for _ in range(points)]
                for phis in sums:
                    for phi, begin in zip(phis, begins, strict=True):
                        phi.add_incoming(begin, block)
                lines = []
                for j in range(LINES):
                    place = builder.inttoptr(add(rows, 16 * j), entry_of)
                    lines.append((builder.load(place), builder.load(builder.gep(place, [_I64(1)]))))
                results = [list(phis) for phis in sums]
                for c in columns:
                    pixels = []
                    for address, between in lines:
                        here = add(address, builder.mul(places[c], between))
                        if edge:
                            here = builder.select(inside[c], here, blank)
                        here = add(here, channel)
                        if lanes is None:
                            pixels.append(load(here, pixel_of))
                        else:
                            pixels.append(masked_load(builder, here, lanes, pixel_of))
                    quads = _weave(builder, pixels, count)
                    for p in range(points):
                        tap = c - p * step
                        if not 0 <= tap < taps:
                            continue
                        for r in range(4):
                            place = add(weights, (tap * 4 + r) * count)
                            results[p][r] = dot_bytes(
                                builder, results[p][r], quads[r], load(place, sums_of), dots
                            )
                end = builder.block
                after = add(g, 1)
                g.add_incoming(after, end)
                weights.add_incoming(add(weights, 4 * taps * count), end)
                rows.add_incoming(add(rows, 16 * LINES), end)
                for phis, values in zip(sums, results, strict=True):
                    for phi, value in zip(phis, values, strict=True):
                        phi.add_incoming(value, end)
                builder.cbranch(builder.icmp_signed("<", after, groups), loop, done)
                builder.position_at_end(done)
                factors = [load(add(add(factor, wide), 4 * dots * r), floats_of) for r in range(4)]
                shifts = [load(add(add(shift, wide), 4 * dots * r), floats_of) for r in range(4)]
                most = ir.Constant(floats_of, [255.0] * dots)
                for p in range(points):
                    wholes = []
                    for r in range(4):
                        value = builder.sitofp(results[p][r], floats_of)
                        value = builder.fadd(builder.fmul(value, factors[r]), shifts[r])
                        small = builder.fcmp_ordered("<", value, most)
                        wholes.append(_to_int(builder, builder.select(small, value, most), dots))
                    value = _pack(builder, wholes, count)
                    where = add(add(out, builder.mul(_I64(p), out_pixel)), channel)
                    if lanes is None:
                        builder.store(
                            value, builder.inttoptr(where, pixel_of.as_pointer()), align=1
                        )
                    else:
                        masked_store(builder, where, value, lanes)

            _over_channels(builder, channels, body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), codegen

    return run


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


def _over_channels(builder, channels, body) -> None:
    """Whole registers of 64 channels, then the rest of them: up to 32, or more."""
    entry = builder.block
    whole = builder.and_(channels, _I64(-CHANNELS))
    left = builder.and_(channels, _I64(CHANNELS - 1))
    loop = builder.append_basic_block("channels")
    rest = builder.append_basic_block("rest")
    builder.cbranch(builder.icmp_signed(">", whole, _I64(0)), loop, rest)
    builder.position_at_end(loop)
    channel = builder.phi(_I64)
    channel.add_incoming(_I64(0), entry)
    body(channel, None, CHANNELS)
    after = builder.add(channel, _I64(CHANNELS))
    channel.add_incoming(after, builder.block)
    builder.cbranch(builder.icmp_signed("<", after, whole), loop, rest)
    builder.position_at_end(rest)
    with builder.if_then(builder.icmp_signed(">", left, _I64(CHANNELS // 2))):
        body(whole, first_lanes(builder, left, CHANNELS), CHANNELS)
    few = builder.and_(
        builder.icmp_signed(">", left, _I64(0)),
        builder.icmp_signed("<=", left, _I64(CHANNELS // 2)),
    )
    with builder.if_then(few):
        body(whole, first_lanes(builder, left, CHANNELS // 2), CHANNELS // 2)


def rows_of(taps: int, step: int):
    """A function that makes rows of results, for kernels ``taps`` wide with this step."""
    four, four_edge = stencil(4, taps, step, False), stencil(4, taps, step, True)
    one_edge = stencil(1, taps, step, True)

    @device_of("int8", taps, step)
    def fill(out, out_pixel, out_line, first, rows, image, pixel, channels, height, width, points,
             step_y, taps_y, origin_y, origin_x, weight, start, factor, shift, blank,
             table):  # fmt: skip
        """Rows ``first … first + rows`` of one image's results.

        ``blank`` is a pixel of what stands for zero, ``table`` has room for 16 bytes for each row
        of taps, up to a multiple of four.
        """
        groups = (taps_y + LINES - 1) // LINES
        for y in range(first, first + rows):
            for j in range(groups * LINES):
                line = y * step_y + origin_y + j
                if j < taps_y and line >= 0 and line < height:
                    poke(table + 16 * j, image + line * width * pixel)
                    poke(table + 16 * j + 8, pixel)
                else:
                    poke(table + 16 * j, blank)
                    poke(table + 16 * j + 8, 0)
            line = out + (y - first) * out_line
            block = 4 if points >= 4 else 1
            p = 0
            while p < points:
                p = min(p, points - block)
                column = origin_x + p * step
                place = line + p * out_pixel
                if block == 1:
                    one_edge(table, groups, weight, start, factor, shift, place, out_pixel,
                             channels, column, width, blank)  # fmt: skip
                elif column < 0 or column + 3 * step + taps > width:
                    four_edge(table, groups, weight, start, factor, shift, place, out_pixel,
                              channels, column, width, blank)  # fmt: skip
                else:
                    four(table, groups, weight, start, factor, shift, place, out_pixel, channels,
                         column, width, blank)  # fmt: skip
                p += block

    return fill


# The shapes that have rows: taps and step. Others stay float32.
ROWS = {shape: rows_of(*shape) for shape in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))}
