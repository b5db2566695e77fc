"""Pixels put elsewhere: resizing, padding, turning round, and channels in another order.

Which pixels a result is made of follows from its row and its column apart. A table for each says
where the two neighbours lie and how much the second counts; where whole pixels are copied there is
one, and -1 stands for a number that is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.cut import cut_rows
from pointwise.engine.cpu.device import device
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.layout import Layout
from pointwise.engine.cpu.vector import (
    broadcast,
    bytes_of,
    fma,
    lanes_of,
    load_first,
    number,
    peek,
    poke,
    store_first,
)
from pointwise.engine.cpu.window import pixel_bytes

_RESAMPLE = Layout(
    "Resample",
    "*x *out *rows *columns *row_shares *column_shares height width lines points channels pixel "
    "out_pixel total span is_copy fill:real",
)
"""``rows [lines]`` and ``columns [points]`` are places of pixels, the neighbours of which lie one
further where their ``shares`` are above 0. Pixels of x lie ``pixel`` bytes apart,
those of the result ``out_pixel``."""


@device
def _resample(arguments, program, thread, like):
    """``span`` lines of the result."""
    own = _RESAMPLE(arguments)
    for line in range(program * own.span, min((program + 1) * own.span, own.total)):
        y = line % own.lines
        row = peek(own.rows + 8 * y, line)
        image = own.x + line // own.lines * own.height * own.width * own.pixel
        out = own.out + line * own.points * own.out_pixel
        if own.is_copy != 0:
            _copied(own, image, row, out, like)
        else:
            share = peek(own.row_shares + y * bytes_of(like), like)
            _between(own, image, row, share, out, like)


@device
def _copied(own, image, row, out, like):
    size, width, channels = bytes_of(like), lanes_of(like), own.channels
    fill = broadcast(number(own.fill, like))
    for p in range(own.points):
        column = peek(own.columns + 8 * p, row)
        place = image + (row * own.width + column) * own.pixel
        for c in range(0, channels, width):
            left = channels - c
            value = fill
            if row >= 0 and column >= 0:
                value = load_first(place + c * size, left, like)
            store_first(out + c * size, value, left)
        out += own.out_pixel


@device
def _between(own, image, row, share, out, like):
    size, width, channels = bytes_of(like), lanes_of(like), own.channels
    down = own.width * own.pixel if share > 0 else 0
    low = broadcast(share)
    for p in range(own.points):
        part = peek(own.column_shares + p * size, like)
        right = own.pixel if part > 0 else 0
        far = broadcast(part)
        place = image + (row * own.width + peek(own.columns + 8 * p, row)) * own.pixel
        for c in range(0, channels, width):
            left, at = channels - c, place + c * size
            upper = load_first(at, left, like)
            upper = fma(load_first(at + right, left, like) - upper, far, upper)
            lower = load_first(at + down, left, like)
            lower = fma(load_first(at + down + right, left, like) - lower, far, lower)
            store_first(out + c * size, fma(lower - upper, low, upper), left)
        out += own.out_pixel


_KERNELS = by_dtype(_resample, "resample")


def copied(x: Tensor, out: Tensor, rows: Tensor, columns: Tensor, fill: float) -> Launch:
    """Pixel (``rows[y]``, ``columns[x]``) at (y, x), or ``fill`` where one of them is -1."""
    return _launch(x, out, rows, columns, None, None, fill)


def between(x: Tensor, out: Tensor, rows: Tensor, columns: Tensor) -> Launch:
    """Numbers between pixels: ``rows`` and ``columns`` are places in float64."""
    low, part = ((at - at.floor()).to(x.dtype) for at in (rows, columns))
    return _launch(x, out, rows.floor().long(), columns.floor().long(), low, part, 0.0)


def _launch(
    x: Tensor, out: Tensor, rows: Tensor, columns: Tensor, row_shares: Tensor | None,
    column_shares: Tensor | None, fill: float,
) -> Launch:  # fmt: skip
    images, channels, height, width = x.shape
    lines, points = out.shape[2:]
    total = images * lines
    span = cut_rows(total, points * channels * x.element_size())
    arguments = _RESAMPLE(
        x=x, out=out, rows=rows, columns=columns, row_shares=row_shares,
        column_shares=column_shares, height=height, width=width, lines=lines, points=points,
        channels=channels, pixel=pixel_bytes(x), out_pixel=pixel_bytes(out), total=total, span=span,
        is_copy=int(row_shares is None), fill=fill,
    )  # fmt: skip
    return Launch(_KERNELS[x.dtype], arguments, -(-total // span), out)


# --- channels -------------------------------------------------------------------------------------

_PICK = Layout("Pick", "*x *out *places pixels pixel channels span")


@device
def _pick(arguments, program, thread, like):
    """``span`` pixels whose channels are those of x at ``places``."""
    own = _PICK(arguments)
    size = bytes_of(like)
    for p in range(program * own.span, min((program + 1) * own.span, own.pixels)):
        x, out = own.x + p * own.pixel, own.out + p * own.channels * size
        for c in range(own.channels):
            poke(out + c * size, peek(x + peek(own.places + 8 * c, p), like))


_PICK_KERNELS = by_dtype(_pick, "pick")


def picked(x: Tensor, out: Tensor, places: Tensor) -> Launch:
    """Channel ``places[c]`` of each pixel of ``x`` as channel c of ``out``, channels_last both."""
    images, channels, height, width = out.shape
    size = x.element_size()
    pixels, bytes_ = images * height * width, (places * size).to(torch.int64).contiguous()
    span = cut_rows(pixels, channels * size)
    arguments = _PICK(
        x=x, out=out, places=bytes_, pixels=pixels, pixel=pixel_bytes(x), channels=channels,
        span=span,
    )  # fmt: skip
    return Launch(_PICK_KERNELS[x.dtype], arguments, -(-pixels // span), out)
