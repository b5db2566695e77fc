"""Both gradients of a convolution of cells from one gather.

The adjoint gather G ``[Np, M·C_out]`` of the result's gradient holds, for each point and kernel
cell, the gradients of the queries that have the point in that cell. The features' gradient is G
times the weight; the weight's is Gᵀ times the features, which needs no second gather.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import odd_lines
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.points import GATHER, Gather, fill
from pointwise.engine.cpu.gemm import FROM_ROWS, ROWS, multiply_turned
from pointwise.engine.cpu.launch import launch, threads
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.mix import MIX, mix_arguments, mix_tile
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import partial_sums_of, split_points, total_of
from pointwise.engine.cpu.vector import REGISTER_BYTES, bytes_of, number
from pointwise.engine.cpu.weights import pack_matrix

_LAYOUT = Layout(
    "PointsBackward",
    "*grad *features *out *sums *scratch features_row gathered_row sums_row strip tile rows span "
    "numbers inputs depth",
    gather=GATHER,
    mix=MIX,
)
"""``out [rows, inputs]``, and ``sums [splits, numbers]`` of ``[inputs, depth]``, of ``span`` rows
each; a ``strip`` of G is multiplied by the weight, a ``tile`` by the features."""

# A tile should stay in the second-level cache, a strip in the first-level one.
_TILE_BYTES = 256 * 1024
_STRIP_BYTES = 24 * 1024


@device
def _add(own, sums, begin, end, thread, like):
    size = bytes_of(like)
    gathered = own.scratch + thread * own.tile * own.gathered_row
    for first in range(begin, end, own.tile):
        rows = min(own.tile, end - first)
        for done in range(0, rows, own.strip):
            here, few = gathered + done * own.gathered_row, min(own.strip, rows - done)
            fill(here, own.gathered_row, first + done, few, own.grad, own.gather, like)
            mix_tile(own.mix, own.out, 0, here, own.gathered_row, False, first + done, few, 0, 0,
                     own.inputs, like)  # fmt: skip
        multiply_turned(own.features + first * own.features_row, own.features_row, ROWS * size,
                        gathered, own.gathered_row, rows, sums, own.sums_row, own.inputs, own.depth,
                        FROM_ROWS, sums, own.sums_row, number(-np.inf, like), number(np.inf, like),
                        0, 0, 0, like)  # fmt: skip


_KERNELS = by_dtype(partial_sums_of(_LAYOUT, _add), "points_backward")


def points_backward(gather: Gather, weight: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """(``G @ weight [rows, C_in]``, ``featuresᵀ @ G [C_in, K]``) for the gathered G ``[rows, K]``.

    ``weight`` is ``[cells, C_out, C_in]``, ``features`` are ``[rows, C_in]``, contiguous.
    """
    dtype, size = features.dtype, features.element_size()
    rows, depth, inputs = gather.rows, gather.width, features.shape[1]
    out = empty((rows, inputs), dtype)
    if rows == 0 or depth == 0 or inputs == 0:
        return out.zero_(), torch.zeros(inputs, depth, dtype=dtype)
    splits, span = split_points(rows, depth * padded_columns(inputs, dtype) * size)
    gathered_row = odd_lines(depth * size)
    tile = max(16, min(128, _TILE_BYTES // gathered_row))
    count = inputs * depth
    sums = torch.empty(splits, padded_columns(count, dtype), dtype=dtype)
    # Microkernels read a few rows and columns more.
    bytes_ = (threads() * tile + ROWS) * gathered_row + REGISTER_BYTES
    arguments = _LAYOUT(
        grad=gather.x,
        features=features,
        out=out,
        sums=sums,
        scratch=torch.empty(bytes_, dtype=torch.uint8),
        features_row=inputs * size,
        gathered_row=gathered_row,
        sums_row=depth * size,
        strip=ROWS * max(2, min(8, _STRIP_BYTES // (ROWS * gathered_row))),
        tile=tile,
        rows=rows,
        span=span,
        numbers=sums.shape[1],
        inputs=inputs,
        depth=depth,
        gather=gather.arguments(),
        mix=mix_arguments(pack_matrix(weight, None), inputs * size, "none"),
    )
    launch(_KERNELS[dtype], arguments, splits)
    return out, total_of(sums)[:count].view(inputs, depth)
