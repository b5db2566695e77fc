"""The gather of the point-cloud convolution: one mean (or sum) of features per kernel cell.

Row i of the gathered matrix A ``[N, M·C]`` holds, for each of the M kernel cells around query i, the
C features of the neighbours in that cell, reduced; an empty cell holds zeros. Its adjoint is the
same gather over the transposed table, with each pair weighted by one over the number of points in
its cell (Hua, Tran, Yeung, CVPR 2018, section 3).
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from pointwise.engine.cpu.launch import array, kernel, slot
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    lanes_of,
    load_first,
    number,
    peek,
    store_first,
)

# How a cell's features are reduced: summed; divided by their number; or each multiplied by one over
# the number of points in the cell it came from, which is the adjoint of the second.
SUM, MEAN, ADJOINT_OF_MEAN = 0, 1, 2


def decode(row_start: Tensor, pairs: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """(query, cell, point), each ``[P]`` int64, of a table whose indices have ``bits`` bits."""
    rows = torch.arange(len(row_start) - 1, device=pairs.device)
    query = torch.repeat_interleave(rows, row_start.diff(), output_size=len(pairs))
    packed = pairs.long() & 0xFFFFFFFF
    return query, packed >> bits, packed & ((1 << bits) - 1)


def reference(
    features: Tensor, row_start: Tensor, pairs: Tensor, bits: int, cells: int, mean: bool
) -> Tensor:
    """A ``[N, cells, C]`` in plain PyTorch, differentiable, on any device and in any precision."""
    query, cell, point = decode(row_start, pairs, bits)
    rows, channels = len(row_start) - 1, features.shape[1]
    slot_of = query * cells + cell
    gathered = features.new_zeros(rows * cells, channels).index_add(0, slot_of, features[point])
    if mean:
        count = torch.bincount(slot_of, minlength=rows * cells).clamp(min=1)
        gathered = gathered / count.to(features.dtype)[:, None]
    return gathered.view(rows, cells, channels)


@njit(cache=True)
def fill(target, target_row, first, rows, x, x_row, channels, row_start, pairs, bits, mode, counts,
         cells, mirrored, like):  # fmt: skip
    """Writes rows ``first … first + rows`` of A to ``target``; strides and addresses in bytes.

    ``mirrored`` reads the table as its own transpose: cell m stands for cell M-1-m.
    """
    size = bytes_of(like)
    width = lanes_of(like)
    mask = (1 << bits) - 1
    packed = np.uint32(0)
    zero = broadcast(number(0, like))
    for r in range(rows):
        row = target + r * target_row
        for k in range(0, cells * channels, width):
            store_first(row + k * size, zero, cells * channels - k)
        begin = slot(row_start, first + r)
        end = slot(row_start, first + r + 1)
        for c in range(0, channels, 4 * width):
            # Up to four registers of channels at a time; lanes past the last channel stay zero.
            left = channels - c
            p = begin
            while p < end:
                key = np.int64(peek(pairs + 4 * p, packed)) >> bits
                cell = cells - 1 - key if mirrored else key
                run = p
                s0, s1, s2, s3 = zero, zero, zero, zero
                while p < end:
                    entry = np.int64(peek(pairs + 4 * p, packed))
                    if entry >> bits != key:
                        break
                    source = x + (entry & mask) * x_row + c * size
                    if mode == ADJOINT_OF_MEAN:
                        count = peek(counts + 4 * ((entry & mask) * cells + cell), np.int32(0))
                        weight = broadcast(reciprocal(count, like))
                        s0 = s0 + weight * load_first(source, left, like)
                        if left > width:
                            s1 = s1 + weight * load_first(source + width * size, left - width, like)
                        if left > 2 * width:
                            s2 = s2 + weight * load_first(
                                source + 2 * width * size, left - 2 * width, like
                            )
                            s3 = s3 + weight * load_first(
                                source + 3 * width * size, left - 3 * width, like
                            )
                    else:
                        s0 = s0 + load_first(source, left, like)
                        if left > width:
                            s1 = s1 + load_first(source + width * size, left - width, like)
                        if left > 2 * width:
                            s2 = s2 + load_first(source + 2 * width * size, left - 2 * width, like)
                            s3 = s3 + load_first(source + 3 * width * size, left - 3 * width, like)
                    p += 1
                if mode == MEAN:
                    weight = broadcast(reciprocal(p - run, like))
                    s0, s1, s2, s3 = s0 * weight, s1 * weight, s2 * weight, s3 * weight
                place = row + (cell * channels + c) * size
                store_first(place, s0, left)
                if left > width:
                    store_first(place + width * size, s1, left - width)
                if left > 2 * width:
                    store_first(place + 2 * width * size, s2, left - 2 * width)
                    store_first(place + 3 * width * size, s3, left - 3 * width)


@njit(cache=True)
def reciprocal(count, like):
    """1 / count in the kernel's own precision."""
    return number(1, like) / number(count, like)


_COUNT_ROWS = 4096


@kernel
def count_cells(arguments, program, thread):
    """How many neighbours each query has in each cell: counts ``[N, M]`` int32, zeroed before."""
    row_start, pairs, bits = slot(arguments, 0), slot(arguments, 1), slot(arguments, 2)
    rows, cells = slot(arguments, 3), slot(arguments, 4)
    counts = array(slot(arguments, 5), rows * cells, np.int32)
    for i in range(program * _COUNT_ROWS, min((program + 1) * _COUNT_ROWS, rows)):
        for p in range(slot(row_start, i), slot(row_start, i + 1)):
            counts[i * cells + (np.int64(peek(pairs + 4 * p, np.uint32(0))) >> bits)] += 1


def count_programs(rows: int) -> int:
    """How many programs ``count_cells`` is launched with."""
    return -(-rows // _COUNT_ROWS)
