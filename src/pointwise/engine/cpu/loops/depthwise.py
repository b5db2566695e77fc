"""The depthwise convolution of an image: a stencil without a mix, over bands of rows."""

from __future__ import annotations

from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.cut import cut_bands
from pointwise.engine.cpu.gathers import stencil
from pointwise.engine.cpu.launch import device_of, slot
from pointwise.engine.cpu.loops.shared import (
    _OWN,
    Step,
    empty,
    over_rows,
    row_kernel,
    stencil_arguments,
    windowed,
)
from pointwise.engine.cpu.loops.stencil_rows import stencil_rows_of
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401


def _depthwise_of(fill, *shape):
    stencil_rows = stencil_rows_of(fill, *shape)

    @device_of(*shape)
    def depthwise_band(arguments, program, thread, like):
        out, band, bands = (
            slot(arguments, _OWN),
            slot(arguments, _OWN + 1),
            slot(arguments, _OWN + 2),
        )
        out_image, out_line = slot(arguments, _OWN + 3), slot(arguments, _OWN + 4)
        image, first = program // bands, program % bands * band
        stencil_rows(arguments, image, first, min(band, slot(arguments, 5) - first),
                      out + image * out_image + first * out_line, slot(arguments, _OWN + 5),
                      out_line, like)  # fmt: skip

    return depthwise_band


_DEPTHWISE = over_rows(_depthwise_of, stencil.ROWS, "depthwise")


def depthwise(x: Tensor, weights: Taps, window: Window, activation: str = "none") -> Tensor:
    """Each channel by its own stencil; ``x`` and the result are channels_last."""
    return depthwise_step(x, weights, window, empty(x, window, x.shape[1]), activation).run()


def depthwise_step(
    x: Tensor, weights: Taps, window: Window, out: Tensor, activation: str = "none"
) -> Step:
    """``depthwise`` into ``out``, which may be every so-manieth row and column of an image."""
    channels, size = x.shape[1], x.element_size()
    band, bands = cut_bands(window, window.x.points * channels * size, 64 * 1024)
    arguments = windowed(x, window, channels) + stencil_arguments(weights, activation)
    arguments += [out.data_ptr(), band, bands, *(out.stride(i) * size for i in (0, 2, 3))]
    programs = window.images * bands if out.numel() else 0
    compiled = row_kernel(_DEPTHWISE, window, x.dtype)
    return Step(compiled, arguments, programs, out, _OWN, (weights,))
