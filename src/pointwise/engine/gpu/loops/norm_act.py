"""Batch norm, residual and activation in one pass on a GPU, and their gradients in one pass.

``activation(clamp((z - mean)·scale + shift + residual, low, high))``, over rows of channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise.engine.gpu.activation import activate, slope, within
from pointwise.engine.gpu.gathers.prologue import (
    Prologue,
    block_of,
    is_double,
    read,
    row_of,
    type_of_sums,
)
from pointwise.engine.gpu.launch import launch, pieces
from pointwise.engine.gpu.moments import store_part

_ROWS, _CHANNELS = 32, 64  # of one program


@triton.jit(do_not_specialize=["count", "blocks_c"])
def norm_act_kernel(
    z, mean, scale, shift, residual, out, count, channels, blocks_c, LOW: tl.constexpr,
    HIGH: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
    IS_DOUBLE: tl.constexpr,
):  # fmt: skip
    like: tl.constexpr = tl.float64 if IS_DOUBLE else tl.float32
    program = tl.program_id(0)
    channel, has, inside, place = block_of(program, count, channels, blocks_c, ROWS, BLOCK_C)
    value = tl.load(z + place, mask=inside, other=0.0).to(like) - row_of(mean, channel, has, like)
    value = value * row_of(scale, channel, has, like) + row_of(shift, channel, has, like)
    if residual is not None:
        value = value + tl.load(residual + place, mask=inside, other=0.0).to(like)
    value = activate(within(value, LOW, HIGH), ACTIVATION)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count", "blocks_c"])
def norm_act_gradient_kernel(
    grad, z, mean, scale, shift, residual, d_z, d_residual, sums, count, channels, blocks_c,
    LOW: tl.constexpr, HIGH: tl.constexpr, ACTIVATION: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr, IS_DOUBLE: tl.constexpr,
):  # fmt: skip
    like: tl.constexpr = tl.float64 if IS_DOUBLE else tl.float32
    program = tl.program_id(0)
    channel, has, inside, place = block_of(program, count, channels, blocks_c, ROWS, BLOCK_C)
    scale = row_of(scale, channel, has, like)
    away = tl.load(z + place, mask=inside, other=0.0).to(like) - row_of(mean, channel, has, like)
    before = away * scale + row_of(shift, channel, has, like)
    if residual is not None:
        before = before + tl.load(residual + place, mask=inside, other=0.0).to(like)
    d = tl.load(grad + place, mask=inside, other=0.0).to(like) * slope(before, ACTIVATION)
    d = tl.where(inside & ~((before <= LOW) | (before >= HIGH)), d, 0.0)
    if d_residual is not None:
        tl.store(d_residual + place, d.to(d_residual.dtype.element_ty), mask=inside)
    tl.store(d_z + place, (d * scale).to(d_z.dtype.element_ty), mask=inside)
    store_part(
        sums, program // blocks_c, channels, channel, has, (tl.sum(d * away, 0), tl.sum(d, 0))
    )


@triton.jit(do_not_specialize=["size", "count", "blocks_c"])
def corrected_kernel(
    grad, result, mean, scale, shift, out, size, count, channels, blocks_c, ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr, IS_DOUBLE: tl.constexpr,
):  # fmt: skip
    like: tl.constexpr = tl.float64 if IS_DOUBLE else tl.float32
    program = tl.program_id(0)
    channel, has, inside, place = block_of(program, size, channels, blocks_c, ROWS, BLOCK_C)
    value = read(
        grad, result, 0, place, inside, row_of(mean, channel, has, like),
        row_of(scale, channel, has, like), row_of(shift, channel, has, like), 1.0 / count.to(like),
        "correction", 0.0, 0.0, like,
    )  # fmt: skip
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


def forward(z: Tensor, norm: Prologue, residual: Tensor | None, activation: str) -> Tensor:
    """What a norm, a residual and an activation make of an image; all are channels_last."""
    out, grid, sizes, constants = _over(z)
    launch(norm_act_kernel, grid, z, z, norm.mean, norm.scale, norm.shift, residual, out, *sizes,
           LOW=norm.low, HIGH=norm.high, ACTIVATION=activation, **constants)  # fmt: skip
    return out


def backward(
    grad: Tensor, z: Tensor, norm: Prologue, residual: Tensor | None, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of z, scale, shift and residual; the mean's is minus scale times the shift's."""
    d_z, grid, sizes, constants = _over(z)
    d_residual = None if residual is None else torch.empty_like(d_z)
    channels = z.shape[1]
    parts = grid[0] // pieces(channels, _CHANNELS)
    sums = z.new_empty((parts, 2, channels), dtype=type_of_sums(z))
    launch(norm_act_gradient_kernel, grid, z, grad, z, norm.mean, norm.scale, norm.shift, residual,
           d_z, d_residual, sums, *sizes, LOW=norm.low, HIGH=norm.high, ACTIVATION=activation,
           **constants)  # fmt: skip
    d_scale, d_shift = sums.sum(0)
    return d_z, d_scale, d_shift, d_residual


def corrected(grad: Tensor, correction: Prologue) -> Tensor:
    """A gradient with its correction, written."""
    out, grid, (size, *sizes), constants = _over(grad)
    launch(corrected_kernel, grid, grad, grad, correction.result, correction.mean, correction.scale,
           correction.shift, out, size, correction.numbers, *sizes, **constants)  # fmt: skip
    return out


def _over(image: Tensor):
    """(memory for a result like an image, the grid over it, its sizes, what is compiled in)."""
    channels = image.shape[1]
    count = image.numel() // max(1, channels)
    blocks_c = pieces(channels, _CHANNELS)
    grid = (pieces(count, _ROWS) * blocks_c,)
    constants = {
        "ROWS": _ROWS, "BLOCK_C": _CHANNELS, "IS_DOUBLE": is_double(image), "num_warps": 4,
    }  # fmt: skip
    return torch.empty_like(image), grid, (count, channels, blocks_c), constants
