"""The depthwise convolution of an image whose pixels share their cache sets, from copies of parts.

Pixels 4 KB apart lie in the same set of a first-level cache, which holds eight lines or so, and a
stencil of seven points reads 27 of them: the cache has lost a line before the rest of it is read,
and what the processor fetches ahead before it is read at all. So some channels of a band of rows
are copied to where they lie side by side, and the stencil reads them there. Sums are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.cut import cut_bands, odd_lines
from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.gathers import stencil
from pointwise.engine.cpu.gathers.prologue import transfer_rows
from pointwise.engine.cpu.gathers.stencil import STENCIL, from_channel
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.loops.row_kernels import row_kernel, row_kernels
from pointwise.engine.cpu.vector import REGISTER_BYTES, bytes_of
from pointwise.engine.cpu.weights import StencilWeight
from pointwise.engine.cpu.window import WINDOW, over_some_lines, pixel_bytes, window_arguments

_LAYOUT = Layout(
    "DepthwiseCopied",
    "*x *out *scratch scratch_bytes band bands part parts copied out_image out_line out_pixel",
    window=WINDOW,
    stencil=STENCIL,
)
"""A program makes a ``part`` of the channels of a ``band`` of rows of one image, from pixels
``copied`` bytes apart in its thread's ``scratch_bytes``."""

_PART_BYTES = 512  # of 128 to 1024, measured on 7×7×1024 and 14×14×512


def _loop_of(fill, taps: int, stride: int):
    @device_of(taps, stride)
    def depthwise(arguments, program, thread, like):
        own = _LAYOUT(arguments)
        window, size = own.window, bytes_of(like)
        pixel = window.pixel
        line = window.width * pixel
        channel, band = program % own.parts * own.part, program // own.parts
        channels, offset = min(own.part, window.channels - channel), channel * size
        image, first = band // own.bands, band % own.bands * own.band
        rows = min(own.band, window.lines - first)
        top = first * window.stride_y - window.padding_y
        below = top + (rows - 1) * window.stride_y + (window.taps_y - 1) * window.dilation_y + 1
        upper, lower = max(0, top), min(window.height, below)
        lines = max(0, lower - upper)
        x = own.x + (image * window.height + upper) * line + offset
        scratch = own.scratch + thread * own.scratch_bytes
        transfer_rows(scratch, own.copied, x, pixel, lines * window.width, channels, 0, 0, like)
        read = over_some_lines(window, own.copied, channels, lines, upper - top)
        out = own.out + image * own.out_image + first * own.out_line + offset
        fill(out, own.out_pixel, own.out_line, 0, rows, scratch, read,
             from_channel(own.stencil, offset), scratch, like)  # fmt: skip

    return depthwise


_KERNELS = row_kernels(_loop_of, stencil.ROWS, "depthwise_copied")


def is_better_copied(x: Tensor) -> bool:
    """Whether the stencil of an image had better read copies.

    Where a register is a part of a line, half as many pixels in a set are too many already.
    """
    return x.numel() > 0 and pixel_bytes(x) % (4096 if REGISTER_BYTES == 64 else 2048) == 0


def copied_launch(
    x: Tensor, weight: StencilWeight, window: Window, out: Tensor, stencil: Arguments
) -> Launch:
    """``depthwise_launch`` of floats, with the ``stencil`` that it would have."""
    size, channels = x.element_size(), x.shape[1]
    part = _PART_BYTES // size
    parts = -(-channels // part)
    band, bands = cut_bands(window, window.x.points * _PART_BYTES, 64 * 1024, parts)
    y = window.y
    lines = min(y.size, (band - 1) * y.stride + (y.taps - 1) * y.dilation + 1)
    copied = odd_lines(min(part, channels) * size)
    room = lines * window.x.size * copied
    out_image, out_line, out_pixel = (out.stride(i) * size for i in (0, 2, 3))
    arguments = _LAYOUT(
        x=x,
        out=out,
        scratch=torch.empty(threads() * room, dtype=torch.uint8),
        scratch_bytes=room,
        band=band,
        bands=bands,
        part=part,
        parts=parts,
        copied=copied,
        out_image=out_image,
        out_line=out_line,
        out_pixel=out_pixel,
        window=window_arguments(window, pixel_bytes(x), channels),
        stencil=stencil,
    )
    kernel = row_kernel(_KERNELS, window, x.dtype)
    return Launch(kernel, arguments, window.images * bands * parts, out)
