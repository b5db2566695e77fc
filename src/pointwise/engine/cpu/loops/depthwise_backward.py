"""Backwards through a depthwise convolution and the norm before it, in one walk over the input.

For the kernels that networks use; all others take one pass for the input and one for the weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.gathers.band import copy_line, fixed_bands
from pointwise.engine.cpu.gathers.prologue import Correction
from pointwise.engine.cpu.gathers.stencil_backward import BACKWARD_ROWS, PIXELS, reach
from pointwise.engine.cpu.launch import kernel, launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.memory import empty, empty_image
from pointwise.engine.cpu.norm import NORM
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import partial_sums_of, split_rows, total_of
from pointwise.engine.cpu.vector import bytes_of
from pointwise.engine.cpu.weights import pack_stencil
from pointwise.engine.cpu.window import WINDOW, window_arguments

_BACKWARD = Layout(
    "DepthwiseBackward",
    "*x *out *grad *weight *sums *scratch *correction numbers rows span band bands scratch_bytes",
    window=WINDOW,
    norm=NORM,
)
"""``x`` is the input before the norm, ``out`` its gradient; ``rows`` are bands of all images. The
partial ``sums`` are the gradient of ``weight [kh·kw, C]``, then Σ d·(x - mean) and Σ d of the
gradient d before the norm, ``[C]`` each. The norm's scale and shift are of ``x·scale + shift``."""


def _backward_of(add, taps, stride, phase):
    points = reach(taps, stride, phase)
    first_read, last_read = min(points), max(points)

    @device_of(taps, stride, phase)
    def add_bands(own, total, begin, end, thread, like):
        window = own.window
        pixel, channels = window.pixel, window.channels
        sums = total + window.taps_y * taps * channels * bytes_of(like)
        scratch = own.scratch + thread * own.scratch_bytes
        # Columns of points that the pixels of a row read, whole blocks of them.
        zero_point = (window.padding_x - phase) // stride
        left = zero_point + first_read
        blocks = (window.width + PIXELS - 1) // PIXELS
        columns = zero_point + (blocks - 1) * PIXELS // stride + last_read + 1 - left
        for number in range(begin, end):
            image, first = number // own.bands, number % own.bands * own.band
            rows = min(own.band, window.height - first)
            # The lines of points that these rows read.
            top = max(0, -((window.taps_y - 1 - window.padding_y - first) // window.stride_y))
            bottom = min(window.lines, (first + rows - 1 + window.padding_y) // window.stride_y + 1)
            for p in range(top, bottom):
                line = own.grad + (image * window.lines + p) * window.points * pixel
                copy_line(scratch + (p - top) * columns * pixel, pixel, columns, line, left,
                          window.points, pixel, channels, own.correction, 0, like)  # fmt: skip
            here = (image * window.height + first) * window.width * pixel
            add(first, rows, scratch + (zero_point - left) * pixel, columns * pixel, top,
                own.weight, total, own.x + here, own.out + here, own.norm, window, sums,
                like)  # fmt: skip

    return partial_sums_of(_BACKWARD, add_bands, taps, stride, phase)


_KERNELS = {
    (*shape, dtype): compiled
    for shape, add in BACKWARD_ROWS.items()
    for dtype, compiled in by_dtype(
        _backward_of(add, *shape), f"depthwise_backward_{shape}"
    ).items()
}


def backward_kernel(window: Window, dtype: torch.dtype) -> kernel | None:
    """The kernel for such windows, if there is one."""
    x = window.x
    if not x.dilation == 1 == window.y.dilation:
        return None
    return _KERNELS.get((x.taps, x.stride, x.padding % x.stride, dtype))


def depthwise_backward(
    compiled: kernel,
    x: Tensor,
    norm: Arguments,
    weight: Tensor,
    window: Window,
    correction: Correction,
) -> tuple[Tensor, Tensor, Tensor]:
    """(the gradient of ``x``, Σ d·(x - mean) and Σ d ``[1, 2·C]`` of the gradient d before the
    norm, that of the ``weight [C, 1, kh, kw]``).

    ``x`` and the corrected gradient are channels_last.
    """
    channels = x.shape[1]
    pixel = channels * x.element_size()
    out = empty_image(x.shape, x.dtype)
    y = window.y
    band, bands = fixed_bands(y.size, window.images, window.x.size * pixel)
    splits, span = split_rows(window.images * bands)
    sums = empty((splits, padded_columns((window.taps + 2) * channels, x.dtype)), x.dtype)
    # Rows and columns of points that a band can read, at most.
    room = ((band + y.taps) // y.stride + 2) * (window.x.size + 3 * PIXELS) * pixel
    arguments = _BACKWARD(
        x=x,
        out=out,
        grad=correction.grad,
        weight=pack_stencil(weight, None).weight,
        sums=sums,
        scratch=torch.empty(threads() * room, dtype=torch.uint8),
        correction=correction.prologue,
        numbers=sums.shape[1],
        rows=window.images * bands,
        span=span,
        band=band,
        bands=bands,
        scratch_bytes=room,
        window=window_arguments(window, pixel, channels),
        norm=norm,
    )
    launch(compiled, arguments, splits)
    total = total_of(sums)[: (window.taps + 2) * channels]
    d_weight, norm_sums = total.split((window.taps * channels, 2 * channels))
    d_weight = d_weight.view(-1, channels).t().unflatten(1, (1, *weight.shape[2:]))
    return out, norm_sums[None], d_weight
