"""Single numbers from many places in memory: whether any of them has changed."""

from __future__ import annotations

import numpy as np
from numba import njit

from pointwise.engine.cpu.vector import peek


@njit(nogil=True, cache=True)
def read(places, numbers):
    """The 32 bits at each address, to ``numbers``."""
    for i in range(len(places)):
        numbers[i] = peek(places[i], np.int32(0))


@njit(nogil=True, cache=True)
def are_same(places, numbers):
    """Whether the 32 bits at each address are still those of ``numbers``."""
    changed = np.int32(0)
    for i in range(len(places)):  # all of them: no branch has to wait for memory
        changed |= peek(places[i], np.int32(0)) ^ numbers[i]
    return changed == 0
