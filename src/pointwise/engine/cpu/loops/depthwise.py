"""The depthwise convolution of an image: a stencil without a mix, over bands of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.cut import cut_bands
from pointwise.engine.cpu.gathers import stencil, stencil_int8
from pointwise.engine.cpu.gathers.stencil import STENCIL
from pointwise.engine.cpu.gathers.stencil_int8 import STENCIL_INT8
from pointwise.engine.cpu.launch import Launch, device_of, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.loops.row_kernels import BYTES, FLOATS, row_kernel, row_kernels
from pointwise.engine.cpu.loops.shared import EPILOGUES, empty
from pointwise.engine.cpu.weights import StencilWeight, StencilWeightInt8
from pointwise.engine.cpu.window import WINDOW, window_arguments


def _depthwise_of(name: str, gather: Layout):
    """(the layout, what makes the loop) of a stencil."""
    layout = Layout(
        f"Depthwise{name}",
        "*x *out *scratch scratch_bytes band bands out_image out_line out_pixel",
        window=WINDOW,
        stencil=gather,
    )

    def loop_of(fill, taps: int, stride: int):
        @device_of(name, taps, stride)
        def depthwise(arguments, program, thread, like):
            """A band of rows of one image."""
            own = layout(arguments)
            window = own.window
            image, first = program // own.bands, program % own.bands * own.band
            rows = min(own.band, window.lines - first)
            x = own.x + image * window.height * window.width * window.pixel
            out = own.out + image * own.out_image + first * own.out_line
            scratch = own.scratch + thread * own.scratch_bytes
            fill(out, own.out_pixel, own.out_line, first, rows, x, window, own.stencil, scratch,
                 like)  # fmt: skip

        return depthwise

    return layout, loop_of


_LAYOUT, _loop_of = _depthwise_of("", STENCIL)
_LAYOUT_INT8, _loop_of_int8 = _depthwise_of("Int8", STENCIL_INT8)
_KERNELS = {
    **row_kernels(_loop_of, stencil.ROWS, "depthwise", FLOATS),
    **row_kernels(_loop_of_int8, stencil_int8.ROWS, "depthwise", BYTES),
}


def stencil_arguments(
    weight: StencilWeight | StencilWeightInt8, activation: str = "none"
) -> Arguments:
    """A stencil and its epilogue; bytes have no activation."""
    if isinstance(weight, StencilWeightInt8):
        return STENCIL_INT8(
            weight=weight.packed,
            start=weight.start,
            factor=weight.factor,
            shift=weight.shift,
            blank=weight.blank,
        )
    low, high, kind = EPILOGUES[activation]
    return STENCIL(weight=weight.weight, bias=weight.bias, low=low, high=high, kind=kind)


def scratch_bytes(weight: StencilWeight | StencilWeightInt8, window: Window) -> int:
    """Memory that a stencil needs for each thread."""
    gather = stencil_int8 if isinstance(weight, StencilWeightInt8) else stencil
    return gather.scratch_bytes(window)


def depthwise(x: Tensor, weight: StencilWeight, window: Window, activation: str = "none") -> Tensor:
    """Each channel by its own stencil; ``x`` and the result are channels_last."""
    return depthwise_step(x, weight, window, empty(x, window, x.shape[1]), activation).run()


def depthwise_step(
    x: Tensor,
    weight: StencilWeight | StencilWeightInt8,
    window: Window,
    out: Tensor,
    activation: str = "none",
) -> Launch:
    """``depthwise`` into ``out``; without an activation ``out`` may be strided in both directions.

    Of floats, or of bytes to bytes.
    """
    channels, size = x.shape[1], x.element_size()
    band, bands = cut_bands(window, window.x.points * channels * size, 64 * 1024)
    room = scratch_bytes(weight, window)
    out_image, out_line, out_pixel = (out.stride(i) * size for i in (0, 2, 3))
    layout = _LAYOUT_INT8 if isinstance(weight, StencilWeightInt8) else _LAYOUT
    arguments = layout(
        x=x,
        out=out,
        scratch=torch.empty(threads() * room, dtype=torch.uint8) if room else None,
        scratch_bytes=room,
        band=band,
        bands=bands,
        out_image=out_image,
        out_line=out_line,
        out_pixel=out_pixel,
        window=window_arguments(window, channels * size, channels),
        stencil=stencil_arguments(weight, activation),
    )
    programs = window.images * bands if out.numel() else 0
    return Launch(row_kernel(_KERNELS, window, x.dtype), arguments, programs, out)
