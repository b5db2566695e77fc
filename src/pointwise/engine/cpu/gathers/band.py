"""The pixels that a band of a stencil's rows reads, copied into the cache through a prologue.

So that a prologue is applied once to each pixel, and the zeros around the image need no thought.
"""

from __future__ import annotations

import numpy as np

from pointwise.convolution.window import Window
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.prologue import transfer_rows, zeros
from pointwise.engine.cpu.partial_sums import SPLITS
from pointwise.engine.cpu.vector import bytes_of
from pointwise.engine.cpu.window import over_other_pixels


@device
def band_of(images, image, first, rows, window, prologue, scratch, like):
    """(image, its first row, its window) for rows ``first … first + rows`` of a result.

    The image itself or, where there is a prologue, the pixels that the rows read, at ``scratch``.
    """
    source = images + image * window.height * window.width * window.pixel
    if prologue == 0:
        own = over_other_pixels(
            window, window.channels, window.height, window.width, window.padding_y, window.padding_x
        )
        return source, first, own
    top = first * window.stride_y - window.padding_y
    left = -window.padding_x
    lines = (rows - 1) * window.stride_y + (window.taps_y - 1) * window.dilation_y + 1
    columns = (window.points - 1) * window.stride_x + (window.taps_x - 1) * window.dilation_x + 1
    for j in range(lines):
        y = top + j
        target = scratch + j * columns * window.pixel
        if y < 0 or y >= window.height:
            zeros(target, columns * window.channels, like)
        else:
            line = source + y * window.width * window.pixel
            copy_line(target, window.pixel, columns, line, left, window.width, window.pixel,
                      window.channels, prologue, 0, like)  # fmt: skip
    zero = np.int64(0)
    own = over_other_pixels(window, window.channels, lines, columns, zero, zero)
    return scratch, zero, own


@device
def copy_line(target, target_pixel, columns, line, left, width, pixel, channels, prologue, channel,
              like):  # fmt: skip
    """Copies pixels ``left … left + columns`` of a ``line`` of ``width``, zeros outside of it.

    Those of the line lie ``pixel`` bytes apart; ``channels`` of each, from ``channel`` (in bytes)
    of the prologue on, come to pixels ``target_pixel`` bytes apart.
    """
    size = bytes_of(like)
    begin = min(columns, max(0, -left))
    end = max(begin, min(columns, width - left))
    zeros(target, begin * target_pixel // size, like)
    transfer_rows(target + begin * target_pixel, target_pixel, line + (left + begin) * pixel, pixel,
                  end - begin, channels, prologue, channel, like)  # fmt: skip
    zeros(target + end * target_pixel, (columns - end) * target_pixel // size, like)


def fixed_bands(lines: int, images: int, line_bytes: int) -> tuple[int, int]:
    """(lines in a band, bands in an image): of at most 64 KB, and enough of them.

    From the shapes alone: sums over bands must not depend on the number of threads.
    """
    band = max(1, min(lines, 64 * 1024 // line_bytes))
    while band > 1 and images * -(-lines // band) < SPLITS:
        band = -(-band // 2)
    return band, -(-lines // band)


def window_bytes(window: Window, band: int, pixel: int) -> int:
    """Bytes of the pixels that a band of rows reads."""
    y, x = window.y, window.x
    lines = (band - 1) * y.stride + (y.taps - 1) * y.dilation + 1
    columns = (x.points - 1) * x.stride + (x.taps - 1) * x.dilation + 1
    return lines * columns * pixel
