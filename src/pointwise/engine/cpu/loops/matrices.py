"""Products of many small matrices, ``A·B`` of each pair, wherever they lie.

Of each pair a program takes some rows of A, and puts B into the microkernel's order for itself.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gemm import FROM_NOTHING, ROWS, multiply
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.loops.attention import places_of, steps_of
from pointwise.engine.cpu.pack import transpose
from pointwise.engine.cpu.vector import (
    REGISTER_BYTES,
    bytes_of,
    lanes_of,
    load_first,
    number,
    peek,
    store,
)

_MATRICES = Layout(
    "Matrices",
    "*a *b *out *places *scratch rows depth columns tile tiles a_row b_row b_column out_row "
    "scratch_bytes",
)
"""``places`` has, of each pair, how many bytes behind ``a``, ``b`` and ``out`` its matrices begin.
"""
MOST_BYTES = 512 * 1024
"""Of a B that stays in the second-level cache beside the rows that it is multiplied with."""
LEAST_ROWS = 4
"""Of an A for which it is worth while to put B in order."""
_TILE = 16 * ROWS


@device
def _panels(packed, b, b_row, b_column, depth, columns, like):
    """B as panels, a register wide, with zeros behind the last column."""
    size, width = bytes_of(like), lanes_of(like)
    register = width * size
    for c in range(0, columns, width):
        panel, source, lanes = packed + c * depth * size, b + c * b_column, min(width, columns - c)
        if b_column == size:
            for k in range(depth):
                store(panel + k * register, load_first(source + k * b_row, lanes, like))
        else:
            for k in range(0, depth, width):
                transpose(panel + k * register, source + k * b_row, min(width, depth - k), lanes,
                          b_row, b_column, like)  # fmt: skip


@device
def _matrices(arguments, program, thread, like):
    """Some rows of one product."""
    own = _MATRICES(arguments)
    pair, begin = program // own.tiles, program % own.tiles * own.tile
    places, whole = own.places + pair * 24, np.int64(0)
    a = own.a + peek(places, whole) + begin * own.a_row
    b = own.b + peek(places + 8, whole)
    out = own.out + peek(places + 16, whole) + begin * own.out_row
    packed = own.scratch + thread * own.scratch_bytes
    _panels(packed, b, own.b_row, own.b_column, own.depth, own.columns, like)
    low, high = number(-math.inf, like), number(math.inf, like)
    multiply(a, own.a_row, False, packed, own.depth * lanes_of(like) * bytes_of(like), own.depth,
             out, own.out_row, min(own.tile, own.rows - begin), own.columns, FROM_NOTHING, 0, 0, 0,
             low, high, 0, 0, 0, like)  # fmt: skip


_KERNELS = by_dtype(_matrices, "matrices")


def product(a: Tensor, b: Tensor, out: Tensor) -> Launch:
    """``a @ b`` into ``out``, all ``[…, rows, columns]`` with the same leading dimensions.

    Numbers in a row of ``a`` and of ``out`` are neighbours; ``b`` may have any strides.
    """
    size = a.element_size()
    (rows, depth), columns = a.shape[-2:], b.shape[-1]
    pairs = math.prod(a.shape[:-2])
    lanes = REGISTER_BYTES // size
    tiles = -(-rows // _TILE)
    while pairs * tiles < 2 * threads() and rows > 2 * ROWS * tiles:
        tiles *= 2
    tile = -(-rows // (tiles * ROWS)) * ROWS
    tiles = -(-rows // tile)
    scratch_bytes = -(-columns // lanes) * depth * REGISTER_BYTES
    (a_row, _), (b_row, b_column), (out_row, _) = map(steps_of, (a, b, out))
    arguments = _MATRICES(
        a=a, b=b, out=out, places=torch.stack([places_of(x) for x in (a, b, out)], 1).contiguous(),
        scratch=torch.empty(threads() * scratch_bytes, dtype=torch.uint8), rows=rows, depth=depth,
        columns=columns, tile=tile, tiles=tiles, a_row=a_row, b_row=b_row, b_column=b_column,
        out_row=out_row, scratch_bytes=scratch_bytes,
    )  # fmt: skip
    return Launch(_KERNELS[a.dtype], arguments, pairs * tiles, out)
