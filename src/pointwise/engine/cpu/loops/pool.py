"""Pooling of images, channels_last: the largest or the mean of a window's pixels, or of all."""

from __future__ import annotations

from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import quotient
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_channels
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    at_most,
    broadcast,
    bytes_of,
    choose,
    lanes_of,
    load_first,
    number,
    store_first,
)
from pointwise.engine.cpu.window import WINDOW, pixel_bytes, window_arguments

LARGEST, MEAN = range(2)

_POOL = Layout("Pool", "*x *out kind divisor out_pixel", window=WINDOW)
_MEANS = Layout("Means", "*x *out pixels channels block blocks")

# Sums of so many rows are added to the sum of all: fewer roundings of large numbers.
_RUN = 64


@device
def _larger(a, b):
    """The larger lane by lane; NaN wins, as in PyTorch."""
    return choose(at_most(a, a), choose(at_most(b, a), a, b), a)


@device
def _pool(arguments, program, thread, like):
    """One row of results."""
    own = _POOL(arguments)
    window = own.window
    size, width = bytes_of(like), lanes_of(like)
    pixel, channels = window.pixel, window.channels
    image = own.x + program // window.lines * window.height * window.width * pixel
    top = program % window.lines * window.stride_y - window.padding_y
    out = own.out + program * window.points * own.out_pixel
    for p in range(window.points):
        left = p * window.stride_x - window.padding_x
        for c in range(0, channels, width):
            more = channels - c
            total = broadcast(number(0 if own.kind == MEAN else -float("inf"), like))
            count = 0
            for j in range(window.taps_y):
                y = top + j * window.dilation_y
                if y < 0 or y >= window.height:
                    continue
                for i in range(window.taps_x):
                    x = left + i * window.dilation_x
                    if x < 0 or x >= window.width:
                        continue
                    at = image + (y * window.width + x) * pixel + c * size
                    value = load_first(at, more, like)
                    total = total + value if own.kind == MEAN else _larger(total, value)
                    count += 1
            if own.kind == MEAN:
                divisor = count if own.divisor == 0 else own.divisor
                total = quotient(total, broadcast(number(divisor, like)))
            store_first(out + c * size, total, more)
        out += own.out_pixel


@device
def _mean(arguments, program, thread, like):
    """The mean of all pixels of an image, for some of its channels."""
    own = _MEANS(arguments)
    size, width = bytes_of(like), lanes_of(like)
    pixels, channels = own.pixels, own.channels
    image, first = program // own.blocks, program % own.blocks * own.block
    x = own.x + image * pixels * channels * size
    out = own.out + image * channels * size
    share = broadcast(number(pixels, like))
    for c in range(first, min(first + own.block, channels), width):
        left = min(own.block - (c - first), channels - c)
        total = broadcast(number(0, like))
        for begin in range(0, pixels, _RUN):
            some = broadcast(number(0, like))
            for p in range(begin, min(begin + _RUN, pixels)):
                some = some + load_first(x + (p * channels + c) * size, left, like)
            total = total + some
        store_first(out + c * size, quotient(total, share), left)


_POOL_KERNELS = by_dtype(_pool, "pool")
_MEAN_KERNELS = by_dtype(_mean, "mean_of_images")


def pooled(x: Tensor, out: Tensor, window: Window, kind: int, divisor: int) -> Launch:
    """The largest, or the mean, of each window of ``x``; images may be parts of wider ones.

    A mean is the sum of the pixels inside the image over ``divisor``, or over their number where
    that is 0.
    """
    seen = window_arguments(window, pixel_bytes(x), x.shape[1])
    arguments = _POOL(
        x=x, out=out, kind=kind, divisor=divisor, out_pixel=pixel_bytes(out), window=seen
    )
    programs = window.images * window.y.points
    return Launch(_POOL_KERNELS[x.dtype], arguments, programs, out)


def mean(x: Tensor, out: Tensor) -> Launch:
    """The mean of each image of ``x [N, C, H, W]``, channels_last, into ``out [N, C]``."""
    images, channels, height, width = x.shape
    block, blocks = cut_channels(images, channels, x.element_size())
    arguments = _MEANS(
        x=x, out=out, pixels=height * width, channels=channels, block=block, blocks=blocks
    )
    return Launch(_MEAN_KERNELS[x.dtype], arguments, images * blocks, out)
