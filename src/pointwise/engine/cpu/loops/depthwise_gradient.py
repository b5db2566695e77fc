"""The gradients of depthwise convolutions' weights, on images and on points.

Each tap, or cell, and channel is the sum of what was gathered times gradients over all rows:
everything is gathered once more, and each program has partial sums of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.by_dtype import by_dtype
from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.gathers import cells_depthwise
from pointwise.engine.cpu.gathers.band import band_of, fixed_bands, window_bytes
from pointwise.engine.cpu.gathers.points import GATHER, Gather
from pointwise.engine.cpu.gathers.prologue import transfer_rows
from pointwise.engine.cpu.gathers.stencil_gradient import GRADIENT_ROWS
from pointwise.engine.cpu.launch import launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.loops.row_kernels import row_kernel, row_kernels
from pointwise.engine.cpu.memory import empty
from pointwise.engine.cpu.pack import padded_columns
from pointwise.engine.cpu.partial_sums import partial_sums_of, split_points, split_rows, total_of
from pointwise.engine.cpu.window import WINDOW, window_arguments

# --- on images ------------------------------------------------------------------------------------

_STENCIL = Layout(
    "StencilGradient",
    "*x *grad *sums *scratch *prologue *correction numbers rows span band bands band_bytes "
    "grad_bytes",
    window=WINDOW,
)
"""``rows`` are bands of all images. ``scratch`` has room for each thread's band, read through the
prologue, and for its gradient, corrected."""


def _stencil_gradient_of(add, *shape):
    @device_of(*shape)
    def add_bands(own, sums, begin, end, thread, like):
        window = own.window
        scratch = own.scratch + thread * (own.band_bytes + own.grad_bytes)
        corrected = scratch + own.band_bytes
        for number in range(begin, end):
            image, line = number // own.bands, number % own.bands * own.band
            lines = min(own.band, window.lines - line)
            grad = own.grad + (image * window.lines + line) * window.points * window.pixel
            if own.correction != 0:
                transfer_rows(corrected, window.pixel, grad, window.pixel, lines * window.points,
                              window.channels, own.correction, 0, like)  # fmt: skip
                grad = corrected
            pixels, first, over = band_of(
                own.x, image, line, lines, window, own.prologue, scratch, like
            )
            add(sums, grad, first, lines, pixels, over, like)

    return partial_sums_of(_STENCIL, add_bands, *shape)


_STENCIL_KERNELS = row_kernels(_stencil_gradient_of, GRADIENT_ROWS, "stencil_gradient")


def stencil_weight_gradient(
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
    splits, span = split_rows(window.images * bands)
    sums = empty((splits, padded_columns(window.taps * channels, dtype)), dtype)
    arguments = _STENCIL(
        x=x,
        grad=grad,
        sums=sums,
        scratch=torch.empty(threads() * (band_bytes + grad_bytes), dtype=torch.uint8),
        prologue=prologue,
        correction=correction,
        numbers=sums.shape[1],
        rows=window.images * bands,
        span=span,
        band=band,
        bands=bands,
        band_bytes=band_bytes,
        grad_bytes=grad_bytes,
        window=window_arguments(window, pixel, channels),
    )
    launch(row_kernel(_STENCIL_KERNELS, window, dtype), arguments, splits)
    total = total_of(sums)[: window.taps * channels]
    return total.view(window.taps, channels).t().unflatten(1, (1, *kernel))


# --- on points ------------------------------------------------------------------------------------

_CELLS = Layout("CellsGradient", "*x *grad *sums numbers rows span", gather=GATHER)


@device
def _add_cells(own, sums, begin, end, thread, like):
    gather = own.gather
    cells_depthwise.add_weight_gradient(sums, begin, end - begin, own.x, gather.x_row,
                                        gather.channels, gather.table, own.grad, gather.x_row,
                                        like)  # fmt: skip


_CELLS_KERNELS = by_dtype(partial_sums_of(_CELLS, _add_cells), "cells_gradient")


def cells_weight_gradient(gather: Gather, grad: Tensor) -> Tensor:
    """``[M, C]``: the gradient of a depthwise gather's own weights, for ``grad [rows, C]``."""
    dtype, size = gather.x.dtype, gather.x.element_size()
    cells, channels = gather.cells, gather.x.shape[1]
    numbers = padded_columns(cells * channels, dtype)
    if gather.rows == 0 or numbers == 0:
        return torch.zeros(cells, channels, dtype=dtype)
    splits, span = split_points(gather.rows, numbers * size)
    sums = torch.empty(splits, numbers, dtype=dtype)
    arguments = _CELLS(
        x=gather.x,
        grad=grad,
        sums=sums,
        numbers=numbers,
        rows=gather.rows,
        span=span,
        gather=gather.arguments(),
    )
    launch(_CELLS_KERNELS[dtype], arguments, splits)
    return total_of(sums)[: cells * channels].view(cells, channels)
