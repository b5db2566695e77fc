"""The gather of the standard convolution on an image of bytes: the k×k patch around each point.

As ``patches``, but what lies outside the image is a given byte, which stands for zero.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.engine.cpu.launch import device
from pointwise.engine.cpu.vector import first_lanes, masked_load, masked_store, splat

_I8 = ir.IntType(8)
_WIDTH = 64
_BYTES = ir.VectorType(_I8, _WIDTH)


@intrinsic
def _copy_some(typingctx, target, source, count):
    """Copies up to 64 bytes."""

    def codegen(context, builder, signature, arguments):
        target, source, count = arguments
        mask = first_lanes(builder, count, _WIDTH)
        masked_store(builder, target, masked_load(builder, source, mask, _BYTES), mask)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@intrinsic
def _fill_some(typingctx, target, value, count):
    """Writes up to 64 times the lowest byte of ``value``."""

    def codegen(context, builder, signature, arguments):
        target, value, count = arguments
        mask = first_lanes(builder, count, _WIDTH)
        masked_store(builder, target, splat(builder, builder.trunc(value, _I8), _WIDTH), mask)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


@device
def copy(target, source, count):
    for k in range(0, count, _WIDTH):
        _copy_some(target + k, source + k, count - k)


@device
def repeat(target, value, count):
    for k in range(0, count, _WIDTH):
        _fill_some(target + k, value, count - k)


@device
def fill(target, target_row, first, rows, images, pixel, channels, height, width, lines, points,
         step_y, step_x, taps_y, taps_x, origin_y, origin_x, spread_y, spread_x, zero):  # fmt: skip
    """Writes rows ``first … first + rows`` of A to ``target``; addresses and strides in bytes."""
    joined = spread_x == 1 and pixel == channels
    x = first % points
    y = first // points % lines
    image = images + first // (points * lines) * height * width * pixel
    for r in range(rows):
        place = target + r * target_row
        left = x * step_x + origin_x
        inside = joined and left >= 0 and left + taps_x <= width
        for j in range(taps_y):
            line = y * step_y + origin_y + j * spread_y
            if line < 0 or line >= height:
                repeat(place, zero, taps_x * channels)
            elif inside:
                copy(place, image + (line * width + left) * pixel, taps_x * channels)
            else:
                for i in range(taps_x):
                    column = left + i * spread_x
                    if column < 0 or column >= width:
                        repeat(place + i * channels, zero, channels)
                    else:
                        copy(place + i * channels, image + (line * width + column) * pixel,
                             channels)  # fmt: skip
            place += taps_x * channels
        x += 1
        if x == points:
            x = 0
            y += 1
            if y == lines:
                y = 0
                image += height * width * pixel
