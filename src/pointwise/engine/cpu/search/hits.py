"""Which candidates of a search are neighbours of a query, and in which kernel cell.

Nearly all are told apart in float32, a register at a time. Those that are so near a border that
rounding could matter, and only those, are looked at by the definition
(``convolution.cells.cells_of``), in float64 and in its order of operations.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from pointwise.engine.cpu.compress import compress_store
from pointwise.engine.cpu.device import device, inlined
from pointwise.engine.cpu.search.owned import AT, HITS, ORDER, X, Y, Z, address
from pointwise.engine.cpu.vector import (
    at_most,
    bits,
    broadcast,
    choose,
    count_bits,
    fma,
    lanes_of,
    less,
    load,
    magnitude,
    nearest,
    peek,
    poke,
    shifted,
    small_uint32,
)

Cells = namedtuple("Cells", "sure_out sure_off may_out may_off size middle")


@inlined
def cells_of(kernel, doubt):
    """What offsets are compared with, in units of the cells' distance, and numbered by."""
    half = kernel.half / kernel.pitch
    out = kernel.centre + half
    size = 2.0 * kernel.centre + 1.0  # cells along an axis
    return Cells(
        np.float32(out - doubt),
        np.float32(half - doubt),
        np.float32(out + doubt),
        np.float32(half + doubt),
        np.float32(size),
        np.float32((size * size + size + 1.0) * kernel.centre),
    )


@inlined
def hits_of(own, cells, q, x, y, z, owned, near):
    """The neighbours of query ``q`` among a group's ``near`` candidates: how many.

    ``x``, ``y`` and ``z`` are its coordinates in float32, as the candidates have theirs. Also
    returns whether one of the neighbours is on a border: not in the opposite cell, seen from the
    other side. (All are but those on a border, which half-open cells give to one side.)
    """
    like = np.float32(0)
    near_x, near_y, near_z = address(owned, X), address(owned, Y), address(owned, Z)
    order, hits = address(owned, ORDER), address(owned, HITS)
    sign = broadcast(np.float32(-1.0 if own.mirrored else 1.0))
    size, middle = broadcast(cells.size), broadcast(cells.middle)
    count = 0
    crossed = False
    for p in range(0, near, lanes_of(like)):
        dx = (load(near_x + 4 * p, like) - broadcast(x)) * sign
        dy = (load(near_y + 4 * p, like) - broadcast(y)) * sign
        dz = (load(near_z + 4 * p, like) - broadcast(z)) * sign
        tx, ty, tz = nearest(dx), nearest(dy), nearest(dz)
        out = _largest(magnitude(dx), magnitude(dy), magnitude(dz))
        off = _largest(magnitude(dx - tx), magnitude(dy - ty), magnitude(dz - tz))
        sure = at_most(out, broadcast(cells.sure_out)) & at_most(off, broadcast(cells.sure_off))
        may = at_most(out, broadcast(cells.may_out)) & at_most(off, broadcast(cells.may_off))
        packed = shifted(small_uint32(fma(fma(tz, size, ty), size, tx) + middle), own.index_bits)
        packed = packed | load(order + 4 * p, packed)
        compress_store(hits + 4 * count, packed, sure)
        count += count_bits(bits(sure))
        doubtful = bits(may) & ~bits(sure)
        if doubtful:
            count, on_border = _exact_hits(own, q, owned, p, doubtful, count)
            crossed |= on_border
    return count, crossed


@inlined
def _largest(a, b, c):
    """Of numbers, which may not be NaN: the instruction that cares for them takes three."""
    ab = choose(less(a, b), b, a)
    return choose(less(ab, c), c, ab)


@device
def _exact_hits(own, q, owned, p, doubtful, count):
    """The same for the candidates from ``p`` on whose bits are set in ``doubtful``: as defined."""
    order, hits = address(owned, ORDER), address(owned, HITS)
    crossed = False
    while doubtful:
        lowest = doubtful & -doubtful
        doubtful ^= lowest
        each = p + count_bits(lowest - 1)
        at = np.int64(peek(address(owned, AT) + 4 * each, np.uint32(0)))
        tz, in_z, opposite_z = _cell(own, 2, q, at)
        ty, in_y, opposite_y = _cell(own, 1, q, at)
        tx, in_x, opposite_x = _cell(own, 0, q, at)
        if in_x and in_y and in_z:
            crossed |= not (opposite_x and opposite_y and opposite_z)
            size = 2.0 * own.kernel.centre + 1.0
            cell = (tz * size + ty) * size + tx + (size * size + size + 1.0) * own.kernel.centre
            point = np.int64(peek(order + 4 * each, np.uint32(0)))
            poke(hits + 4 * count, np.uint32((np.int64(cell) << own.index_bits) | point))
            count += 1
    return count, crossed


@inlined
def _cell(own, axis, q, at):
    """(which cell the point ``at`` is in along an axis, whether it is, whether also opposite)."""
    kernel, value = own.kernel, 0.0
    there = peek(own.points.position + 8 * (axis * own.points.stride + at), value)
    here = peek(own.queries.position + 8 * (axis * own.queries.stride + q), value)
    distance = here - there if own.mirrored else there - here
    inverse = 1.0 / kernel.pitch
    cell = np.floor(distance * inverse + 0.5)
    inside = abs(cell) <= kernel.centre
    opposite = np.floor(0.5 - distance * inverse) == -cell
    if kernel.dilation > 1:
        off = distance - cell * kernel.pitch
        inside = inside and -kernel.half <= off and off < kernel.half
        opposite = opposite and -kernel.half < off
    return cell, inside, opposite
