"""Batch norm, residual and activation in one pass, and their gradients in one pass.

``activation((z - mean)·scale + shift + residual)``, over rows of channels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.activation import NONE, activate, slope
from pointwise.engine.cpu.launch import device, kernel, launch, slot
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import total_of
from pointwise.engine.cpu.table import bits, real
from pointwise.engine.cpu.vector import (
    at_most,
    broadcast,
    bytes_of,
    choose,
    fma,
    lanes_of,
    load_first,
    number,
    store_first,
    within,
)

_ROWS = 256
# Entries of the table: z, channels, rows, mean, scale, shift, residual (or 0), low, high (as
# float64), kind of activation, result; backwards also gradient, sums, numbers in a slab, and the
# residual's gradient (or 0).


@device
def _forward(arguments, program, thread, like):
    size, width = bytes_of(like), lanes_of(like)
    channels = slot(arguments, 1)
    row = channels * size
    first = program * _ROWS
    count = min(_ROWS, slot(arguments, 2) - first)
    z, out = slot(arguments, 0) + first * row, slot(arguments, 10) + first * row
    residual = slot(arguments, 6)
    low, high, kind = real(arguments, 7, like), real(arguments, 8, like), slot(arguments, 9)
    for c in range(0, channels, width):
        left, at = channels - c, c * size
        mean = load_first(slot(arguments, 3) + at, left, like)
        scale = load_first(slot(arguments, 4) + at, left, like)
        shift = load_first(slot(arguments, 5) + at, left, like)
        for r in range(count):
            here = r * row + at
            x = fma(load_first(z + here, left, like) - mean, scale, shift)
            if residual != 0:
                x = x + load_first(residual + first * row + here, left, like)
            store_first(out + here, within(x, low, high), left)
    if kind != NONE:
        activate(out, row, count, channels, kind, like)


@device
def _backward(arguments, program, thread, like):
    size, width = bytes_of(like), lanes_of(like)
    channels = slot(arguments, 1)
    row = channels * size
    first = program * _ROWS
    count = min(_ROWS, slot(arguments, 2) - first)
    z, out = slot(arguments, 0) + first * row, slot(arguments, 10) + first * row
    residual, d_residual = slot(arguments, 6), slot(arguments, 14)
    grad = slot(arguments, 11) + first * row
    sums = slot(arguments, 12) + program * slot(arguments, 13) * size
    low, high = broadcast(real(arguments, 7, like)), broadcast(real(arguments, 8, like))
    kind = slot(arguments, 9)
    zero = broadcast(number(0, like))
    for c in range(0, channels, width):
        left, at = channels - c, c * size
        mean = load_first(slot(arguments, 3) + at, left, like)
        scale = load_first(slot(arguments, 4) + at, left, like)
        shift = load_first(slot(arguments, 5) + at, left, like)
        total, weighted = zero, zero
        for r in range(count):
            here = r * row + at
            away = load_first(z + here, left, like) - mean
            x = fma(away, scale, shift)
            if residual != 0:
                x = x + load_first(residual + first * row + here, left, like)
            d = load_first(grad + here, left, like)
            if kind == NONE:
                d = choose(at_most(x, low), zero, choose(at_most(high, x), zero, d))
            else:
                d = d * slope(x, kind, like)
            if d_residual != 0:
                store_first(d_residual + first * row + here, d, left)
            weighted = fma(d, away, weighted)
            total = total + d
            store_first(out + here, d * scale, left)
        store_first(sums + at, weighted, left)
        store_first(sums + row + at, total, left)


@kernel
def _forward_float32(arguments, program, thread):
    _forward(arguments, program, thread, np.float32(0))


@kernel
def _forward_float64(arguments, program, thread):
    _forward(arguments, program, thread, np.float64(0))


@kernel
def _backward_float32(arguments, program, thread):
    _backward(arguments, program, thread, np.float32(0))


@kernel
def _backward_float64(arguments, program, thread):
    _backward(arguments, program, thread, np.float64(0))


Bounds = tuple[float, float, int]


def _arguments(z, mean, scale, shift, residual, bounds: Bounds, out) -> list[int]:
    low, high, kind = bounds
    return [z.data_ptr(), z.shape[1], z.numel() // z.shape[1], mean.data_ptr(), scale.data_ptr(),
            shift.data_ptr(), 0 if residual is None else residual.data_ptr(), bits(low),
            bits(high), kind, out.data_ptr()]  # fmt: skip


def forward(
    z: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None, bounds: Bounds
) -> Tensor:
    """``z`` and ``residual`` are channels_last; ``bounds`` say which activation."""
    out = empty_image(z.shape, z.dtype)
    if z.numel() == 0:
        return out
    arguments = _arguments(z, mean, scale, shift, residual, bounds, out)
    compiled = _forward_float32 if z.dtype == torch.float32 else _forward_float64
    launch(compiled, arguments, -(-arguments[2] // _ROWS))
    return out


def backward(
    grad: Tensor,
    z: Tensor,
    mean: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    bounds: Bounds,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of z, scale, shift and residual; the mean's is minus scale times the shift's."""
    out = empty_image(z.shape, z.dtype)
    d_residual = None if residual is None else empty_image(z.shape, z.dtype)
    channels = z.shape[1]
    if z.numel() == 0:
        return out, torch.zeros_like(scale), torch.zeros_like(shift), d_residual
    arguments = _arguments(z, mean, scale, shift, residual, bounds, out)
    slabs = -(-arguments[2] // _ROWS)
    numbers = padded_columns(2 * channels, z.dtype)
    sums = torch.empty(slabs, numbers, dtype=z.dtype)
    arguments += [grad.data_ptr(), sums.data_ptr(), numbers,
                  0 if d_residual is None else d_residual.data_ptr()]  # fmt: skip
    launch(_backward_float32 if z.dtype == torch.float32 else _backward_float64, arguments, slabs)
    total = total_of(sums)
    return out, total[:channels].clone(), total[channels : 2 * channels].clone(), d_residual
