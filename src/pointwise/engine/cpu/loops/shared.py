"""What the tile loops of images share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pointwise.convolution.window import Window
from pointwise.engine.cpu.activation import HARDSWISH, NONE, SIGMOID, SILU
from pointwise.engine.cpu.launch import kernel, launch
from pointwise.engine.cpu.loops.row_kernels import row_kernel  # noqa: F401
from pointwise.engine.cpu.loops.row_kernels import row_kernels as over_rows  # noqa: F401
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.weights import Filtered, Mix, Taps, Weights, is_stencil, mix, taps  # noqa: F401

_INFINITY = float("inf")

EPILOGUES: dict[str, tuple[float, float, int]] = {
    "none": (-_INFINITY, _INFINITY, NONE),
    "relu": (0.0, _INFINITY, NONE),
    "relu6": (0.0, 6.0, NONE),
    "hardswish": (-_INFINITY, _INFINITY, HARDSWISH),
    "silu": (-_INFINITY, _INFINITY, SILU),
    "sigmoid": (-_INFINITY, _INFINITY, SIGMOID),
}
"""Activations that kernels apply: the bounds of a result, and what else is done to it."""


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
