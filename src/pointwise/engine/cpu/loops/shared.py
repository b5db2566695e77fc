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
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401

EPILOGUES: dict[str, tuple[float, float, int]] = {
    name: kernel_form(name, torch.float64)
    for name in ACTIVATIONS
    if why_not(name, torch.float64) is None
}
"""Activations that kernels apply in every precision."""


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
    residual: int = -1  # where the address of a residual is, of a step that has one

    def run(self) -> Tensor:
        launch(self.kernel, self.arguments, self.programs)
        return self.out
