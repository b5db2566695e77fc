"""The depthwise convolution of an image on a GPU, and the gradient of its input.

A program computes ``ROWS`` rows of ``BLOCK_X`` points of ``BLOCK_C`` channels, which lie side by
side in memory (channels_last). Kernels up to 7 × 7 are unrolled: column by column of the kernel,
every pixel is loaded once and added to all the rows that see it. Larger ones take a loop over their
taps. Sums are float32 (float64 of float64).

The gradient of the input is the same kernel over the windows of ``window.adjoint``, one for each
phase of the stride, which write every so many-th pixel. In training with batch norm, pixels are
read through a prologue (``gathers/prologue.py``), and the epilogue also gives the sums that batch
norm needs, those of each program by themselves: they are added afterwards, in the order in which
they lie, so that results are the same bits in every run.
"""

# mypy: disable-error-code="assignment"
# Tuples that grow as Triton unrolls a loop change their type.

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pointwise.convolution.window import Axis, Phase, Window, adjoint
from pointwise.engine.gpu.activation import activate
from pointwise.engine.gpu.gathers.prologue import (
    PLAIN,
    Prologue,
    is_double,
    read,
    row_of,
    type_of_sums,
)
from pointwise.engine.gpu.launch import launch, pieces
from pointwise.engine.gpu.moments import store_part

UNROLLED = 7
"""Kernels up to so many taps along each axis are unrolled."""

_COUNTS = [
    "height", "width", "points_y", "points_x", "out_height", "out_width", "first_y", "first_x",
    "step_y", "step_x", "padding_y", "padding_x", "dilation_y", "dilation_x", "taps_y", "taps_x",
    "tap_y", "tap_x", "tap_step_y", "tap_step_x", "kernel_x", "kernel_size", "count", "bands",
    "blocks_x", "blocks_c",
]  # fmt: skip


