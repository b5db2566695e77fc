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
from pointwise.engine.cpu.cut import cut_bands, odd_lines
from pointwise.engine.cpu.gathers import stencil_int8
from pointwise.engine.cpu.gathers.stencil_int8 import LINES
from pointwise.engine.cpu.gemm_int8 import GROUP, multiply
from pointwise.engine.cpu.launch import device, device_of, kernel, slot, threads
from pointwise.engine.cpu.loops.images import Step, windowed
from pointwise.engine.cpu.loops.mixed import mixed_int8_step as mixed_step  # noqa: F401
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


def _stencil_rows_of(fill, *shape):
    @device_of("int8", *shape)
    def stencil_rows(arguments, thread, image, first, rows, out, out_pixel, out_line):
        """Some rows of the stencil on one image, as bytes."""
        pixel, height, width = slot(arguments, 1), slot(arguments, 3), slot(arguments, 4)
        table = slot(arguments, _TAPS + 5) + thread * slot(arguments, _TAPS + 6)
        fill(out, out_pixel, out_line, first, rows,
             slot(arguments, 0) + image * height * width * pixel, pixel, slot(arguments, 2),
             height, width, slot(arguments, 6), slot(arguments, 7), slot(arguments, 9),
             slot(arguments, 11), slot(arguments, 12), slot(arguments, _TAPS),
             slot(arguments, _TAPS + 1), slot(arguments, _TAPS + 2), slot(arguments, _TAPS + 3),
             slot(arguments, _TAPS + 4), table)  # fmt: skip

    return stencil_rows


def _depthwise_of(fill, *shape) -> kernel:
    stencil_rows = _stencil_rows_of(fill, "alone", *shape)

    def depthwise(arguments, program, thread):
        band, bands = slot(arguments, _OWN + 1), slot(arguments, _OWN + 2)
        out_image, out_line = slot(arguments, _OWN + 3), slot(arguments, _OWN + 4)
        image, first = program // bands, program % bands * band
        stencil_rows(arguments, thread, image, first, min(band, slot(arguments, 5) - first),
                     slot(arguments, _OWN) + image * out_image + first * out_line,
                     slot(arguments, _OWN + 5), out_line)  # fmt: skip

    return kernel(depthwise, f"depthwise_int8_{shape[0]}_{shape[1]}")


def _separable_of(fill, *shape) -> kernel:
    stencil_rows = _stencil_rows_of(fill, "joined", *shape)

    def separable(arguments, program, thread):
        band, bands = slot(arguments, _BEHIND), slot(arguments, _BEHIND + 1)
        a_row, team = slot(arguments, _BEHIND + 2), slot(arguments, _BEHIND + 3)
        lines, points = slot(arguments, 5), slot(arguments, 6)
        image, first = program // bands, program % bands * band
        rows = min(band, lines - first)
        room = slot(arguments, _TAPS + 5) + team * slot(arguments, _TAPS + 6)
        a = room + thread * band * points * a_row
        stencil_rows(arguments, thread, image, first, rows, a, a_row, points * a_row)
        _mix_tile(arguments, a, a_row, (image * lines + first) * points, rows * points, 0,
                  slot(arguments, _OWN + 5))  # fmt: skip

    return kernel(separable, f"separable_int8_{shape[0]}_{shape[1]}")


_DEPTHWISE = {shape: _depthwise_of(fill, *shape) for shape, fill in stencil_int8.ROWS.items()}
_SEPARABLE = {shape: _separable_of(fill, *shape) for shape, fill in stencil_int8.ROWS.items()}


def has_rows(width: int, step: int) -> bool:
    """Whether there is a stencil for kernels ``width`` wide with this step."""
    return (width, step) in stencil_int8.ROWS


# --- steps ----------------------------------------------------------------------------------------


def depthwise_step(x: Tensor, weights: Taps, window: Window, out: Tensor) -> Step:
    """Each channel by its own stencil, bytes to bytes; ``x`` and ``out`` are channels_last."""
    band, bands = cut_bands(window, window.x.points * x.shape[1], 64 * 1024)
    scratch = torch.empty(threads() * _table_bytes(window), dtype=torch.uint8)
    arguments = windowed(x, window, x.shape[1]) + _stencil_arguments(weights, window, scratch)
    arguments += [out.data_ptr(), band, bands, *(out.stride(i) for i in (0, 2, 3))]
    compiled = _DEPTHWISE[window.x.taps, window.x.stride]
    programs = window.images * bands if out.numel() else 0
    return Step(compiled, arguments, programs, out, _OWN, (weights, scratch))


def separable_step(
    x: Tensor,
    weights: Taps,
    then: Mix,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    times: float = 0.0,
    low: float = -_INFINITY,
    high: float = _INFINITY,
) -> Step:
    """A stencil and the pointwise convolution of its bytes, which never leave the cache."""
    row_bytes = odd_lines(x.shape[1])
    points = window.x.points
    band, bands = cut_bands(window, points * row_bytes, 256 * 1024)
    size = threads() * (_table_bytes(window) + band * points * row_bytes)
    scratch = torch.empty(size, dtype=torch.uint8)
    arguments = windowed(x, window, x.shape[1]) + _stencil_arguments(weights, window, scratch)
    arguments += _mix_arguments(then, out, residual, times, low, high)
    arguments += [band, bands, row_bytes, threads()]
    compiled = _SEPARABLE[window.x.taps, window.x.stride]
    programs = window.images * bands if out.numel() else 0
    return Step(compiled, arguments, programs, out, _OWN + 7, (weights, then, scratch))
