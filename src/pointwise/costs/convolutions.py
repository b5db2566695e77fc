"""What convolutions on images, lines and volumes cost, from their sizes alone.

>>> depthwise_separable(12, 3, 256, 5).multiplications  # 12×12×3 to 8×8×256
53952
>>> convolution(12, 3, 256, 5).multiplications
1228800
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pointwise import checks
from pointwise.convolution.shift import offset_channels
from pointwise.convolution.window import Window
from pointwise.costs.count import Count
from pointwise.functional.convolve import Size
from pointwise.functional.padding import Padding, resolve

FLOAT = 4  # bytes


class Shape(NamedTuple):
    """A convolution with everything spelled out, one number for each dimension."""

    batch: int
    in_channels: int
    out_channels: int
    sizes: tuple[int, ...]  # of the input
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    edges: tuple[int, ...]  # padding before and after
    dilation: tuple[int, ...]
    groups: int
    bias: bool
    out_sizes: tuple[int, ...]


def convolution(
    size: Size,
    in_channels: int,
    out_channels: int,
    kernel_size: Size = 3,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    bias: bool = False,
    batch: int = 1,
    number_bytes: int = FLOAT,
) -> Count:
    """A convolution of ``[batch, in_channels, *size]`` to ``out_channels``: standard, or grouped.

    ``size`` is (height, width), or one number for a square; one or three numbers in a sequence make
    it a line or a volume. ``padding`` is that of ``functional.conv2d``, ``"same"`` among it. Every
    number has ``number_bytes``. Raises ValueError for sizes that do not fit.

    >>> convolution(224, 3, 64, padding="same").outputs
    3211264
    """
    shape = _shape(
        "convolution",
        size,
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        dilation,
        groups,
        bias,
        batch,
    )
    return count(shape, number_bytes)


def grouped(
    size: Size, in_channels: int, out_channels: int, groups: int, kernel_size: Size = 3, **more
) -> Count:
    """``convolution`` in ``groups``, each of which sees its own channels only."""
    return convolution(size, in_channels, out_channels, kernel_size, groups=groups, **more)


def depthwise(
    size: Size, channels: int, kernel_size: Size = 3, multiplier: int = 1, **more
) -> Count:
    """``convolution`` of each channel for itself, into ``multiplier`` channels each."""
    checks.positive("depthwise", "channels", channels)
    checks.positive("depthwise", "multiplier", multiplier)
    return convolution(size, channels, channels * multiplier, kernel_size, groups=channels, **more)


def pointwise(size: Size, in_channels: int, out_channels: int, **more) -> Count:
    """``convolution`` with a kernel of 1: M·D²·N multiplications for M to N channels on D×D.

    >>> pointwise(14, 512, 512).multiplications == 512 * 14**2 * 512
    True
    """
    return convolution(size, in_channels, out_channels, 1, **more)


def depthwise_separable(
    size: Size,
    in_channels: int,
    out_channels: int,
    kernel_size: Size = 3,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    multiplier: int = 1,
    bias: bool = False,
    batch: int = 1,
    number_bytes: int = FLOAT,
    joined: bool = False,
) -> Count:
    """A depthwise convolution without bias, and a pointwise one on its result, with ``bias``.

    Of a standard convolution's multiplications it takes 1/out_channels + 1/kernel². ``joined`` is
    for both in one tile loop, as ours run in inference: what lies between is neither written nor
    read.
    """
    checks.positive("depthwise_separable", "in_channels", in_channels)
    checks.positive("depthwise_separable", "multiplier", multiplier)
    inner = in_channels * multiplier
    first = _shape(
        "depthwise_separable",
        size,
        in_channels,
        inner,
        kernel_size,
        stride,
        padding,
        dilation,
        in_channels,
        False,
        batch,
    )
    ones = (1,) * len(first.sizes)
    second = first._replace(
        in_channels=inner,
        out_channels=out_channels,
        sizes=first.out_sizes,
        kernel=ones,
        stride=ones,
        edges=(0, 0) * len(ones),
        dilation=ones,
        groups=1,
        bias=bias,
    )
    checks.positive("depthwise_separable", "out_channels", out_channels)
    both = count(first, number_bytes), count(second, number_bytes)
    return sum(join(*both) if joined else both, Count())


def join(*counts: Count) -> list[Count]:
    """Convolutions, each on the result of the one before, which never goes to memory."""
    found = list(counts)
    for place, after in enumerate(counts[1:], 1):
        before = found[place - 1]
        found[place - 1] = replace(before, bytes_written=0, outputs=0)
        found[place] = replace(after, bytes_read=after.bytes_read - before.bytes_written)
    return found


def count(shape: Shape, number_bytes: int = FLOAT) -> Count:
    """The cost of a convolution whose sizes are known to fit."""
    per_group = shape.in_channels // shape.groups
    outputs = shape.batch * shape.out_channels * math.prod(shape.out_sizes)
    products = per_group * math.prod(shape.kernel)  # for one result
    axes = [
        _axis(size, out, k, step, before, dilation)
        for size, out, k, step, before, dilation in zip(
            shape.sizes,
            shape.out_sizes,
            shape.kernel,
            shape.stride,
            shape.edges[::2],
            shape.dilation,
            strict=True,
        )
    ]
    inside = shape.batch * shape.out_channels * per_group * math.prod(axis.taps for axis in axes)
    seen = shape.batch * shape.in_channels * math.prod(axis.seen for axis in axes)
    weights = shape.out_channels * products
    biases = shape.out_channels if shape.bias else 0
    return Count(
        parameters=weights + biases,
        multiplications=outputs * products,
        multiply_adds=outputs * products,
        additions=outputs * (products - 1 + bool(shape.bias)),
        on_padding=outputs * products - inside,
        outputs=outputs,
        bytes_read=number_bytes * (seen + weights + biases),
        bytes_written=number_bytes * outputs,
    )


def count_shift(
    window: Window, in_channels: int, out_channels: int, bias: bool, number_bytes: int = FLOAT
) -> Count:
    """A shift convolution: moving multiplies nothing, the mix is that of a pointwise one."""
    y, x = window.y, window.x
    sizes = (y.points, x.points)
    mixed = count(
        Shape(window.images, in_channels, out_channels, sizes, (1, 1), (1, 1), (0,) * 4, (1, 1), 1,
              bias, sizes), number_bytes)  # fmt: skip
    inside = window.images * sum(
        len(channels)
        * _axis(y.size, y.points, 1, y.stride, y.padding - offset // x.taps * y.dilation, 1).taps
        * _axis(x.size, x.points, 1, x.stride, x.padding - offset % x.taps * x.dilation, 1).taps
        for offset, channels in offset_channels(in_channels, window.taps)
    )
    outside = window.points * in_channels - inside
    return replace(
        mixed,
        on_padding=outside * out_channels,
        bytes_read=mixed.bytes_read - number_bytes * outside,
    )


class _Axis(NamedTuple):
    """Along one dimension: how often a result's kernel meets the input, and how much of it."""

    taps: int
    seen: int


