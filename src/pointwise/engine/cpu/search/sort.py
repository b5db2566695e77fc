"""Two sorts: of all points by their keys, in parallel; and of the few neighbours of one query."""

from __future__ import annotations

import numpy as np

from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import array, kernel, launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    lanes_of,
    less,
    load,
    one_more,
    peek,
    poke,
    store,
)

CHUNK = 1 << 15
"""Points that a program takes where each point is a step of its own, at least."""

_BY_RANK = 512  # elements at most: their ranks are counted in the square of it

_DIGIT = 11  # bits sorted in one pass: 2,048 counters stay in the first-level cache

_PASS = Layout(
    "RadixPass", "*keys *order *sorted_keys *sorted_order *counters count chunk shift digit"
)
"""One digit of a radix sort; ``counters [chunks, 2**digit]`` int64."""


@device
def _chunk(own, program):
    """(first, last, counters) of the elements that a program takes."""
    first = program * own.chunk
    digits = 1 << own.digit
    counters = array(own.counters + 8 * program * digits, digits, np.int64)
    return first, min(first + own.chunk, own.count), counters


@kernel
def _count_digits(arguments, program, thread):
    """How often each digit is in a chunk."""
    own = _PASS(arguments)
    first, last, counters = _chunk(own, program)
    shift, mask = own.shift, (1 << own.digit) - 1
    keys = array(own.keys, last, np.int64)
    counters[:] = 0
    for i in range(first, last):
        counters[(keys[i] >> shift) & mask] += 1


@kernel
def _scatter_digits(arguments, program, thread):
    """Moves a chunk to where its digits belong, which the counters say."""
    own = _PASS(arguments)
    first, last, target = _chunk(own, program)
    shift, mask = own.shift, (1 << own.digit) - 1
    keys = array(own.keys, own.count, np.int64)
    order = array(own.order, own.count, np.uint32)
    sorted_keys = array(own.sorted_keys, own.count, np.int64)
    sorted_order = array(own.sorted_order, own.count, np.uint32)
    for i in range(first, last):
        digit = (keys[i] >> shift) & mask
        sorted_keys[target[digit]] = keys[i]
        sorted_order[target[digit]] = order[i]
        target[digit] += 1


def sort_keys(keys: np.ndarray, order: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 ``keys [N]`` and their uint32 ``order [N]`` by the keys' lowest ``bits``: stable.

    A parallel radix sort, which writes to both arrays too.
    """
    count = len(keys)
    passes = -(-bits // _DIGIT)
    digit = -(-bits // passes)
    chunk = max(CHUNK, -(-count // 64))
    chunks = -(-count // chunk)
    counters = np.empty((chunks, 1 << digit), dtype=np.int64)
    spare_keys, spare_order = np.empty_like(keys), np.empty_like(order)
    for number in range(passes):
        arguments = _PASS(
            keys=keys,
            order=order,
            sorted_keys=spare_keys,
            sorted_order=spare_order,
            counters=counters,
            count=count,
            chunk=chunk,
            shift=number * digit,
            digit=digit,
        )
        launch(_count_digits, arguments, chunks)
        # Where each chunk's first of each digit goes: behind all smaller digits, then earlier
        # chunks.
        flat = counters.T.ravel()
        counters[:] = (np.cumsum(flat) - flat).reshape(counters.T.shape).T
        launch(_scatter_digits, arguments, chunks)
        keys, spare_keys = spare_keys, keys
        order, spare_order = spare_order, order
    return keys, order


@device
def sort_distinct(source, count, target):
    """Writes ``count`` distinct uint32 from ``source`` to ``target``, ascending.

    Short lists, nearly all there are, are sorted by rank: an element's place is the number of
    smaller ones, counted for a register of elements at once, without a branch. ``source`` has room
    for as many numbers again, and four registers more.
    """
    value = np.uint32(0)
    width = lanes_of(value)
    if count > _BY_RANK:
        found = array(source, count, np.uint32)
        array(target, count, np.uint32)[:] = found if _ascends(found) else np.sort(found)
        return
    ranks = source + 4 * (count + width)
    for i in range(0, count, width):
        mine = load(source + 4 * i, value)
        rank = broadcast(value)
        for j in range(count):
            rank = one_more(rank, less(broadcast(peek(source + 4 * j, value)), mine))
        store(ranks + 4 * i, rank)
    for i in range(count):
        place = np.int64(peek(ranks + 4 * i, value))
        poke(target + 4 * place, peek(source + 4 * i, value))


@device
def _ascends(found):
    ascending = True
    for i in range(1, len(found)):
        if found[i - 1] > found[i]:
            ascending = False
            break
    return ascending
