"""Sums over many rows that are split among programs: partial sums, which are added in order.

In how many parts the rows are split follows from shapes alone, so a sum does not depend on the
number of threads. (Of a matrix product, this is its split-K form.)
"""

from __future__ import annotations

from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.launch import launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    lanes_of,
    load,
    number,
    store,
    store_first,
)

SPLITS = 16
"""How many to aim at: enough to keep the threads of most machines busy to the end."""

_SUMS = Layout("Sums", "*sums *out splits numbers row columns blocks")
"""``numbers`` are those of a split, ``row`` those from row to row, of which ``columns`` count."""
_BLOCK = 1024  # numbers of a row that one program adds up


def split_rows(rows: int, most: int = SPLITS, least: int = 1) -> tuple[int, int]:
    """(splits, rows of each), at ``most`` so many splits, of at ``least`` so many rows."""
    span = max(least, -(-rows // most))
    return -(-rows // span), span


def split_points(rows: int, split_bytes: int) -> tuple[int, int]:
    """The same for clouds, of which a row costs more: 8 to 64 splits, as many as fit in 8 MB."""
    return split_rows(rows, max(8, min(64, 8 * 1024 * 1024 // split_bytes)), 64)


def partial_sums_of(layout: Layout, add, *shape):
    """A loop whose programs make partial sums each: zeros, to which ``add`` adds some rows.

    ``add(own, sums, begin, end, thread, like)`` for ``own``, the table of the layout, which has
    ``sums [splits, numbers]``, ``numbers``, ``rows`` and ``span``, the rows of a split.
    """

    @device_of(layout.name, *shape)
    def partial_sums(arguments, program, thread, like):
        own = layout(arguments)
        sums = empty_split(own.sums, program, own.numbers, like)
        begin = program * own.span
        add(own, sums, begin, min(begin + own.span, own.rows), thread, like)

    return partial_sums


@device
def empty_split(sums, split, numbers, like):
    """The address of the partial sums of one split, after zeros were written there.

    ``numbers`` are whole registers.
    """
    size, width = bytes_of(like), lanes_of(like)
    here = sums + split * numbers * size
    zero = broadcast(number(0, like))
    for k in range(0, numbers, width):
        store(here + k * size, zero)
    return here


@device
def _total(arguments, program, thread, like):
    """Adds up the partial sums of one block of a row, in order."""
    own = _SUMS(arguments)
    size, width = bytes_of(like), lanes_of(like)
    row, first = program // own.blocks, program % own.blocks * _BLOCK
    source, target = own.sums + row * own.row * size, own.out + row * own.columns * size
    split = own.numbers * size
    for k in range(first, min(first + _BLOCK, own.columns), width):
        here = source + k * size
        total = load(here, like)
        for s in range(1, own.splits):
            total = total + load(here + s * split, like)
        store_first(target + k * size, total, own.columns - k)


_KERNELS = by_dtype(_total, "sum_splits")


def total_of(sums: Tensor) -> Tensor:
    """The total ``[numbers]`` of partial ``sums [splits, numbers]``, which it does not keep."""
    splits, numbers = sums.shape
    return sums[0] if splits == 1 else total_of_rows(sums, numbers, 1)[0]


def total_of_rows(sums: Tensor, columns: int, rows: int) -> Tensor:
    """The total ``[rows, columns]`` of partial sums whose rows are longer: of whole registers."""
    splits, numbers = sums.shape
    out = empty((rows, columns), sums.dtype)
    blocks = -(-columns // _BLOCK)
    arguments = _SUMS(sums=sums, out=out, splits=splits, numbers=numbers, row=numbers // rows,
                      columns=columns, blocks=blocks)  # fmt: skip
    launch(_KERNELS[sums.dtype], arguments, rows * blocks)
    return out
