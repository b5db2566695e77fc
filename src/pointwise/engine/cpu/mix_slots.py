"""The mix by slots: for loops that have no named layout yet; goes away with the last of them."""

from __future__ import annotations

from torch import Tensor

from pointwise.engine.cpu.activation import NONE, activate
from pointwise.engine.cpu.gemm import (
    FROM_BIAS,
    FROM_ROWS,
    multiply,
)
from pointwise.engine.cpu.launch import device, slot
from pointwise.engine.cpu.loops.moments import leave
from pointwise.engine.cpu.loops.shared import _OWN, EPILOGUES
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.table import bits, real
from pointwise.engine.cpu.vector import bytes_of, lanes_of
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401


@device
def mix_tile(arguments, own, a, a_row, stride, first, rows, group, column, columns, left, begin,
              ahead, ahead_end, apart, like):  # fmt: skip
    """A tile of A times some columns of the weight, with its epilogue, to rows ``first …``.

    ``left`` is what it leaves behind (``moments``) in the slab of rows from ``begin`` on.
    """
    size, width = bytes_of(like), lanes_of(like)
    weight, depth = slot(arguments, own), slot(arguments, own + 1)
    bias, padded = slot(arguments, own + 2), slot(arguments, own + 3)
    per_group, out_row = slot(arguments, own + 4), slot(arguments, own + 5)
    residual, kind = slot(arguments, own + 7), slot(arguments, own + 10)
    offset = first * out_row + (group * per_group + column) * size
    out = slot(arguments, own + 6) + offset
    start = 0
    if residual != 0:
        start |= FROM_ROWS
    if bias != 0:
        start |= FROM_BIAS
    panels = group * (padded // width) + column // width
    multiply(a, a_row, stride, size, weight + panels * depth * width * size, width * size,
             depth * width * size, depth, out, out_row, rows, columns, start, residual + offset,
             out_row, bias + (group * padded + column) * size, real(arguments, own + 8, like),
             real(arguments, own + 9, like), ahead, ahead_end, apart, like)  # fmt: skip
    if kind != NONE:
        activate(out, out_row, rows, columns, kind, like)
    if left != 0:
        slab = begin // slot(arguments, _OWN + MIX_SLOTS + 7)
        leave(left, out, out_row, rows, columns, group * per_group + column, out_row // size, slab,
              first == begin, like)  # fmt: skip


MIX_SLOTS = 11  # slots of the mix


def mixing(
    weights: Mix | Filtered, out: Tensor, residual: Tensor | None, activation: str
) -> list[int]:
    """The part that says what the mix multiplies with, and where its results go."""
    low, high, kind = EPILOGUES[activation]
    size = out.element_size()
    return [
        weights.packed.data_ptr(),
        weights.depth,
        0 if weights.bias is None else weights.bias.data_ptr(),
        padded_columns(weights.columns, out.dtype),
        weights.columns,
        out.shape[1] * size,
        out.data_ptr(),
        0 if residual is None else residual.data_ptr(),
        bits(low),
        bits(high),
        kind,
    ]
