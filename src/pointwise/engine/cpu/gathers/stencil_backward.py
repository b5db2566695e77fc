"""The depthwise stencil backwards: gradients of input and weight in one walk over the input.

Point p reads pixel q through tap t where ``q = p·stride - padding + t``. So backwards pixel q reads
``grad[p]`` for each of its taps, and has two uses for it: ``Σ_t w[t]·grad[p]`` is its own gradient,
and ``a[q]·grad[p]`` is what it gives to the weight's. On the way, the norm and the activation
before the convolution are applied to the pixel, ``a = clamp(z·scale + shift)``, and undone in its
gradient.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.extending import intrinsic

from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.gathers.stencil import over_channels
from pointwise.engine.cpu.norm import NORM
from pointwise.engine.cpu.vector import (
    bytes_of,
    clamp,
    load_lanes,
    multiply_add,
    prefetch,
    splat,
    store_lanes,
    vector_of,
)
from pointwise.engine.cpu.window import WINDOW

PIXELS = 8
"""Neighbouring pixels that are worked off together; each gradient is loaded once for all."""

_AHEAD = 8192
"""Bytes from a pixel to what is asked for when it is read."""


def reach(taps: int, stride: int, phase: int) -> dict[int, list[tuple[int, int]]]:
    """The points that ``PIXELS`` pixels read, and for each the (pixel, tap) that read it.

    ``phase`` is how far the first pixel lies behind what point 0 reads first.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    for pixel in range(PIXELS):
        for tap in range(taps):
            point, rest = divmod(pixel + phase - tap, stride)
            if rest == 0:
                found.setdefault(point, []).append((pixel, tap))
    return dict(sorted(found.items()))


def stencil_backward(taps: int, stride: int, phase: int, partial: bool):
    """``PIXELS`` neighbouring pixels of one row, over all channels; if ``partial``, only some.

    Kernels are ``taps`` wide, with ``stride`` pixels from point to point and dilation 1.
    """
    readers = reach(taps, stride, phase)

    @intrinsic
    def run(
        typingctx,
        grad,  # address of point 0 in the row that the first row of taps reads
        line,  # bytes from there to the row that the next one reads
        lines,  # rows of taps that read anything
        weight,  # [lines, taps, channels] of the first row of taps
        total,  # the weight's gradient, which is added to; the same
        z,
        out,  # the gradient of z
        sums,  # Σ d·(z - mean) and Σ d of the gradient d before the norm: [2, channels], added to
        valid,  # how many pixels there are
        norm,  # of NORM: (z·scale + shift) is kept within low … high, and the mean
        window,
        like,
    ):
        vector = vector_of(like)
        size = vector.dtype.bitwidth // 8
        count = vector.count

        def codegen(context, builder, signature, arguments):
            grad, line, lines, weight, total, z, out, sums, valid = arguments[:9]
            norm = NORM.tuple(*unpack_tuple(builder, arguments[9]))
            window = WINDOW.tuple(*unpack_tuple(builder, arguments[10]))
            i64 = ir.IntType(64)
            scalar = ir.FloatType() if size == 4 else ir.DoubleType()
            shape = ir.VectorType(scalar, count)
            zero = ir.Constant(shape, [0.0] * count)
            low, high = norm.low, norm.high
            if size == 4:
                low, high = (builder.fptrunc(bound, scalar) for bound in (low, high))
            tap = builder.mul(window.channels, i64(size))
            tap_line = builder.mul(builder.mul(window.stride_y, i64(taps)), tap)
            here = [builder.icmp_signed("<", i64(i), valid) for i in range(PIXELS)]

            def masked(lanes, i):
                """The lanes of pixel ``i``, None for all."""
                if not partial:
                    return lanes
                there = splat(builder, here[i], count)
                return there if lanes is None else builder.and_(there, lanes)

            def load(address, lanes):
                return load_lanes(builder, address, lanes, shape)

            def store(address, value, lanes):
                store_lanes(builder, address, value, lanes)

            def pixel(address, number):
                return builder.add(address, builder.mul(i64(number), window.pixel))

            def fma(a, b, c):
                return multiply_add(builder, a, b, c)

            def body(channel, lanes):
                def at(address):
                    return builder.add(address, channel)

                factor, added = load(at(norm.scale), lanes), load(at(norm.shift), lanes)
                read = []
                for i in range(PIXELS):
                    # Nobody else sees that images are read from start to end: a few lines of the
                    # cache of each pixel at a time.
                    for image in (z, out):
                        prefetch(builder, builder.add(pixel(at(image), i), i64(_AHEAD)))
                    value = fma(load(pixel(at(z), i), masked(lanes, i)), factor, added)
                    value = clamp(builder, value, low, high, count)
                    if partial:  # a pixel that is not there gives nothing to the weight
                        value = builder.select(splat(builder, here[i], count), value, zero)
                    read.append(value)
                starts = (i64(0), at(grad), at(weight), at(total))
                before = builder.block
                loop = builder.append_basic_block("line")
                done = builder.append_basic_block("lines_done")
                builder.cbranch(builder.icmp_signed(">", lines, i64(0)), loop, done)

                builder.position_at_end(loop)
                number, grad_line, weight_line, total_line = (builder.phi(i64) for _ in range(4))
                grads = [builder.phi(shape) for _ in range(PIXELS)]
                for phi in grads:
                    phi.add_incoming(zero, before)
                weights = [
                    load(builder.add(weight_line, builder.mul(i64(t), tap)), lanes)
                    for t in range(taps)
                ]
                places = [builder.add(total_line, builder.mul(i64(t), tap)) for t in range(taps)]
                totals = [load(place, lanes) for place in places]
                results = list(grads)
                for point, pairs in readers.items():
                    value = load(pixel(grad_line, point), lanes)
                    for i, t in pairs:
                        results[i] = fma(value, weights[t], results[i])
                        totals[t] = fma(value, read[i], totals[t])
                for place, value in zip(places, totals, strict=True):
                    store(place, value, lanes)
                end = builder.block
                after = builder.add(number, i64(1))
                nexts = (after, builder.add(grad_line, line), builder.add(weight_line, tap_line),
                         builder.add(total_line, tap_line))  # fmt: skip
                for phi, start, then in zip(
                    (number, grad_line, weight_line, total_line), starts, nexts, strict=True
                ):
                    phi.add_incoming(start, before)
                    phi.add_incoming(then, end)
                for phi, result in zip(grads, results, strict=True):
                    phi.add_incoming(result, end)
                builder.cbranch(builder.icmp_signed("<", after, lines), loop, done)

                builder.position_at_end(done)
                for i in range(PIXELS):
                    d = builder.phi(shape)
                    d.add_incoming(zero, before)
                    d.add_incoming(results[i], end)
                    results[i] = d
                middle = load(at(norm.mean), lanes)
                first, second = at(sums), builder.add(at(sums), tap)
                weighted, plain = load(first, lanes), load(second, lanes)
                floor, ceiling = splat(builder, low, count), splat(builder, high, count)
                for i in range(PIXELS):
                    # NaN is not at most anything, and keeps its gradient, as in PyTorch.
                    outside = builder.or_(
                        builder.fcmp_ordered("<=", read[i], floor),
                        builder.fcmp_ordered("<=", ceiling, read[i]),
                    )
                    if partial:
                        there = splat(builder, here[i], count)
                        outside = builder.or_(outside, builder.not_(there))
                    d = builder.select(outside, zero, results[i])
                    away = builder.fsub(load(pixel(at(z), i), masked(lanes, i)), middle)
                    weighted = fma(d, away, weighted)
                    plain = builder.fadd(plain, d)
                    store(pixel(at(out), i), builder.fmul(d, factor), masked(lanes, i))
                store(first, weighted, lanes)
                store(second, plain, lanes)

            over_channels(builder, builder.block, window.channels, count, size, body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9, norm, window, like), codegen

    return run


