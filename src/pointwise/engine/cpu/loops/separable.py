"""The depthwise separable convolution of an image: a stencil, then the mix, over bands of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.cut import cut_bands, row_stride
from pointwise.engine.cpu.gathers import stencil
from pointwise.engine.cpu.gemm import (
    GENERAL,
    ROWS,
    TILE,
    TILE_ROW,
)
from pointwise.engine.cpu.launch import device_of, slot, threads
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
from pointwise.engine.cpu.mix_slots import MIX_SLOTS, mix_tile, mixing
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401


def _separable_of(fill, *shape):
    stencil_rows = stencil_rows_of(fill, *shape)

    @device_of(*shape)
    def separable_band(arguments, program, thread, like):
        behind = _OWN + MIX_SLOTS
        band, bands = slot(arguments, behind), slot(arguments, behind + 1)
        a_row = slot(arguments, behind + 2)
        lines, points = slot(arguments, 5), slot(arguments, 6)
        image, first = program // bands, program % bands * band
        rows = min(band, lines - first)
        a = slot(arguments, behind + 3) + thread * band * points * a_row
        stencil_rows(arguments, image, first, rows, a, a_row, points * a_row, like)
        stride = TILE if a_row == TILE_ROW else GENERAL
        mix_tile(arguments, _OWN, a, a_row, stride, (image * lines + first) * points,
                  rows * points, 0, 0, slot(arguments, _OWN + 4), 0, 0, 0, 0, 0, like)  # fmt: skip

    return separable_band


_SEPARABLE = over_rows(_separable_of, stencil.ROWS, "separable")


def separable(
    x: Tensor,
    weights: Taps,
    then: Mix,
    window: Window,
    residual: Tensor | None = None,
    between: str = "none",
    activation: str = "none",
) -> Tensor:
    """A depthwise stencil and the mix of its results, which never leave the cache."""
    out = empty(x, window, then.columns)
    return separable_step(x, weights, then, window, out, residual, between, activation).run()


def separable_step(
    x: Tensor,
    weights: Taps,
    then: Mix,
    window: Window,
    out: Tensor,
    residual: Tensor | None = None,
    between: str = "none",
    activation: str = "none",
) -> Step:
    """``separable`` into ``out``."""
    compiled, place = row_kernel(_SEPARABLE, window, x.dtype), _OWN + 6
    if out.numel() == 0:
        return Step(compiled, [], 0, out, place)
    channels, size = x.shape[1], x.element_size()
    row_bytes = row_stride(channels * size)
    points = window.x.points
    band, bands = cut_bands(window, points * row_bytes, 256 * 1024)
    scratch = torch.empty((threads() * band * points + ROWS) * row_bytes, dtype=torch.uint8)
    arguments = windowed(x, window, channels) + stencil_arguments(weights, between)
    arguments += mixing(then, out, residual, activation)
    arguments += [band, bands, row_bytes, scratch.data_ptr()]
    return Step(compiled, arguments, window.images * bands, out, place, (weights, then, scratch))
