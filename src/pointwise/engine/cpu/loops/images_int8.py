"""Convolutions on images of bytes: the tile loops of ``conv_images`` in int8.

A byte q stands for ``(q - zero)·scale``. Weights are int8 with a scale for each channel of the
result; sums are int32 and exact, and the zero point's share of them is where they begin. What
follows is one factor and one shift for each channel, in float32; results are bytes or float32.
Activations other than bounds are not known here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.cut import cut_points, odd_lines
from pointwise.engine.cpu.gathers import patches_int8, stencil_int8
from pointwise.engine.cpu.gathers.stencil_int8 import LINES
from pointwise.engine.cpu.gemm_int8 import GROUP, ROWS, multiply
from pointwise.engine.cpu.launch import device, kernel, slot, threads
from pointwise.engine.cpu.loops.depthwise import depthwise_step  # noqa: F401
from pointwise.engine.cpu.loops.images import Step, windowed
from pointwise.engine.cpu.loops.separable import separable_int8_step as separable_step  # noqa: F401
from pointwise.engine.cpu.table import bits, real
from pointwise.engine.cpu.weights import (
    PackedWeightInt8,
    StencilWeightInt8,
    pack_stencil_int8,
    pack_weight_int8,
)

# The names of before, for who has not yet been told.
Mix, Taps, mix, taps = PackedWeightInt8, StencilWeightInt8, pack_weight_int8, pack_stencil_int8
_INFINITY = float("inf")
FLOAT = np.float32(0)


# --- argument tables ------------------------------------------------------------------------------

_TAPS = 15  # the first slot behind the window
_OWN = _TAPS + 7  # behind the window and the stencil
_BEHIND = _OWN + 13  # behind the mix


def _stencil_arguments(weights: Taps | None, seen: Window, scratch: Tensor | None) -> list[int]:
    if weights is None or scratch is None:
        return [0] * 7
    parts = (weights.packed, weights.start, weights.factor, weights.shift, weights.blank, scratch)
    return [*(part.data_ptr() for part in parts), _table_bytes(seen)]


def _table_bytes(seen: Window) -> int:
    """What each thread needs to note where its rows of taps lie."""
    return 64 * -(-seen.y.taps // LINES)


def _mix_arguments(weights: Mix, out: Tensor, residual: Tensor | None, times: float, low: float,
                   high: float) -> list[int]:  # fmt: skip
    as_bytes = out.dtype == torch.uint8
    if as_bytes:
        low, high = 0.0, 255.0
    return [weights.packed.data_ptr(), weights.depth, weights.start.data_ptr(),
            weights.factor.data_ptr(), weights.shift.data_ptr(), weights.columns,
            out.shape[1] * out.element_size(), out.data_ptr(),
            0 if residual is None else residual.data_ptr(), bits(times), bits(low), bits(high),
            int(as_bytes)]  # fmt: skip


@device
def _mix_tile(arguments, a, a_row, first, rows, column, columns):
    """A tile of A times some columns of the weight, to rows ``first …`` of the result."""
    out_row, as_bytes = slot(arguments, _OWN + 6), slot(arguments, _OWN + 12)
    size = 1 if as_bytes != 0 else 4
    depth, residual = slot(arguments, _OWN + 1), slot(arguments, _OWN + 8)
    if residual != 0:
        residual += first * (out_row // size) + column
    multiply(a, a_row, slot(arguments, _OWN) + column * depth * GROUP, depth,
             slot(arguments, _OWN + 7) + first * out_row + column * size, out_row, rows, columns,
             slot(arguments, _OWN + 2) + 4 * column, slot(arguments, _OWN + 3) + 4 * column,
             slot(arguments, _OWN + 4) + 4 * column, residual, real(arguments, _OWN + 9, FLOAT),
             real(arguments, _OWN + 10, FLOAT), real(arguments, _OWN + 11, FLOAT),
             as_bytes)  # fmt: skip


# --- tile loops -----------------------------------------------------------------------------------


@kernel
def mixed_int8(arguments, program, thread):
    """Pixels or patches, then the matrix product."""
    tile, row_blocks = slot(arguments, _BEHIND), slot(arguments, _BEHIND + 1)
    block, blocks = slot(arguments, _BEHIND + 2), slot(arguments, _BEHIND + 3)
    direct, scratch_row = slot(arguments, _BEHIND + 4), slot(arguments, _BEHIND + 5)
    span, total = slot(arguments, _BEHIND + 7), slot(arguments, _BEHIND + 8)
    x, pixel, channels = slot(arguments, 0), slot(arguments, 1), slot(arguments, 2)
    column = program % blocks * block
    columns = min(block, slot(arguments, _OWN + 5) - column)
    begin = program // blocks % row_blocks * span
    end = min(begin + span, total)
    for first in range(begin, end, tile):
        rows = min(tile, end - first)
        if direct != 0:
            _mix_tile(arguments, x + first * pixel, pixel, first, rows, column, columns)
            continue
        a = slot(arguments, _BEHIND + 6) + thread * tile * scratch_row
        patches_int8.fill(a, scratch_row, first, rows, x, pixel, channels, slot(arguments, 3),
                          slot(arguments, 4), slot(arguments, 5), slot(arguments, 6),
                          slot(arguments, 7), slot(arguments, 8), slot(arguments, 9),
                          slot(arguments, 10), slot(arguments, 11), slot(arguments, 12),
                          slot(arguments, 13), slot(arguments, 14),
                          slot(arguments, _BEHIND + 9))  # fmt: skip
        _mix_tile(arguments, a, scratch_row, first, rows, column, columns)


def has_rows(width: int, step: int) -> bool:
    """Whether there is a stencil for kernels ``width`` wide with this step."""
    return (width, step) in stencil_int8.ROWS


# --- steps ----------------------------------------------------------------------------------------


def mixed_step(
    x: Tensor,
    weights: Mix,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    times: float = 0.0,
    low: float = -_INFINITY,
    high: float = _INFINITY,
) -> Step:
    """``finish(patches(x) · weight)`` into ``out``, bytes or float32; all are channels_last.

    ``residual`` are bytes, each of which adds ``times`` its value. ``low`` and ``high`` are bounds
    of a result in float32.
    """
    points = window.points
    depth = x.shape[1] * window.taps
    identity = window.is_identity
    direct = identity and depth % GROUP == 0 and depth % 4096 != 0
    span, block = cut_points(points, depth, weights.columns, 1, 1, identity, threads())
    row_blocks, blocks = -(-points // span), -(-weights.columns // block)
    row_bytes = odd_lines(depth)
    room = (256 if identity else 48) * 1024
    tile = span if direct else min(span, ROWS * max(1, min(8, room // (ROWS * row_bytes))))
    scratch = None
    if not direct:
        scratch = torch.empty(threads() * tile * row_bytes, dtype=torch.uint8)
    arguments = windowed(x, window, x.shape[1]) + _stencil_arguments(None, window, None)
    arguments += _mix_arguments(weights, out, residual, times, low, high)
    arguments += [tile, row_blocks, block, blocks, int(direct), row_bytes,
                  0 if scratch is None else scratch.data_ptr(), span, points,
                  weights.zero]  # fmt: skip
    programs = row_blocks * blocks if out.numel() else 0
    return Step(mixed_int8, arguments, programs, out, _OWN + 7, (weights, scratch))
