"""How numbers of an image come into a tile: as they are, or through what lies between two layers.

A ``load`` is the address of a table of int64 (or 0): the mode, and its operands.

NORMALISE: ``x·scale + shift`` kept within ``low … high``: the batch norm and the activation of the
layer before. CORRECT: ``x + other·scale + shift``, with another image of the same shape: the
result's gradient, and what comes back through its mean and variance.
"""

from __future__ import annotations

from pointwise.engine.cpu.launch import device, slot
from pointwise.engine.cpu.table import real
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load,
    load_first,
    number,
    store,
    store_first,
    within,
)

NORMALISE, CORRECT = 1, 2
# Entries of the table: mode, scale, shift, low, high (as float64), other minus x (in bytes).


@device
def zeros(target, count, like):
    """Writes ``count`` zeros."""
    size, width = bytes_of(like), lanes_of(like)
    zero = broadcast(number(0, like))
    whole = count // width * width
    for k in range(0, whole, width):
        store(target + k * size, zero)
    if whole < count:
        store_first(target + whole * size, zero, count - whole)


@device
def copy(target, source, count, like):
    """Copies ``count`` numbers."""
    size, width = bytes_of(like), lanes_of(like)
    whole = count // width * width
    for k in range(0, whole, width):
        store(target + k * size, load(source + k * size, like))
    if whole < count:
        value = load_first(source + whole * size, count - whole, like)
        store_first(target + whole * size, value, count - whole)


@device
def transfer(target, source, count, how, channel, like):
    """``count`` channels of a pixel, from ``channel`` (in bytes) on, as the table ``how`` says."""
    if how == 0:
        copy(target, source, count, like)
        return
    size, width = bytes_of(like), lanes_of(like)
    scale, shift = slot(how, 1) + channel, slot(how, 2) + channel
    whole = count // width * width
    if slot(how, 0) == NORMALISE:
        low, high = real(how, 3, like), real(how, 4, like)
        for k in range(0, whole, width):
            at = k * size
            x = fma(load(source + at, like), load(scale + at, like), load(shift + at, like))
            store(target + at, within(x, low, high))
        if whole < count:
            at, left = whole * size, count - whole
            x = fma(load_first(source + at, left, like), load_first(scale + at, left, like),
                    load_first(shift + at, left, like))  # fmt: skip
            store_first(target + at, within(x, low, high), left)
        return
    other = source + slot(how, 5)
    for k in range(0, whole, width):
        at = k * size
        x = fma(load(other + at, like), load(scale + at, like), load(shift + at, like))
        store(target + at, x + load(source + at, like))
    if whole < count:
        at, left = whole * size, count - whole
        x = fma(load_first(other + at, left, like), load_first(scale + at, left, like),
                load_first(shift + at, left, like))  # fmt: skip
        store_first(target + at, x + load_first(source + at, left, like), left)


# Up to here, rows lie close together, and channels in the outer loop save much of the work.
_NARROW = 1024
# But only as many rows at a time as memory hands out in order anyway.
_NEAR = 4096


@device
def transfer_rows(target, target_row, source, source_row, count, columns, how, channel, like):
    """``transfer`` of ``count`` rows, ``source_row`` bytes apart."""
    size, width = bytes_of(like), lanes_of(like)
    if how == 0 or columns * size > _NARROW:
        for r in range(count):
            transfer(target + r * target_row, source + r * source_row, columns, how, channel,
                     like)  # fmt: skip
        return
    normalise = slot(how, 0) == NORMALISE
    low, high, apart = real(how, 3, like), real(how, 4, like), slot(how, 5)
    whole = columns // width * width
    some = max(1, _NEAR // source_row)
    for first in range(0, count, some):
        last = min(first + some, count)
        for c in range(0, whole, width):
            at = c * size
            scale = load(slot(how, 1) + channel + at, like)
            shift = load(slot(how, 2) + channel + at, like)
            if normalise:
                for r in range(first, last):
                    x = fma(load(source + r * source_row + at, like), scale, shift)
                    store(target + r * target_row + at, within(x, low, high))
            else:
                for r in range(first, last):
                    here = source + r * source_row + at
                    x = fma(load(here + apart, like), scale, shift)
                    store(target + r * target_row + at, x + load(here, like))
    if whole < columns:
        at = whole * size
        for r in range(count):
            transfer(target + r * target_row + at, source + r * source_row + at, columns - whole,
                     how, channel + at, like)  # fmt: skip