@triton.jit(do_not_specialize=_COUNTS)  # a new size of image compiles nothing
def depthwise_kernel(
    x, result, mean, scale, shift, weight, bias, out, z, z_mean, z_scale, z_shift, sums, channels,
    height, width, points_y, points_x, out_height, out_width, first_y, first_x, step_y, step_x,
    padding_y, padding_x, dilation_y, dilation_x, taps_y, taps_x, tap_y, tap_x, tap_step_y,
    tap_step_x, kernel_x, kernel_size, count, bands, blocks_x, blocks_c,
    MULTIPLIER: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr, IS_UNROLLED: tl.constexpr, ROWS: tl.constexpr, BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr, PROLOGUE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    EPILOGUE: tl.constexpr, Z_LOW: tl.constexpr, Z_HIGH: tl.constexpr, ACTIVATION: tl.constexpr,
    IS_DOUBLE: tl.constexpr,
):  # fmt: skip
    like: tl.constexpr = tl.float64 if IS_DOUBLE else tl.float32
    program = tl.program_id(0)
    part = program // blocks_c
    band = part // blocks_x
    image = (band // bands).to(tl.int64)
    first = band % bands * ROWS
    point = part % blocks_x * BLOCK_X + tl.arange(0, BLOCK_X)
    channel = program % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    has = channel < channels
    wide = channels // MULTIPLIER  # channels of what is read
    source = channel // MULTIPLIER
    mean, scale = row_of(mean, source, has, like), row_of(scale, source, has, like)
    shift, share = row_of(shift, source, has, like), 1.0 / count.to(like)
    top = image * height
    left = point * STRIDE_X - padding_x

    totals = ()
    for _ in tl.static_range(ROWS):
        totals = totals + (tl.zeros((BLOCK_X, BLOCK_C), like),)
    if IS_UNROLLED:
        starts, ends = (), ()  # of each row that is read: where it is, and its width; 0 outside
        for r in tl.static_range((ROWS - 1) * STRIDE_Y + TAPS_Y):
            line = first * STRIDE_Y - padding_y + r * dilation_y
            starts = starts + ((top + line) * width * wide,)
            ends = ends + (tl.where((line >= 0) & (line < height), width, 0),)
        for i in tl.static_range(TAPS_X):
            column = left + i * dilation_x
            near = (column >= 0)[:, None] & has[None, :]
            place = column[:, None] * wide + source[None, :]
            taps = ()
            for j in tl.static_range(TAPS_Y):
                tap = (tap_y - j * tap_step_y) * kernel_x + tap_x - i * tap_step_x
                value = tl.load(weight + channel * kernel_size + tap, mask=has, other=0.0)
                taps = taps + (value.to(like)[None, :],)
            for r in tl.static_range((ROWS - 1) * STRIDE_Y + TAPS_Y):
                inside = near & (column < ends[r])[:, None]
                pixels = read(x, result, starts[r], place, inside, mean, scale, shift, share,
                              PROLOGUE, LOW, HIGH, like)  # fmt: skip
                added = ()
                for o in tl.static_range(ROWS):
                    if r >= o * STRIDE_Y and r < o * STRIDE_Y + TAPS_Y:
                        added = added + (totals[o] + pixels * taps[r - o * STRIDE_Y],)
                    else:
                        added = added + (totals[o],)
                totals = added
    else:  # one row
        total = tl.zeros((BLOCK_X, BLOCK_C), like)
        for j in range(taps_y):
            line = first * STRIDE_Y - padding_y + j * dilation_y
            end = tl.where((line >= 0) & (line < height), width, 0)
            for i in range(taps_x):
                column = left + i * dilation_x
                inside = ((column >= 0) & (column < end))[:, None] & has[None, :]
                place = column[:, None] * wide + source[None, :]
                pixels = read(x, result, (top + line) * width * wide, place, inside, mean, scale,
                              shift, share, PROLOGUE, LOW, HIGH, like)  # fmt: skip
                tap = (tap_y - j * tap_step_y) * kernel_x + tap_x - i * tap_step_x
                value = tl.load(weight + channel * kernel_size + tap, mask=has, other=0.0)
                total = total + pixels * value.to(like)[None, :]
        totals = (total,)

    bias = row_of(bias, channel, has, like)
    z_mean, z_scale = row_of(z_mean, channel, has, like), row_of(z_scale, channel, has, like)
    z_shift = row_of(z_shift, channel, has, like)
    place = (first_x + point * step_x)[:, None] * channels + channel[None, :]
    results = ()
    away_sum, sum_ = tl.zeros((BLOCK_C,), like), tl.zeros((BLOCK_C,), like)
    for o in tl.static_range(ROWS):
        end = tl.where(first + o < points_y, points_x, 0)
        inside = (point < end)[:, None] & has[None, :]
        start = (image * out_height + first_y + (first + o) * step_y) * out_width * channels
        total = totals[o]
        if EPILOGUE == "activation":
            total = total + bias
            if z is not None:  # a residual
                total = total + tl.load(z + start + place, mask=inside, other=0.0).to(like)
            total = activate(total, ACTIVATION)
        if EPILOGUE == "norm":  # what was read was normalised: the gradient before that
            away = tl.load(z + start + place, mask=inside, other=0.0).to(like) - z_mean
            before = away * z_scale + z_shift
            total = tl.where(inside & ~((before <= Z_LOW) | (before >= Z_HIGH)), total, 0.0)
            away_sum += tl.sum(total * away, 0)
            sum_ += tl.sum(total, 0)
            total = total * z_scale
        stored = total.to(out.dtype.element_ty)
        tl.store(out + start + place, stored, mask=inside)
        if EPILOGUE == "moments":
            results = results + (tl.where(inside, stored.to(like), 0.0),)
            sum_ += tl.sum(results[o], 0)
    if EPILOGUE == "norm":
        store_part(sums, part, channels, channel, has, (away_sum, sum_))
    if EPILOGUE == "moments":
        rows = tl.minimum(points_y - first, ROWS)
        number = rows * tl.minimum(points_x - part % blocks_x * BLOCK_X, BLOCK_X)
        middle = sum_ / number.to(like)
        for o in tl.static_range(ROWS):
            end = tl.where(first + o < points_y, points_x, 0)
            inside = (point < end)[:, None] & has[None, :]
            away = tl.where(inside, results[o] - middle[None, :], 0.0)
            away_sum += tl.sum(away * away, 0)
        number = tl.zeros((BLOCK_C,), like) + number.to(like)
        store_part(sums, part, channels, channel, has, (number, middle, away_sum))


# --- host side ------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """What one program computes, and how many warps it is."""

    rows: int
    block_x: int
    block_c: int
    warps: int


class Epilogue(NamedTuple):
    """What follows the sums: a residual ``z`` and an ``activation``; the ``moments`` of the result;
    or, of a gradient, the gradient before a ``norm`` whose input was ``z``, and the sums of that
    norm's own gradients."""

    kind: str = "activation"  # or "moments", "norm"
    bias: Tensor | None = None
    activation: str = "none"
    z: Tensor | None = None
    norm: Prologue = PLAIN


def tile_of(y: Axis, x: Axis, channels: int, item: int, registers: int) -> Tile:
    """A tile for a window on images of numbers of so many bytes; a thread has ``registers`` of each
    row, eight of which fit into the registers where a kernel is small and nothing else is in them.

    ``BLOCK_C`` channels are a line of the cache, fewer where that leaves less over; rows share
    what they read where a kernel is several taps high.
    """
    block_c = _fitting(channels, (128 // item, 64 // item, 32 // item))
    block_x = _fitting(x.points, (16, 8, 4))
    rows = 1
    if y.dilation == 1 and max(y.taps, x.taps) <= UNROLLED and y.taps > 1:
        rows = min(y.points, 4 if y.stride == 1 else 2)
    warps = max(1, min(8, block_x * block_c // (32 * registers)))
    return Tile(rows, block_x, block_c, warps)


def _fitting(count: int, sizes: Sequence[int]) -> int:
    """A power of two for up to ``sizes[0]``; beyond, the first size that wastes at most a seventh,
    or the one that wastes least."""
    if count <= sizes[0]:
        return triton.next_power_of_2(max(1, count))
    for size in sizes:
        if 7 * pieces(count, size) * size <= 8 * count:
            return size
    return min(sizes, key=lambda size: pieces(count, size) * size)


def _straight(axis: Axis) -> Phase:
    """All points of an axis by all its taps, in their order."""
    return Phase(axis, 0, 1, 0, -1)


def _run(
    x: Tensor, weight: Tensor, images: int, phases: tuple[Phase, Phase], out: Tensor,
    prologue: Prologue, epilogue: Epilogue, tile: Tile | None = None,
) -> Tensor | None:  # fmt: skip
    """Some points of ``out``, all images and channels_last; the epilogue's sums, for each part."""
    y, x_ = phases
    channels = out.shape[1]
    bare = prologue.kind == "none" and epilogue.kind == "activation" and y.axis.taps <= 3
    tile = tile or tile_of(y.axis, x_.axis, channels, x.element_size(), 8 if bare else 4)
    bands, blocks_x = pieces(y.axis.points, tile.rows), pieces(x_.axis.points, tile.block_x)
    blocks_c, parts = pieces(channels, tile.block_c), images * bands * blocks_x
    sums = None
    if epilogue.kind != "activation":
        rows = 3 if epilogue.kind == "moments" else 2
        sums = out.new_empty((parts, rows, channels), dtype=type_of_sums(out))
    z = epilogue.norm
    unrolled = max(y.axis.taps, x_.axis.taps) <= UNROLLED
    launch(
        depthwise_kernel, (parts * blocks_c,), x,
        x, prologue.result, prologue.mean, prologue.scale, prologue.shift, weight, epilogue.bias,
        out, epilogue.z, z.mean, z.scale, z.shift, sums, channels, y.axis.size, x_.axis.size,
        y.axis.points, x_.axis.points, out.shape[2], out.shape[3], y.first, x_.first, y.stride,
        x_.stride, y.axis.padding, x_.axis.padding, y.axis.dilation, x_.axis.dilation, y.axis.taps,
        x_.axis.taps, y.tap, x_.tap, y.tap_stride, x_.tap_stride, weight.shape[3],
        weight.shape[2] * weight.shape[3], prologue.numbers, bands, blocks_x, blocks_c,
        MULTIPLIER=channels // x.shape[1], STRIDE_Y=y.axis.stride, STRIDE_X=x_.axis.stride,
        TAPS_Y=y.axis.taps if unrolled else 0, TAPS_X=x_.axis.taps if unrolled else 0,
        IS_UNROLLED=unrolled, ROWS=tile.rows if unrolled else 1, BLOCK_X=tile.block_x,
        BLOCK_C=tile.block_c, PROLOGUE=prologue.kind, LOW=prologue.low, HIGH=prologue.high,
        EPILOGUE=epilogue.kind, Z_LOW=z.low, Z_HIGH=z.high, ACTIVATION=epilogue.activation,
        IS_DOUBLE=is_double(x), num_warps=tile.warps,
    )  # fmt: skip
    return sums


def depthwise(
    x: Tensor, weight: Tensor, window: Window, epilogue: Epilogue = Epilogue(),
    prologue: Prologue = PLAIN, tile: Tile | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(each channel by its own stencil, the sums of an epilogue that has any).

    ``x [N, C, H, W]`` and the result are channels_last, ``weight [C·m, 1, kh, kw]`` is contiguous.
    """
    out = empty_image(x, window.images, len(weight), window.y.points, window.x.points)
    phases = _straight(window.y), _straight(window.x)
    sums = _run(x, weight, window.images, phases, out, prologue, epilogue, tile)
    return out, sums


def depthwise_input_gradient(
    grad: Tensor, weight: Tensor, window: Window, epilogue: Epilogue = Epilogue(),
    prologue: Prologue = PLAIN, tile: Tile | None = None, wide: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(the gradient of the image that ``depthwise`` read, the sums of the epilogue).

    Of a depth multiplier m, that of each channel as many times as there are results of it: to be
    added up, and therefore ``wide``, in the type of the sums.
    """
    sizes = window.images, len(weight), window.y.size, window.x.size
    out = empty_image(grad, *sizes, dtype=type_of_sums(grad) if wide else None)
    sums = [
        _run(grad, weight, window.images, (y, x), out, prologue, epilogue, tile)
        for y in adjoint(window.y)
        for x in adjoint(window.x)
    ]
    found = [each for each in sums if each is not None]
    return out, torch.cat(found) if found else None


def empty_image(like: Tensor, *sizes: int, dtype: torch.dtype | None = None) -> Tensor:
    """An image [N, C, H, W], channels_last, on the device of another, and of its type."""
    return torch.empty(sizes, dtype=dtype or like.dtype, device=like.device,
                       memory_format=torch.channels_last)  # fmt: skip
