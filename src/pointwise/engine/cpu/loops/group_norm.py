"""Group and instance norms of images, channels_last, in two launches.

The first takes the mean and the sum of squares about it of each channel of each image. The second
makes of these, which are few, what each channel is multiplied with and what is added to it, so that
whatever goes through the image next applies the norm on its way.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from pointwise.engine.cpu.activation import quotient
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_channels
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load_first,
    number,
    peek,
    poke,
    store_first,
)

_CHANNELS = Layout("ChannelMoments", "*x *out pixels channels block blocks")
_TERMS = Layout("NormTerms", "*moments *weight *bias *out pixels channels groups eps:real")
# Numbers are taken from the mean of so many, and added up in runs of as many.
_RUN = 64


@device
def _moments(arguments, program, thread, like):
    """Mean, and sum of squares about it, of some channels of an image: ``[2, C]``."""
    own = _CHANNELS(arguments)
    size, width = bytes_of(like), lanes_of(like)
    image, begin = program // own.blocks, program % own.blocks * own.block
    row = own.channels * size
    x, out = own.x + image * own.pixels * row, own.out + 2 * image * row
    zero, pixels = broadcast(number(0, like)), broadcast(number(own.pixels, like))
    some = min(_RUN, own.pixels)
    share = broadcast(number(some, like))
    end = min(begin + own.block, own.channels)
    for c in range(begin, end, width):
        left = end - c
        pivot = zero
        for p in range(some):
            pivot = pivot + load_first(x + p * row + c * size, left, like)
        pivot = quotient(pivot, share)
        total, squares = zero, zero
        for first in range(0, own.pixels, _RUN):
            part, part_squares = zero, zero
            for p in range(first, min(first + _RUN, own.pixels)):
                away = load_first(x + p * row + c * size, left, like) - pivot
                part = part + away
                part_squares = fma(away, away, part_squares)
            total, squares = total + part, squares + part_squares
        away = quotient(total, pixels)
        store_first(out + c * size, pivot + away, left)
        store_first(out + row + c * size, squares - total * away, left)


@device
def _terms(arguments, program, thread, like):
    """Factors, then shifts, of the channels of one image: ``[2, C]``."""
    own = _TERMS(arguments)
    size, channels = bytes_of(like), own.channels
    place = program * 2 * channels * size
    means, out = own.moments + place, own.out + place
    each = channels // own.groups
    for group in range(own.groups):
        begin, end = group * each, (group + 1) * each
        mean, squares = 0.0, 0.0
        for c in range(begin, end):
            mean += np.float64(peek(means + c * size, like)) / each
        for c in range(begin, end):
            away = np.float64(peek(means + c * size, like)) - mean
            own_squares = np.float64(peek(means + (channels + c) * size, like))
            squares += max(0.0, own_squares) + own.pixels * away * away
        scale = 1 / math.sqrt(squares / (own.pixels * each) + own.eps)
        for c in range(begin, end):
            factor, shift = scale, 0.0
            if own.weight != 0:
                factor *= np.float64(peek(own.weight + c * size, like))
            if own.bias != 0:
                shift = np.float64(peek(own.bias + c * size, like))
            poke(out + c * size, number(factor, like))
            poke(out + (channels + c) * size, number(shift - mean * factor, like))


_MOMENT_KERNELS = by_dtype(_moments, "channel_moments")
_TERM_KERNELS = by_dtype(_terms, "norm_terms")


def moments(x: Tensor, out: Tensor) -> Launch:
    """Of ``x [N, C, H, W]``, channels_last: mean and sum of squares about it, ``[N, 2, C]``."""
    images, channels, height, width = x.shape
    block, blocks = cut_channels(images, channels, x.element_size())
    arguments = _CHANNELS(
        x=x, out=out, pixels=height * width, channels=channels, block=block, blocks=blocks
    )
    return Launch(_MOMENT_KERNELS[x.dtype], arguments, images * blocks, out)


def terms(
    moments: Tensor, out: Tensor, pixels: int, groups: int, weight: Tensor | None,
    bias: Tensor | None, eps: float,
) -> Launch:  # fmt: skip
    """Factors and shifts ``[N, 2, C]`` of a norm over ``groups`` of channels."""
    images, _, channels = moments.shape
    arguments = _TERMS(
        moments=moments, weight=weight, bias=bias, out=out, pixels=pixels, channels=channels,
        groups=groups, eps=eps,
    )  # fmt: skip
    return Launch(_TERM_KERNELS[moments.dtype], arguments, images, out)
