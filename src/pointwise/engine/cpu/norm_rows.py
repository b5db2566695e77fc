"""A batch norm's rows in one launch: what follows from the sums that an image leaves behind.

Forward, from the statistics of a result: mean, scale and shift as convolutions read them, and the
running statistics, which are moved in place. Backward, from the sums over its gradient: the
gradients of the norm's weight and bias, and what comes back to the result through its mean and
variance. All in float64, whatever the images are; the order of sums follows from shapes alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_kind
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import array, launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.moments import BLOCK, Moments, merged
from pointwise.engine.cpu.norm import same


class Parameters(NamedTuple):
    """What a batch norm is told: rows ``[C]``, without weight and bias ones and zeros.

    Running statistics move by ``share`` of the way to those of a batch, if there are any.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_variance: Tensor | None
    eps: float
    share: float


class Rows(NamedTuple):
    """``(z - mean)·scale + shift``, which is ``z·scale + term``; ``inverse`` is 1 / √(σ² + eps)."""

    mean: Tensor
    scale: Tensor
    shift: Tensor
    term: Tensor
    inverse: Tensor


_FORWARD = Layout(
    "NormRows",
    "*sums *counts *weight *bias *running_mean *running_variance *rows splits channels numbers "
    "points eps:real share:real",
)
"""``rows`` are ``[5, C]``, in the order of ``Rows``."""


@device
def _forward(arguments, program, thread, kind):
    own = _FORWARD(arguments)
    channels = own.channels
    begin, end = program * BLOCK, min((program + 1) * BLOCK, channels)
    width = end - begin
    means, squares = np.zeros(BLOCK), np.zeros(BLOCK)
    merged(own.sums, own.counts, own.splits, own.numbers, channels, begin, width, means, squares,
           kind)  # fmt: skip
    weight, bias = array(own.weight, channels, kind), array(own.bias, channels, kind)
    rows = array(own.rows, 5 * channels, kind)
    for c in range(width):
        place = begin + c
        inverse = 1.0 / np.sqrt(squares[c] + own.eps)
        # As it is stored: the term is to go with this mean and this scale.
        rows[place] = means[c]
        rows[channels + place] = weight[place] * inverse
        rows[2 * channels + place] = bias[place]
        product = np.float64(rows[place]) * np.float64(rows[channels + place])
        rows[3 * channels + place] = bias[place] - product
        rows[4 * channels + place] = inverse
    if own.running_mean != 0:
        mean = array(own.running_mean, channels, kind)
        variance = array(own.running_variance, channels, kind)
        unbiased = own.points / (own.points - 1.0)
        for c in range(width):
            place = begin + c
            old, wide = np.float64(mean[place]), np.float64(variance[place])
            mean[place] = old + own.share * (means[c] - old)
            variance[place] = wide + own.share * (squares[c] * unbiased - wide)


_FORWARD_KERNELS = by_kind(_forward, "norm_rows_forward")


def rows_of(moments: Moments, points: int, norm: Parameters) -> Tensor:
    """The ``Rows [5, C]`` of a norm of a result with ``points`` pixels, which has ``moments``."""
    sums, channels = moments.sums, moments.channels
    dtype = sums.dtype
    rows = torch.empty(5, channels, dtype=dtype)
    arguments = _FORWARD(
        sums=sums,
        counts=moments.counts,
        weight=same(1, channels, dtype) if norm.weight is None else norm.weight,
        bias=same(0, channels, dtype) if norm.bias is None else norm.bias,
        running_mean=norm.running_mean,
        running_variance=norm.running_variance,
        rows=rows,
        splits=len(sums),
        channels=channels,
        numbers=sums.shape[1],
        points=points,
        eps=norm.eps,
        share=norm.share,
    )
    launch(_FORWARD_KERNELS[dtype], arguments, -(-channels // BLOCK))
    return rows


# --- backward -------------------------------------------------------------------------------------


class Gradients(NamedTuple):
    """The gradients of a norm's weight and bias, and ``grad + z·scale + shift``: what the gradient
    of z becomes with what comes back through mean and variance."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor


_BACKWARD = Layout(
    "NormRowsGradient", "*sums *rows *weight *bias *scale *shift splits channels numbers points"
)


@device
def _backward(arguments, program, thread, kind):
    own = _BACKWARD(arguments)
    channels = own.channels
    begin, end = program * BLOCK, min((program + 1) * BLOCK, channels)
    width = end - begin
    sums = array(own.sums, (own.splits - 1) * own.numbers + 2 * channels, kind)
    weighted, total = np.zeros(BLOCK), np.zeros(BLOCK)
    # Slices: an index that a compiler cannot tell from one below 0 keeps it from whole registers.
    for s in range(own.splits):
        first = s * own.numbers + begin
        part, plain = sums[first : first + width], sums[first + channels : first + channels + width]
        for c in range(width):
            weighted[c] += np.float64(part[c])
            total[c] += np.float64(plain[c])
    rows = array(own.rows, 5 * channels, kind)
    d_weight, d_bias = array(own.weight, channels, kind), array(own.bias, channels, kind)
    d_scale, d_shift = array(own.scale, channels, kind), array(own.shift, channels, kind)
    part_of_all = 1.0 / own.points
    for c in range(width):
        place = begin + c
        mean, scale = np.float64(rows[place]), np.float64(rows[channels + place])
        inverse = np.float64(rows[4 * channels + place])
        d_weight[place] = weighted[c] * inverse
        d_bias[place] = total[c]
        # Twice the variance's gradient, and the mean's, over the number of points.
        through_variance = -weighted[c] * scale * inverse * inverse * part_of_all
        d_scale[place] = through_variance
        d_shift[place] = -scale * total[c] * part_of_all - through_variance * mean


_BACKWARD_KERNELS = by_kind(_backward, "norm_rows_backward")


def gradients_of(sums: Tensor, rows: Tensor, points: int) -> Gradients:
    """What follows from partial sums over a gradient, for the ``rows [5, C]`` of the norm.

    Of each split they are Σ d·(z - mean) ``[C]`` of the gradient d before the activation, then Σ d.
    """
    channels, dtype = rows.shape[1], rows.dtype
    made = Gradients(*(torch.empty(channels, dtype=dtype) for _ in range(4)))
    arguments = _BACKWARD(
        sums=sums,
        rows=rows,
        weight=made.weight,
        bias=made.bias,
        scale=made.scale,
        shift=made.shift,
        splits=len(sums),
        channels=channels,
        numbers=sums.shape[1],
        points=points,
    )
    launch(_BACKWARD_KERNELS[dtype], arguments, -(-channels // BLOCK))
    return made
