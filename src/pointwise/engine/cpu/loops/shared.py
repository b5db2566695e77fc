"""What the tile loops of images share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointwise.convolution.epilogue import ACTIVATIONS, kernel_form, why_not
from pointwise.convolution.window import Window
from pointwise.engine.cpu.launch import kernel, launch
from pointwise.engine.cpu.loops.row_kernels import row_kernel  # noqa: F401
from pointwise.engine.cpu.loops.row_kernels import row_kernels as over_rows  # noqa: F401
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.table import bits
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401

EPILOGUES: dict[str, tuple[float, float, int]] = {
    name: kernel_form(name, torch.float64)
    for name in ACTIVATIONS
    if why_not(name, torch.float64) is None
}
"""Activations that kernels apply in every precision."""


def windowed(x: Tensor, window: Window, channels: int) -> list[int]:
    """The part of an argument table that says where to read; of ``channels`` of the pixels."""
    y, x_ = window.y, window.x
    return [x.data_ptr(), x.shape[1] * x.element_size(), channels, y.size, x_.size, y.points,
            x_.points, y.stride, x_.stride, y.taps, x_.taps, -y.padding, -x_.padding, y.dilation,
            x_.dilation]  # fmt: skip


TAPS = 15  # the first slot behind the window
_OWN = 21  # the first slot behind the window and the stencil


def stencil_arguments(weights: Taps | None, activation: str) -> list[int]:
    """The part that says what the stencil multiplies with, and what follows it."""
    low, high, kind = EPILOGUES[activation]
    if weights is None:
        return [0, 0, 0, bits(low), bits(high), kind]
    tap = weights.weight.shape[1] * weights.weight.element_size()
    return [weights.weight.data_ptr(), tap, weights.bias.data_ptr(), bits(low), bits(high), kind]


def empty(like: Tensor, window: Window, channels: int) -> Tensor:
    """Room for a window's results, channels_last."""
    shape = (window.images, channels, window.y.points, window.x.points)
    return empty_image(shape, like.dtype)


@dataclass(frozen=True)
class Step:
    """A launch with all it needs: made once, run as often as wanted."""

    kernel: kernel
    arguments: list[int]
    programs: int
    out: Tensor
    place: int  # of the result's address among the arguments; the input's is the first
    kept: tuple = ()  # what other addresses belong to
    residual: int = _OWN + 7  # where a residual's address is, of a step with a mix

    def run(self) -> Tensor:
        launch(self.kernel, self.arguments, self.programs)
        return self.out