@lru_cache(maxsize=4096)
def _axis(size: int, out: int, kernel: int, stride: int, before: int, dilation: int) -> _Axis:
    starts = stride * np.arange(out) - before
    taps = 0
    seen = np.zeros(size, dtype=bool)
    for tap in range(kernel):
        at = starts + tap * dilation
        at = at[(at >= 0) & (at < size)]
        taps += len(at)
        seen[at] = True
    return _Axis(taps, int(seen.sum()))


def _shape(
    caller: str,
    size: Size,
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int,
    bias: bool,
    batch: int,
) -> Shape:
    dimensions = len(size) if isinstance(size, Sequence) else 2
    if dimensions not in (1, 2, 3):
        raise ValueError(
            f"{caller}: size must be a number (of a square), or a sequence of one to three, "
            f"got {size!r}"
        )
    sizes = checks.per_dimension(caller, "size", size, dimensions)
    for name, number in (("in_channels", in_channels), ("batch", batch)):
        checks.positive(caller, name, number)
    checks.groups(caller, groups, in_channels)
    checks.outputs(caller, out_channels, groups)
    kernel = checks.per_dimension(caller, "kernel_size", kernel_size, dimensions)
    strides = checks.per_dimension(caller, "stride", stride, dimensions)
    dilations = checks.per_dimension(caller, "dilation", dilation, dimensions)
    edges = [int(edge) for edge in resolve(caller, padding, sizes, kernel, strides, dilations)]
    out_sizes = checks.output_sizes(caller, sizes, kernel, strides, edges, dilations)
    return Shape(
        batch,
        in_channels,
        out_channels,
        tuple(sizes),
        tuple(kernel),
        tuple(strides),
        tuple(edges),
        tuple(dilations),
        groups,
        bias,
        tuple(out_sizes),
    )
