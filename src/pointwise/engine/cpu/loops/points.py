"""Convolutions of points: a gather, alone or with its mix.

``mixed_points`` gathers and multiplies tile by tile, as images do (``mixed``). The input gradient
of a convolution is the same with the transposed gather and the transposed weight; the weights'
gradients have loops of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import odd_lines
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.points import GATHER, IDENTITY, Gather, fill
from pointwise.engine.cpu.gemm import ROWS
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops.mixed import Tiling, gathered_of, launch_mixed, mixed_of
from pointwise.engine.cpu.mix import MIX, mix_arguments, mix_tile
from pointwise.engine.cpu.product import TILE_ROW
from pointwise.engine.cpu.weights import pack_matrix

# A gathered tile should stay in the first-level cache with room for the weights beside it.
_TILE_BYTES = 24 * 1024


@device
def _fill_tile(target, target_row, first, rows, x, gather, prologue, channel, like):
    """``fill`` as the loops call it; points have no prologue."""
    fill(target, target_row, first, rows, x, gather, like)


_MIXED, _mixed = mixed_of("cells", GATHER, _fill_tile, MIX, mix_tile)
_GATHERED, _gathered = gathered_of("cells", GATHER, _fill_tile)
_MIXED_KERNELS = by_dtype(_mixed, "mixed_cells")
_GATHERED_KERNELS = by_dtype(_gathered, "gathered_cells")


def _row_bytes(needed: int) -> int:
    """What lies between the rows of a gathered tile: an odd number of cache lines in any case."""
    return TILE_ROW if needed <= TILE_ROW - 64 else odd_lines(needed)


def mixed_points(gather: Gather, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """``A @ weight + bias`` for the gathered A ``[rows, K]`` and ``weight [K, C_out]``.

    The weight of cells may be ``[cells, C_in, C_out]``. Without one, the gathered rows themselves.
    """
    x, rows, depth = gather.x, gather.rows, gather.width
    size = x.element_size()
    columns = depth if weight is None else weight.shape[-1]
    out = torch.empty(rows, columns, dtype=x.dtype)
    if out.numel() == 0 or depth == 0:  # nothing to add up; an empty weight has no address
        return out.zero_() if bias is None else out.copy_(bias)
    tile = ROWS * max(1, min(8, _TILE_BYTES // (ROWS * depth * size)))
    out_row = columns * size
    if weight is None:
        arguments = _GATHERED(
            x=x, out=out, tile=tile, rows=rows, out_row=out_row, gather=gather.arguments()
        )
        return Launch(_GATHERED_KERNELS[x.dtype], arguments, -(-rows // tile), out).run()
    direct = gather.kind == IDENTITY
    return launch_mixed(
        _MIXED_KERNELS[x.dtype],
        _MIXED,
        x,
        out,
        Tiling(rows, tile, columns, tile, _row_bytes(depth * size), direct, 1, -(-rows // tile), 1),
        gather.arguments(),
        mix_arguments(pack_matrix(weight, bias), out_row, "none"),
    ).run()
