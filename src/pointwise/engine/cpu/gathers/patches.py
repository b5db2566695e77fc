"""The gather of the standard convolution on an image: the k×k patch around each point.

Row r of the gathered matrix A ``[points, taps·C]`` holds the pixels that point r reads, tap by tap.
Where a tap lies outside the image it holds zeros, or in an image of bytes what stands for zero.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pointwise.convolution.window import Window
from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.dots import DOTS
from pointwise.engine.cpu.gathers.prologue import copy, transfer, transfer_rows
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    lanes_of,
    load_lanes,
    number,
    peek,
    poke,
    store,
    store_first,
    store_lanes,
)
from pointwise.engine.cpu.window import WINDOW, window_arguments

PATCHES = Layout("Patches", "pad", window=WINDOW)
"""``pad`` is the whole number that every channel has outside of the image."""


@lru_cache(maxsize=4096)  # numbers alone, and a noticeable part of a small convolution's time
def patches_arguments(window: Window, pixel: int, channels: int, pad: int = 0) -> Arguments:
    """Patches of ``channels`` of pixels that lie ``pixel`` bytes apart."""
    return PATCHES(pad=pad, window=window_arguments(window, pixel, channels))


@device
def _repeat(target, value, count, like):
    """Writes ``count`` times ``value``."""
    size, width = bytes_of(like), lanes_of(like)
    register = broadcast(number(value, like))
    whole = count // width * width
    for k in range(0, whole, width):
        store(target + k * size, register)
    if whole < count:
        store_first(target + whole * size, register, count - whole)


@intrinsic
def _widen(typingctx, target, source):
    """Sixteen bytes as numbers of 16 bits."""

    def codegen(context, builder, signature, arguments):
        target, source = arguments
        parts = load_lanes(builder, source, None, ir.VectorType(ir.IntType(8), 16))
        wide = builder.zext(parts, ir.VectorType(ir.IntType(16), 16))
        store_lanes(builder, target, wide, None)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@device
def _copy_wide(target, source, count, like):
    """``count`` bytes as numbers of 16 bits."""
    k = 0
    while k + 16 <= count:
        _widen(target + 2 * k, source + k)
        k += 16
    if k < count and count >= 16:  # some of them once more
        _widen(target + 2 * (count - 16), source + count - 16)
        return
    while k < count:
        poke(target + 2 * k, np.uint16(peek(source + k, like)))
        k += 1


@device
def _repeat_wide(target, value, count, like):
    for k in range(count):
        poke(target + 2 * k, np.uint16(value))


def _without_prologue(copy):
    """``transfer`` and ``transfer_rows`` of bytes, which have no prologue."""

    @device_of(copy.__name__)
    def transfer(target, source, count, prologue, channel, like):
        copy(target, source, count, like)

    @device_of(copy.__name__)
    def transfer_rows(target, target_row, source, source_row, count, columns, prologue, channel,
                      like):  # fmt: skip
        for r in range(count):
            copy(target + r * target_row, source + r * source_row, columns, like)

    return transfer, transfer_rows


def _fill_of(element: str, growth: int, copy, repeat, transfer, transfer_rows):
    """The gather of one kind of numbers, which take ``growth`` times as many bytes in the tile."""

    @device_of(element)
    def fill(target, target_row, first, rows, x, patches, prologue, channel, like):
        """Writes rows ``first … first + rows`` of A to ``target``; addresses, strides in bytes.

        ``prologue`` says what becomes of a pixel on the way (``transfer``), of which the first
        channel that is read here lies ``channel`` bytes from its beginning.
        """
        window, pad = patches.window, patches.pad
        pixel, channels = window.pixel, window.channels
        height, width, lines, points = window.height, window.width, window.lines, window.points
        tap_bytes = channels * bytes_of(like)
        step = tap_bytes * growth
        # Neighbouring taps of a row lie side by side, unless something has to be done to them.
        joined = window.dilation_x == 1 and pixel == tap_bytes and prologue == 0
        one_tap = window.taps_y * window.taps_x * window.stride_y * window.stride_x == 1
        unpadded = window.padding_y == 0 and window.padding_x == 0
        if one_tap and unpadded and points == width and lines == height:  # each point's own pixel
            transfer_rows(target, target_row, x + first * pixel, pixel, rows, channels, prologue,
                          channel, like)  # fmt: skip
            return
        point = first % points
        line = first // points % lines
        image = x + first // (points * lines) * height * width * pixel
        for r in range(rows):
            place = target + r * target_row
            left = point * window.stride_x - window.padding_x
            inside = joined and left >= 0 and left + window.taps_x <= width
            for j in range(window.taps_y):
                row = line * window.stride_y - window.padding_y + j * window.dilation_y
                if row < 0 or row >= height:
                    repeat(place, pad, window.taps_x * channels, like)
                    place += window.taps_x * step
                elif inside:
                    copy(place, image + (row * width + left) * pixel, window.taps_x * channels,
                         like)  # fmt: skip
                    place += window.taps_x * step
                else:
                    for i in range(window.taps_x):
                        column = left + i * window.dilation_x
                        if column < 0 or column >= width:
                            repeat(place, pad, channels, like)
                        else:
                            transfer(place, image + (row * width + column) * pixel, channels,
                                     prologue, channel, like)  # fmt: skip
                        place += step
            point += 1
            if point == points:
                point = 0
                line += 1
                if line == lines:
                    line = 0
                    image += height * width * pixel

    return fill


fill_floats = _fill_of("floats", 1, copy, _repeat, transfer, transfer_rows)
if DOTS.size == 1:
    fill_bytes = _fill_of("bytes", 1, copy, _repeat, *_without_prologue(copy))
else:
    fill_bytes = _fill_of("wide", 2, _copy_wide, _repeat_wide, *_without_prologue(_copy_wide))


# --- for loops that have no named layout yet ------------------------------------------------------

_Patches, _Window = PATCHES.tuple, WINDOW.tuple


@device
def fill(target, target_row, first, rows, images, pixel, channels, height, width, lines, points,
         step_y, step_x, taps_y, taps_x, origin_y, origin_x, spread_y, spread_x, how, channel,
         like):  # fmt: skip
    window = _Window(pixel, channels, height, width, lines, points, step_y, step_x, taps_y, taps_x,
                     -origin_y, -origin_x, spread_y, spread_x)  # fmt: skip
    fill_floats(target, target_row, first, rows, images, _Patches(0, window), how, channel, like)
