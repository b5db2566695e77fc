"""Convolutions on images: gather → mix → epilogue over bands of rows that stay in cache.

Three tile loops: ``depthwise`` (a stencil without a mix), ``mixed`` (pixels or patches, then the
mix: pointwise and standard convolutions) and ``separable`` (a stencil, then the mix). Images are
channels_last. A point of the result is computed by one program from start to end, so that results
do not depend on the number of threads or on how the work was cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import HARDSWISH, NONE, SIGMOID, SILU, activate
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import TEAM, cut_bands, cut_points, row_stride
from pointwise.engine.cpu.gathers import patches, stencil
from pointwise.engine.cpu.gathers.transfer import CORRECT
from pointwise.engine.cpu.gemm import (
    FROM_BIAS,
    FROM_ROWS,
    GENERAL,
    ROWS,
    TILE,
    TILE_ROW,
    multiply,
)
from pointwise.engine.cpu.launch import device, device_of, kernel, launch, slot, threads
from pointwise.engine.cpu.layout import Table, bits, real
from pointwise.engine.cpu.loops.moments import Behind, leave
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.vector import bytes_of, lanes_of
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401

_INFINITY = float("inf")

EPILOGUES: dict[str, tuple[float, float, int]] = {
    "none": (-_INFINITY, _INFINITY, NONE),
    "relu": (0.0, _INFINITY, NONE),
    "relu6": (0.0, 6.0, NONE),
    "hardswish": (-_INFINITY, _INFINITY, HARDSWISH),
    "silu": (-_INFINITY, _INFINITY, SILU),
    "sigmoid": (-_INFINITY, _INFINITY, SIGMOID),
}
"""Activations that kernels apply: the bounds of a result, and what else is done to it."""


# --- argument tables ------------------------------------------------------------------------------


def windowed(x: Tensor, window: Window, channels: int) -> list[int]:
    """The part of an argument table that says where to read; of ``channels`` of the pixels."""
    y, x_ = window.y, window.x
    return [x.data_ptr(), x.shape[1] * x.element_size(), channels, y.size, x_.size, y.points,
            x_.points, y.step, x_.step, y.taps, x_.taps, y.origin, x_.origin, y.spread,
            x_.spread]  # fmt: skip


TAPS = 15  # the first slot behind the window
_OWN = 21  # the first slot behind the window and the stencil


def stencil_arguments(weights: Taps | None, activation: str) -> list[int]:
    """The part that says what the stencil multiplies with, and what follows it."""
    low, high, kind = EPILOGUES[activation]
    if weights is None:
        return [0, 0, 0, bits(low), bits(high), kind]
    tap = weights.weight.shape[1] * weights.weight.element_size()
    return [weights.weight.data_ptr(), tap, weights.bias.data_ptr(), bits(low), bits(high), kind]


def _stencil_rows_of(fill, *shape):
    @device_of(*shape)
    def stencil_rows(arguments, image, first, rows, out, out_pixel, out_line, like):
        """Some rows of the stencil on one image, with their epilogue."""
        pixel, channels = slot(arguments, 1), slot(arguments, 2)
        height, width, points = slot(arguments, 3), slot(arguments, 4), slot(arguments, 6)
        fill( out, out_pixel, out_line, first, rows,
                     slot(arguments, 0) + image * height * width * pixel, pixel, channels, height,
                     width, points, slot(arguments, 7), slot(arguments, 8), slot(arguments, 9),
                     slot(arguments, 10), slot(arguments, 11), slot(arguments, 12),
                     slot(arguments, 13), slot(arguments, 14), slot(arguments, TAPS),
                     slot(arguments, TAPS + 1), slot(arguments, TAPS + 2),
                     real(arguments, TAPS + 3, like), real(arguments, TAPS + 4, like),
                     like)  # fmt: skip
        kind = slot(arguments, TAPS + 5)
        if kind != NONE:  # then points follow one another
            activate(out, out_pixel, rows * points, channels, kind, like)

    return stencil_rows


# --- depthwise ------------------------------------------------------------------------------------


def _depthwise_of(fill, *shape):
    stencil_rows = _stencil_rows_of(fill, *shape)

    @device_of(*shape)
    def depthwise_band(arguments, program, thread, like):
        out, band, bands = (
            slot(arguments, _OWN),
            slot(arguments, _OWN + 1),
            slot(arguments, _OWN + 2),
        )
        out_image, out_line = slot(arguments, _OWN + 3), slot(arguments, _OWN + 4)
        image, first = program // bands, program % bands * band
        stencil_rows(arguments, image, first, min(band, slot(arguments, 5) - first),
                      out + image * out_image + first * out_line, slot(arguments, _OWN + 5),
                      out_line, like)  # fmt: skip

    return depthwise_band


# --- the mix --------------------------------------------------------------------------------------


@device
def mix_tile(arguments, own, a, a_row, stride, first, rows, group, column, columns, left, begin,
              ahead, ahead_end, apart, like):  # fmt: skip
    """A tile of A times some columns of the weight, with its epilogue, to rows ``first …``.

    ``left`` is what it leaves behind (``moments``) in the slab of rows from ``begin`` on.
    """
    size, width = bytes_of(like), lanes_of(like)
    weight, depth = slot(arguments, own), slot(arguments, own + 1)
    bias, padded = slot(arguments, own + 2), slot(arguments, own + 3)
    per_group, out_row = slot(arguments, own + 4), slot(arguments, own + 5)
    residual, kind = slot(arguments, own + 7), slot(arguments, own + 10)
    offset = first * out_row + (group * per_group + column) * size
    out = slot(arguments, own + 6) + offset
    start = 0
    if residual != 0:
        start |= FROM_ROWS
    if bias != 0:
        start |= FROM_BIAS
    panels = group * (padded // width) + column // width
    multiply(a, a_row, stride, size, weight + panels * depth * width * size, width * size,
             depth * width * size, depth, out, out_row, rows, columns, start, residual + offset,
             out_row, bias + (group * padded + column) * size, real(arguments, own + 8, like),
             real(arguments, own + 9, like), ahead, ahead_end, apart, like)  # fmt: skip
    if kind != NONE:
        activate(out, out_row, rows, columns, kind, like)
    if left != 0:
        slab = begin // slot(arguments, _OWN + MIX_SLOTS + 7)
        leave(left, out, out_row, rows, columns, group * per_group + column, out_row // size, slab,
              first == begin, like)  # fmt: skip


MIX_SLOTS = 11  # slots of the mix


def mixing(
    weights: Mix | Filtered, out: Tensor, residual: Tensor | None, activation: str
) -> list[int]:
    """The part that says what the mix multiplies with, and where its results go."""
    low, high, kind = EPILOGUES[activation]
    size = out.element_size()
    return [
        weights.packed.data_ptr(),
        weights.depth,
        0 if weights.bias is None else weights.bias.data_ptr(),
        padded_columns(weights.columns, out.dtype),
        weights.columns,
        out.shape[1] * size,
        out.data_ptr(),
        0 if residual is None else residual.data_ptr(),
        bits(low),
        bits(high),
        kind,
    ]


@device
def _mixed(arguments, program, thread, like):
    size = bytes_of(like)
    behind = _OWN + MIX_SLOTS
    tile, row_blocks = slot(arguments, behind), slot(arguments, behind + 1)
    block, blocks = slot(arguments, behind + 2), slot(arguments, behind + 3)
    direct, scratch_row = slot(arguments, behind + 4), slot(arguments, behind + 5)
    span, total = slot(arguments, behind + 7), slot(arguments, behind + 8)
    how, left = slot(arguments, behind + 9), slot(arguments, behind + 10)
    pixel, channels = slot(arguments, 1), slot(arguments, 2)
    column = program % blocks * block
    columns = min(block, slot(arguments, _OWN + 4) - column)
    group = program // blocks // row_blocks
    begin = program // blocks % row_blocks * span
    x = slot(arguments, 0) + group * channels * size
    # What else the pixels of a tile are made of lies so far from them.
    apart = 0
    if how != 0 and slot(how, 0) == CORRECT:
        apart = slot(how, 5)
    in_order = (
        slot(arguments, 7) * slot(arguments, 8) * slot(arguments, 9) * slot(arguments, 10) == 1
    )
    for first in range(begin, min(begin + span, total), tile):
        rows = min(tile, min(begin + span, total) - first)
        if direct != 0:
            mix_tile(arguments, _OWN, x + first * pixel, pixel, GENERAL, first, rows, group,
                      column, columns, left, begin, 0, 0, 0, like)  # fmt: skip
            continue
        a = slot(arguments, behind + 6) + thread * tile * scratch_row
        patches.fill(a, scratch_row, first, rows, x, pixel, channels, slot(arguments, 3),
                     slot(arguments, 4), slot(arguments, 5), slot(arguments, 6),
                     slot(arguments, 7), slot(arguments, 8), slot(arguments, 9),
                     slot(arguments, 10), slot(arguments, 11), slot(arguments, 12),
                     slot(arguments, 13), slot(arguments, 14), how, group * channels * size,
                     like)  # fmt: skip
        stride = TILE if scratch_row == TILE_ROW else GENERAL
        ahead = ahead_end = 0
        if in_order and channels * size == pixel:
            ahead = x + (first + tile) * pixel
            ahead_end = x + min(first + 2 * tile, begin + span, total) * pixel
        mix_tile(arguments, _OWN, a, scratch_row, stride, first, rows, group, column, columns,
                  left, begin, ahead, ahead_end, apart, like)  # fmt: skip


# --- separable ------------------------------------------------------------------------------------


def _separable_of(fill, *shape):
    stencil_rows = _stencil_rows_of(fill, *shape)

    @device_of(*shape)
    def separable_band(arguments, program, thread, like):
        behind = _OWN + MIX_SLOTS
        band, bands = slot(arguments, behind), slot(arguments, behind + 1)
        a_row = slot(arguments, behind + 2)
        lines, points = slot(arguments, 5), slot(arguments, 6)
        image, first = program // bands, program % bands * band
        rows = min(band, lines - first)
        a = slot(arguments, behind + 3) + thread * band * points * a_row
        stencil_rows(arguments, image, first, rows, a, a_row, points * a_row, like)
        stride = TILE if a_row == TILE_ROW else GENERAL
        mix_tile(arguments, _OWN, a, a_row, stride, (image * lines + first) * points,
                  rows * points, 0, 0, slot(arguments, _OWN + 4), 0, 0, 0, 0, 0, like)  # fmt: skip

    return separable_band


# --- kernels --------------------------------------------------------------------------------------


def over_rows(make, rows, name: str) -> dict[tuple, kernel]:
    """A kernel of ``make(fill, taps, step)`` for each kind of rows and each precision."""
    return {
        (*shape, dtype): compiled
        for shape, fill in rows.items()
        for dtype, compiled in by_dtype(make(fill, *shape), f"{name}_{shape[0]}_{shape[1]}").items()
    }


_DEPTHWISE = over_rows(_depthwise_of, stencil.ROWS, "depthwise")
_SEPARABLE = over_rows(_separable_of, stencil.ROWS, "separable")
_MIXED = by_dtype(_mixed, "mixed")


def row_kernel(kernels: dict[tuple, kernel], window: Window, dtype: torch.dtype) -> kernel:
    x = window.x
    special = (x.taps, x.step, dtype)
    return kernels[special if x.spread == 1 and special in kernels else (0, 0, dtype)]


# --- calls ----------------------------------------------------------------------------------------


def empty(like: Tensor, window: Window, channels: int) -> Tensor:
    """Room for a window's results, channels_last."""
    shape = (window.images, channels, window.y.points, window.x.points)
    return empty_image(shape, like.dtype)


