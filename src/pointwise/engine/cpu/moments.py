"""Sums over all rows of a result, which batch norm needs, taken while a tile is in the cache.

A kernel gets the address of a table of the layout ``MOMENTS``, or 0. Each program makes some rows
of the result, a split, and has partial sums of its own. There are two kinds:

STATISTICS, of results x: ``[3, C]`` for a split, its first row p, Σ(x - p) and Σ(x - p)². A number
close to the mean is taken off, so that nothing cancels.

NORM_GRADIENT, of gradients d that come back to ``clamp((z - mean)·scale + shift)``: d becomes zero
where that is outside the bounds, ``[2, C]`` for a split is Σ d·(z - mean) and Σ d, and what is left
of the gradient is d·scale.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype, by_kind
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import array, launch
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.norm import NORM
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import total_of
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

STATISTICS, NORM_GRADIENT = 1, 2

MOMENTS = Layout("Moments", "*sums *grad *z kind numbers", norm=NORM)
"""There are ``numbers`` sums for a split. Of NORM_GRADIENT, ``grad`` is the result, which lies in
memory as ``z`` does."""


# --- in kernels -----------------------------------------------------------------------------------


@device
def add_moments(moments, rows, row_bytes, count, columns, column, channels, split, begins, like):
    """Adds ``count`` rows of a result to the sums of a split.

    Of ``channels``, the rows have ``columns`` from ``column`` on. ``begins`` says that they are the
    split's first. Of NORM_GRADIENT it changes them.
    """
    own = MOMENTS(moments)
    size = bytes_of(like)
    sums = own.sums + (split * own.numbers + column) * size
    if own.kind == STATISTICS:
        _statistics(sums, channels * size, rows, row_bytes, count, columns, begins, like)
    else:
        _norm_gradient(
            own, sums, channels * size, rows, row_bytes, count, columns, column * size, begins, like
        )


@device
def _statistics(sums, sums_row, rows, row_bytes, count, columns, begins, like):
    size, width = bytes_of(like), lanes_of(like)
    zero = broadcast(number(0, like))
    for c in range(0, columns, width):
        left = columns - c
        here, first = sums + c * size, rows + c * size
        if begins:
            store_first(here, load_first(first, left, like), left)
            store_first(here + sums_row, zero, left)
            store_first(here + 2 * sums_row, zero, left)
        pivot = load_first(here, left, like)
        total = load_first(here + sums_row, left, like)
        squares = load_first(here + 2 * sums_row, left, like)
        # Two rows at a time: one sum would wait for itself.
        other_total, other_squares = zero, zero
        for r in range(0, count - 1, 2):
            x = load_first(first + r * row_bytes, left, like) - pivot
            other = load_first(first + (r + 1) * row_bytes, left, like) - pivot
            total, other_total = total + x, other_total + other
            squares, other_squares = fma(x, x, squares), fma(other, other, other_squares)
        if count % 2 == 1:
            x = load_first(first + (count - 1) * row_bytes, left, like) - pivot
            total, squares = total + x, fma(x, x, squares)
        store_first(here + sums_row, total + other_total, left)
        store_first(here + 2 * sums_row, squares + other_squares, left)


@device
def _norm_gradient(own, sums, sums_row, rows, row_bytes, count, columns, channel, begins, like):
    size, width = bytes_of(like), lanes_of(like)
    norm = own.norm
    low, high = broadcast(number(norm.low, like)), broadcast(number(norm.high, like))
    zero, apart = broadcast(number(0, like)), own.z - own.grad
    for c in range(0, columns, width):
        left = columns - c
        at = channel + c * size
        mean = load_first(norm.mean + at, left, like)
        scale = load_first(norm.scale + at, left, like)
        shift = load_first(norm.shift + at, left, like)
        here = sums + c * size
        weighted, total = zero, zero
        if not begins:
            weighted = load_first(here, left, like)
            total = load_first(here + sums_row, left, like)
        for r in range(count):
            place = rows + r * row_bytes + c * size
            z = load_first(place + apart, left, like) - mean
            x = fma(z, scale, shift)
            d = load_first(place, left, like)
            # NaN is not at most anything, and keeps its gradient, as in PyTorch.
            d = choose(at_most(x, low), zero, choose(at_most(high, x), zero, d))
            weighted = fma(d, z, weighted)
            total = total + d
            store_first(place, d * scale, left)
        store_first(here, weighted, left)
        store_first(here + sums_row, total, left)


# --- mean and variance of all splits --------------------------------------------------------------

_MERGE = Layout("Merge", "*sums *counts *mean *variance splits channels numbers")
BLOCK = 64  # channels of one program


@device
def merged(sums, counts, splits, numbers, channels, begin, width, means, squares, kind):
    """Adds mean and biased variance of ``width`` channels to zeros, from all splits' statistics."""
    sums = array(sums, splits * numbers, kind)
    counts = array(counts, splits, np.int64)
    total = 0
    for s in range(splits):
        total += counts[s]
    share = 1.0 / total
    # Slices: an index that a compiler cannot tell from one below 0 keeps it from whole registers.
    # Means are counted from the first row, so that those of constant channels are exact.
    base = sums[begin : begin + width]
    for s in range(splits):
        first, count = s * numbers + begin, np.float64(counts[s])
        pivot = sums[first : first + width]
        from_pivot = sums[first + channels : first + channels + width]
        for c in range(width):
            means[c] += (count * (np.float64(pivot[c]) - base[c]) + from_pivot[c]) * share
    for s in range(splits):
        first, count = s * numbers + begin, np.float64(counts[s])
        part = 1.0 / count
        pivot = sums[first : first + width]
        from_pivot = sums[first + channels : first + channels + width]
        about_pivot = sums[first + 2 * channels : first + 2 * channels + width]
        for c in range(width):
            apart = from_pivot[c] * part
            from_mean = np.float64(pivot[c]) - base[c] + apart - means[c]
            square = about_pivot[c] - count * apart * apart
            squares[c] += (max(0.0, square) + count * from_mean * from_mean) * share
    for c in range(width):
        means[c] = base[c] + means[c]


