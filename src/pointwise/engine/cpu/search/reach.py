"""Which rows and columns of a grid a kernel reaches, seen from the rows and columns of its queries.

Along one axis the kernel is one interval of offsets, or one for each of its cells where a dilation
leaves gaps between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pointwise.engine.cpu.device import device, inlined
from pointwise.engine.cpu.launch import array
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.search.grid import Frame
from pointwise.engine.cpu.vector import poke
from pointwise.engine.search import INDEX_BITS, MARGIN

_FAR = 1 << INDEX_BITS  # further than any two indices are apart

KERNEL = Layout("Kernel", "pitch:real half:real centre:real dilation")
"""Along each axis: the distance of two cells' centres, half a cell's edge, and (k-1)/2."""

REACH = Layout("Reach", "*columns *rows *offsets intervals ranges around")
"""``columns [intervals, 2]`` and ``rows [ranges, 3]`` as below; ``offsets [around]``: of all rows
in the ranges, as the index from the query's row along y or z."""


def reach_arguments(frame: Frame, cell_size: float, kernel_size: int, dilation: int) -> Arguments:
    """What the kernel reaches on the grid of ``frame``."""
    intervals = _intervals(cell_size, kernel_size, dilation)
    columns, rows = _column_ranges(intervals, frame.step), _row_ranges(intervals, frame.edge)
    offsets = np.concatenate([np.arange(first, last + 1) for first, last, _ in rows])
    return REACH(
        columns=columns,
        rows=rows,
        offsets=offsets,
        intervals=len(columns),
        ranges=len(rows),
        around=len(offsets),
    )


def _intervals(cell_size: float, kernel_size: int, dilation: int) -> list[tuple[float, float]]:
    """Where the kernel's cells begin and end along an axis; cells without gaps are one interval."""
    pitch, half, centre = dilation * cell_size, cell_size / 2, (kernel_size - 1) // 2
    if dilation == 1:
        return [(-centre * pitch - half, centre * pitch + half)]
    return [(m * pitch - half, m * pitch + half) for m in range(-centre, centre + 1)]


def _clamped(index: float) -> float:
    return min(max(index, -_FAR), _FAR)


def _column_ranges(intervals: Sequence[tuple[float, float]], step: float) -> np.ndarray:
    """For each interval of the kernel along x: its first and last x index, from the query's."""
    ranges = [
        (
            math.floor(_clamped(low / step - MARGIN)),
            math.floor(_clamped(high / step + 1 + MARGIN)),
        )
        for low, high in intervals
    ]
    return np.array(ranges, dtype=np.int64)


def _row_ranges(intervals: Sequence[tuple[float, float]], edge: float) -> np.ndarray:
    """Offsets of the rows that the kernel reaches along y or z, at most a range per interval.

    ``[R, 3]``: first, last, and how many come before, without overlaps. A row and a query's own
    are an edge wide each, so that a row less than one edge off an interval may meet it.
    """
    ranges: list[list[int]] = []
    before = 0
    for low, high in intervals:
        first = math.ceil(_clamped(low / edge - 1 - 0.9 * MARGIN))
        last = math.floor(_clamped(high / edge + 1 + 0.9 * MARGIN))
        if ranges:
            first = max(first, ranges[-1][1] + 1)
        if first <= last:
            ranges.append([first, last, before])
            before += last - first + 1
    return np.array(ranges, dtype=np.int64)


# --- in kernels -----------------------------------------------------------------------------------


@device
def rows_around(points, frame, reach, key, around):
    """How many rows of points the kernel reaches from the row ``key``, and which.

    ``around [·, 3]`` int64 gets their numbers, and where their offsets along y and z are in
    ``reach.offsets``. Jumps from one to the next of the rows that hold a point, so that empty
    space costs nothing.
    """
    row_key = array(points.row_key, points.rows, np.int64)
    ranges = array(reach.rows, 3 * reach.ranges, np.int64)
    bits_y, bits_z = frame.bits_y, frame.bits_z
    mask_y, mask_z = (1 << bits_y) - 1, (1 << bits_z) - 1
    iy, iz, cloud = key & mask_y, (key >> bits_y) & mask_z, key >> (bits_y + bits_z)
    last = 3 * (reach.ranges - 1)
    lowest_y = max(iy + ranges[0], 0)
    z, range_z, range_y = max(iz + ranges[0], 0), 0, 0
    row = np.searchsorted(row_key, (((cloud << bits_z) | z) << bits_y) | lowest_y)
    found = 0
    while row < len(row_key) and row_key[row] >> (bits_y + bits_z) == cloud:
        y, here = row_key[row] & mask_y, (row_key[row] >> bits_y) & mask_z
        if here != z:
            z, range_y = here, 0
        if z - iz > ranges[last + 1]:
            break
        while z - iz > ranges[range_z + 1]:
            range_z += 3
        next_z = max(z, iz + ranges[range_z])
        next_y = lowest_y
        if next_z == z:
            while range_y < last and y - iy > ranges[range_y + 1]:
                range_y += 3
            if y - iy > ranges[last + 1] or iy + ranges[range_y] > mask_y:
                next_z = z + 1
            elif y - iy < ranges[range_y]:
                next_y = iy + ranges[range_y]
            else:
                at = around + 24 * found
                poke(at, np.int64(row))
                poke(at + 8, ranges[range_y + 2] + y - iy - ranges[range_y])
                poke(at + 16, ranges[range_z + 2] + z - iz - ranges[range_z])
                found += 1
                row += 1
                continue
        if next_z > mask_z:
            break
        row = np.searchsorted(row_key, (((cloud << bits_z) | next_z) << bits_y) | next_y)
    return found


@inlined
def mark_rows(met, reach, kernel, edge, lowest, low, high):
    """Whether rows meet a band of the kernel of any query between ``low`` and ``high``, on an axis.

    ``lowest`` is where the queries' own row begins; ``met [around]`` int64 gets the answers.
    """
    offsets = array(reach.offsets, reach.around, np.int64)
    slack = MARGIN * edge
    for t in range(reach.around):
        row = lowest + offsets[t] * edge
        meets = _meets_band(row - high - slack, row + edge - low + slack, kernel)
        poke(met + 8 * t, np.int64(meets))


@inlined
def _meets_band(low, high, kernel):
    """Whether the offsets [low, high] along one axis meet a band of the kernel."""
    middle, extent = 0.5 * (low + high), 0.5 * (high - low)
    band = min(max(np.floor(middle / kernel.pitch + 0.5), -kernel.centre), kernel.centre)
    return abs(middle - band * kernel.pitch) <= kernel.half + extent
