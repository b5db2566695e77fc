"""What a tile of results leaves behind while it is in the cache: the sums that batch norm needs.

A table of int64 says which: the mode, where the sums go, how many numbers one slab of them has, and
the mode's operands. Each slab is a run of rows that one program works off.

MOMENTS, of results x: ``[3, C]`` for each slab, its first row p, Σ(x-p) and Σ(x-p)²: close to the
mean, so that nothing cancels. ``Moments`` makes mean and variance of them.

MASK, of gradients d that come back to ``clamp((z - mean)·scale + shift)``: d becomes zero where
that is outside the bounds, ``[2, C]`` for each slab is Σd·(z-mean) and Σd, and what is left is
d·scale.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.launch import array, device, kernel, launch, slot
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import total_of
from pointwise.engine.cpu.table import Table, bits, real
from pointwise.engine.cpu.vector import (
    at_most,
    broadcast,
    bytes_of,
    choose,
    fma,
    lanes_of,
    load_first,
    number,
    store_first,
)

MOMENTS, MASK = 1, 2
# Entries: mode, sums, numbers in a slab, then for MASK: z minus the gradient (in bytes), mean,
# scale, shift, low, high (as float64).


@device
def leave(table, rows, row_bytes, count, columns, column, channels, slab, first, like):
    """Works off ``count`` rows of results, from channel ``column`` on.

    ``first`` says that these are the slab's first rows.
    """
    size = bytes_of(like)
    sums = slot(table, 1) + (slab * slot(table, 2) + column) * size
    if slot(table, 0) == MOMENTS:
        _moments(sums, channels * size, rows, row_bytes, count, columns, first, like)
    else:
        _mask(table, sums, channels * size, rows, row_bytes, count, columns, column * size, first,
              like)  # fmt: skip


@device
def _moments(sums, next_, rows, row_bytes, count, columns, first, like):
    size, width = bytes_of(like), lanes_of(like)
    for c in range(0, columns, width):
        left = columns - c
        here = sums + c * size
        if first:
            zero = broadcast(number(0, like))
            store_first(here, load_first(rows + c * size, left, like), left)
            store_first(here + next_, zero, left)
            store_first(here + 2 * next_, zero, left)
        pivot = load_first(here, left, like)
        one, two = load_first(here + next_, left, like), load_first(here + 2 * next_, left, like)
        for r in range(count):
            x = load_first(rows + r * row_bytes + c * size, left, like) - pivot
            one = one + x
            two = fma(x, x, two)
        store_first(here + next_, one, left)
        store_first(here + 2 * next_, two, left)


@device
def _mask(table, sums, next_, rows, row_bytes, count, columns, channel, first, like):
    size, width = bytes_of(like), lanes_of(like)
    other = slot(table, 3)
    low, high = broadcast(real(table, 7, like)), broadcast(real(table, 8, like))
    zero = broadcast(number(0, like))
    for c in range(0, columns, width):
        left = columns - c
        at = channel + c * size
        mean = load_first(slot(table, 4) + at, left, like)
        scale = load_first(slot(table, 5) + at, left, like)
        shift = load_first(slot(table, 6) + at, left, like)
        here = sums + c * size
        one, two = zero, zero
        if not first:
            one, two = load_first(here, left, like), load_first(here + next_, left, like)
        for r in range(count):
            place = rows + r * row_bytes + c * size
            z = load_first(place + other, left, like) - mean
            inside = fma(z, scale, shift)
            d = load_first(place, left, like)
            # NaN is not at most anything, and keeps its gradient, as in PyTorch.
            d = choose(at_most(inside, low), zero, choose(at_most(high, inside), zero, d))
            one = fma(d, z, one)
            two = two + d
            store_first(place, d * scale, left)
        store_first(here, one, left)
        store_first(here + next_, two, left)


def _merge(arguments, program, thread, kind):
    slabs, channels = slot(arguments, 0), slot(arguments, 1)
    numbers = slot(arguments, 2)
    sums = array(slot(arguments, 3), slabs * numbers, kind)
    counts = array(slot(arguments, 4), slabs, np.int64)
    mean = array(slot(arguments, 5), channels, kind)
    variance = array(slot(arguments, 6), channels, kind)
    begin, end = program * 64, min((program + 1) * 64, channels)
    total = 0
    for s in range(slabs):
        total += counts[s]
    middles, squares = np.zeros(64), np.zeros(64)
    for s in range(slabs):
        for c in range(begin, end):
            at = s * numbers + c
            middles[c - begin] += (
                counts[s] * np.float64(sums[at]) + np.float64(sums[at + channels])
            ) / total
    for s in range(slabs):
        for c in range(begin, end):
            at = s * numbers + c
            apart = np.float64(sums[at + channels]) / counts[s]
            middle = np.float64(sums[at]) + apart - middles[c - begin]
            square = np.float64(sums[at + 2 * channels]) - counts[s] * apart * apart
            squares[c - begin] += (max(0.0, square) + counts[s] * middle * middle) / total
    for c in range(begin, end):
        mean[c] = middles[c - begin]
        variance[c] = squares[c - begin]


_merge_of = device(_merge)


@kernel
def _merge_float32(arguments, program, thread):
    _merge_of(arguments, program, thread, np.float32)


@kernel
def _merge_float64(arguments, program, thread):
    _merge_of(arguments, program, thread, np.float64)


class Behind:
    """Sums over all rows of a result; ``begin`` says how it is cut into slabs."""

    mode = 0
    parts = 0  # numbers for each channel

    def begin(self, out: Tensor, counts: np.ndarray) -> int:
        """Makes room for slabs of ``counts`` rows each; returns the table's address."""
        self.counts, self.channels = counts, out.shape[1]
        numbers = padded_columns(self.parts * self.channels, out.dtype)
        self.sums = torch.empty(len(counts), numbers, dtype=out.dtype)
        self.table = Table([self.mode, self.sums.data_ptr(), numbers, *self.operands(out)])
        return self.table.address

    def operands(self, out: Tensor) -> list[int]:
        return []


