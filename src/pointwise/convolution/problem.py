"""A convolution of images as every route describes it, on no device: gather, mix and epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from pointwise.convolution.window import Window, window


class Rescaling(NamedTuple):
    """What follows the sums of a quantised convolution, beside its weight's factors and shifts.

    ``residual`` is what a byte of the residual stands for. Results are kept within ``low … high``,
    or, ``as_bytes``, rounded half to even and within 0 … 255.
    """

    residual: float
    low: float
    high: float
    as_bytes: bool


class Convolution(NamedTuple):
    """What is read (``window``), how channels are mixed, and what follows.

    Its weight is ``[out_channels, in_channels/groups, kh, kw]``. ``dtype`` is that of its input:
    float32 or float64, or uint8 in a quantised network, where a ``rescaling`` follows. With
    ``bf16`` what is multiplied is rounded to bfloat16, and sums are float32.
    """

    window: Window
    in_channels: int
    out_channels: int
    groups: int
    dtype: torch.dtype
    activation: str = "none"
    rescaling: Rescaling | None = None
    bf16: bool = False

    @property
    def shape(self) -> torch.Size:
        """Of the result: ``[N, C_out, H_out, W_out]``."""
        window = self.window
        return torch.Size((window.images, self.out_channels, window.y.points, window.x.points))

    @property
    def is_depthwise(self) -> bool:
        return is_depthwise((self.out_channels, self.in_channels // self.groups), self.groups)

    @property
    def depth_multiplier(self) -> int:
        """How many results a depthwise convolution makes of each channel; else 1."""
        return self.out_channels // self.in_channels if self.is_depthwise else 1


def is_depthwise(weight_size: Sequence[int], groups: int) -> bool:
    """Whether every result reads a single channel, for a weight ``[C_out, C_in/groups, …]``."""
    return weight_size[1] == 1 and (groups > 1 or weight_size[0] == 1)


def describe(
    input_size: Sequence[int],
    weight_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: torch.dtype,
    activation: str = "none",
) -> Convolution:
    """The convolution of ``input_size [N, C, H, W]`` by ``weight_size [C_out, C/groups, kh, kw]``.

    ``padding`` is top, bottom, left, right.
    """
    sizes = tuple(input_size), tuple(weight_size), tuple(stride), tuple(padding), tuple(dilation)
    return _described(*sizes, groups, dtype, activation)


@lru_cache(maxsize=4096)
def _described(input_size, weight_size, stride, padding, dilation, groups, dtype, activation):
    seen = window(input_size[0], input_size[2:], weight_size[2:], stride, padding, dilation)
    return Convolution(seen, input_size[1], weight_size[0], groups, dtype, activation)
