"""Where a convolution on a cloud looks: which neighbours lie in which kernel cell of a query.

With cell size s, odd kernel size k and dilation d, cell ``(z·k + y)·k + x`` of query q, counted
from the lowest corner, is the half-open cube of edge s centred at ``q + d·s·((x, y, z) - (k-1)/2)``
(Hua, Tran, Yeung, CVPR 2018). A *table* of neighbours is ``row_start [rows + 1]`` int64 and ``pairs
[P]`` int32: row i holds ``cell << bits | point`` for each neighbour of query i, in ascending order,
where ``bits`` is ``index_bits`` of the number of points. The adjoint of a gather over a table is
one over its ``transpose``. All here is plain NumPy and PyTorch, on any device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def index_bits(count: int) -> int:
    """How many low bits of a pair hold the index of one of ``count`` points."""
    return max(1, (count - 1).bit_length())


# --- positions ------------------------------------------------------------------------------------


def cells_of(
    offset: np.ndarray, cell_size: float, kernel_size: int, dilation: int
) -> tuple[np.ndarray, np.ndarray]:
    """(cell ``[P]`` int64, mirrored ``[P]`` bool) of each offset ``[P, 3]`` from query to point.

    The cell is -1 where the point is no neighbour. ``mirrored`` says that the query is in the
    opposite cell of the point, M-1-m for m: as all are but those on a border, which half-open cells
    give to one side. This is the definition, in float64 and in this order of operations, so that
    every search gives the same answer: along each axis the cell is t = ⌊δ·(1/(d·s)) + ½⌋ and must
    satisfy |t| ≤ (k-1)/2; for a dilation d > 1 also -s/2 ≤ δ - t·(d·s) < s/2.
    """
    pitch, centre = dilation * cell_size, (kernel_size - 1) // 2
    t = np.floor(offset * (1 / pitch) + 0.5)
    inside = (np.abs(t) <= centre).all(axis=1)
    mirrored = (np.floor(0.5 - offset * (1 / pitch)) == -t).all(axis=1)
    if dilation > 1:
        rest = offset - t * pitch
        inside &= ((rest >= -cell_size / 2) & (rest < cell_size / 2)).all(axis=1)
        mirrored &= (rest > -cell_size / 2).all(axis=1)
    x, y, z = (t[inside].astype(np.int64) + centre).T
    cell = np.full(len(offset), -1)
    cell[inside] = (z * kernel_size + y) * kernel_size + x
    return cell, mirrored


# --- tables ---------------------------------------------------------------------------------------


def decode(row_start: Tensor, pairs: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """(query, cell, point) of every pair, each ``[P]`` int64."""
    rows = torch.arange(len(row_start) - 1, device=pairs.device)
    query = torch.repeat_interleave(rows, row_start.diff(), output_size=len(pairs))
    packed = pairs.long() & 0xFFFFFFFF
    return query, packed >> bits, packed & ((1 << bits) - 1)


def transpose(
    row_start: Tensor, pairs: Tensor, points: int, bits: int, query_bits: int
) -> tuple[Tensor, Tensor]:
    """The transposed table: for each of the ``points``, by cell, the queries it is a neighbour of.

    ``bits`` hold the index of a point in a pair, ``query_bits`` will hold that of a query. Sixteen
    bytes per pair and more while it runs, where a search needs none.
    """
    query, cell, point = decode(row_start, pairs, bits)
    packed = cell << query_bits | query
    order = (point << 32 | packed).argsort()
    starts = torch.bincount(point, minlength=points).cumsum(0)
    return torch.cat([starts.new_zeros(1), starts]), packed[order].to(torch.int32)


def is_sound(row_start: Tensor, pairs: Tensor, bits: int, points: int, cells: int) -> Tensor:
    """Whether rows follow each other and pairs name ``points`` and ``cells``, cell by cell.

    A bool without dimensions, on the table's device: whoever reads it waits.
    """
    count = len(pairs)
    packed = pairs.long() & 0xFFFFFFFF
    cell, point = packed >> bits, packed & ((1 << bits) - 1)
    sound = (row_start[0] == 0) & (row_start[-1] == count) & (row_start.diff() >= 0).all()
    begins = torch.zeros(count + 1, dtype=torch.bool, device=pairs.device)
    begins.index_fill_(0, row_start.clamp(0, count), True)
    rises = (cell.diff() >= 0) | begins[1:count]  # cells may fall where a row begins
    return sound & rises.all() & (cell < cells).all() & (point < points).all()


# --- weights in the order of the cells ------------------------------------------------------------


def by_cell(weight: Tensor) -> Tensor:
    """``[C_out, C_in, k, k, k]`` as the mix, cell by cell: ``[M, C_in, C_out]``."""
    return weight.flatten(2).permute(2, 1, 0)


def depthwise_by_cell(weight: Tensor) -> Tensor:
    """``[C, 1, k, k, k]`` as ``[M, C]``."""
    return weight.flatten(1).t()


# --- the gathers over a table, and the weights of their adjoint -----------------------------------


def gather(
    features: Tensor, row_start: Tensor, pairs: Tensor, bits: int, cells: int, mean: bool
) -> Tensor:
    """A ``[N, M, C]``: the mean (or sum) of the ``features [Np, C]`` in each cell, differentiable.

    A cell without neighbours holds zeros.
    """
    query, cell, point = decode(row_start, pairs, bits)
    rows, channels = len(row_start) - 1, features.shape[1]
    where = query * cells + cell
    gathered = features.new_zeros(rows * cells, channels).index_add(0, where, features[point])
    if mean:
        count = torch.bincount(where, minlength=rows * cells).clamp(min=1)
        gathered = gathered / count.to(features.dtype)[:, None]
    return gathered.view(rows, cells, channels)


def gather_depthwise(
    features: Tensor, weight: Tensor, row_start: Tensor, pairs: Tensor, bits: int, mean: bool
) -> Tensor:
    """``[N, C]``: each channel of A times its own ``weight [C, 1, k, k, k]``, differentiable."""
    cells = weight[0].numel()
    gathered = gather(features, row_start, pairs, bits, cells, mean)
    return (gathered * weight.reshape(len(weight), cells).t()).sum(dim=1)


def adjoint_weights(
    row_start: Tensor,
    pairs: Tensor,
    bits: int,
    cells: int,
    mean: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """(query·M + cell, point, weight) of every pair, each ``[P]``: how A's gradient goes back.

    The weight is one over the number of points in the pair's cell, or 1 for a sum.
    """
    query, cell, point = decode(row_start, pairs, bits)
    where = query * cells + cell
    if not mean:
        return where, point, torch.ones(len(where), dtype=dtype, device=where.device)
    count = torch.bincount(where, minlength=(len(row_start) - 1) * cells)
    return where, point, 1 / count[where].to(dtype)
