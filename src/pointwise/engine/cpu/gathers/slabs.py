"""The gather of a gradient for a product that sums over its rows: slabs of a few channels each.

The microkernel of ``Aᵀ·B`` reads a few neighbouring numbers of each row of A, one row after the
other. In an image these lie in as many cache lines as there are rows, and for many channels in as
many pages. In a slab they follow one another.
"""

from __future__ import annotations

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.prologue import PROLOGUE
from pointwise.engine.cpu.gemm import ROWS
from pointwise.engine.cpu.vector import bytes_of, fma, lanes_of, load_first, store

# So many rows at a time: the lines that two slabs share are still in the first-level cache.
_ROWS_TOGETHER = 16


@device
def fill_slabs(target, slab, source, source_row, rows, columns, correction, channel, like):
    """``rows`` of ``columns`` numbers as slabs ``[columns / ROWS, rows, ROWS]``.

    The slabs lie ``slab`` bytes apart, a register more than they need. The numbers are read through
    a ``correction`` if there is one (see ``prologue``), from ``channel`` (in bytes) on.
    """
    size = bytes_of(like)
    for first in range(0, rows, _ROWS_TOGETHER):
        some = min(_ROWS_TOGETHER, rows - first)
        here, place = source + first * source_row, target + first * ROWS * size
        for column in range(0, columns, ROWS):
            at = column * size
            _fill_slab(place, here + at, source_row, some, columns - column, correction,
                       channel + at, like)  # fmt: skip
            place += slab


@device
def _fill_slab(target, source, source_row, rows, columns, correction, channel, like):
    """Some rows of one slab.

    The last register of a row goes beyond its end, and is written before the next row's first one.
    """
    size, width = bytes_of(like), lanes_of(like)
    last = (min(columns, ROWS) - 1) // width * width
    for column in range(last, -1, -width):
        at, left = column * size, columns - column
        here, place = source + at, target + at
        if correction == 0:
            for r in range(rows):
                store(place + r * ROWS * size, load_first(here + r * source_row, left, like))
        else:
            own = PROLOGUE(correction)
            apart = own.other - own.image
            scale = load_first(own.scale + channel + at, left, like)
            shift = load_first(own.shift + channel + at, left, like)
            for r in range(rows):
                row = here + r * source_row
                x = fma(load_first(row + apart, left, like), scale, shift)
                store(place + r * ROWS * size, x + load_first(row, left, like))
