"""The depthwise separable convolution of an image: a stencil, then the mix, over bands of rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.cut import cut_bands, odd_lines, row_stride
from pointwise.engine.cpu.device import device_of
from pointwise.engine.cpu.dots import DOTS
from pointwise.engine.cpu.gathers import stencil, stencil_int8
from pointwise.engine.cpu.gathers.stencil import STENCIL
from pointwise.engine.cpu.gathers.stencil_int8 import STENCIL_INT8
from pointwise.engine.cpu.gemm import ROWS
from pointwise.engine.cpu.launch import Launch, threads
from pointwise.engine.cpu.layout import Arguments, Layout
from pointwise.engine.cpu.loops.depthwise import stencil_arguments, stencil_bytes
from pointwise.engine.cpu.loops.row_kernels import BYTES, FLOATS, row_kernel, row_kernels
from pointwise.engine.cpu.memory import empty_result
from pointwise.engine.cpu.mix import (
    MIX,
    MIX_INT8,
    mix_arguments,
    mix_int8_arguments,
    mix_tile,
    mix_tile_int8,
    mix_tile_pairs,
)
from pointwise.engine.cpu.product import TILE_ROW
from pointwise.engine.cpu.weights import (
    PackedWeight,
    PackedWeightInt8,
    PairedWeight,
    StencilWeight,
    StencilWeightInt8,
)
from pointwise.engine.cpu.window import WINDOW, pixel_bytes, window_arguments

_INFINITY = float("inf")


def _separable_of(name: str, gather: Layout, mix: Layout, mix_tile):
    """(the layout, what makes the loop) of a stencil and a mix."""
    layout = Layout(
        f"Separable{name}",
        "*x *out *residual *scratch scratch_bytes stencil_bytes a_row band bands",
        window=WINDOW,
        stencil=gather,
        mix=mix,
    )

    def loop_of(fill, taps: int, stride: int):
        @device_of(name, taps, stride)
        def separable(arguments, program, thread, like):
            """A band of rows of one image."""
            own = layout(arguments)
            window = own.window
            lines, points = window.lines, window.points
            image, first = program // own.bands, program % own.bands * own.band
            rows = min(own.band, lines - first)
            x = own.x + image * window.height * window.width * window.pixel
            # What the stencil needs, and its results.
            scratch = own.scratch + thread * own.scratch_bytes
            a, a_row = scratch + own.stencil_bytes, own.a_row
            fill(a, a_row, points * a_row, first, rows, x, window, own.stencil, scratch, like)
            mix_tile(own.mix, own.out, own.residual, a, a_row, a_row == TILE_ROW,
                     (image * lines + first) * points, rows * points, 0, 0, own.mix.columns,
                     like)  # fmt: skip

        return separable

    return layout, loop_of


_LAYOUT, _loop_of = _separable_of("", STENCIL, MIX, mix_tile)
_LAYOUT_PAIRS, _loop_of_pairs = _separable_of("Pairs", STENCIL, MIX, mix_tile_pairs)
_LAYOUT_INT8, _loop_of_int8 = _separable_of("Int8", STENCIL_INT8, MIX_INT8, mix_tile_int8)
_KERNELS = {
    **row_kernels(_loop_of, stencil.ROWS, "separable", FLOATS),
    # By the type of what is multiplied.
    **row_kernels(_loop_of_pairs, stencil.ROWS, "separable_pairs", {torch.bfloat16: np.float32(0)}),
    **row_kernels(_loop_of_int8, stencil_int8.ROWS_FOR_MIX, "separable", BYTES),
}


def separable(
    x: Tensor,
    weight: StencilWeight,
    then: PackedWeight,
    window: Window,
    residual: Tensor | None = None,
    between: str = "none",
    activation: str = "none",
) -> Tensor:
    """A depthwise stencil and the mix of its results, which never leave the cache.

    ``x``, ``residual`` and the result are channels_last.
    """
    out = empty_result(window, then.columns, x.dtype)
    return separable_launch(x, weight, then, window, out, residual, between, activation).run()


def separable_launch(
    x: Tensor,
    weight: StencilWeight,
    then: PackedWeight,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    between: str = "none",
    activation: str = "none",
) -> Launch:
    """``separable`` into ``out``."""
    mix = mix_arguments(then, pixel_bytes(out), activation, residual)
    a_row = row_stride(x.shape[1] * x.element_size())
    paired = isinstance(then, PairedWeight)
    layout, multiplied = (_LAYOUT_PAIRS, torch.bfloat16) if paired else (_LAYOUT, x.dtype)
    # The microkernel may read rows behind a tile, as many as it multiplies at once.
    return _launch(layout, multiplied, x, weight, stencil_arguments(weight, between), mix, window,
                   out, residual, a_row, ROWS * a_row)  # fmt: skip


def separable_int8_launch(
    x: Tensor,
    weight: StencilWeightInt8,
    then: PackedWeightInt8,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    residual_scale: float = 0.0,
    low: float = -_INFINITY,
    high: float = _INFINITY,
) -> Launch:
    """``separable`` of bytes into ``out``, bytes or float32; ``residual`` are bytes."""
    as_bytes, out_row = out.dtype == torch.uint8, out.shape[1] * out.element_size()
    mix = mix_int8_arguments(then, out_row, as_bytes, residual_scale, low, high)
    return _launch(_LAYOUT_INT8, x.dtype, x, weight, stencil_arguments(weight), mix, window, out,
                   residual, odd_lines(x.shape[1] * DOTS.size))  # fmt: skip


def _launch(
    layout: Layout,
    multiplied: torch.dtype,
    x: Tensor,
    weight: StencilWeight | StencilWeightInt8,
    stencil: Arguments,
    mix: Arguments,
    window: Window,
    out: Tensor,
    residual: Tensor | None,
    a_row: int,
    behind: int = 0,
) -> Launch:
    """Rows of what the mix reads lie ``a_row`` bytes apart, with ``behind`` bytes to spare."""
    kernel = row_kernel(_KERNELS, window, multiplied)
    if out.numel() == 0:
        return Launch(kernel, None, 0, out)
    points = window.x.points
    band, bands = cut_bands(window, points * a_row, 256 * 1024)
    before = stencil_bytes(weight, window)
    room = before + band * points * a_row
    arguments = layout(
        x=x,
        out=out,
        residual=residual,
        scratch=torch.empty(threads() * room + behind, dtype=torch.uint8),
        scratch_bytes=room,
        stencil_bytes=before,
        a_row=a_row,
        band=band,
        bands=bands,
        window=window_arguments(window, pixel_bytes(x), x.shape[1]),
        stencil=stencil,
        mix=mix,
    )
    return Launch(kernel, arguments, window.images * bands, out)
