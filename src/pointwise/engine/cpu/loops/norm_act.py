"""Batch norm, residual and activation in one pass, and their gradients in one pass.

``activation((z - mean)·scale + shift + residual)``, over rows of channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.engine.cpu.activation import CLAMP_ONLY, activate, activation_function, slope
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.norm import NORM
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import total_of
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

_FORWARD = Layout("NormAct", "*x *out *residual channels rows activation", norm=NORM)
_BACKWARD = Layout(
    "NormActGradient",
    "*x *out *residual *grad *residual_grad *sums channels rows kind numbers",
    norm=NORM,
)
"""``out`` is the gradient of x; ``sums`` are ``[splits, 2, C]``, Σ d·(x - mean) and Σ d of the
gradient d before the activation."""

_ROWS = 256  # of one program


@device
def _forward(arguments, program, thread, like):
    own = _FORWARD(arguments)
    norm = own.norm
    size, width = bytes_of(like), lanes_of(like)
    row = own.channels * size
    first = program * _ROWS
    rows = min(_ROWS, own.rows - first)
    x, out, residual = own.x + first * row, own.out + first * row, own.residual + first * row
    low, high = number(norm.low, like), number(norm.high, like)
    for c in range(0, own.channels, width):
        left, at = own.channels - c, c * size
        mean = load_first(norm.mean + at, left, like)
        scale = load_first(norm.scale + at, left, like)
        shift = load_first(norm.shift + at, left, like)
        for r in range(rows):
            here = r * row + at
            y = fma(load_first(x + here, left, like) - mean, scale, shift)
            if own.residual != 0:
                y = y + load_first(residual + here, left, like)
            store_first(out + here, within(y, low, high), left)
    activate(own.activation, out, row, rows, own.channels)


@device
def _backward(arguments, program, thread, like):
    own = _BACKWARD(arguments)
    norm = own.norm
    size, width = bytes_of(like), lanes_of(like)
    row = own.channels * size
    first = program * _ROWS
    rows = min(_ROWS, own.rows - first)
    x, residual = own.x + first * row, own.residual + first * row
    grad, out = own.grad + first * row, own.out + first * row
    residual_grad = own.residual_grad + first * row
    sums = own.sums + program * own.numbers * size
    low, high = broadcast(number(norm.low, like)), broadcast(number(norm.high, like))
    zero = broadcast(number(0, like))
    for c in range(0, own.channels, width):
        left, at = own.channels - c, c * size
        mean = load_first(norm.mean + at, left, like)
        scale = load_first(norm.scale + at, left, like)
        shift = load_first(norm.shift + at, left, like)
        total, weighted = zero, zero
        for r in range(rows):
            here = r * row + at
            away = load_first(x + here, left, like) - mean
            y = fma(away, scale, shift)
            if own.residual != 0:
                y = y + load_first(residual + here, left, like)
            d = load_first(grad + here, left, like)
            d = _before_activation(d, y, own.kind, low, high, like)
            if own.residual_grad != 0:
                store_first(residual_grad + here, d, left)
            weighted = fma(d, away, weighted)
            total = total + d
            store_first(out + here, d * scale, left)
        store_first(sums + at, weighted, left)
        store_first(sums + row + at, total, left)


@device
def _before_activation(d, y, kind, low, high, like):
    """The gradient of the activation's argument ``y``, for the gradient ``d`` of its result."""
    if kind == CLAMP_ONLY:
        zero = broadcast(number(0, like))
        # NaN is not at most anything, and keeps its gradient, as in PyTorch.
        return choose(at_most(y, low), zero, choose(at_most(high, y), zero, d))
    return d * slope(y, kind, like)


_FORWARD_KERNELS = by_dtype(_forward, "norm_act_forward")
_BACKWARD_KERNELS = by_dtype(_backward, "norm_act_backward")

Epilogue = tuple[float, float, int]
"""Bounds of the result, and the number of the activation."""


def forward(
    z: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None,
    epilogue: Epilogue,
) -> Tensor:  # fmt: skip
    """``activation((z - mean)·scale + shift + residual)``; images are channels_last."""
    out = empty_image(z.shape, z.dtype)
    if z.numel() == 0:
        return out
    channels, (low, high, kind) = z.shape[1], epilogue
    rows = z.numel() // channels
    arguments = _FORWARD(
        x=z,
        out=out,
        residual=residual,
        channels=channels,
        rows=rows,
        activation=activation_function(kind, z.dtype),
        norm=NORM(mean=mean, scale=scale, shift=shift, low=low, high=high),
    )
    launch(_FORWARD_KERNELS[z.dtype], arguments, -(-rows // _ROWS))
    return out


def backward(
    grad: Tensor, z: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None,
    epilogue: Epilogue,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of z, scale, shift and residual; the mean's is minus scale times the shift's."""
    if z.numel() == 0:
        d_z, d_residual = _gradients_like(z, residual)
        return d_z, torch.zeros_like(scale), torch.zeros_like(shift), d_residual
    d_z, sums, d_residual = summed(grad, z, mean, scale, shift, residual, epilogue)
    channels, total = z.shape[1], total_of(sums)
    return d_z, total[:channels], total[channels : 2 * channels], d_residual


def _gradients_like(z: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return (
        empty_image(z.shape, z.dtype),
        None if residual is None else empty_image(z.shape, z.dtype),
    )


def summed(
    grad: Tensor, z: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None,
    epilogue: Epilogue,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """(the gradient of z, the sums that scale's and shift's come from, that of the residual).

    Of each split the sums are Σ d·(z - mean) ``[C]`` of the gradient d before the activation, then
    Σ d.
    """
    out, residual_grad = _gradients_like(z, residual)
    channels, (low, high, kind) = z.shape[1], epilogue
    rows = z.numel() // channels
    splits = -(-rows // _ROWS)
    sums = torch.empty(splits, padded_columns(2 * channels, z.dtype), dtype=z.dtype)
    arguments = _BACKWARD(
        x=z,
        out=out,
        residual=residual,
        grad=grad,
        residual_grad=residual_grad,
        sums=sums,
        channels=channels,
        rows=rows,
        kind=kind,
        numbers=sums.shape[1],
        norm=NORM(mean=mean, scale=scale, shift=shift, low=low, high=high),
    )
    launch(_BACKWARD_KERNELS[z.dtype], arguments, splits)
    return out, sums, residual_grad
