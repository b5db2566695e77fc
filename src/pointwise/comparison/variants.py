"""Eight ways to do one job, each as ours and as plain PyTorch's, with the same weights.

The job: images ``[batch, in_channels, H, W]`` to ``[batch, out_channels, ⌈H/stride⌉, ⌈W/stride⌉]``.
There are no biases, and no norms unless asked for. Blocks of several convolutions have ReLU between
them, as in networks; residuals are left out, since they are no part of the job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pointwise import checks
from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.convolution.shift import shift, shift_window
from pointwise.layers import ConvNormAct, ShiftConv2d, in_sequence

NARROW = 4  # a bottleneck's inner convolution has a quarter of the channels, as in ResNet


@dataclass(frozen=True)
class Job:
    """The sizes of the input and of the result."""

    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: int = 3
    stride: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        for name in ("height", "width", "in_channels", "out_channels", "stride", "batch"):
            checks.positive("compare", name, getattr(self, name))
        if not checks.whole(self.kernel) or self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(
                "compare: kernel must be odd, so that all ways give images of one size, got"
                f" {self.kernel!r}"
            )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        return self.batch, self.in_channels, self.height, self.width

    def __str__(self) -> str:
        sizes = f"{self.height}×{self.width}×{self.in_channels} to {self.out_channels} channels"
        more = f", {self.kernel}×{self.kernel}"
        more += f", stride {self.stride}" if self.stride > 1 else ""
        return sizes + more + (f", {self.batch} images" if self.batch > 1 else "")


class PlainShift(nn.Conv2d):
    """A shift convolution without bias in plain PyTorch: slices of a padded image, then 1×1."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__(c_in, c_out, 1, bias=False)
        self.offsets, self.every = kernel, stride

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = (self.offsets,) * 2, (self.every,) * 2
        window = shift_window(len(input), input.shape[2:], kernel, stride, (1, 1))
        return super().forward(shift(input, window))


class Ours(nn.Sequential):
    """Our convolutions one after the other, run as one where that is possible."""

    def forward(self, input: Tensor) -> Tensor:
        return in_sequence(input, self)


Part = tuple[int, int, int, int, int | str, str | None]
"""Input and output channels, kernel, stride, groups ("shift": moved, then mixed), and the
activation that follows."""


@dataclass(frozen=True)
class Variant:
    """A way to do the job; ``parts`` gives its convolutions, or why it cannot do it."""

    name: str
    parts: Callable[[Job, int, int], list[Part] | str]


def _standard(job: Job, groups: int, expand: int) -> list[Part] | str:
    return [(job.in_channels, job.out_channels, job.kernel, job.stride, 1, None)]


def _depthwise(job: Job, groups: int, expand: int) -> list[Part] | str:
    if job.out_channels % job.in_channels:
        return (
            f"each channel has its own results, and {job.out_channels} is no multiple of"
            f" {job.in_channels}"
        )
    return [(job.in_channels, job.out_channels, job.kernel, job.stride, job.in_channels, None)]


def _pointwise(job: Job, groups: int, expand: int) -> list[Part] | str:
    return [(job.in_channels, job.out_channels, 1, job.stride, 1, None)]


def _separable(job: Job, groups: int, expand: int) -> list[Part] | str:
    return [
        (job.in_channels, job.in_channels, job.kernel, job.stride, job.in_channels, None),
        (job.in_channels, job.out_channels, 1, 1, 1, None),
    ]


def _shift(job: Job, groups: int, expand: int) -> list[Part] | str:
    return [(job.in_channels, job.out_channels, job.kernel, job.stride, "shift", None)]


def _grouped(job: Job, groups: int, expand: int) -> list[Part] | str:
    common = math.gcd(job.in_channels, job.out_channels)
    count = math.gcd(groups, common)
    if count == 1:
        return f"{groups} groups do not go into {job.in_channels} and {job.out_channels} channels"
    return [(job.in_channels, job.out_channels, job.kernel, job.stride, count, None)]


def _bottleneck(job: Job, groups: int, expand: int) -> list[Part] | str:
    inner = max(1, job.out_channels // NARROW)
    return [
        (job.in_channels, inner, 1, 1, 1, "relu"),
        (inner, inner, job.kernel, job.stride, 1, "relu"),
        (inner, job.out_channels, 1, 1, 1, None),
    ]


def _inverted(job: Job, groups: int, expand: int) -> list[Part] | str:
    inner = expand * job.in_channels
    return [
        (job.in_channels, inner, 1, 1, 1, "relu6"),
        (inner, inner, job.kernel, job.stride, inner, "relu6"),
        (inner, job.out_channels, 1, 1, 1, None),
    ]


VARIANTS = (
    Variant("standard", _standard),
    Variant("depthwise", _depthwise),
    Variant("pointwise", _pointwise),
    Variant("separable", _separable),
    Variant("shift", _shift),
    Variant("grouped", _grouped),
    Variant("bottleneck", _bottleneck),
    Variant("inverted residual", _inverted),
)
MEANING = {
    "standard": "every result sees all channels of a patch",
    "depthwise": "every result sees a patch of a single channel",
    "pointwise": "every result sees all channels of one pixel",
    "separable": "depthwise, then pointwise",
    "shift": "every channel moved by one offset of the kernel, then pointwise",
    "grouped": "every result sees a patch of its own group of channels",
    "bottleneck": "pointwise to a quarter of the channels, standard, pointwise",
    "inverted residual": "pointwise to more channels, depthwise, pointwise",
}


def made(parts: Iterable[Part], norm: bool) -> tuple[Ours, nn.Sequential]:
    """The convolutions as ours and as PyTorch's, with the same weights."""
    torch.manual_seed(0)
    ours, plain = Ours(), nn.Sequential()
    for c_in, c_out, kernel, stride, groups, activation in parts:
        if isinstance(groups, str):
            own: nn.Module = ShiftConv2d(c_in, c_out, kernel, stride, bias=False)
            conv: nn.Module = PlainShift(c_in, c_out, kernel, stride)
            conv.load_state_dict(own.state_dict())
            ours.append(own)
            if norm:
                ours.append(nn.BatchNorm2d(c_out))
        else:
            own = ConvNormAct(
                c_in,
                c_out,
                kernel,
                stride,
                groups=groups,
                bias=False,
                norm=nn.BatchNorm2d if norm else None,
                activation=activation,
            )
            conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
            conv.load_state_dict(own.conv.state_dict())
            ours.append(own)
        plain.append(conv)
        if norm:
            plain.append(nn.BatchNorm2d(c_out))
        if activation is not None:
            plain.append(ACTIVATIONS[activation].module())
    return ours, plain
