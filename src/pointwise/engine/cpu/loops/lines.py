"""Convolutions along lines, or of images of few channels: products of pixels where they lie.

What one point reads of a line lies in memory as it is multiplied, tap after tap, and the next point
reads most of it again. So nothing is gathered but for the points at the borders, where some taps
lie outside. Of an image a point reads some lines, a fixed distance apart; that costs as much as a
product begun anew for each, which pays where patches are short: with few channels. Sums are those
of the product over gathered patches, number by number in the same order, and weights are packed
alike.
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
_FEW_PRODUCTS = 256


@device
def _product(own, a, a_row, by_line, by_tap, at, by_row, rows, column, columns, like):
    """``rows`` results from ``at`` on, ``by_row`` points apart, of what begins at ``a``."""
    window, mix = own.gather.window, own.mix
    size, width = bytes_of(like), lanes_of(like)
    panel = mix.depth * width * size
    start = 0
    if own.residual != 0:
        start |= FROM_ROWS
    if mix.bias != 0:
        start |= FROM_BIAS
    taps_y, taps_x, depth = window.taps_y, window.taps_x, window.channels
    if by_tap == depth * size:  # side by side, as if of one tap
        taps_x, depth = 1, taps_x * depth
        if by_line == depth * size:
            taps_y, depth = 1, taps_y * depth
    out_row, beside_row = by_row * mix.out_row, by_row * mix.residual_row
    out = own.out + at * mix.out_row + column * size
    multiply_where_they_lie(
        a, a_row, mix.weight + column // width * panel, panel, depth, taps_y, taps_x, by_line,
        by_tap, out, out_row, rows, columns, start,
        own.residual + at * mix.residual_row + column * size, beside_row,
        mix.bias + column * size, number(mix.low, like), number(mix.high, like), like,
    )  # fmt: skip
    activate(mix.activation, out, out_row, rows, columns)


@device
def _gathered(own, thread, at, by_row, rows, column, columns, like):
    """``_product`` of points some of whose taps lie outside of the image."""
    window = own.gather.window
    tap_bytes = window.channels * bytes_of(like)
    a, row = own.scratch + thread * own.tile * own.scratch_row, own.scratch_row
    if by_row == 1:
        fill_floats(a, row, at, rows, own.x, own.gather, 0, 0, like)
    else:
        for r in range(rows):
            fill_floats(a + r * row, row, at + r * by_row, 1, own.x, own.gather, 0, 0, like)
    _product(own, a, row, window.taps_x * tap_bytes, tap_bytes, at, by_row, rows, column, columns,
             like)  # fmt: skip


@device
def _lines(arguments, program, thread, like):
    own = _LAYOUT(arguments)
    window = own.gather.window
    points, lines, stride, padding = window.points, window.lines, window.stride_x, window.padding_x
    pixel = window.pixel
    pitch = window.width * pixel
    reach = (window.taps_x - 1) * window.dilation_x
    below = (window.taps_y - 1) * window.dilation_y
    # Points first … behind of lines upper … lower read nothing outside of the image.
    first = min(points, max(0, -(-padding // stride)))
    behind = max(first, min(points, (window.width - 1 - reach + padding) // stride + 1))
    upper = min(lines, max(0, -(-window.padding_y // window.stride_y)))
    lower = (window.height - 1 - below + window.padding_y) // window.stride_y + 1
    lower = max(upper, min(lines, lower))
    column = program % own.blocks * own.block
    columns = min(own.block, own.mix.columns - column)
    begin = program // own.blocks * own.span
    end = min(begin + own.span, own.rows)
    at = begin
    while at < end:
        line, point = at // points, at % points
        if not upper <= line % lines < lower:
            rows = min(end - at, own.tile, points - point)
            _gathered(own, thread, at, 1, rows, column, columns, like)
        elif point < first:  # the ends come below
            rows = first - point
        elif point < behind:
            rows = min(end - at, behind - point)
            top = line % lines * window.stride_y - window.padding_y
            a = own.x + (line // lines * window.height + top) * pitch
            a += (point * stride - padding) * pixel
            _product(own, a, stride * pixel, window.dilation_y * pitch, window.dilation_x * pixel,
                     at, 1, rows, column, columns, like)  # fmt: skip
        else:
            rows = points - point
        at += rows
    # The same point of several lines at once: a product of one row takes as long as one of some.
    for edge in range(first + points - behind):
        point = edge if edge < first else behind + edge - first
        line = -(-(begin - point) // points)
        last = (end - 1 - point) // points + 1
        while line < last:
            place = line % lines
            rows = min(last - line, own.tile, lower - place)
            if place < upper:
                rows = upper - place
            elif place >= lower:
                rows = lines - place
            else:
                _gathered(own, thread, line * points + point, points, rows, column, columns, like)
            line += rows


_KERNELS = by_dtype(_lines, "lines")


def is_better(x: Tensor, window: Window, groups: int, columns: int) -> bool:
    """Whether a convolution's points had better be multiplied where they lie.

    On lines always, unless pixels lie a multiple of 4 KB apart: these share their cache sets, and
    are better copied. Of images those with few channels, whose patches take half as long to copy as
    to multiply (benchmarked from 1 → 32 to 16 → 64 channels), and with rows of some length.
    """
    pixel = pixel_bytes(x)
    if groups > 1 or window.x.taps == 1 or window.x.stride * pixel % 4096 == 0:
        return False
    if window.y.is_identity:
        return True
    dense = window.x.dilation == 1 and pixel == x.shape[1] * x.element_size()
    return dense and x.shape[1] * columns <= _FEW_PRODUCTS and window.x.points >= 4 * ROWS


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
