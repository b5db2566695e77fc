"""Attention: ``softmax(Q·Kᵀ·scale + terms)·V``, of each head a tile of queries at a time.

Scores are made turned round, ``K·Qᵀ``: K and V are then read where they lie, and each lane of a
register has a query of its own, so that the softmax goes down a column. Only Q, once for its tile,
is put into the microkernel's order. Where a head's numbers begin is a table, so that heads may lie
between tokens, be broadcast or shared. Of many keys, a block at a time: what the blocks before gave
is scaled to the largest score so far. Source: Dao et al., "FlashAttention", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.activation import quotient
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.elementary import full_exponential
from pointwise.engine.cpu.gemm import FROM_NOTHING, FROM_ROWS, ROWS, multiply, multiply_columns
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.pack import transpose
from pointwise.engine.cpu.vector import (
    REGISTER_BYTES,
    broadcast,
    bytes_of,
    choose,
    equal,
    first,
    fma,
    lanes_of,
    less,
    load,
    load_first,
    negative,
    number,
    peek,
    store,
    store_first,
)

_ATTENTION = Layout(
    "Attention",
    "*q *k *v *out *bias *mask *places *scratch queries keys depth columns tile tiles block q_row "
    "k_row v_row out_row bias_query bias_key mask_query mask_key is_causal copies_values "
    "scratch_bytes scale:real empty:real",
)
"""``places`` has, of each head, how many bytes behind ``q … mask`` its numbers begin. ``…_row``,
``…_query`` and ``…_key`` are bytes from one token to the next. Rows without any key are ``empty``.
"""
MOST_TERMS = 2
_PLACES = 4 + MOST_TERMS
_QUERIES = 112  # of a tile: whole registers, and whole groups of rows
_KEYS = 384  # of a block: its scores stay in the second-level cache


@device
def _add_term(s, s_row, count, scale, term, by_key, left, like):
    """``scores · scale + term``, which has a number for all queries (``left`` is 0) or each."""
    times = broadcast(scale)
    for k in range(count):
        at, place = s + k * s_row, term + k * by_key
        plus = load_first(place, left, like) if left > 0 else broadcast(peek(place, like))
        store(at, fma(load(at, like), times, plus))


@device
def _with_term(s, s_row, count, scale, term, by_query, by_key, lanes, room, like):
    """``_add_term`` of a register of queries; ``room`` is for a term whose keys are neighbours."""
    size, width = bytes_of(like), lanes_of(like)
    if by_query == 0:
        _add_term(s, s_row, count, scale, term, by_key, 0, like)
    elif by_query == size:
        _add_term(s, s_row, count, scale, term, by_key, lanes, like)
    else:
        for k in range(0, count, width):
            transpose(room + k * width * size, term + k * by_key, min(width, count - k), lanes,
                      by_key, by_query, like)  # fmt: skip
        _add_term(s, s_row, count, scale, room, width * size, width, like)


@device
def _largest(s, s_row, count, scale, most, like):
    """The largest of ``most`` and all scores; NaN do not count, they turn up in the sum."""
    times = broadcast(scale)
    for k in range(0, count - 3, 4):  # four at once: comparisons wait for one another
        at = s + k * s_row
        a, b = load(at, like) * times, load(at + s_row, like) * times
        c, d = load(at + 2 * s_row, like) * times, load(at + 3 * s_row, like) * times
        a, c = choose(less(a, b), b, a), choose(less(c, d), d, c)
        a = choose(less(a, c), c, a)
        most = choose(less(most, a), a, most)
    for k in range(count // 4 * 4, count):
        a = load(s + k * s_row, like) * times
        most = choose(less(most, a), a, most)
    return most


@device
def _weigh(s, s_row, count, scale, most, total, like):
    """``e^(score - most)`` in the place of each score; ``total`` plus their sum."""
    times, minus = broadcast(scale), negative(most)
    for k in range(count):
        at = s + k * s_row
        weight = full_exponential(fma(load(at, like), times, minus), like)
        total = total + weight
        store(at, weight)
    return total


@device
def _times_rows(out, out_row, rows, columns, factors, like):
    """Rows times a number each."""
    size, width = bytes_of(like), lanes_of(like)
    for r in range(rows):
        factor = broadcast(peek(factors + r * size, like))
        for c in range(0, columns, width):
            at = out + r * out_row + c * size
            store_first(at, load_first(at, columns - c, like) * factor, columns - c)


@device
def _fill_rows(out, out_row, rows, columns, value, totals, like):
    """``value`` in the rows whose weights are all zeros."""
    size, width = bytes_of(like), lanes_of(like)
    for r in range(rows):
        if peek(totals + r * size, like) == number(0, like):
            for c in range(0, columns, width):
                store_first(out + r * out_row + c * size, broadcast(value), columns - c)


@device
def _attention(arguments, program, thread, like):
    """A tile of queries of one head."""
    own = _ATTENTION(arguments)
    size, width = bytes_of(like), lanes_of(like)
    register = width * size
    head, begin = program // own.tiles, program % own.tiles * own.tile
    rows, depth, columns = min(own.tile, own.queries - begin), own.depth, own.columns
    panels, s_row = -(-rows // width), own.tile * size
    places, whole = own.places + head * 8 * _PLACES, np.int64(0)
    q = own.q + peek(places, whole) + begin * own.q_row
    k, v = own.k + peek(places + 8, whole), own.v + peek(places + 16, whole)
    out = own.out + peek(places + 24, whole) + begin * own.out_row
    bias = own.bias + peek(places + 32, whole) + begin * own.bias_query
    mask = own.mask + peek(places + 40, whole) + begin * own.mask_query

    # The largest scores, sums and factors, a row of queries each; then Q, scores, terms, values.
    mosts = own.scratch + thread * own.scratch_bytes
    totals, factors = mosts + s_row, mosts + 2 * s_row
    turned = mosts + 3 * s_row
    scores = turned + depth * s_row
    room = scores + own.block * s_row
    values = room + own.block * register
    value_row = -(-columns // width) * register

    zero, low = number(0, like), number(-math.inf, like)
    nothing, lowest, one = broadcast(zero), broadcast(low), broadcast(number(1, like))
    high = number(math.inf, like)
    for p in range(panels):
        lanes = min(width, rows - p * width)
        for c in range(0, depth, width):
            transpose(turned + p * depth * register + c * register,
                      q + p * width * own.q_row + c * size, min(width, depth - c), lanes, size,
                      own.q_row, like)  # fmt: skip
        store(mosts + p * register, lowest)
        store(totals + p * register, nothing)

    # Keys behind the last query are nobody's.
    last = min(own.keys, begin + rows) if own.is_causal != 0 else own.keys
    for at in range(0, last, own.block):
        count = min(own.block, last - at)
        multiply(k + at * own.k_row, own.k_row, False, turned, depth * register, depth, scores,
                 s_row, count, panels * width, FROM_NOTHING, 0, 0, 0, low, high, 0, 0, 0,
                 like)  # fmt: skip
        for p in range(panels):
            lanes, s, query = min(width, rows - p * width), scores + p * register, begin + p * width
            scale = number(own.scale, like)
            if own.bias != 0:
                _with_term(s, s_row, count, scale, bias + p * width * own.bias_query
                           + at * own.bias_key, own.bias_query, own.bias_key, lanes, room,
                           like)  # fmt: skip
                scale = number(1, like)
            if own.mask != 0:
                _with_term(s, s_row, count, scale, mask + p * width * own.mask_query
                           + at * own.mask_key, own.mask_query, own.mask_key, lanes, room,
                           like)  # fmt: skip
                scale = number(1, like)
            if own.is_causal != 0:
                for i in range(max(0, query + 1 - at), count):
                    later = s + i * s_row
                    before = first(at + i - query, like)
                    store(later, choose(before, lowest, load(later, like)))
            before, sums = load(mosts + p * register, like), load(totals + p * register, like)
            most = _largest(s, s_row, count, scale, before, like)
            store(mosts + p * register, most)
            # Where all scores are -∞, their distance to the largest would be NaN.
            most = choose(equal(most, lowest), nothing, most)
            if at > 0:
                factor = full_exponential(before - most, like)
                store(factors + p * register, factor)
                sums = sums * factor
            store(totals + p * register, _weigh(s, s_row, count, scale, most, sums, like))
        if at > 0:
            _times_rows(out, own.out_row, rows, columns, factors, like)
        source, row = v + at * own.v_row, own.v_row
        if own.copies_values != 0:  # whole registers are read
            for i in range(count):
                for c in range(0, columns, width):
                    store(values + i * value_row + c * size,
                          load_first(source + i * row + c * size, columns - c, like))  # fmt: skip
            source, row = values, value_row
        multiply_columns(scores, s_row, source, row, count, out, own.out_row, rows, columns,
                         FROM_ROWS if at > 0 else FROM_NOTHING, like)  # fmt: skip

    for p in range(panels):
        total = load(totals + p * register, like)
        store(factors + p * register, quotient(one, choose(equal(total, nothing), one, total)))
    _times_rows(out, own.out_row, rows, columns, factors, like)
    _fill_rows(out, own.out_row, rows, columns, number(own.empty, like), totals, like)


_KERNELS = by_dtype(_attention, "attention")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    terms: Sequence[Tensor],
    scale: float,
    is_causal: bool = False,
    empty: float = math.nan,
) -> Launch:
    """``softmax(q · kᵀ · scale + terms) · v`` into ``out``, all ``[…, length, channels]``.

    All but ``terms``, at most two, have the same leading dimensions, in which they may lie in any
    way; a token's numbers are neighbours. Terms are ``[…, queries, keys]`` with as many heads, of
    any strides. With ``is_causal`` query i sees keys 0 … i. Rows of queries that see nothing, as
    all terms are -∞, become ``empty``.
    """
    size = q.element_size()
    (queries, depth), (keys, columns) = q.shape[-2:], v.shape[-2:]
    heads = math.prod(q.shape[:-2])
    lanes = REGISTER_BYTES // size
    tile = _tile(heads, queries, lanes)
    blocks = -(-keys // _KEYS)
    block = -(-keys // blocks)
    own = [*terms, *[None] * (MOST_TERMS - len(terms))]
    nowhere = torch.zeros(heads, dtype=torch.int64)
    places = torch.stack(
        [nowhere if x is None else places_of(x) for x in (q, k, v, out, *own)], 1
    ).contiguous()
    (bias_query, bias_key), (mask_query, mask_key) = (
        (0, 0) if x is None else steps_of(x) for x in own
    )
    copies = columns % lanes != 0
    numbers = (3 + depth + block) * tile + block * lanes
    numbers += block * -(-columns // lanes) * lanes if copies else 0
    scratch_bytes = -(-numbers * size // 64) * 64
    tiles = -(-queries // tile)
    arguments = _ATTENTION(
        q=q, k=k, v=v, out=out, bias=own[0], mask=own[1], places=places,
        scratch=torch.empty(threads() * scratch_bytes, dtype=torch.uint8),
        queries=queries, keys=keys, depth=depth, columns=columns, tile=tile, tiles=tiles,
        block=block, q_row=steps_of(q)[0], k_row=steps_of(k)[0], v_row=steps_of(v)[0],
        out_row=steps_of(out)[0], bias_query=bias_query, bias_key=bias_key, mask_query=mask_query,
        mask_key=mask_key, is_causal=int(is_causal), copies_values=int(copies),
        scratch_bytes=scratch_bytes, scale=scale, empty=empty,
    )  # fmt: skip
    return Launch(_KERNELS[q.dtype], arguments, heads * tiles, out)


def _tile(heads: int, queries: int, lanes: int) -> int:
    """Queries of a program, in whole registers: few tiles, but some programs to each thread.

    What a query gives does not depend on its tile.
    """
    group = math.lcm(ROWS, lanes)
    most = max(1, _QUERIES // group) * group
    tiles = -(-queries // most)
    while heads * tiles < 4 * threads() and queries > 2 * lanes * tiles:
        tiles *= 2
    return -(-queries // (tiles * lanes)) * lanes


def steps_of(x: Tensor) -> tuple[int, int]:
    """Bytes from one row to the next, and from one column to the next."""
    size = x.element_size()
    rows, columns = (0 if x.shape[dim] == 1 else x.stride(dim) * size for dim in (-2, -1))
    return rows, columns


def places_of(x: Tensor) -> Tensor:
    """How many bytes behind the first number each head begins."""
    found = torch.zeros((), dtype=torch.int64)
    for count, stride in zip(x.shape[:-2], x.stride()[:-2], strict=True):
        found = found[..., None] + torch.arange(count) * (stride * x.element_size())
    return found.reshape(-1)
