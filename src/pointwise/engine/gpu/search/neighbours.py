"""Grid search on a GPU: which points lie in which kernel cell of which query.

The predicate is the definition (``convolution.cells.cells_of``), in float64 and in its order of
operations, so that the table is the CPU's bit for bit. A program looks around some queries, each
for itself, at a few candidates at once. Queries are taken in the order of the grid, so that those
beside each other walk along the same rows of points: once to count their neighbours, and once, when
the table's size is known, to write them.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise.convolution.cells import index_bits
from pointwise.engine import found
from pointwise.engine.gpu.launch import pieces
from pointwise.engine.gpu.search.grid import (
    Grid,
    bits_of,
    build_both,
    build_once,
    launch,
    lower_bound,
    real,
    refuse,
)
from pointwise.engine.gpu.search.order import order_rows
from pointwise.engine.search import INDEX_BITS, MARGIN, check, reach_of, row_edge

# Of a program, which is one warp: queries, and candidates of each at once. A binary search for both
# ends of the queries' ranges then has 32 lanes. (Chosen by what fits registers, not measured.)
_QUERIES, _NEAR = 16, 4
# Kernels with gaps are looked at cell by cell along x, unless they have more cells than that.
_MOST_BANDS = 9

_MARGIN = tl.constexpr(MARGIN)
_FAR = tl.constexpr(2.0**INDEX_BITS)  # further than any two indices are apart


def grid_search(
    points: Tensor,
    point_offsets: Tensor,
    queries: Tensor,
    query_offsets: Tensor,
    cell_size: float,
    kernel_size: int,
    dilation: int,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The table of a neighbourhood, as ``engine.cpu.search.neighbours.grid_search`` gives it.

    The CPU waits once, for the number of pairs; what is wrong with coordinates or offsets is known
    by then.
    """
    where = (points, point_offsets, queries, query_offsets)
    nobody = len(point_offsets) == 1  # no clouds, so that offsets are wrong or there is no work
    check(*where, cell_size, kernel_size, dilation, read_offsets=nobody)
    same = points is queries and point_offsets is query_offsets
    rows, columns = len(queries), len(points)
    if transposed:
        rows, columns = columns, rows
    edge, step = _row_size(columns, cell_size, kernel_size, dilation)
    if same:
        source = seekers = build_once(points, point_offsets, edge, step)
    else:
        source, seekers = build_both(*where, edge, step)
    report = [*source.corners.faults.unbind(), *seekers.corners.faults.unbind()]
    if transposed:
        source, seekers = seekers, source
    row_start = torch.zeros(rows + 1, dtype=torch.int64, device=points.device)
    walk = _Walk(source, seekers, cell_size, kernel_size, dilation, transposed)
    if rows and columns:
        counts, on_border = walk.count()
        torch.cumsum(counts, 0, out=row_start[1:])
        report += [row_start[-1], counts.amax(), on_border]
    *faulty, pairs_found, longest, on_border = [*torch.stack(report).tolist(), 0, 0, 0][:7]
    refuse("cell_search", "point_offsets", points, point_offsets, faulty[:2])
    refuse("cell_search", "query_offsets", queries, query_offsets, faulty[2:])
    pairs = torch.empty(pairs_found, dtype=torch.int32, device=points.device)
    if pairs_found:
        walk.write(row_start, pairs)
        order_rows(row_start, pairs, longest)
    symmetric = same and not on_border
    found.remember(row_start, pairs, columns, kernel_size**3, symmetric)
    return row_start, pairs, torch.full((), symmetric, device=points.device)


def _row_size(
    points: int, cell_size: float, kernel_size: int, dilation: int
) -> tuple[float, float]:
    """(edge, step along x) of rows that are wide enough for a kernel."""
    edge, step = row_edge(cell_size, kernel_size, dilation), cell_size / 2
    reach = reach_of(cell_size, kernel_size, dilation)
    # Not more rows around a query than there are points: so time follows them, however far a
    # kernel reaches.
    while _rows_across(reach, edge) ** 2 > max(9, points):
        edge, step = 2 * edge, 2 * step
    return edge, step


def _rows_across(reach: float, edge: float) -> int:
    return 2 * math.floor(reach / edge + 1 + MARGIN) + 1


@triton.jit
def _meets(low, high, pitch, half, centre):
    """Whether the offsets from low to high along one axis meet a cell of the kernel."""
    middle, extent = 0.5 * (low + high), 0.5 * (high - low)
    cell = tl.floor(middle / pitch + 0.5)
    cell = tl.minimum(tl.maximum(cell, -centre), centre)
    return tl.abs(middle - cell * pitch) <= half + extent


