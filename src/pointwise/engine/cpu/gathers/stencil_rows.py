"""What the stencils of floats and of bytes share: rows of results, cut into blocks of points.

A stencil is made of two functions: ``taps_of(y, image, window, stencil, scratch, like)`` says where
the pixels and weights of result row ``y`` lie, as (source, rows of taps, weight). ``block`` makes
some neighbouring points of the row of them, over all channels; it is LLVM, written with the
functions here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core.cgutils import unpack_tuple

from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import first_lanes

_I64 = ir.IntType(64)


def rows_of(taps_of, block, points_of_block, finish, *name):
    """A function that makes rows of results; ``name`` tells it apart from others.

    ``points_of_block(points)`` is how many points of a row are made at once. ``finish(out,
    out_pixel, count, window, stencil, like)`` is what remains to be done to ``count`` results.
    """

    @device_of(*name)
    def row(out, out_pixel, source, lines, weight, window, stencil, like):
        """One row of results, before what remains to be done to them.

        The last block begins early enough to end with the row, and makes some results a second
        time. A function of its own: inlined into the loop over rows, its loops run out of
        registers.
        """
        count = points_of_block(window.points)
        reach = (count - 1) * window.stride_x + (window.taps_x - 1) * window.dilation_x
        p = 0
        while p < window.points:
            p = min(p, max(0, window.points - count))
            column = p * window.stride_x - window.padding_x
            at_edge = column < 0 or column + reach >= window.width
            block(count, at_edge, source, lines, weight, column, out + p * out_pixel, out_pixel,
                  window, stencil, like)  # fmt: skip
            p += count

    @device_of(*name)
    def fill(out, out_pixel, out_line, first, rows, image, window, stencil, scratch, like):
        """Rows ``first … first + rows`` of one image's results, with their epilogue.

        Points lie ``out_pixel`` bytes apart, rows ``out_line``.
        """
        for y in range(first, first + rows):
            source, lines, weight = taps_of(y, image, window, stencil, scratch, like)
            line = out + (y - first) * out_line
            row(line, out_pixel, source, lines, weight, window, stencil, like)
        finish(out, out_pixel, rows * window.points, window, stencil, like)

    return fill


def entries_of(builder, part, layout: Layout) -> Any:
    """The entries of a part of an argument table by name, as LLVM's values."""
    return layout.tuple(*unpack_tuple(builder, part, layout.size))


def choose_block(builder, count, at_edge, sizes: Sequence[int], block: Callable) -> None:
    """``block(points, edge)`` for the one of ``sizes`` that ``count`` is when it runs.

    With ``edge``, some of what it reads may lie outside the image; single points take it anyway.
    """
    for points in sizes:
        with builder.if_then(builder.icmp_signed("==", count, _I64(points))):
            if points == 1:
                block(points, True)
                continue
            with builder.if_else(at_edge) as (at_the_edge, inside):
                with at_the_edge:
                    block(points, True)
                with inside:
                    block(points, False)


def over_channels(builder, entry, channels, count: int, size: int, body) -> None:
    """``body(offset, lanes)`` for whole registers of channels (lanes None), then for the rest."""
    whole = builder.mul(builder.sdiv(channels, _I64(count)), _I64(count * size))
    left = builder.srem(channels, _I64(count))
    loop = builder.append_basic_block("channels")
    rest = builder.append_basic_block("rest")
    builder.cbranch(builder.icmp_signed(">", whole, _I64(0)), loop, rest)
    builder.position_at_end(loop)
    channel = builder.phi(_I64)
    channel.add_incoming(_I64(0), entry)
    body(channel, None)
    after = builder.add(channel, _I64(count * size))
    channel.add_incoming(after, builder.block)
    builder.cbranch(builder.icmp_signed("<", after, whole), loop, rest)
    builder.position_at_end(rest)
    with builder.if_then(builder.icmp_signed(">", left, _I64(0))):
        body(whole, first_lanes(builder, left, count))
