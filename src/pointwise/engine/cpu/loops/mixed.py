"""Pointwise and standard convolutions of an image: pixels or patches, then the mix."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import TEAM, cut_points, row_stride
from pointwise.engine.cpu.gathers import patches
from pointwise.engine.cpu.gathers.transfer import CORRECT
from pointwise.engine.cpu.gemm import (
    GENERAL,
    ROWS,
    TILE,
    TILE_ROW,
)
from pointwise.engine.cpu.launch import device, slot, threads
from pointwise.engine.cpu.loops.moments import Behind
from pointwise.engine.cpu.loops.shared import _OWN, Step, empty, stencil_arguments, windowed
from pointwise.engine.cpu.mix import MIX_SLOTS, mix_tile, mixing
from pointwise.engine.cpu.table import Table
from pointwise.engine.cpu.vector import bytes_of
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401


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


_MIXED = by_dtype(_mixed, "mixed")


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
    left = None
    if behind is not None:
        counts = np.full(row_blocks, span, dtype=np.int64)
        counts[-1] = points - (row_blocks - 1) * span
        left = behind.begin(out, counts)
    arguments.append(0 if left is None else left.address)
    programs = weights.groups * row_blocks * blocks
    return Step(compiled, arguments, programs, out, place, (weights, scratch, how, left))