@triton.jit
def _index(offset):
    """How many steps an offset is, which may be more than an index has bits for."""
    return tl.minimum(tl.maximum(tl.floor(offset), -_FAR), _FAR).to(tl.int64)


@triton.jit(do_not_specialize=[
    "points", "queries", "pitch", "inverse", "half", "reach", "centre", "bands", "shift", "steps",
])  # fmt: skip
def walk_kernel(
    key, position, order, points,
    asked_key, asked_position, asked_order, queries,
    origin, unit, bits,
    starts, pairs, on_border,
    pitch, inverse, half, reach,
    centre, bands, shift, steps,
    WRITE: tl.constexpr, DILATED: tl.constexpr, MIRRORED: tl.constexpr, BLOCK: tl.constexpr,
    NEAR: tl.constexpr,
):  # fmt: skip
    """The neighbours of a block of queries: how many of each (to ``starts``), or which they are.

    Writing, ``starts [queries]`` says where the neighbours of each query begin in ``pairs``.
    """
    pitch, inverse, half, reach = real(pitch), real(inverse), real(half), real(reach)
    centre = tl.full([], centre, tl.float64)
    q = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = q < queries
    stride, asked_stride = points.to(tl.int64), queries.to(tl.int64)
    here_x = tl.load(asked_position + q, mask=here, other=0)
    here_y = tl.load(asked_position + asked_stride + q, mask=here, other=0)
    here_z = tl.load(asked_position + 2 * asked_stride + q, mask=here, other=0)
    own = tl.load(asked_key + q, mask=here, other=0)
    number = tl.load(asked_order + q, mask=here, other=0)
    count = tl.zeros([BLOCK], tl.int32)
    crossed = tl.zeros([BLOCK], tl.int32)
    begin = tl.zeros([BLOCK], tl.int64)
    if WRITE:
        begin = tl.load(starts + number, mask=here, other=0)

    one = tl.full([BLOCK], 1, tl.int64)
    bits_x, bits_y, bits_z = tl.load(bits), tl.load(bits + 1), tl.load(bits + 2)
    top_x, top_y, top_z = (one << bits_x) - 1, (one << bits_y) - 1, (one << bits_z) - 1
    own_x, own_y = own & top_x, (own >> bits_x) & top_y
    own_z, cloud = (own >> (bits_x + bits_y)) & top_z, own >> (bits_x + bits_y + bits_z)
    step, edge = tl.load(unit), tl.load(unit + 1)
    slack = _MARGIN * edge
    # From the query to the near side of its own row. The origin is taken away first: far from zero,
    # where it is much larger than a row, it would swallow what tells rows apart.
    low_y = tl.load(origin + 3 * cloud + 1, mask=here, other=0) - here_y
    low_z = tl.load(origin + 3 * cloud + 2, mask=here, other=0) - here_z
    low_y, low_z = low_y + own_y.to(tl.float64) * edge, low_z + own_z.to(tl.float64) * edge
    side = tl.arange(0, 2)[None, :]  # the lower end of a range, and the upper one
    nothing = tl.zeros([BLOCK, 2], tl.int32)
    around = tl.floor(reach / edge + (1 + _MARGIN)).to(tl.int32)
    across = 2 * around + 1

    for t in range(across * across):
        off_z, off_y = t // across - around, t % across - around
        y, z = own_y + off_y, own_z + off_z
        at_y, at_z = low_y + off_y * edge, low_z + off_z * edge
        met = here & (y >= 0) & (y <= top_y) & (z >= 0) & (z <= top_z)
        met = met & _meets(at_y - slack, at_y + edge + slack, pitch, half, centre)
        met = met & _meets(at_z - slack, at_z + edge + slack, pitch, half, centre)
        if tl.max(met.to(tl.int32)) > 0:
            row = ((((cloud << bits_z) | z) << bits_y) | y) << bits_x
            passed = tl.zeros([BLOCK], tl.int32)
            for band in range(bands):
                # One interval along x, or one for each cell of a kernel with gaps; both ends of it.
                middle = tl.where(bands > 1, (band - centre) * pitch, 0.0 * pitch)
                extent = tl.where(bands > 1, half, reach)
                offset = (middle + (2 * side - 1) * extent) / step + side + (2 * side - 1) * _MARGIN
                column = own_x[:, None] + _index(offset)
                column = tl.minimum(tl.maximum(column, 0), top_x[:, None])
                target = (row[:, None] | column) + side
                beyond = tl.where(met[:, None], nothing + points, nothing)
                ends = lower_bound(key, nothing, beyond, steps, target)
                p, stop = tl.split(ends)
                p = tl.maximum(p, passed)  # intervals may overlap: no candidate twice
                passed = tl.maximum(passed, stop)
                for i in range((tl.max(stop - p) + NEAR - 1) // NEAR):
                    near = p[:, None] + (i * NEAR + tl.arange(0, NEAR))[None, :]
                    live = near < stop[:, None]
                    dx = tl.load(position + near, mask=live, other=0) - here_x[:, None]
                    dy = tl.load(position + stride + near, mask=live, other=0) - here_y[:, None]
                    dz = tl.load(position + 2 * stride + near, mask=live, other=0) - here_z[:, None]
                    if MIRRORED:
                        dx, dy, dz = -dx, -dy, -dz
                    tx = tl.floor(dx * inverse + 0.5)
                    ty = tl.floor(dy * inverse + 0.5)
                    tz = tl.floor(dz * inverse + 0.5)
                    inside = live & (tl.abs(tx) <= centre)
                    inside = inside & (tl.abs(ty) <= centre) & (tl.abs(tz) <= centre)
                    if DILATED:
                        rx, ry, rz = dx - tx * pitch, dy - ty * pitch, dz - tz * pitch
                        inside = inside & (rx >= -half) & (rx < half)
                        inside = inside & (ry >= -half) & (ry < half)
                        inside = inside & (rz >= -half) & (rz < half)
                    hit = inside.to(tl.int32)
                    if WRITE:
                        size = 2 * centre + 1
                        cell = (tz * size + ty) * size + tx + (size * size + size + 1) * centre
                        cell = tl.where(inside, cell, 0.0).to(tl.int64)
                        point = tl.load(order + near, mask=inside, other=0)
                        entry = ((cell << shift) | point).to(tl.int32)
                        place = (begin + count)[:, None] + tl.cumsum(hit, axis=1) - hit
                        tl.store(pairs + place, entry, mask=inside)
                    else:
                        # Whether the point sees the query in the opposite cell.
                        opposite = tl.floor(0.5 - dx * inverse) == -tx
                        opposite = opposite & (tl.floor(0.5 - dy * inverse) == -ty)
                        opposite = opposite & (tl.floor(0.5 - dz * inverse) == -tz)
                        if DILATED:
                            opposite = opposite & (rx > -half) & (ry > -half) & (rz > -half)
                        crossed += tl.sum(tl.where(opposite, 0, hit), axis=1)
                    count += tl.sum(hit, axis=1)

    if not WRITE:
        tl.store(starts + number, count.to(tl.int64), mask=here)
        tl.store(on_border, 1, mask=tl.max(crossed) > 0)


class _Walk:
    """Both walks of one search."""

    def __init__(
        self,
        source: Grid,
        seekers: Grid,
        cell_size: float,
        kernel_size: int,
        dilation: int,
        mirrored: bool,
    ) -> None:
        self.source, self.seekers = source, seekers
        pitch, centre = dilation * cell_size, (kernel_size - 1) // 2
        bands = kernel_size if dilation > 1 and kernel_size <= _MOST_BANDS else 1
        reach = reach_of(cell_size, kernel_size, dilation)
        lengths = map(bits_of, (pitch, 1 / pitch, cell_size / 2, reach))
        self.numbers = (*lengths, centre, bands, index_bits(len(source)), len(source).bit_length())
        self.constants = {"DILATED": dilation > 1, "MIRRORED": mirrored}

    def count(self) -> tuple[Tensor, Tensor]:
        """(``[queries]`` int64: how many neighbours each has; whether one is on a border: 0, 1)."""
        counts = torch.empty(len(self.seekers), dtype=torch.int64, device=self.seekers.key.device)
        on_border = counts.new_zeros(())
        self._launch(counts, on_border, on_border, False)
        return counts, on_border

    def write(self, row_start: Tensor, pairs: Tensor) -> None:
        """Writes the neighbours of each query, in the order in which they are met."""
        self._launch(row_start, pairs, row_start, True)

    def _launch(self, starts: Tensor, pairs: Tensor, on_border: Tensor, write: bool) -> None:
        source, seekers, frame = self.source, self.seekers, self.source.frame
        launch(walk_kernel, (pieces(len(seekers), _QUERIES),), starts,
               source.key, source.position, source.order, len(source),
               seekers.key, seekers.position, seekers.order, len(seekers),
               frame.origin, frame.unit, frame.bits,
               starts, pairs, on_border, *self.numbers,
               WRITE=write, **self.constants, BLOCK=_QUERIES, NEAR=_NEAR,
               num_warps=1)  # fmt: skip
