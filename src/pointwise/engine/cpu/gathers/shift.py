"""The gather of the shift convolution on an image: each channel from the pixel of its own tap.

Row r of the gathered matrix A ``[points, C]`` holds the channels of point r, ``group`` of them from
the pixel of each tap, what is left over from that of the tap in the middle; zeros where a tap lies
outside the image (Wu et al., CVPR 2018). The adjoint is the same gather over the results, with
mirrored offsets: what a stride passed over reads nothing, and stays zero.
"""

from __future__ import annotations

from functools import lru_cache

from pointwise.convolution.shift import adjoint_window
from pointwise.convolution.window import Window
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.prologue import copy, zeros
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.vector import bytes_of
from pointwise.engine.cpu.window import WINDOW, window_arguments

SHIFT = Layout("Shift", "group divisor_y divisor_x", window=WINDOW)
"""``group`` channels of each tap; places that a ``divisor`` does not divide are read by nobody."""


@lru_cache(maxsize=4096)
def shift_arguments(window: Window, pixel: int, channels: int) -> Arguments:
    """The shift of ``channels`` of pixels that lie ``pixel`` bytes apart."""
    return SHIFT(
        group=channels // window.taps,
        divisor_y=1,
        divisor_x=1,
        window=window_arguments(window, pixel, channels),
    )


@lru_cache(maxsize=4096)
def adjoint_arguments(window: Window, pixel: int, channels: int) -> Arguments:
    """The adjoint of the shift with this window: its image is the result, its points are pixels."""
    return SHIFT(
        group=channels // window.taps,
        divisor_y=window.y.stride,
        divisor_x=window.x.stride,
        window=window_arguments(adjoint_window(window), pixel, channels),
    )


@device
def _pixel_of(place, divisor, size):
    """The pixel along one axis that is read at a place; -1 where there is none."""
    if divisor != 1:
        if place % divisor != 0:
            return -1
        place //= divisor
    return place if 0 <= place < size else -1


@device
def _transfer(target, image, row, column, width, pixel, channel, count, like):
    """``count`` channels of a pixel from ``channel`` (in bytes) on; zeros where there is none."""
    if row < 0 or column < 0:
        zeros(target + channel, count, like)
    else:
        copy(target + channel, image + (row * width + column) * pixel + channel, count, like)


@device
def fill(target, target_row, first, rows, x, shift, like):
    """Writes rows ``first … first + rows`` of A to ``target``; strides and addresses in bytes."""
    window, group = shift.window, shift.group
    pixel, height, width = window.pixel, window.height, window.width
    lines, points, taps_y, taps_x = window.lines, window.points, window.taps_y, window.taps_x
    group_bytes = group * bytes_of(like)
    rest = window.channels - group * taps_y * taps_x
    point = first % points
    line = first // points % lines
    image = x + first // (points * lines) * height * width * pixel
    for r in range(rows):
        row_of_a = target + r * target_row
        top = line * window.stride_y - window.padding_y
        left = point * window.stride_x - window.padding_x
        channel = 0
        if group > 0:
            for j in range(taps_y):
                row = _pixel_of(top + j * window.dilation_y, shift.divisor_y, height)
                for i in range(taps_x):
                    column = _pixel_of(left + i * window.dilation_x, shift.divisor_x, width)
                    _transfer(row_of_a, image, row, column, width, pixel, channel, group, like)
                    channel += group_bytes
        if rest > 0:
            row = _pixel_of(top + taps_y // 2 * window.dilation_y, shift.divisor_y, height)
            column = _pixel_of(left + taps_x // 2 * window.dilation_x, shift.divisor_x, width)
            _transfer(row_of_a, image, row, column, width, pixel, channel, rest, like)
        point += 1
        if point == points:
            point = 0
            line += 1
            if line == lines:
                line = 0
                image += height * width * pixel
