"""Convolution, depthwise, pointwise convolution in one tile loop: an inverted residual.

The widest result of the three, the first one's, never leaves the cache: each program walks down
some lines of an image, makes the lines that the stencil needs next, and keeps those that it needs
again (MobileNetV2: Sandler et al., CVPR 2018, section 5; here without splitting the channels). The
last one may be missing, where something else comes between (squeeze-and-excitation).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.cut import cut_lines, row_stride
from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.gathers import stencil
from pointwise.engine.cpu.gathers.patches import PATCHES, fill_floats, patches_arguments
from pointwise.engine.cpu.gathers.prologue import copy
from pointwise.engine.cpu.gathers.stencil import STENCIL
from pointwise.engine.cpu.gemm import ROWS
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.loops.depthwise import stencil_arguments
from pointwise.engine.cpu.loops.row_kernels import row_kernel, row_kernels
from pointwise.engine.cpu.mix import MIX, mix_arguments, mix_tile
from pointwise.engine.cpu.product import TILE_ROW
from pointwise.engine.cpu.vector import bytes_of
from pointwise.engine.cpu.weights import PackedWeight, StencilWeight
from pointwise.engine.cpu.window import WINDOW, pixel_bytes, window_arguments

_LAYOUT = Layout(
    "Inverted",
    "*x *out *residual *scratch *projection scratch_bytes expanded_bytes result_bytes result_pixel "
    "share shares band tile tile_row",
    patches=PATCHES,
    expansion=MIX,
    window=WINDOW,
    stencil=STENCIL,
)
"""``expansion`` of the ``patches``, ``stencil`` at ``window``, ``projection`` (a MIX, or 0).

A program makes ``share`` lines of a result, ``band`` of them at once. A thread's ``scratch`` holds
``expanded_bytes`` of lines that the stencil reads, ``result_bytes`` of those that it makes, pixels
``result_pixel`` bytes apart, and a tile of patches, ``tile_row`` bytes apart (0: none are made).
"""

_CACHE = 512 * 1024  # of the second level, for the lines between
_LARGE = 1024 * 1024


@device
def _expand(own, image, first, lines, target, tiles, like):
    """Lines ``first …`` of the first convolution, with its epilogue, pixel after pixel."""
    read = own.patches.window
    begin = (image * read.lines + first) * read.points
    count = lines * read.points
    for at in range(0, count, own.tile):
        rows = min(own.tile, count - at)
        a, a_row = own.x + (begin + at) * read.pixel, read.pixel
        if own.tile_row != 0:
            a, a_row = tiles, own.tile_row
            fill_floats(a, a_row, begin + at, rows, own.x, own.patches, 0, 0, like)
        mix_tile(own.expansion, target, 0, a, a_row, False, at, rows, 0, 0, own.expansion.columns,
                 like)  # fmt: skip


def _inverted_of(fill, taps: int, stride: int):
    @device_of(taps, stride)
    def inverted(arguments, program, thread, like):
        """Some lines of one image."""
        own = _LAYOUT(arguments)
        window = own.window
        expanded = own.scratch + thread * own.scratch_bytes
        results = expanded + own.expanded_bytes
        tiles = results + own.result_bytes
        line = window.width * window.pixel
        image, y = program // own.shares, program % own.shares * own.share
        end = min(y + own.share, window.lines)
        kept = made = 0  # the lines that are there: kept … made
        while y < end:
            rows = min(own.band, end - y)
            # The lines that the stencil reads.
            top = y * window.stride_y - window.padding_y
            reach = (rows - 1) * window.stride_y + (window.taps_y - 1) * window.dilation_y + 1
            low = min(window.height, max(0, top))
            high = min(window.height, top + reach)
            if made > low:  # from the front on, where they lie in order whatever is copied first
                copy(expanded, expanded + (low - kept) * line,
                     (made - low) * line // bytes_of(like), like)  # fmt: skip
            else:
                made = low
            kept = low
            if high > made:
                _expand(own, image, made, high - made, expanded + (made - low) * line, tiles, like)
                made = high
            point = (image * window.lines + y) * window.points
            if own.projection == 0:
                results = own.out + point * own.result_pixel
            fill(results, own.result_pixel, window.points * own.result_pixel, y, rows,
                 expanded - low * line, window, own.stencil, 0, like)  # fmt: skip
            if own.projection != 0:
                mix = MIX(own.projection)
                is_tile = own.result_pixel == TILE_ROW
                mix_tile(mix, own.out, own.residual, results, own.result_pixel, is_tile, point,
                         rows * window.points, 0, 0, mix.columns, like)  # fmt: skip
            y += rows

    return inverted


_KERNELS = row_kernels(_inverted_of, stencil.ROWS, "inverted")


def is_better_in_one(window: Window, channels: int, size: int) -> bool:
    """Whether the first two are faster together: where what is between does not fit into a cache.

    That is ``channels`` numbers of ``size`` bytes for each pixel of the ``window``. Small images
    are as fast one by one, and where threads share an image some lines are made twice.
    """
    share, _ = cut_lines(window, 1)
    whole = share == window.y.points
    return whole or window.y.size * window.x.size * channels * size > _LARGE


def inverted_launch(
    x: Tensor,
    expansion: PackedWeight,
    window: Window,
    weight: StencilWeight,
    between: Window,
    projection: PackedWeight | None,
    out: Tensor,
    residual: Tensor | None = None,
    activations: tuple[str, str, str] = ("none", "none", "none"),
) -> Launch:
    """``expansion`` at ``window``, ``weight`` at ``between``, ``projection``, into ``out``.

    Behind each comes one of the ``activations``; a ``residual`` is added before the last one.
    Without a ``projection``, the first two.
    """
    kernel = row_kernel(_KERNELS, between, x.dtype)
    if out.numel() == 0:
        return Launch(kernel, None, 0, out)
    size, channels = x.element_size(), expansion.columns
    pixel = row_stride(channels * size)
    line = between.x.size * pixel
    y = between.y
    reach = (y.taps - 1) * y.dilation + 1
    share, band = cut_lines(between, max(1, (_CACHE // line - reach) // y.stride + 1))
    shares = -(-y.points // share)
    expanded_bytes = min(y.size, (band - 1) * y.stride + reach) * line
    result_bytes = 0 if projection is None else band * between.x.points * pixel
    tile, tile_row, tile_bytes = y.size * between.x.size, 0, 0
    if not window.is_identity:
        tile_row = row_stride(expansion.depth * size)
        tile = ROWS * max(1, min(8, 48 * 1024 // (ROWS * tile_row)))
        tile_bytes = tile * tile_row
    # The microkernel reads as many rows at once.
    room = expanded_bytes + result_bytes + tile_bytes + ROWS * max(pixel, tile_row)
    last = None
    if projection is not None:
        last = mix_arguments(projection, pixel_bytes(out), activations[2], residual)
    arguments = _LAYOUT(
        x=x,
        out=out,
        residual=residual,
        scratch=torch.empty(threads() * room, dtype=torch.uint8),
        projection=last,
        scratch_bytes=room,
        expanded_bytes=expanded_bytes,
        result_bytes=result_bytes,
        result_pixel=channels * size if projection is None else pixel,
        share=share,
        shares=shares,
        band=band,
        tile=tile,
        tile_row=tile_row,
        patches=patches_arguments(window, pixel_bytes(x), x.shape[1]),
        expansion=mix_arguments(expansion, pixel, activations[0]),
        window=window_arguments(between, pixel, channels),
        stencil=stencil_arguments(weight, activations[1]),
    )
    return Launch(kernel, arguments, between.images * shares, out)
