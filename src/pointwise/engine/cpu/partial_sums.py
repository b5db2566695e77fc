"""Sums that many programs add to: each into a slab of its own, and the slabs are added in order.

How many slabs there are follows from shapes alone, so a sum does not depend on the number of
threads.
"""

from __future__ import annotations

from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.launch import device, device_of, launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    lanes_of,
    load,
    number,
    store,
)

SLABS = 16
"""How many slabs to aim at: enough to keep the threads of most machines busy to the end."""

_SUMS = Layout("Sums", "*sums slabs numbers")
_BLOCK = 1024  # numbers that one program adds up


def cut_slabs(rows: int, most: int = SLABS, least: int = 1) -> tuple[int, int]:
    """(slabs, rows of each): at ``most`` so many slabs, of at ``least`` so many rows."""
    span = max(least, -(-rows // most))
    return -(-rows // span), span


def cut_slabs_of_points(rows: int, slab_bytes: int) -> tuple[int, int]:
    """The same for clouds, of which a row costs more: 8 to 64 slabs, as many as fit in 8 MB."""
    return cut_slabs(rows, max(8, min(64, 8 * 1024 * 1024 // slab_bytes)), 64)


def slab_of(layout: Layout, add, *shape):
    """A loop whose programs write a slab of sums each: zeros, to which ``add`` adds some rows.

    ``add(own, sums, begin, end, thread, like)`` for ``own``, the table of the layout, which has
    ``sums [S, numbers]``, ``numbers``, ``rows`` and ``span``, the rows of a slab.
    """

    @device_of(layout.name, *shape)
    def slab(arguments, program, thread, like):
        own = layout(arguments)
        sums = empty_slab(own.sums, program, own.numbers, like)
        begin = program * own.span
        add(own, sums, begin, min(begin + own.span, own.rows), thread, like)

    return slab


@device
def empty_slab(sums, slab, numbers, like):
    """The address of one slab of ``sums``, after zeros were written to it.

    ``numbers`` are whole registers.
    """
    size, width = bytes_of(like), lanes_of(like)
    here = sums + slab * numbers * size
    zero = broadcast(number(0, like))
    for k in range(0, numbers, width):
        store(here + k * size, zero)
    return here


@device
def _total(arguments, program, thread, like):
    """Adds the slabs of one block of numbers to the first slab, in their order."""
    own = _SUMS(arguments)
    size, width = bytes_of(like), lanes_of(like)
    first = program * _BLOCK
    row = own.numbers * size
    for k in range(first, min(first + _BLOCK, own.numbers), width):
        here = own.sums + k * size
        total = load(here, like)
        for s in range(1, own.slabs):
            total = total + load(here + s * row, like)
        store(here, total)


_KERNELS = by_dtype(_total, "sum_slabs")


def total_of(sums: Tensor) -> Tensor:
    """The sum of ``sums [S, numbers]`` over its slabs, in the place of the first: ``[numbers]``."""
    slabs, numbers = sums.shape
    if slabs > 1:
        arguments = _SUMS(sums=sums, slabs=slabs, numbers=numbers)
        launch(_KERNELS[sums.dtype], arguments, -(-numbers // _BLOCK))
    return sums[0]