@dataclass(frozen=True)
class Step:
    """A launch with all it needs: made once, run as often as wanted."""

    kernel: kernel
    arguments: list[int]
    programs: int
    out: Tensor
    place: int  # of the result's address among the arguments; the input's is the first
    kept: tuple = ()  # what other addresses belong to
    residual: int = _OWN + 7  # where a residual's address is, of a step with a mix

    def run(self) -> Tensor:
        launch(self.kernel, self.arguments, self.programs)
        return self.out


def depthwise(x: Tensor, weights: Taps, window: Window, activation: str = "none") -> Tensor:
    """Each channel by its own stencil; ``x`` and the result are channels_last."""
    return depthwise_step(x, weights, window, empty(x, window, x.shape[1]), activation).run()


def depthwise_step(
    x: Tensor, weights: Taps, window: Window, out: Tensor, activation: str = "none"
) -> Step:
    """``depthwise`` into ``out``, which may be every so-manieth row and column of an image."""
    channels, size = x.shape[1], x.element_size()
    band, bands = cut_bands(window, window.x.points * channels * size, 64 * 1024)
    arguments = windowed(x, window, channels) + stencil_arguments(weights, activation)
    arguments += [out.data_ptr(), band, bands, *(out.stride(i) * size for i in (0, 2, 3))]
    programs = window.images * bands if out.numel() else 0
    compiled = row_kernel(_DEPTHWISE, window, x.dtype)
    return Step(compiled, arguments, programs, out, _OWN, (weights,))


