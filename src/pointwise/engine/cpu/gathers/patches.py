"""The gather of the standard convolution on an image: the k×k patch around each point.

Row r of the gathered matrix A ``[points, taps·C]`` holds the pixels that point r reads, tap by tap;
zeros where a tap lies outside the image.
"""

from __future__ import annotations

from pointwise.engine.cpu.gathers.transfer import copy, transfer, transfer_rows, zeros
from pointwise.engine.cpu.launch import device
from pointwise.engine.cpu.vector import bytes_of


@device
def fill(target, target_row, first, rows, images, pixel, channels, height, width, lines, points,
         step_y, step_x, taps_y, taps_x, origin_y, origin_x, spread_y, spread_x, how, channel,
         like):  # fmt: skip
    """Writes rows ``first … first + rows`` of A to ``target``; addresses and strides in bytes.

    ``how`` says what becomes of a pixel on the way (``transfer``), of which the first channel that
    is read here lies ``channel`` bytes from its beginning.
    """
    size = bytes_of(like)
    tap_bytes = channels * size
    # Neighbouring taps of a row lie side by side, unless something has to be done to them.
    joined = spread_x == 1 and pixel == tap_bytes and how == 0
    same = taps_y * taps_x == 1 and step_y * step_x == 1 and origin_y == 0 and origin_x == 0
    if same and points == width and lines == height:  # each point's own pixel
        transfer_rows(target, target_row, images + first * pixel, pixel, rows, channels, how,
                      channel, like)  # fmt: skip
        return
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
                zeros(place, taps_x * channels, like)
                place += taps_x * tap_bytes
            elif inside:
                copy(place, image + (line * width + left) * pixel, taps_x * channels, like)
                place += taps_x * tap_bytes
            else:
                for i in range(taps_x):
                    column = left + i * spread_x
                    if column < 0 or column >= width:
                        zeros(place, channels, like)
                    else:
                        transfer(place, image + (line * width + column) * pixel, channels, how,
                                 channel, like)  # fmt: skip
                    place += tap_bytes
        x += 1
        if x == points:
            x = 0
            y += 1
            if y == lines:
                y = 0
                image += height * width * pixel
