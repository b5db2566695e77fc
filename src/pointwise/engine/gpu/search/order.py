"""The rows of a table in ascending order: each is sorted for itself, in kernels.

A search meets the neighbours of a query in the order of the grid, and tables hold them by cell and
index. Rows are short, so a pass over the digits of all pairs (as PyTorch sorts) would move many
times the bytes. A row is sorted in runs of a few, each at once: the place of a pair is how many
others are less. Runs are then merged two by two: the place of a pair is its place in its own run
and how many are less in the other, which a binary search tells. (Pairs of a row are distinct.)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise.engine.gpu.launch import pieces
from pointwise.engine.gpu.search.grid import launch

RUN = 64  # pairs that are sorted at once
_ROWS = 8  # of a program, one after the other


@triton.jit
def _unsigned(pair):
    """A pair as the number that its 32 bits are: cells may need the highest one."""
    return pair.to(tl.int64) & 0xFFFFFFFF


@triton.jit
def _merges(length, width):
    """How often runs of ``width`` are merged until they are one."""
    merged, merges = tl.full([], width, tl.int32), tl.full([], 0, tl.int32)
    while merged < length:
        merged *= 2
        merges += 1
    return merges


@triton.jit
def _sort_run(pairs, target, length, SIZE: tl.constexpr):
    """Sorts up to ``SIZE`` pairs; what is read has been read by all lanes before one writes."""
    i = tl.arange(0, SIZE)
    inside = i < length
    pair = tl.load(pairs + i, mask=inside, other=0)
    value = _unsigned(pair)
    less = (value[None, :] < value[:, None]) & inside[None, :]
    tl.store(target + tl.sum(less.to(tl.int32), axis=1), pair, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def runs_kernel(row_start, pairs, scratch, rows, ROWS: tl.constexpr, RUN: tl.constexpr):
    """Sorts runs; a row that is merged an odd number of times goes to ``scratch`` first."""
    first = tl.program_id(0) * ROWS
    for row in range(first, tl.minimum(first + ROWS, rows)):
        begin = tl.load(row_start + row)
        length = (tl.load(row_start + row + 1) - begin).to(tl.int32)
        if length <= RUN // 2:
            if length > 1:
                _sort_run(pairs + begin, pairs + begin, length, RUN // 2)
        else:
            for start in range(0, length, RUN):
                at = pairs + begin + start
                if _merges(length, RUN) % 2 == 0:
                    _sort_run(at, at, length - start, RUN)
                else:
                    _sort_run(at, scratch + begin + start, length - start, RUN)


@triton.jit
def _merge_row(source, target, length, width, BLOCK: tl.constexpr):
    """Merges the runs of ``width`` of one row two by two."""
    for start in range(0, length, BLOCK):
        i = start + tl.arange(0, BLOCK)
        inside = i < length
        pair = tl.load(source + i, mask=inside, other=0)
        run = i // width
        other = tl.minimum((run ^ 1) * width, length)
        end = tl.where(inside, tl.minimum(other + width, length), other)
        # Halved by hand: the pairs are compared as unsigned numbers.
        low, high, reach = other, end, width
        while reach > 0:
            going = low < high
            middle = low + ((high - low) >> 1)
            near = tl.load(source + middle, mask=going, other=0)
            less = _unsigned(near) < _unsigned(pair)
            low = tl.where(going & less, middle + 1, low)
            high = tl.where(going, tl.where(less, high, middle), high)
            reach = reach // 2
        place = (run // 2) * (2 * width) + i % width + (low - other)
        tl.store(target + place, pair, mask=inside)


@triton.jit(do_not_specialize=["rows", "width"])
def merge_kernel(row_start, pairs, scratch, rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Merges the runs of ``width`` in all rows that have more than one, into the other memory."""
    first = tl.program_id(0) * ROWS
    for row in range(first, tl.minimum(first + ROWS, rows)):
        begin = tl.load(row_start + row)
        length = (tl.load(row_start + row + 1) - begin).to(tl.int32)
        if length > width:
            if _merges(length, width) % 2 == 0:
                _merge_row(pairs + begin, scratch + begin, length, width, BLOCK)
            else:
                _merge_row(scratch + begin, pairs + begin, length, width, BLOCK)


def order_rows(row_start: Tensor, pairs: Tensor, longest: int) -> None:
    """Sorts the ``pairs`` of every row in place; ``longest`` is how many the longest row has."""
    if longest < 2:
        return
    rows, width = len(row_start) - 1, RUN
    grid = (pieces(rows, _ROWS),)
    scratch = torch.empty_like(pairs) if longest > RUN else pairs
    launch(runs_kernel, grid, pairs, row_start, pairs, scratch, rows, ROWS=_ROWS, RUN=RUN,
           num_warps=1)  # fmt: skip
    while width < longest:
        launch(merge_kernel, grid, pairs, row_start, pairs, scratch, rows, width, ROWS=_ROWS,
               BLOCK=2 * RUN, num_warps=1)  # fmt: skip
        width *= 2
