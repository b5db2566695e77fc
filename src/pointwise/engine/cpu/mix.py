"""The mix: a tile of gathered rows times a weight, with its epilogue."""

from __future__ import annotations

from torch import Tensor

from pointwise.convolution.epilogue import kernel_form
from pointwise.engine.cpu import pairs
from pointwise.engine.cpu.activation import activate, activation_function
from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.dots import LANE_BYTES
from pointwise.engine.cpu.gemm import FROM_BIAS, FROM_ROWS, multiply
from pointwise.engine.cpu.gemm_int8 import FLOAT
from pointwise.engine.cpu.gemm_int8 import multiply as multiply_int8
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.moments import add_moments
from pointwise.engine.cpu.pairs import narrow_rows
from pointwise.engine.cpu.vector import bytes_of, lanes_of, number
from pointwise.engine.cpu.weights import (
    GroupedWeight,
    PackedWeight,
    PackedWeightInt8,
    WinogradWeight,
)
from pointwise.engine.cpu.window import pixel_bytes

MIX = Layout(
    "Mix", "*weight *bias depth columns out_row residual_row low:real high:real activation"
)
"""Of each group ``depth × columns``; results are rows ``out_row`` bytes apart, those of a residual
``residual_row``; kept within ``low … high`` and then given to the function ``activation``."""

MIX_INT8 = Layout(
    "MixInt8",
    "*weight *start *factor *shift depth columns out_row residual_scale:real low:real high:real "
    "as_bytes",
)
"""``depth`` lanes of some steps. A result in float32 is ``sum·factor + shift``, and for each byte
of a residual ``residual_scale`` times that, kept within ``low … high``; rounded if ``as_bytes``."""


def mix_arguments(
    weight: PackedWeight | GroupedWeight | WinogradWeight,
    out_row: int,
    activation: str,
    residual: Tensor | None = None,
) -> Arguments:
    """A mix whose results are pixels of ``out_row`` bytes; so are a residual's, if not wider."""
    low, high, kind = kernel_form(activation, weight.dtype)
    return MIX(
        weight=weight.packed,
        bias=weight.bias,
        depth=weight.depth,
        columns=weight.columns,
        out_row=out_row,
        residual_row=out_row if residual is None else pixel_bytes(residual),
        low=low,
        high=high,
        activation=activation_function(kind, weight.dtype),
    )


def mix_int8_arguments(
    weight: PackedWeightInt8,
    out_row: int,
    as_bytes: bool,
    residual_scale: float = 0.0,
    low: float = -float("inf"),
    high: float = float("inf"),
) -> Arguments:
    """A mix of bytes whose results are pixels of ``out_row`` bytes, uint8 or float32.

    The bounds are of results in float32; bytes are kept within what a byte holds.
    """
    return MIX_INT8(
        weight=weight.packed,
        start=weight.start,
        factor=weight.factor,
        shift=weight.shift,
        depth=weight.depth,
        columns=weight.columns,
        out_row=out_row,
        residual_scale=residual_scale,
        low=0.0 if as_bytes else low,
        high=255.0 if as_bytes else high,
        as_bytes=int(as_bytes),
    )


def _mix_tile_of(name: str, ready, multiply):
    """The mix of one kind of numbers: a tile is made ``ready``, then it has so many steps."""

    @device_of(name)
    def mix_tile(mix, out, residual, a, a_row, is_tile, first, rows, group, column, columns, like,
                 moments=0, split=0, begins=False, ahead=0, ahead_end=0, apart=0):  # fmt: skip
        """Rows of A times some columns of a group's weight, with the epilogue, to rows ``first …``.

        ``is_tile``, ``ahead …`` are those of ``multiply``. The ``moments`` of the results are added
        to those of a split, which ``begins`` with these rows.
        """
        size, width = bytes_of(like), lanes_of(like)
        channel = group * mix.columns + column
        offset = first * mix.out_row + channel * size
        beside = first * mix.residual_row + channel * size
        start = 0
        if residual != 0:
            start |= FROM_ROWS
        if mix.bias != 0:
            start |= FROM_BIAS
        steps = ready(a, a_row, rows, mix.depth, like)
        panel = steps * width * size
        panels = -(-mix.columns // width)  # of a group
        weight = mix.weight + (group * panels + column // width) * panel
        bias = mix.bias + (group * panels * width + column) * size
        low, high = number(mix.low, like), number(mix.high, like)
        multiply(a, a_row, is_tile, weight, panel, steps, out + offset, mix.out_row, rows, columns,
                 start, residual + beside, mix.residual_row, bias, low, high, ahead, ahead_end,
                 apart, like)  # fmt: skip
        activate(mix.activation, out + offset, mix.out_row, rows, columns)
        if moments != 0:
            add_moments(moments, out + offset, mix.out_row, rows, columns, channel,
                        mix.out_row // size, split, begins, like)  # fmt: skip

    return mix_tile


@device
def _as_it_is(a, a_row, rows, depth, like):
    return depth


@device
def _as_pairs(a, a_row, rows, depth, like):
    narrow_rows(a, a_row, rows, depth, like)
    return (depth + 1) // 2


mix_tile = _mix_tile_of("floats", _as_it_is, multiply)
mix_tile_pairs = _mix_tile_of("pairs", _as_pairs, pairs.multiply)
"""``mix_tile`` with products of bfloat16: of a tile in float32, which is narrowed in place."""


@device
def mix_tile_int8(mix, out, residual, a, a_row, is_tile, first, rows, group, column, columns, like,
                  moments=0, split=0, begins=False, ahead=0, ahead_end=0, apart=0):  # fmt: skip
    """``mix_tile`` of bytes: there is one group, and neither moments nor prefetches."""
    size = 1 if mix.as_bytes != 0 else 4
    if residual != 0:
        residual += first * (mix.out_row // size) + column
    multiply_int8(a, a_row, mix.weight + column * mix.depth * LANE_BYTES, mix.depth,
                  out + first * mix.out_row + column * size, mix.out_row, rows, columns,
                  mix.start + 4 * column, mix.factor + 4 * column, mix.shift + 4 * column, residual,
                  number(mix.residual_scale, FLOAT), number(mix.low, FLOAT),
                  number(mix.high, FLOAT), mix.as_bytes)  # fmt: skip
