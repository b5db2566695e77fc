"""The pointwise, depthwise and separable convolutions on lines and on volumes.

A line [N, C, L] is an image of one row; a volume [N, C, D, H, W] is a stack of images, over which
the layers of the kernel are added up. Everything else is as in ``pointwise.functional.images``.
"""

from __future__ import annotations

from torch import Tensor

from pointwise.functional.convolve import Size, convolve, separable
from pointwise.functional.padding import Padding


def pointwise_conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    groups: int = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``pointwise_conv2d`` on ``input [N, C, L]``; ``weight [C_out, C_in/groups]``."""
    return convolve("pointwise_conv1d", 1, input, weight, bias, stride, padding, 1, groups,
                    activation, residual, kind="pointwise")  # fmt: skip


def depthwise_conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``depthwise_conv2d`` on ``input [N, C, L]``; ``weight [C·m, 1, k]``."""
    return convolve("depthwise_conv1d", 1, input, weight, bias, stride, padding, dilation, None,
                    activation, residual, kind="depthwise")  # fmt: skip


def depthwise_separable_conv1d(
    input: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    depthwise_bias: Tensor | None = None,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    depthwise_activation: str | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``depthwise_separable_conv2d`` on ``input [N, C, L]``; ``depthwise [C_in·m, 1, k]``,
    ``pointwise [C_out, C_in·m/groups]``."""
    return separable("depthwise_separable_conv1d", 1, input, depthwise, pointwise, depthwise_bias,
                     bias, stride, padding, dilation, groups, depthwise_activation, activation,
                     residual)  # fmt: skip


def pointwise_conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    groups: int = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``pointwise_conv2d`` on ``input [N, C, D, H, W]``; ``weight [C_out, C_in/groups]``."""
    return convolve("pointwise_conv3d", 3, input, weight, bias, stride, padding, 1, groups,
                    activation, residual, kind="pointwise")  # fmt: skip


def depthwise_conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``depthwise_conv2d`` on ``input [N, C, D, H, W]``; ``weight [C·m, 1, kd, kh, kw]``."""
    return convolve("depthwise_conv3d", 3, input, weight, bias, stride, padding, dilation, None,
                    activation, residual, kind="depthwise")  # fmt: skip


def depthwise_separable_conv3d(
    input: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    depthwise_bias: Tensor | None = None,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    depthwise_activation: str | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``depthwise_separable_conv2d`` on ``input [N, C, D, H, W]``; ``depthwise [C_in·m, 1, kd, kh,
    kw]``, ``pointwise [C_out, C_in·m/groups]``."""
    return separable("depthwise_separable_conv3d", 3, input, depthwise, pointwise, depthwise_bias,
                     bias, stride, padding, dilation, groups, depthwise_activation, activation,
                     residual)  # fmt: skip
