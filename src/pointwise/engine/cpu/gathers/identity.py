"""The gather of the pointwise (1×1) convolution: a point's own channels."""

from __future__ import annotations

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.vector import bytes_of, lanes_of, load_first, store_first


@device
def fill(target, target_row, first, rows, x, x_row, channels, like):
    """Copies rows ``first … first + rows`` of x to ``target``; strides and addresses in bytes."""
    size = bytes_of(like)
    width = lanes_of(like)
    for r in range(rows):
        source = x + (first + r) * x_row
        place = target + r * target_row
        for c in range(0, channels, width):
            value = load_first(source + c * size, channels - c, like)
            store_first(place + c * size, value, channels - c)
