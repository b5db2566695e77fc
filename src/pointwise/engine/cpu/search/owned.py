"""The memory of one tile of a search, which grows as neighbours are found."""

from __future__ import annotations

import numpy as np

from pointwise.engine.cpu.device import device, inlined
from pointwise.engine.cpu.launch import host
from pointwise.engine.cpu.vector import peek, poke, release, resize

# What a tile owns: the neighbours of all its queries, one behind the other, which are its result;
# and while it runs, of a group's candidates the place x, y, z, the original index and where they
# are in the grid's order; the neighbours of one query; the rows around, which of them a group
# reaches along y and z, and the ranges in them.
# (By address: counting the references of arrays would cost more than what the functions do.)
OWNED = 11
RESULTS, X, Y, Z, ORDER, AT, HITS, AROUND, MET_Y, MET_Z, CURSORS = range(OWNED)


@inlined
def address(owned, which):
    """Where something is that a tile owns."""
    return peek(owned + 8 * which, np.int64(0))


@device
def grow(owned, which, size):
    """More memory for a tile, which stays on its list until it is freed."""
    grown = resize(address(owned, which), max(size, 8))
    if grown == 0:
        raise MemoryError("there is no memory left for the neighbours of some points")
    poke(owned + 8 * which, grown)


@inlined
def room_for_candidates(owned, room, needed):
    """Makes room for ``needed`` candidates; for how many there is room then."""
    if needed > room:
        room = 2 * needed
        for which in (X, Y, Z, ORDER, AT):
            grow(owned, which, 4 * room)
        grow(owned, HITS, 8 * room)  # and for the ranks of those that are sorted
    return room


@inlined
def room_for_results(owned, room, needed):
    """The same for results."""
    if needed > room:
        room = max(2 * room, needed)
        grow(owned, RESULTS, 4 * room)
    return room


@device
def keep_results(owned):
    """Frees all but the results."""
    for which in range(OWNED):
        if which != RESULTS:
            release(address(owned, which))
            poke(owned + 8 * which, np.int64(0))


@host()
def free(owned):
    """Frees what tiles own, where their results are not wanted any more."""
    for i in range(len(owned)):
        release(owned[i])
