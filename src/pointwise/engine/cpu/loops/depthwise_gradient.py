"""The gradient of a depthwise convolution's weight on images, ``[C, 1, kh, kw]``.

Each tap and channel is the sum of pixels times gradients over all points: the stencil gathers once
more, band by band, and each program adds its bands to a slab of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.gathers.band import band_of, fixed_bands, window_bytes
from pointwise.engine.cpu.gathers.prologue import transfer_rows
from pointwise.engine.cpu.gathers.stencil_gradient import GRADIENT_ROWS
from pointwise.engine.cpu.launch import device_of, launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.loops.shared import over_rows, row_kernel
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import SLABS, empty_slab, total_of
from pointwise.engine.cpu.window import WINDOW, window_arguments

_GRADIENT = Layout(
    "DepthwiseGradient",
    "*x *grad *sums *scratch *prologue *correction numbers images band bands span band_bytes "
    "grad_bytes",
    window=WINDOW,
)
"""A program works off ``span`` of ``images·bands``; a slab of ``sums`` has ``numbers``. ``scratch``
has room for each thread's band, read through the prologue, and its gradient, corrected."""


def _gradient_of(add, *shape):
    @device_of(*shape)
    def depthwise_gradient(arguments, program, thread, like):
        """Some bands of rows, one after the other."""
        own = _GRADIENT(arguments)
        window = own.window
        sums = empty_slab(own.sums, program, own.numbers, like)
        scratch = own.scratch + thread * (own.band_bytes + own.grad_bytes)
        corrected = scratch + own.band_bytes
        begin = program * own.span
        for band in range(begin, min(begin + own.span, own.images * own.bands)):
            image, line = band // own.bands, band % own.bands * own.band
            rows = min(own.band, window.lines - line)
            grad = own.grad + (image * window.lines + line) * window.points * window.pixel
            if own.correction != 0:
                transfer_rows(corrected, window.pixel, grad, window.pixel, rows * window.points,
                              window.channels, own.correction, 0, like)  # fmt: skip
                grad = corrected
            pixels, first, within = band_of(
                own.x, image, line, rows, window, own.prologue, scratch, like
            )
            add(sums, grad, first, rows, pixels, within, like)

    return depthwise_gradient


_KERNELS = over_rows(_gradient_of, GRADIENT_ROWS, "depthwise_gradient")


def depthwise_weight_gradient(
    grad: Tensor,
    x: Tensor,
    window: Window,
    kernel: Sequence[int],
    prologue: Arguments | None = None,
    correction: Arguments | None = None,
) -> Tensor:
    """The gradient of the weight ``[C, 1, kh, kw]``; both images are channels_last.

    ``prologue`` says how ``x`` is read, ``correction`` how ``grad`` is.
    """
    channels, size, dtype = x.shape[1], x.element_size(), x.dtype
    if window.points == 0:
        return torch.zeros(channels, 1, *kernel, dtype=dtype)
    pixel = channels * size
    band, bands = fixed_bands(window.y.points, window.images, window.x.points * pixel)
    band_bytes = 0 if prologue is None else window_bytes(window, band, pixel)
    grad_bytes = 0 if correction is None else band * window.x.points * pixel
    span = -(-window.images * bands // SLABS)
    slabs = -(-window.images * bands // span)
    sums = empty((slabs, padded_columns(window.taps * channels, dtype)), dtype)
    arguments = _GRADIENT(
        x=x,
        grad=grad,
        sums=sums,
        scratch=torch.empty(threads() * (band_bytes + grad_bytes), dtype=torch.uint8),
        prologue=prologue,
        correction=correction,
        numbers=sums.shape[1],
        images=window.images,
        band=band,
        bands=bands,
        span=span,
        band_bytes=band_bytes,
        grad_bytes=grad_bytes,
        window=window_arguments(window, pixel, channels),
    )
    launch(row_kernel(_KERNELS, window, dtype), arguments, slabs)
    total = total_of(sums)[: window.taps * channels]
    return total.view(window.taps, channels).t().reshape(-1, 1, *kernel)
