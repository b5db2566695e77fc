"""The gradient of a depthwise convolution's weight on a GPU.

A program takes a slab of the result's rows, some channels and some taps of the kernel, and sums in
registers: all taps of a 3 × 3 kernel, one row of taps of kernels up to 7 wide, a single tap of
larger ones. What the slabs have summed, in float32 (float64 of float64), is added in their order:
the same bits in every run.
"""

# mypy: disable-error-code="assignment"
# Tuples that grow as Triton unrolls a loop change their type.

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.gpu.gathers.prologue import (
    PLAIN,
    Prologue,
    is_double,
    read,
    row_of,
    type_of_sums,
)
from pointwise.engine.gpu.launch import launch, pieces
from pointwise.engine.gpu.loops.depthwise import UNROLLED, Tile, tile_of

_PROGRAMS = 2048
"""About so many programs in all, on whatever device: sums are then the same bits on all."""
_LINES = 4  # rows of a slab, at least
_IN_REGISTERS = 9  # taps of one program

_COUNTS = [
    "height", "width", "points_y", "points_x", "padding_y", "padding_x", "dilation_y", "dilation_x",
    "kernel_x", "kernel_size", "count", "lines", "slab", "groups", "blocks_x", "blocks_c",
]  # fmt: skip


@triton.jit(do_not_specialize=_COUNTS)
def depthwise_weight_gradient_kernel(
    grad, result, g_mean, g_scale, g_shift, x, mean, scale, shift, sums, channels, height, width,
    points_y, points_x, padding_y, padding_x, dilation_y, dilation_x, kernel_x, kernel_size, count,
    lines, slab, groups, blocks_x, blocks_c,
    MULTIPLIER: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr, GRAD: tl.constexpr,
    PROLOGUE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, IS_DOUBLE: tl.constexpr,
):  # fmt: skip
    like: tl.constexpr = tl.float64 if IS_DOUBLE else tl.float32
    program = tl.program_id(0)
    group = program // blocks_c % groups
    part = program // blocks_c // groups
    first_y, first_x = group * TAPS_X // kernel_x * TAPS_Y, group * TAPS_X % kernel_x
    channel = program % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    has = channel < channels
    wide = channels // MULTIPLIER
    source = channel // MULTIPLIER
    mean, scale = row_of(mean, source, has, like), row_of(scale, source, has, like)
    shift = row_of(shift, source, has, like)
    g_mean, g_scale = row_of(g_mean, channel, has, like), row_of(g_scale, channel, has, like)
    g_shift, share = row_of(g_shift, channel, has, like), 1.0 / count.to(like)

    totals = ()
    for _ in tl.static_range(TAPS_Y * TAPS_X):
        totals = totals + (tl.zeros((BLOCK_X, BLOCK_C), like),)
    for step in range(0, tl.minimum(slab, lines - part * slab)):
        at = part.to(tl.int64) * slab + step
        image, y = at // points_y, at % points_y
        start = at * points_x * channels
        for block in range(blocks_x):
            point = block * BLOCK_X + tl.arange(0, BLOCK_X)
            inside = (point < points_x)[:, None] & has[None, :]
            place = point[:, None] * channels + channel[None, :]
            slopes = read(grad, result, start, place, inside, g_mean, g_scale, g_shift, share, GRAD,
                          LOW, HIGH, like)  # fmt: skip
            added = ()
            for j in tl.static_range(TAPS_Y):
                line = y * STRIDE_Y - padding_y + (first_y + j) * dilation_y
                end = tl.where((line >= 0) & (line < height), width, 0)
                top = (image * height + line) * width * wide
                for i in tl.static_range(TAPS_X):
                    column = point * STRIDE_X - padding_x + (first_x + i) * dilation_x
                    near = inside & ((column >= 0) & (column < end))[:, None]
                    there = column[:, None] * wide + source[None, :]
                    pixels = read(x, x, top, there, near, mean, scale, shift, share, PROLOGUE, LOW,
                                  HIGH, like)  # fmt: skip
                    added = added + (totals[j * TAPS_X + i] + slopes * pixels,)
            totals = added

    for j in tl.static_range(TAPS_Y):
        for i in tl.static_range(TAPS_X):
            tap = (first_y + j) * kernel_x + first_x + i
            row = part.to(tl.int64) * kernel_size + tap
            total = tl.sum(totals[j * TAPS_X + i], 0)
            tl.store(sums + row * channels + channel, total, mask=has)


def depthwise_weight_gradient(
    grad: Tensor, x: Tensor, window: Window, prologue: Prologue = PLAIN,
    correction: Prologue = PLAIN, tile: Tile | None = None,
) -> Tensor:  # fmt: skip
    """The gradient ``[C·m, 1, kh, kw]`` of ``depthwise``'s weight, in the type of its sums.

    ``grad`` is that of the result, read with a ``correction``, ``x`` what was read, with a
    ``prologue``; both are channels_last.
    """
    y, x_ = window.y, window.x
    channels = grad.shape[1]
    in_one = window.taps <= _IN_REGISTERS
    tile = tile or tile_of(y, x_, channels, grad.element_size(), 4 if in_one else 8)
    if in_one:
        taps_y, taps_x = y.taps, x_.taps
    else:
        taps_y, taps_x = 1, x_.taps if x_.taps <= UNROLLED else 1
    groups, blocks_c = window.taps // (taps_y * taps_x), pieces(channels, tile.block_c)
    lines = window.images * y.points
    slab = max(_LINES, pieces(lines, max(1, _PROGRAMS // (groups * blocks_c))))
    slabs = pieces(lines, slab)
    sums = grad.new_empty((slabs, window.taps, channels), dtype=type_of_sums(grad))
    launch(
        depthwise_weight_gradient_kernel, (slabs * groups * blocks_c,), grad,
        grad, correction.result, correction.mean, correction.scale, correction.shift, x,
        prologue.mean, prologue.scale, prologue.shift, sums, channels, y.size, x_.size, y.points,
        x_.points, y.padding, x_.padding, y.dilation, x_.dilation, x_.taps, window.taps,
        correction.numbers, lines, slab, groups, pieces(x_.points, tile.block_x), blocks_c,
        MULTIPLIER=channels // x.shape[1], STRIDE_Y=y.stride, STRIDE_X=x_.stride, TAPS_Y=taps_y,
        TAPS_X=taps_x, BLOCK_X=tile.block_x, BLOCK_C=tile.block_c, GRAD=correction.kind,
        PROLOGUE=prologue.kind, LOW=prologue.low, HIGH=prologue.high, IS_DOUBLE=is_double(grad),
        num_warps=tile.warps,
    )  # fmt: skip
    return sums.sum(0).t().contiguous().view(channels, 1, y.taps, x_.taps)