def rows_backward_of(taps: int, stride: int, phase: int):
    """A function for rows of pixels, for kernels ``taps`` wide with this stride and phase."""
    whole = stencil_backward(taps, stride, phase, False)
    rest = stencil_backward(taps, stride, phase, True)

    @device_of(taps, stride, phase)
    def add(y, rows, grad, grad_line, grad_first, weight, total, z, out, norm, window, sums,
            like):  # fmt: skip
        """Rows ``y … y + rows`` of an image, at ``z`` and ``out``.

        ``grad`` is what the first pixels of a row take for point 0, in row ``grad_first`` of the
        points; its rows are ``grad_line`` bytes apart. ``weight``, ``total`` ``[taps_y, taps, C]``.
        """
        taps_y, stride_y = window.taps_y, window.stride_y
        tap_line = taps * window.channels * bytes_of(like)
        for q in range(y, y + rows):
            j = (q + window.padding_y) % stride_y
            p = (q + window.padding_y - j) // stride_y
            # Taps whose point lies in the result: j, j + stride, … for p, p - 1, …
            skipped = max(0, p - (window.lines - 1))
            j += skipped * stride_y
            p -= skipped
            lines = max(0, min((taps_y - 1 - j) // stride_y, p) + 1) if j < taps_y else 0
            here = grad + (p - grad_first) * grad_line
            weights, totals = weight + j * tap_line, total + j * tap_line
            row = (q - y) * window.width * window.pixel
            for x in range(0, window.width, PIXELS):
                at = row + x * window.pixel
                point = here + x // stride * window.pixel
                if x + PIXELS <= window.width:
                    whole(point, -grad_line, lines, weights, totals, z + at, out + at, sums, PIXELS,
                          norm, window, like)  # fmt: skip
                else:
                    rest(point, -grad_line, lines, weights, totals, z + at, out + at, sums,
                         window.width - x, norm, window, like)  # fmt: skip

    return add


BACKWARD_ROWS = {
    (taps, stride, phase): rows_backward_of(taps, stride, phase)
    for taps in (3, 5)
    for stride in (1, 2)
    for phase in range(stride)
}
"""By (taps, stride, phase); others go the way of the general gradients."""
