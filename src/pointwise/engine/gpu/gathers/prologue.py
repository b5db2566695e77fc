"""A pixel on its way into a tile: as it is, normalised, or a gradient with its correction.

A ``NORM`` is ``clamp((x - mean)·scale + shift)``, what batch norm and activation did to the result
x of the convolution before. A ``CORRECTION`` adds to a gradient x what comes back through mean and
variance of the result: ``x + (result - mean)·d_variance·2/count + d_mean/count``. Outside of the
image both are 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise.engine.gpu.activation import within

_INFINITY = float("inf")


class Prologue(NamedTuple):
    """How an image is read; ``mean``, ``scale`` and ``shift`` are ``[C]``.

    Of a correction, ``scale`` is the variance's gradient and ``shift`` the mean's, of so many
    numbers of each channel (``numbers``); ``result`` is like the gradient.
    """

    kind: str = "none"  # or "norm", "correction"
    mean: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    low: float = -_INFINITY
    high: float = _INFINITY
    result: Tensor | None = None
    numbers: int = 1


PLAIN = Prologue()


def norm(mean: Tensor | None, scale, shift, low: float, high: float) -> Prologue:
    """``clamp((x - mean)·scale + shift, low, high)``; x as it is without a ``mean``."""
    return PLAIN if mean is None else Prologue("norm", mean, scale, shift, low, high)


def correction(result: Tensor, mean: Tensor, d_mean: Tensor, d_variance: Tensor) -> Prologue:
    """Of the gradient of an image ``result`` whose ``mean`` and variance have gradients too."""
    numbers = result.numel() // result.shape[1]
    return Prologue("correction", mean, d_variance, d_mean, result=result, numbers=numbers)


def is_double(x: Tensor) -> bool:
    """Whether sums are float64; of all other types they are float32."""
    return x.dtype == torch.float64


def type_of_sums(x: Tensor) -> torch.dtype:
    return torch.float64 if is_double(x) else torch.float32


@triton.jit
def block_of(
    program, count, channels, blocks_c, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A program's part of ``count`` rows of channels: (its channels, which of them there are; which
    of its numbers there are, where they lie)."""
    row = program // blocks_c * ROWS + tl.arange(0, ROWS)
    channel = program % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    has = channel < channels
    inside = (row < count)[:, None] & has[None, :]
    return channel, has, inside, row.to(tl.int64)[:, None] * channels + channel[None, :]


@triton.jit
def row_of(row, channel, has, like: tl.constexpr):
    """``row [C]`` of some channels, as ``[1, BLOCK_C]``; zeros without one."""
    if row is None:
        found = tl.zeros(channel.shape, like)
    else:
        found = tl.load(row + channel, mask=has, other=0.0).to(like)
    return found[None, :]


@triton.jit
def read(
    x, result, start, place, inside, mean, scale, shift, share, KIND: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr, like: tl.constexpr,
):  # fmt: skip
    """Some numbers of an image, as a prologue has them, in type ``like``; 0 where not ``inside``.

    ``start``, of 64 bits, is where a row of pixels begins, and ``place`` where they are in it.
    ``share`` is one over the count.
    """
    value = tl.load(x + start + place, mask=inside, other=0.0).to(like)
    if KIND == "norm":
        value = within((value - mean) * scale + shift, LOW, HIGH)
        value = tl.where(inside, value, 0.0)
    if KIND == "correction":
        made = tl.load(result + start + place, mask=inside, other=0.0).to(like)
        value = value + (made - mean) * scale * (2.0 * share) + shift * share
        value = tl.where(inside, value, 0.0)
    return value
