"""Convolution, depthwise, pointwise convolution in one tile loop: an inverted residual.

The widest result of the three, the first one's, never leaves the cache: each program walks down a
part of an image, makes the lines that the stencil needs next, and keeps those that it needs again
(MobileNetV2: Sandler et al., CVPR 2018, section 5; here without splitting the channels). The last
one may be missing, where something else comes between (squeeze-and-excitation).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import NONE, activate
from pointwise.engine.cpu.cut import cut_lines, row_stride
from pointwise.engine.cpu.gathers import patches, stencil
from pointwise.engine.cpu.gathers.transfer import copy
from pointwise.engine.cpu.gemm import FROM_BIAS, GENERAL, ROWS, TILE, TILE_ROW, multiply
from pointwise.engine.cpu.launch import device, device_of, slot, threads
from pointwise.engine.cpu.loops.images import (
    MIX_SLOTS,
    TAPS,
    Step,
    mix_tile,
    mixing,
    over_rows,
    row_kernel,
    stencil_arguments,
    windowed,
)
from pointwise.engine.cpu.table import real
from pointwise.engine.cpu.vector import bytes_of, lanes_of
from pointwise.engine.cpu.weights import Mix, Taps

# The argument table: the first window, its mix, the stencil's window and weights, the last mix.
_FIRST = TAPS
_SEEN = _FIRST + MIX_SLOTS
_TAPS = _SEEN + TAPS
_LAST = _TAPS + 6
_OWN = _LAST + MIX_SLOTS
_CACHE = 512 * 1024  # of the second level, for the lines between
_LARGE = 1024 * 1024


@device
def _expand(arguments, image, first, lines, target, row, tiles, like):
    """Lines ``first …`` of the first convolution, with its epilogue, pixel after pixel."""
    size, width = bytes_of(like), lanes_of(like)
    pixel, points = slot(arguments, 1), slot(arguments, 6)
    weight, depth = slot(arguments, _FIRST), slot(arguments, _FIRST + 1)
    columns, kind = slot(arguments, _FIRST + 4), slot(arguments, _FIRST + 10)
    tile, tile_row = slot(arguments, _OWN + 8), slot(arguments, _OWN + 9)
    bias = slot(arguments, _FIRST + 2)
    start = 0 if bias == 0 else FROM_BIAS
    begin = (image * slot(arguments, 5) + first) * points
    count = lines * points
    for at in range(0, count, tile):
        rows = min(tile, count - at)
        a, a_row = slot(arguments, 0) + (begin + at) * pixel, pixel
        if tile_row != 0:
            a, a_row = tiles, tile_row
            patches.fill(a, a_row, begin + at, rows, slot(arguments, 0), pixel, slot(arguments, 2),
                         slot(arguments, 3), slot(arguments, 4), slot(arguments, 5), points,
                         slot(arguments, 7), slot(arguments, 8), slot(arguments, 9),
                         slot(arguments, 10), slot(arguments, 11), slot(arguments, 12),
                         slot(arguments, 13), slot(arguments, 14), 0, 0, like)  # fmt: skip
        place = target + at * row
        multiply(a, a_row, GENERAL, size, weight, width * size, depth * width * size, depth, place,
                 row, rows, columns, start, 0, 0, bias, real(arguments, _FIRST + 8, like),
                 real(arguments, _FIRST + 9, like), 0, 0, 0, like)  # fmt: skip
        if kind != NONE:
            activate(place, row, rows, columns, kind, like)


def _inverted_of(fill, *shape):
    @device_of(*shape)
    def inverted_part(arguments, program, thread, like):
        share, parts, band = (
            slot(arguments, _OWN),
            slot(arguments, _OWN + 1),
            slot(arguments, _OWN + 2),
        )
        wide_row, deep_row = slot(arguments, _OWN + 3), slot(arguments, _OWN + 4)
        between = slot(arguments, _OWN + 5) + thread * slot(arguments, _OWN + 6)
        behind = between + slot(arguments, _OWN + 7)
        tiles = behind + slot(arguments, _OWN + 10)
        height, width = slot(arguments, _SEEN + 3), slot(arguments, _SEEN + 4)
        lines, points = slot(arguments, _SEEN + 5), slot(arguments, _SEEN + 6)
        step, taps = slot(arguments, _SEEN + 7), slot(arguments, _SEEN + 9)
        origin, spread = slot(arguments, _SEEN + 11), slot(arguments, _SEEN + 13)
        channels, kind = slot(arguments, _SEEN + 2), slot(arguments, _TAPS + 5)
        line = width * wide_row
        straight, out = slot(arguments, _LAST) == 0, slot(arguments, _LAST + 6)
        image, y = program // parts, program % parts * share
        end = min(y + share, lines)
        kept = made = 0  # the lines that are there: kept … made
        while y < end:
            rows = min(band, end - y)
            low = min(height, max(0, y * step + origin))
            high = min(height, (y + rows - 1) * step + origin + (taps - 1) * spread + 1)
            if made > low:  # from the front on, where they lie in order whatever is copied first
                copy(between, between + (low - kept) * line,
                     (made - low) * line // bytes_of(like), like)  # fmt: skip
            else:
                made = low
            kept = low
            if high > made:
                _expand(arguments, image, made, high - made, between + (made - low) * line,
                        wide_row, tiles, like)  # fmt: skip
                made = high
            if straight:
                behind = out + (image * lines + y) * points * deep_row
            fill(behind, deep_row, points * deep_row, y, rows, between - low * line, wide_row,
                 channels, height, width, points, step, slot(arguments, _SEEN + 8), taps,
                 slot(arguments, _SEEN + 10), origin, slot(arguments, _SEEN + 12), spread,
                 slot(arguments, _SEEN + 14), slot(arguments, _TAPS), slot(arguments, _TAPS + 1),
                 slot(arguments, _TAPS + 2), real(arguments, _TAPS + 3, like),
                 real(arguments, _TAPS + 4, like), like)  # fmt: skip
            if kind != NONE:
                activate(behind, deep_row, rows * points, channels, kind, like)
            if not straight:
                stride = TILE if deep_row == TILE_ROW else GENERAL
                mix_tile(arguments, _LAST, behind, deep_row, stride, (image * lines + y) * points,
                         rows * points, 0, 0, slot(arguments, _LAST + 4), 0, 0, 0, 0, 0,
                         like)  # fmt: skip
            y += rows

    return inverted_part


_INVERTED = over_rows(_inverted_of, stencil.ROWS, "inverted")


def is_better_in_one(seen: Window, channels: int, size: int) -> bool:
    """Whether the first two are faster together: where its ``channels`` do not fit into a cache.

    Small images are as fast one by one, and where threads share an image some lines are made twice.
    """
    share, _ = cut_lines(seen, 1)
    whole = share == seen.y.points
    return whole or seen.y.size * seen.x.size * channels * size > _LARGE


def inverted_step(
    x: Tensor,
    first: Mix,
    window: Window,
    weights: Taps,
    seen: Window,
    then: Mix | None,
    out: Tensor,
    residual: Tensor | None = None,
    activations: tuple[str, str, str] = ("none", "none", "none"),
) -> Step:
    """All three into ``out``: ``first`` at ``window``, ``weights`` at ``seen``, ``then``, their
    ``activations`` behind them; a ``residual`` is added before the last one. Without ``then``, the
    first two.
    """
    compiled, place = row_kernel(_INVERTED, seen, x.dtype), _LAST + 6
    if out.numel() == 0:
        return Step(compiled, [], 0, out, place)
    size, wide = x.element_size(), first.columns
    wide_row = row_stride(wide * size)
    line = seen.x.size * wide_row
    points = seen.x.points
    reach = (seen.y.taps - 1) * seen.y.dilation + 1
    most = max(1, (_CACHE // line - reach) // seen.y.stride + 1)
    share, band = cut_lines(seen, most)
    parts = -(-seen.y.points // share)
    between = min(seen.y.size, (band - 1) * seen.y.stride + reach) * line
    behind = 0 if then is None else band * points * wide_row
    rows, tile_row, tiles = seen.y.size * seen.x.size, 0, 0
    if not window.is_identity:
        tile_row = row_stride(first.depth * size)
        rows = ROWS * max(1, min(8, 48 * 1024 // (ROWS * tile_row)))
        tiles = rows * tile_row
    own = between + behind + tiles + ROWS * max(wide_row, tile_row)
    scratch = torch.empty(threads() * own, dtype=torch.uint8)
    arguments = windowed(x, window, x.shape[1]) + mixing(first, out, None, activations[0])
    arguments += windowed(x, seen, wide) + stencil_arguments(weights, activations[1])
    if then is None:
        arguments += [0] * 6 + [out.data_ptr()] + [0] * (MIX_SLOTS - 7)
    else:
        arguments += mixing(then, out, residual, activations[2])
    deep_row = wide * size if then is None else wide_row
    arguments += [share, parts, band, wide_row, deep_row, scratch.data_ptr(), own, between, rows,
                  tile_row, behind]  # fmt: skip
    kept = (first, weights, then, scratch)
    return Step(compiled, arguments, seen.images * parts, out, place, kept, _LAST + 7)