@device
def _merge(arguments, program, thread, kind):
    """Mean and biased variance of some channels, from the statistics of all splits, in float64."""
    own = _MERGE(arguments)
    channels = own.channels
    mean = array(own.mean, channels, kind)
    variance = array(own.variance, channels, kind)
    begin, end = program * BLOCK, min((program + 1) * BLOCK, channels)
    means, squares = np.zeros(BLOCK), np.zeros(BLOCK)
    merged(own.sums, own.counts, own.splits, own.numbers, channels, begin, end - begin, means,
           squares, kind)  # fmt: skip
    for c in range(begin, end):
        mean[c] = means[c - begin]
        variance[c] = squares[c - begin]


_MERGE_KERNELS = by_kind(_merge, "merge")


# --- on the host ----------------------------------------------------------------------------------


class Reduction:
    """Sums over all rows of a result; ``begin`` says how its rows are split."""

    rows: int  # of [C] for a split

    def begin(self, out: Tensor, counts: np.ndarray) -> Arguments:
        """Makes room for the sums of splits of ``counts`` rows; returns the kernel's table."""
        counts.setflags(write=False)  # from shapes alone: the same in every run
        self.counts, self.channels = counts, out.shape[1]
        numbers = padded_columns(self.rows * self.channels, out.dtype)
        self.sums = torch.empty(len(counts), numbers, dtype=out.dtype)
        return self.arguments(out)

    def arguments(self, out: Tensor) -> Arguments:
        raise NotImplementedError


class Moments(Reduction):
    """Mean and variance of each channel of a result."""

    rows = 3

    def arguments(self, out: Tensor) -> Arguments:
        norm = NORM(mean=None, scale=None, shift=None, low=0.0, high=0.0)
        numbers = self.sums.shape[1]
        return MOMENTS(
            sums=self.sums, grad=None, z=None, kind=STATISTICS, numbers=numbers, norm=norm
        )

    def result(self) -> tuple[Tensor, Tensor]:
        """(mean, biased variance), ``[C]`` each."""
        sums, channels = self.sums, self.channels
        mean, variance = (torch.empty(channels, dtype=sums.dtype) for _ in range(2))
        arguments = _MERGE(
            sums=sums,
            counts=self.counts,
            mean=mean,
            variance=variance,
            splits=len(sums),
            channels=channels,
            numbers=sums.shape[1],
        )
        launch(_MERGE_KERNELS[sums.dtype], arguments, -(-channels // BLOCK))
        return mean, variance


class NormGradient(Reduction):
    """The gradient before ``clamp((z - mean)·scale + shift)``, and the sums its parameters need."""

    rows = 2

    def __init__(
        self, z: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, low: float, high: float
    ) -> None:
        self.z = z
        self.norm = NORM(mean=mean, scale=scale, shift=shift, low=low, high=high)

    def arguments(self, out: Tensor) -> Arguments:
        return MOMENTS(
            sums=self.sums,
            grad=out,
            z=self.z,
            kind=NORM_GRADIENT,
            numbers=self.sums.shape[1],
            norm=self.norm,
        )

    def result(self) -> tuple[Tensor, Tensor]:
        """(Σ d·(z - mean), Σ d), ``[C]`` each, of the gradients d within the bounds."""
        channels = self.channels
        total = total_of(self.sums)
        return total[:channels], total[channels : 2 * channels]


# --- a pass of its own ----------------------------------------------------------------------------

_PASS = Layout("Pass", "*out *moments row_bytes channels rows")
_ROWS = 256  # of one program


@device
def _pass(arguments, program, thread, like):
    own = _PASS(arguments)
    first = program * _ROWS
    rows = min(_ROWS, own.rows - first)
    out = own.out + first * own.row_bytes
    add_moments(
        own.moments, out, own.row_bytes, rows, own.channels, 0, own.channels, program, True, like
    )


_PASS_KERNELS = by_dtype(_pass, "pass")


def pass_over(out: Tensor, reduction: Reduction) -> None:
    """The same for a channels_last image that was made otherwise: one more pass over it."""
    channels = out.shape[1]
    rows = out.numel() // channels
    counts = np.full(-(-rows // _ROWS), _ROWS, dtype=np.int64)
    counts[-1] = rows - (len(counts) - 1) * _ROWS
    arguments = _PASS(
        out=out,
        moments=reduction.begin(out, counts),
        row_bytes=channels * out.element_size(),
        channels=channels,
        rows=rows,
    )
    launch(_PASS_KERNELS[out.dtype], arguments, len(counts))
