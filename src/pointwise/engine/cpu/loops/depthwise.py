"""The depthwise convolution of an image: a stencil without a mix, over bands of rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.epilogue import kernel_form
from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import activation_function
from pointwise.engine.cpu.cut import cut_bands
from pointwise.engine.cpu.device import device, device_of
from pointwise.engine.cpu.gathers import stencil, stencil_int8
from pointwise.engine.cpu.gathers.band import band_of, fixed_bands, window_bytes
from pointwise.engine.cpu.gathers.stencil import STENCIL
from pointwise.engine.cpu.gathers.stencil_int8 import STENCIL_INT8
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.loops.depthwise_copied import copied_launch, is_better_copied
from pointwise.engine.cpu.loops.row_kernels import BYTES, FLOATS, row_kernel, row_kernels
from pointwise.engine.cpu.memory import empty_result
from pointwise.engine.cpu.moments import Reduction, add_moments
from pointwise.engine.cpu.weights import StencilWeight, StencilWeightInt8
from pointwise.engine.cpu.window import WINDOW, pixel_bytes, window_arguments

_ENTRIES = (
    "*x *out *scratch *prologue *moments scratch_bytes band bands out_image out_line out_pixel"
)
_LAYOUT = Layout("Depthwise", _ENTRIES, window=WINDOW, stencil=STENCIL)
_LAYOUT_INT8 = Layout("DepthwiseInt8", _ENTRIES, window=WINDOW, stencil=STENCIL_INT8)
"""Each thread has ``scratch_bytes``, each program a ``band`` of rows of one image."""


@device
def _image(x, image, first, rows, window, prologue, scratch, like):
    """The whole image, where it lies."""
    return x + image * window.height * window.width * window.pixel, first, window


@device
def _nothing(moments, out, out_pixel, rows, window, band, like):
    pass


@device
def _add_moments(moments, out, out_pixel, rows, window, band, like):
    if moments != 0:  # points follow one another
        add_moments(moments, out, out_pixel, rows * window.points, window.channels, 0,
                    window.channels, band, True, like)  # fmt: skip


def _depthwise_of(name: str, layout: Layout, source=_image, after=_nothing):
    """What makes the loop: of what a band reads, and of what its results leave behind.

    These are compiled in, and not entries of the table: prologue and moments double the code.
    """

    def loop_of(fill, taps: int, stride: int):
        @device_of(name, taps, stride)
        def depthwise(arguments, program, thread, like):
            own = layout(arguments)
            window = own.window
            image, first = program // own.bands, program % own.bands * own.band
            rows = min(own.band, window.lines - first)
            out = own.out + image * own.out_image + first * own.out_line
            scratch = own.scratch + thread * own.scratch_bytes
            x, y, read = source(own.x, image, first, rows, window, own.prologue, scratch, like)
            fill(out, own.out_pixel, own.out_line, y, rows, x, read, own.stencil, scratch, like)
            after(own.moments, out, own.out_pixel, rows, window, program, like)

        return depthwise

    return loop_of


_KERNELS = {
    **row_kernels(_depthwise_of("floats", _LAYOUT), stencil.ROWS, "depthwise", FLOATS),
    **row_kernels(_depthwise_of("bytes", _LAYOUT_INT8), stencil_int8.ROWS, "depthwise", BYTES),
}
_NORMED_KERNELS = row_kernels(
    _depthwise_of("normed", _LAYOUT, band_of, _add_moments), stencil.ROWS, "normed"
)


def stencil_arguments(
    weight: StencilWeight | StencilWeightInt8, activation: str = "none"
) -> Arguments:
    """A stencil and its epilogue; that of bytes has no activation."""
    if isinstance(weight, StencilWeightInt8):
        return STENCIL_INT8(
            weight=weight.packed,
            start=weight.start,
            factor=weight.factor,
            shift=weight.shift,
            blank=weight.blank,
        )
    low, high, kind = kernel_form(activation, weight.dtype)
    return STENCIL(
        weight=weight.weight,
        bias=weight.bias,
        tap=weight.weight.shape[1] * weight.weight.element_size(),
        low=low,
        high=high,
        activation=activation_function(kind, weight.dtype),
    )


def stencil_bytes(weight: StencilWeight | StencilWeightInt8, window: Window) -> int:
    """Memory that a stencil needs for each thread."""
    gather = stencil_int8 if isinstance(weight, StencilWeightInt8) else stencil
    return gather.scratch_bytes(window)


def _arguments(
    x: Tensor,
    weight: StencilWeight | StencilWeightInt8,
    window: Window,
    out: Tensor,
    cut: tuple[int, int],
    scratch_bytes: int,
    activation: str = "none",
    prologue: Arguments | None = None,
    moments: Arguments | None = None,
) -> Arguments:
    size = x.element_size()
    out_image, out_line, out_pixel = (out.stride(i) * size for i in (0, 2, 3))
    layout = _LAYOUT_INT8 if isinstance(weight, StencilWeightInt8) else _LAYOUT
    scratch = torch.empty(threads() * scratch_bytes, dtype=torch.uint8) if scratch_bytes else None
    return layout(
        x=x,
        out=out,
        scratch=scratch,
        prologue=prologue,
        moments=moments,
        scratch_bytes=scratch_bytes,
        band=cut[0],
        bands=cut[1],
        out_image=out_image,
        out_line=out_line,
        out_pixel=out_pixel,
        window=window_arguments(window, pixel_bytes(x), x.shape[1]),
        stencil=stencil_arguments(weight, activation),
    )


def depthwise(x: Tensor, weight: StencilWeight, window: Window, activation: str = "none") -> Tensor:
    """Each channel by its own stencil; ``x`` and the result are channels_last."""
    out = empty_result(window, x.shape[1], x.dtype)
    return depthwise_launch(x, weight, window, out, activation).run()


def depthwise_launch(
    x: Tensor,
    weight: StencilWeight | StencilWeightInt8,
    window: Window,
    out: Tensor,
    activation: str = "none",
) -> Launch:
    """``depthwise`` into ``out``, of floats, or of bytes to bytes.

    Without an activation, rows and columns of ``out`` may lie apart.
    """
    if isinstance(weight, StencilWeight) and out.numel() and is_better_copied(x):
        return copied_launch(x, weight, window, out, stencil_arguments(weight, activation))
    cut = cut_bands(window, window.x.points * x.shape[1] * x.element_size(), 64 * 1024)
    room = stencil_bytes(weight, window)
    arguments = _arguments(x, weight, window, out, cut, room, activation)
    programs = window.images * cut[1] if out.numel() else 0
    return Launch(row_kernel(_KERNELS, window, x.dtype), arguments, programs, out)


def normed_depthwise(
    x: Tensor,
    weight: StencilWeight,
    window: Window,
    prologue: Arguments | None,
    reduction: Reduction | None,
) -> Tensor:
    """``depthwise`` of ``x`` as a ``prologue`` has it; each band is a split of its sums."""
    channels = x.shape[1]
    out, pixel = empty_result(window, channels, x.dtype), channels * x.element_size()
    band, bands = fixed_bands(window.y.points, window.images, window.x.points * pixel)
    room = 0 if prologue is None else window_bytes(window, band, pixel)
    moments = None
    if reduction is not None:
        rows = np.full(bands, band, dtype=np.int64)
        rows[-1] = window.y.points - (bands - 1) * band
        moments = reduction.begin(out, np.tile(rows * window.x.points, window.images))
    arguments = _arguments(x, weight, window, out, (band, bands), room, prologue=prologue,
                           moments=moments)  # fmt: skip
    kernel = row_kernel(_NORMED_KERNELS, window, x.dtype)
    return Launch(kernel, arguments, window.images * bands, out).run()
