"""Convolutions along lines: products of pixels where they lie, of points whose taps all exist.

What one point reads of a line lies in memory as it is multiplied, tap after tap, and the next point
reads most of it again. So nothing is gathered but for the points at the ends of a line, where some
taps lie outside. Sums are those of the product over gathered patches, number by number in the same
order, and weights are packed alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import activate
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_points, odd_lines
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.gathers.patches import PATCHES, fill_floats, patches_arguments
from pointwise.engine.cpu.gemm import FROM_BIAS, FROM_ROWS, ROWS
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.mix import MIX, mix_arguments
from pointwise.engine.cpu.taps import multiply_where_they_lie
from pointwise.engine.cpu.vector import bytes_of, lanes_of, number
from pointwise.engine.cpu.weights import PackedWeight
from pointwise.engine.cpu.window import pixel_bytes

_LAYOUT = Layout(
    "Lines",
    "*x *out *residual *scratch scratch_row tile span rows block blocks",
    gather=PATCHES,
    mix=MIX,
)
"""A program makes ``block`` columns of ``span`` of all ``rows``, the points of one line after
another; of those that are gathered, ``tile`` at once."""

_TILE_BYTES = 48 * 1024


@device
def _lines(arguments, program, thread, like):
    own = _LAYOUT(arguments)
    window, mix = own.gather.window, own.mix
    size, width = bytes_of(like), lanes_of(like)
    points, stride, padding = window.points, window.stride_x, window.padding_x
    pixel, tap_bytes = window.pixel, window.channels * size
    pitch = window.width * pixel
    reach = (window.taps_x - 1) * window.dilation_x
    below = (window.taps_y - 1) * window.dilation_y
    # Points first … behind read nothing outside of their line.
    first = min(points, max(0, -(-padding // stride)))
    behind = max(first, min(points, (window.width - 1 - reach + padding) // stride + 1))
    panel = mix.depth * width * size
    low, high = number(mix.low, like), number(mix.high, like)
    start = 0
    if own.residual != 0:
        start |= FROM_ROWS
    if mix.bias != 0:
        start |= FROM_BIAS
    column = program % own.blocks * own.block
    columns = min(own.block, mix.columns - column)
    weight = mix.weight + column // width * panel
    bias = mix.bias + column * size
    at = program // own.blocks * own.span
    end = min(at + own.span, own.rows)
    while at < end:
        line, point = at // points, at % points
        top = line % window.lines * window.stride_y - window.padding_y
        taps_y, taps_x, depth = window.taps_y, window.taps_x, window.channels
        if first <= point < behind and top >= 0 and top + below < window.height:
            rows = min(end - at, behind - point)
            a = own.x + (line // window.lines * window.height + top) * pitch
            a += (point * stride - padding) * pixel
            a_row, by_tap, by_line = stride * pixel, window.dilation_x * pixel, \
                window.dilation_y * pitch
        else:
            stop = points
            if top >= 0 and top + below < window.height and point < first:
                stop = first
            rows = min(end - at, own.tile, stop - point)
            a = own.scratch + thread * own.tile * own.scratch_row
            a_row, by_tap, by_line = own.scratch_row, tap_bytes, window.taps_x * tap_bytes
            fill_floats(a, a_row, at, rows, own.x, own.gather, 0, 0, like)
        if by_tap == tap_bytes:  # side by side, as if of one tap
            taps_x, depth = 1, taps_x * depth
            if by_line == depth * size:
                taps_y, depth = 1, taps_y * depth
        out = own.out + at * mix.out_row + column * size
        beside = own.residual + at * mix.residual_row + column * size
        multiply_where_they_lie(
            a, a_row, weight, panel, depth, taps_y, taps_x, by_line, by_tap, out, mix.out_row,
            rows, columns, start, beside, mix.residual_row, bias, low, high, like,
        )  # fmt: skip
        activate(mix.activation, out, mix.out_row, rows, columns)
        at += rows


_KERNELS = by_dtype(_lines, "lines")


def is_better(x: Tensor, window: Window, groups: int) -> bool:
    """Whether a convolution's points had better be multiplied where they lie.

    Pixels a multiple of 4 KB apart share their cache sets, and are better copied.
    """
    step = window.x.stride * pixel_bytes(x)
    import os
    return (window.y.is_identity or int(os.environ.get("L","0"))) and window.x.taps > 1 and groups == 1 and step % 4096 != 0


def lines_launch(
    x: Tensor,
    weights: PackedWeight,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    activation: str = "none",
) -> Launch:
    """A convolution of one group along lines, into ``out``; all images are channels_last.

    Their pixels may be parts of wider ones.
    """
    compiled = _KERNELS[x.dtype]
    if out.numel() == 0:
        return Launch(compiled, None, 0, out)
    size, depth = x.element_size(), weights.depth
    span, block = cut_points(window.points, depth, weights.columns, 1, size, True, threads())
    blocks = -(-weights.columns // block)
    row = odd_lines(depth * size)
    tile = min(span, ROWS * max(1, min(8, _TILE_BYTES // (ROWS * row))))
    arguments = _LAYOUT(
        x=x,
        out=out,
        residual=residual,
        scratch=torch.empty(threads() * tile * row, dtype=torch.uint8),
        scratch_row=row,
        tile=tile,
        span=span,
        rows=window.points,
        block=block,
        blocks=blocks,
        gather=patches_arguments(window, pixel_bytes(x), x.shape[1]),
        mix=mix_arguments(weights, pixel_bytes(out), activation, residual),
    )
    return Launch(compiled, arguments, -(-window.points // span) * blocks, out)
