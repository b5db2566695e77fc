"""The part of an image that a band of a stencil's rows sees, copied into the cache.

So that what becomes of a pixel on the way is done once, and its zero borders need no thought.
"""

from __future__ import annotations

from pointwise.convolution.window import Window
from pointwise.engine.cpu.gathers.transfer import transfer_rows, zeros
from pointwise.engine.cpu.launch import device, slot


@device
def copy_band(arguments, target, image, first, rows, how, like):
    """The part of an image that some rows of a stencil see, with zeros where it ends.

    Returns how many lines and columns it has.
    """
    pixel, channels = slot(arguments, 1), slot(arguments, 2)
    height, width, points = slot(arguments, 3), slot(arguments, 4), slot(arguments, 6)
    top = first * slot(arguments, 7) + slot(arguments, 11)
    left = slot(arguments, 12)
    lines = (rows - 1) * slot(arguments, 7) + (slot(arguments, 9) - 1) * slot(arguments, 13) + 1
    columns = (
        (points - 1) * slot(arguments, 8) + (slot(arguments, 10) - 1) * slot(arguments, 14) + 1
    )
    source = slot(arguments, 0) + image * height * width * pixel
    for j in range(lines):
        y = top + j
        place = target + j * columns * pixel
        if y < 0 or y >= height:
            zeros(place, columns * channels, like)
            continue
        # The columns that lie in the image, and zeros on both sides.
        begin = min(columns, max(0, -left))
        end = max(begin, min(columns, width - left))
        zeros(place, begin * channels, like)
        transfer_rows(place + begin * pixel, pixel, source + (y * width + left + begin) * pixel,
                      pixel, end - begin, channels, how, 0, like)  # fmt: skip
        zeros(place + end * pixel, (columns - end) * channels, like)
    return lines, columns


def fixed_bands(seen: Window, row_bytes: int) -> tuple[int, int]:
    """(rows in a band, bands in an image), from the shapes alone."""
    lines = seen.y.points
    band = max(1, min(lines, 64 * 1024 // row_bytes))
    while band > 1 and seen.images * -(-lines // band) < 16:
        band = -(-band // 2)
    return band, -(-lines // band)


def window_bytes(seen: Window, band: int, row_bytes: int) -> int:
    """Bytes of the part of an image that a band sees."""
    y, x = seen.y, seen.x
    lines = (band - 1) * y.stride + (y.taps - 1) * y.dilation + 1
    columns = (x.points - 1) * x.stride + (x.taps - 1) * x.dilation + 1
    return lines * columns * row_bytes
