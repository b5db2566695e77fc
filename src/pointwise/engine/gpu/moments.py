"""The sums that batch norm needs, of every part of an image by itself, then of all parts in order.

Of each part how many numbers there are, their mean, and the sum of squares of what they are away
from it: nothing is lost where a mean is large beside a deviation. Source: Chan, Golub, LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pointwise.engine.gpu.gathers.prologue import block_of, is_double, type_of_sums
from pointwise.engine.gpu.launch import launch, pieces

_ROWS, _CHANNELS = 64, 64  # of one part, as much as fits into the registers of four warps


@triton.jit
def store_part(sums, part, channels, channel, has, rows):
    """``rows``, a tuple of sums ``[BLOCK_C]``, to ``sums [parts, len(rows), C]``."""
    start = part.to(tl.int64) * len(rows) * channels
    for number in tl.static_range(len(rows)):
        tl.store(sums + start + number * channels + channel, rows[number], mask=has)


@triton.jit(do_not_specialize=["count", "blocks_c"])
def moments_kernel(
    x, sums, count, channels, blocks_c, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
    IS_DOUBLE: tl.constexpr,
):  # fmt: skip
    like: tl.constexpr = tl.float64 if IS_DOUBLE else tl.float32
    program = tl.program_id(0)
    part = program // blocks_c
    channel, has, inside, place = block_of(program, count, channels, blocks_c, ROWS, BLOCK_C)
    value = tl.load(x + place, mask=inside, other=0.0).to(like)
    number = tl.minimum(count - part * ROWS, ROWS).to(like)
    middle = tl.sum(value, 0) / number
    away = tl.where(inside, value - middle[None, :], 0.0)
    squares = tl.sum(away * away, 0)
    number = tl.zeros((BLOCK_C,), like) + number
    store_part(sums, part, channels, channel, has, (number, middle, squares))


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of an image that lies channels_last."""
    channels = image.shape[1]
    count = image.numel() // channels
    parts, blocks_c = pieces(count, _ROWS), pieces(channels, _CHANNELS)
    sums = image.new_empty((parts, 3, channels), dtype=type_of_sums(image))
    launch(moments_kernel, (parts * blocks_c,), image, image, sums, count, channels, blocks_c,
           ROWS=_ROWS, BLOCK_C=_CHANNELS, IS_DOUBLE=is_double(image), num_warps=4)  # fmt: skip
    return total_moments(sums, count)


def total_moments(sums: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of ``count`` numbers from the sums ``[parts, 3, C]`` of parts."""
    numbers, means, squares = sums.unbind(1)
    mean = (numbers * means).sum(0) / count
    variance = (squares + numbers * (means - mean) ** 2).sum(0) / count
    return mean, variance
