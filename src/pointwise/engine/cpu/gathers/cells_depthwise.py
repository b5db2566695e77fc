"""The depthwise gather on a cloud: each channel and kernel cell with its own weight, summed.

Row i of the gathered matrix ``[N, C]`` is Σ_m w_m ⊙ (mean of the features in cell m of query i). On
its own this is the depthwise convolution; followed by a mix it is the separable one.
"""

from __future__ import annotations

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.cells import (
    ADJOINT_OF_MEAN,
    MEAN,
    entry_of,
    pairs_of,
    reciprocal,
    share_of,
)
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load_first,
    number,
    store_first,
)


@device
def fill(target, target_row, first, rows, x, x_row, channels, table, like):
    """Writes rows ``first … first + rows`` to ``target``; strides and addresses in bytes."""
    size = bytes_of(like)
    width = lanes_of(like)
    bits, mode, weight = table.bits, table.mode, table.weight
    mask = (1 << bits) - 1
    zero = broadcast(number(0, like))
    for r in range(rows):
        begin, end = pairs_of(table, first + r)
        for c in range(0, channels, 2 * width):
            left = channels - c
            two = left > width
            t0, t1 = zero, zero
            p = begin
            while p < end:
                key = entry_of(table, p) >> bits
                cell = table.cells - 1 - key if table.mirrored else key
                run = p
                s0, s1 = zero, zero
                while p < end:
                    entry = entry_of(table, p)
                    if entry >> bits != key:
                        break
                    source = x + (entry & mask) * x_row + c * size
                    if mode == ADJOINT_OF_MEAN:
                        scale = broadcast(share_of(table, entry & mask, cell, like))
                        s0 = s0 + scale * load_first(source, left, like)
                        if two:
                            s1 = s1 + scale * load_first(source + width * size, left - width, like)
                    else:
                        s0 = s0 + load_first(source, left, like)
                        if two:
                            s1 = s1 + load_first(source + width * size, left - width, like)
                    p += 1
                if mode == MEAN:
                    scale = broadcast(reciprocal(p - run, like))
                    s0, s1 = s0 * scale, s1 * scale
                here = weight + (cell * channels + c) * size
                t0 = fma(s0, load_first(here, left, like), t0)
                if two:
                    t1 = fma(s1, load_first(here + width * size, left - width, like), t1)
            place = target + r * target_row + c * size
            store_first(place, t0, left)
            if two:
                store_first(place + width * size, t1, left - width)


@device
def add_weight_gradient(
    total, first, rows, x, x_row, channels, table, gradient, gradient_row, like
):
    """Adds Σ_i (reduced features of cell m) ⊙ gradient_i over some rows to ``total [M, C]``."""
    size = bytes_of(like)
    width = lanes_of(like)
    bits, mode = table.bits, table.mode
    mask = (1 << bits) - 1
    zero = broadcast(number(0, like))
    for i in range(first, first + rows):
        begin, end = pairs_of(table, i)
        for c in range(0, channels, width):
            left = channels - c
            slope = load_first(gradient + i * gradient_row + c * size, left, like)
            p = begin
            while p < end:
                cell = entry_of(table, p) >> bits
                run = p
                reduced = zero
                while p < end:
                    entry = entry_of(table, p)
                    if entry >> bits != cell:
                        break
                    source = x + (entry & mask) * x_row + c * size
                    reduced = reduced + load_first(source, left, like)
                    p += 1
                if mode == MEAN:
                    reduced = reduced * broadcast(reciprocal(p - run, like))
                place = total + (cell * channels + c) * size
                sum_ = fma(reduced, slope, load_first(place, left, like))
                store_first(place, sum_, left)