class Moments(Behind):
    """Mean and variance of each channel of a result."""

    mode, parts = MOMENTS, 3

    def result(self) -> tuple[Tensor, Tensor]:
        """(mean, biased variance), ``[C]`` each."""
        sums, channels = self.sums, self.channels
        mean, variance = (torch.empty(channels, dtype=sums.dtype) for _ in range(2))
        compiled = _merge_float32 if sums.dtype == torch.float32 else _merge_float64
        arguments = [len(sums), channels, sums.shape[1], sums.data_ptr(), self.counts.ctypes.data,
                     mean.data_ptr(), variance.data_ptr()]  # fmt: skip
        launch(compiled, arguments, -(-channels // 64))
        return mean, variance


class Mask(Behind):
    """The gradient before ``clamp((z - mean)·scale + shift)``, and the sums its parameters need."""

    mode, parts = MASK, 2

    def __init__(
        self, z: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, low: float, high: float
    ) -> None:
        self.given = (z, mean, scale, shift)
        self.bounds = (low, high)

    def operands(self, out: Tensor) -> list[int]:
        z, *rows = self.given
        return [
            z.data_ptr() - out.data_ptr(),
            *(row.data_ptr() for row in rows),
            *(bits(bound) for bound in self.bounds),
        ]

    def result(self) -> tuple[Tensor, Tensor]:
        """(Σ d·(z - mean), Σ d), ``[C]`` each, of the gradients d that are not masked."""
        channels = self.channels
        total = total_of(self.sums)
        return total[:channels], total[channels : 2 * channels]


_ROWS = 256


@device
def _pass(arguments, program, thread, like):
    out, row_bytes, channels = slot(arguments, 0), slot(arguments, 1), slot(arguments, 2)
    first = program * _ROWS
    rows = min(_ROWS, slot(arguments, 3) - first)
    leave(slot(arguments, 4), out + first * row_bytes, row_bytes, rows, channels, 0, channels,
          program, True, like)  # fmt: skip


@kernel
def _pass_float32(arguments, program, thread):
    _pass(arguments, program, thread, np.float32(0))


@kernel
def _pass_float64(arguments, program, thread):
    _pass(arguments, program, thread, np.float64(0))


def pass_over(out: Tensor, behind: Behind) -> None:
    """The same for a result that was made otherwise: one more pass over it."""
    channels = out.shape[1]
    rows = out.numel() // channels
    counts = np.full(-(-rows // _ROWS), _ROWS, dtype=np.int64)
    counts[-1] = rows - (len(counts) - 1) * _ROWS
    table = behind.begin(out, counts)
    arguments = [out.data_ptr(), channels * out.element_size(), channels, rows, table]
    launch(_pass_float32 if out.dtype == torch.float32 else _pass_float64, arguments, len(counts))
