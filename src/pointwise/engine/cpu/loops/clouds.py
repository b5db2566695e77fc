"""Every convolution: gather → mix, over tiles of rows that stay in cache; and its weight gradient.

A ``Gather`` says what is read for a row. ``forward`` gathers a tile, multiplies it by the packed
weight and stores the result; ``weight_gradient`` gathers the same tile again and multiplies its
transpose by the output's gradient. The input gradient of a convolution is a forward pass with the
transposed gather and the transposed weight.

Results do not depend on the number of threads: a row is computed by one program from start to end,
and the weight gradient is summed in slabs whose number follows from the shapes alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.gathers.points import (  # noqa: F401
    CELLS,
    CELLS_DEPTHWISE,
    IDENTITY,
    Gather,
)
from pointwise.engine.cpu.gathers.points import GATHER as _GATHER
from pointwise.engine.cpu.gathers.points import fill as _fill
from pointwise.engine.cpu.gemm import (
    FROM_BIAS,
    FROM_NOTHING,
    GENERAL,
    ROWS,
    TILE,
    TILE_ROW,
    multiply,
)
from pointwise.engine.cpu.launch import device, launch, threads
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.loops.depthwise_gradient import (  # noqa: F401
    cells_weight_gradient as depthwise_gradient,
)
from pointwise.engine.cpu.loops.weight_gradient import (  # noqa: F401
    points_weight_gradient as weight_gradient,
)
from pointwise.engine.cpu.pack import pack, pad_row
from pointwise.engine.cpu.vector import bytes_of, lanes_of, number

# A gathered tile should stay in the first-level cache with room for the weights beside it.
_TILE_BYTES = 24 * 1024


_FORWARD = Layout(
    "CloudForward", "*x *out *scratch *weight *bias tile depth columns scratch_row", gather=_GATHER
)


@device
def _forward(arguments, program, thread, like):
    """One tile of rows: gather, mix, store."""
    own = _FORWARD(arguments)
    tile, depth, columns = own.tile, own.depth, own.columns
    size = bytes_of(like)
    width = lanes_of(like)
    first = program * tile
    rows = min(tile, own.gather.rows - first)
    out_row = columns * size
    out = own.out + first * out_row
    if own.weight == 0:  # a gather without a mix
        _fill(out, out_row, first, rows, own.x, own.gather, like)
        return
    stride = GENERAL
    if own.gather.kind == IDENTITY:
        a_row = own.gather.x_row
        a = own.x + first * a_row
    else:
        a_row = own.scratch_row
        a = own.scratch + thread * tile * a_row
        _fill(a, a_row, first, rows, own.x, own.gather, like)
        if a_row == TILE_ROW:
            stride = TILE
    start = FROM_NOTHING if own.bias == 0 else FROM_BIAS
    multiply(a, a_row, stride, size, own.weight, width * size, depth * width * size, depth,
             out, out_row, rows, columns, start, out, out_row, own.bias, number(-np.inf, like),
             number(np.inf, like), 0, 0, 0, like)  # fmt: skip


_FORWARD_KERNELS = by_dtype(_forward, "cloud_forward")


def _row_bytes(needed: int) -> int:
    """What lies between the rows of a gathered tile: an odd number of cache lines in any case."""
    return TILE_ROW if needed <= TILE_ROW - 64 else (-(-needed // 64) | 1) * 64


def forward(gather: Gather, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """``A @ weight + bias`` for the gathered A ``[rows, K]`` and ``weight [K, C_out]``.

    Without a weight, the gathered rows themselves.
    """
    dtype, size = gather.x.dtype, gather.x.element_size()
    depth = gather.width
    columns = depth if weight is None else weight.shape[1]
    out = torch.empty(gather.rows, columns, dtype=dtype)
    if out.numel() == 0 or depth == 0:  # nothing to add up; an empty weight has no address
        return out.zero_() if bias is None else out.copy_(bias)
    tile = ROWS * max(1, min(8, _TILE_BYTES // (ROWS * max(1, depth) * size)))
    row_bytes = _row_bytes(depth * size)
    scratch = torch.empty(threads() * tile * row_bytes, dtype=torch.uint8)
    packed = None if weight is None else pack(weight)
    padded = None if bias is None else pad_row(bias)
    arguments = _FORWARD(
        x=gather.x,
        out=out,
        scratch=scratch,
        weight=packed,
        bias=padded,
        tile=tile,
        depth=depth,
        columns=columns,
        scratch_row=row_bytes,
        gather=gather.arguments(),
    )
    launch(_FORWARD_KERNELS[dtype], arguments, -(-gather.rows // tile))
    return out
