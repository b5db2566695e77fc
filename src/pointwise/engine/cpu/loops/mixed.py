"""Every convolution that multiplies what it gathers: a tile of rows is gathered, then mixed.

Results do not depend on the number of threads: a row is computed by one program from start to end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import by_dtype, of_type
from pointwise.engine.cpu.cut import TEAM, cut_points, odd_lines, row_stride
from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.dots import DOTS
from pointwise.engine.cpu.gathers.patches import (
    PATCHES,
    fill_bytes,
    fill_floats,
    patches_arguments,
)
from pointwise.engine.cpu.gathers.prologue import other_image
from pointwise.engine.cpu.gemm import ROWS
from pointwise.engine.cpu.launch import Launch, kernel, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.loops import lines
from pointwise.engine.cpu.memory import empty_result
from pointwise.engine.cpu.mix import (
    MIX,
    MIX_INT8,
    mix_arguments,
    mix_int8_arguments,
    mix_tile,
    mix_tile_int8,
    mix_tile_pairs,
)
from pointwise.engine.cpu.moments import Reduction
from pointwise.engine.cpu.product import TILE_ROW
from pointwise.engine.cpu.weights import PackedWeight, PackedWeightInt8, PairedWeight
from pointwise.engine.cpu.window import pixel_bytes

_INFINITY = float("inf")


def mixed_of(name: str, gather: Layout, fill, mix: Layout, mix_tile):
    """(the layout, the loop) of a gather and a mix.

    ``fill(target, target_row, first, rows, x, gather, prologue, channel, like)`` gathers rows,
    ``mix_tile`` multiplies them. A program makes ``block`` columns of ``span`` rows, of which the
    gathered ``tile`` stays in the cache; ``direct`` reads the rows of x where they are.
    """
    layout = Layout(
        f"Mixed{name}",
        "*x *out *residual *scratch *prologue *moments x_row group_bytes is_in_order direct "
        "scratch_row tile span rows row_blocks block blocks",
        gather=gather,
        mix=mix,
    )

    @device_of(name)
    def mixed(arguments, program, thread, like):
        own = layout(arguments)
        column = program % own.blocks * own.block
        columns = min(own.block, own.mix.columns - column)
        split = program // own.blocks % own.row_blocks
        group = program // own.blocks // own.row_blocks
        channel = group * own.group_bytes
        x = own.x + channel
        apart = other_image(own.prologue)
        begin = split * own.span
        end = min(begin + own.span, own.rows)
        for first in range(begin, end, own.tile):
            rows = min(own.tile, end - first)
            a, a_row, is_tile = x + first * own.x_row, own.x_row, False
            ahead = ahead_end = 0
            if own.direct == 0:
                a, a_row = own.scratch + thread * own.tile * own.scratch_row, own.scratch_row
                fill(a, a_row, first, rows, x, own.gather, own.prologue, channel, like)
                is_tile = a_row == TILE_ROW
                if own.is_in_order != 0:
                    ahead = x + (first + own.tile) * own.x_row
                    ahead_end = x + min(first + 2 * own.tile, end) * own.x_row
            mix_tile(own.mix, own.out, own.residual, a, a_row, is_tile, first, rows, group, column,
                     columns, like, own.moments, split, first == begin, ahead, ahead_end,
                     apart)  # fmt: skip

    return layout, mixed


_PATCHES, _mixed = mixed_of("patches", PATCHES, fill_floats, MIX, mix_tile)
_PATCHES_INT8, _mixed_int8 = mixed_of("bytes", PATCHES, fill_bytes, MIX_INT8, mix_tile_int8)
_PATCHES_PAIRS, _mixed_pairs = mixed_of("pairs", PATCHES, fill_floats, MIX, mix_tile_pairs)
_MIXED = by_dtype(_mixed, "mixed")
_MIXED_PAIRS = of_type(_mixed_pairs, np.float32(0), "mixed_pairs")
_MIXED_INT8 = of_type(_mixed_int8, np.uint8(0), "mixed_int8")


def gathered_of(name: str, gather: Layout, fill):
    """(the layout, the loop) of a gather without a mix: a program gathers a ``tile`` of the result.

    ``fill`` is as of ``mixed_of``.
    """
    layout = Layout(f"Gathered{name}", "*x *out tile rows out_row", gather=gather)

    @device_of(name)
    def gathered(arguments, program, thread, like):
        own = layout(arguments)
        first = program * own.tile
        rows = min(own.tile, own.rows - first)
        fill(own.out + first * own.out_row, own.out_row, first, rows, own.x, own.gather, 0, 0, like)

    return layout, gathered


class Tiling(NamedTuple):
    """How the rows and columns of a mix are divided among programs, and those into tiles."""

    rows: int
    span: int  # rows of a program
    block: int  # columns of a program
    tile: int  # rows
    row_bytes: int  # from row to row of a gathered tile
    direct: bool  # nothing is gathered: A is x
    groups: int
    row_blocks: int
    blocks: int  # of columns


@lru_cache(maxsize=4096)
def image_tiling(
    points: int,
    depth: int,
    columns: int,
    groups: int,
    size: int,
    is_identity: bool,
    direct: bool,
    row_bytes: int,
    rows: int,
    team: int,
) -> Tiling:
    """That of an image whose patches are ``depth`` numbers of ``size`` bytes, for ``team`` threads.

    Tiles are multiples of ``rows``, those of the microkernel.
    """
    span, block = cut_points(points, depth, columns, groups, size, is_identity, team)
    tile = span
    if not direct:
        room = (256 if is_identity else 48) * 1024
        tile = min(span, rows * max(1, min(8, room // (rows * row_bytes))))
    row_blocks, blocks = -(-points // span), -(-columns // block)
    return Tiling(points, span, block, tile, row_bytes, direct, groups, row_blocks, blocks)


def launch_mixed(
    compiled: kernel,
    layout: Layout,
    x: Tensor,
    out: Tensor,
    tiling: Tiling,
    gather: Arguments,
    mix: Arguments,
    residual: Tensor | None = None,
    prologue: Arguments | None = None,
    moments: Arguments | None = None,
    is_in_order: bool = False,
) -> Launch:
    """The launch of a loop of ``mixed_of``.

    ``is_in_order`` says that the pixels of a tile, and no others, follow those of the last one.
    """
    rows, span, block, tile, row_bytes, direct, groups, row_blocks, blocks = tiling
    scratch = None
    if not direct:  # the microkernel reads a few rows more
        scratch = torch.empty((threads() * tile + ROWS) * row_bytes, dtype=torch.uint8)
    arguments = layout(
        x=x,
        out=out,
        residual=residual,
        scratch=scratch,
        prologue=prologue,
        moments=moments,
        x_row=pixel_bytes(x),
        group_bytes=x.shape[1] * x.element_size() // groups,
        is_in_order=int(is_in_order),
        direct=int(direct),
        scratch_row=row_bytes,
        tile=tile,
        span=span,
        rows=rows,
        row_blocks=row_blocks,
        block=block,
        blocks=blocks,
        gather=gather,
        mix=mix,
    )
    return Launch(compiled, arguments, groups * row_blocks * blocks, out)


def mixed_launch(
    x: Tensor,
    weights: PackedWeight,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    activation: str = "none",
    prologue: Arguments | None = None,
    moments: Reduction | None = None,
) -> Launch:
    """Pixels or patches times the weight, into ``out``; all images are channels_last.

    Their pixels may be parts of wider ones.

    ``prologue`` says what becomes of ``x`` as it is read; ``moments`` of ``out`` are left behind.
    """
    paired = isinstance(weights, PairedWeight)
    compiled, layout = (_MIXED_PAIRS, _PATCHES_PAIRS) if paired else (_MIXED[x.dtype], _PATCHES)
    if out.numel() == 0:
        return Launch(compiled, None, 0, out)
    size, groups, depth = x.element_size(), weights.groups, weights.depth
    plain = not paired and prologue is moments is None
    if plain and lines.is_better(x, window, groups, weights.columns):
        return lines.lines_launch(x, weights, window, out, residual, activation)
    pixel, is_identity = pixel_bytes(x), window.is_identity
    # Pixels a multiple of 4 KB apart share their cache sets, and are better copied; what is
    # narrowed has to be.
    direct = is_identity and prologue is None and pixel % 4096 != 0 and not paired
    team = threads() if moments is None else TEAM
    tiling = image_tiling(window.points, depth, weights.columns, groups, size, is_identity, direct,
                          row_stride(depth * size), ROWS, team)  # fmt: skip
    sums = None
    if moments is not None:
        counts = np.full(tiling.row_blocks, tiling.span, dtype=np.int64)
        counts[-1] = tiling.rows - (tiling.row_blocks - 1) * tiling.span
        sums = moments.begin(out, counts)
    one_tap = window.taps * window.y.stride * window.x.stride == 1
    return launch_mixed(
        compiled,
        layout,
        x,
        out,
        tiling,
        patches_arguments(window, pixel, x.shape[1] // groups),
        mix_arguments(weights, pixel_bytes(out), activation, residual),
        residual,
        prologue,
        sums,
        is_in_order=one_tap and groups == 1,
    )


def mixed_int8_launch(
    x: Tensor,
    weights: PackedWeightInt8,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    residual_scale: float = 0.0,
    low: float = -_INFINITY,
    high: float = _INFINITY,
) -> Launch:
    """``mixed_launch`` of bytes, into bytes or float32.

    ``residual`` are bytes, each of which adds ``residual_scale`` times its value. ``low`` and
    ``high`` are bounds of a result in float32.
    """
    if out.numel() == 0:
        return Launch(_MIXED_INT8, None, 0, out)
    channels, is_identity = x.shape[1], window.is_identity
    depth = channels * window.taps
    size = DOTS.size
    # The microkernel reads whole lanes, of numbers as wide as it multiplies.
    direct = is_identity and size == 1 and depth % DOTS.group == 0 and depth % 4096 != 0
    return launch_mixed(
        _MIXED_INT8,
        _PATCHES_INT8,
        x,
        out,
        image_tiling(window.points, depth, weights.columns, 1, size, is_identity, direct,
                     odd_lines(depth * size), DOTS.rows, threads()),
        patches_arguments(window, channels, channels, weights.zero),
        mix_int8_arguments(weights, out.shape[1] * out.element_size(), out.dtype == torch.uint8,
                           residual_scale, low, high),
        residual,
    )  # fmt: skip


def mixed(
    x: Tensor,
    weights: PackedWeight,
    window: Window,
    residual: Tensor | None = None,
    activation: str = "none",
    prologue: Arguments | None = None,
    moments: Reduction | None = None,
) -> Tensor:
    """``mixed_launch`` into a new image."""
    out = empty_result(window, weights.groups * weights.columns, x.dtype)
    return mixed_launch(x, weights, window, out, residual, activation, prologue, moments).run()