def mixed(
    x: Tensor,
    weights: Mix,
    window: Window,
    residual: Tensor | None = None,
    activation: str = "none",
    how: Table | None = None,
    behind: Behind | None = None,
) -> Tensor:
    """Pixels or patches times the weight; ``x``, ``residual`` and the result are channels_last.

    ``how`` says what becomes of ``x`` as it is read, ``behind`` what the result leaves behind.
    """
    out = empty(x, window, weights.groups * weights.columns)
    return mixed_step(x, weights, window, out, residual, activation, how, behind).run()


def mixed_step(
    x: Tensor,
    weights: Mix,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    activation: str = "none",
    how: Table | None = None,
    behind: Behind | None = None,
) -> Step:
    """``mixed`` into ``out``."""
    compiled, place = _MIXED[x.dtype], _OWN + 6
    if out.numel() == 0:
        return Step(compiled, [], 0, out, place)
    size, points = x.element_size(), window.points
    identity = window.is_identity
    # Pixels a multiple of 4 KB apart share their cache sets, and are better copied.
    direct = identity and how is None and x.shape[1] * size % 4096 != 0
    span, block = cut_points(points, weights.depth, weights.columns, weights.groups, size, identity,
                       threads() if behind is None else TEAM)  # fmt: skip
    row_blocks, blocks = -(-points // span), -(-weights.columns // block)
    row_bytes = row_stride(weights.depth * size)
    room = (256 if identity else 48) * 1024
    tile = span if direct else ROWS * max(1, min(8, room // (ROWS * row_bytes)))
    tile = min(tile, span)
    scratch = None
    if not direct:
        scratch = torch.empty((threads() * tile + ROWS) * row_bytes, dtype=torch.uint8)
    arguments = windowed(x, window, x.shape[1] // weights.groups) + stencil_arguments(None, "none")
    arguments += mixing(weights, out, residual, activation)
    arguments += [tile, row_blocks, block, blocks, int(direct), row_bytes,
                  0 if scratch is None else scratch.data_ptr(), span, points,
                  0 if how is None else how.address]  # fmt: skip
    left = 0
    if behind is not None:
        counts = np.full(row_blocks, span, dtype=np.int64)
        counts[-1] = points - (row_blocks - 1) * span
        left = behind.begin(out, counts)
    arguments.append(left)
    programs = weights.groups * row_blocks * blocks
    return Step(compiled, arguments, programs, out, place, (weights, scratch, how, behind))


def separable(
    x: Tensor,
    weights: Taps,
    then: Mix,
    window: Window,
    residual: Tensor | None = None,
    between: str = "none",
    activation: str = "none",
) -> Tensor:
    """A depthwise stencil and the mix of its results, which never leave the cache."""
    out = empty(x, window, then.columns)
    return separable_step(x, weights, then, window, out, residual, between, activation).run()


def separable_step(
    x: Tensor,
    weights: Taps,
    then: Mix,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    between: str = "none",
    activation: str = "none",
) -> Step:
    """``separable`` into ``out``."""
    compiled, place = row_kernel(_SEPARABLE, window, x.dtype), _OWN + 6
    if out.numel() == 0:
        return Step(compiled, [], 0, out, place)
    channels, size = x.shape[1], x.element_size()
    row_bytes = row_stride(channels * size)
    points = window.x.points
    band, bands = cut_bands(window, points * row_bytes, 256 * 1024)
    scratch = torch.empty((threads() * band * points + ROWS) * row_bytes, dtype=torch.uint8)
    arguments = windowed(x, window, channels) + stencil_arguments(weights, between)
    arguments += mixing(then, out, residual, activation)
    arguments += [band, bands, row_bytes, scratch.data_ptr()]
    return Step(compiled, arguments, window.images * bands, out, place, (weights, then, scratch))
