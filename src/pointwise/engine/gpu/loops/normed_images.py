"""Convolutions in training with batch norm on a GPU: the twin of ``engine/cpu/loops``'s file.

A depthwise convolution reads what it normalises and sums up what batch norm needs in its own
kernels, forward and backward. The others are cuDNN's: the norm is one pass before them, the sums
one pass behind.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.convolution.problem import is_depthwise
from pointwise.convolution.window import Window
from pointwise.engine.gpu.gathers.prologue import Prologue, correction
from pointwise.engine.gpu.loops import norm_act
from pointwise.engine.gpu.loops.depthwise import Epilogue, depthwise, depthwise_input_gradient
from pointwise.engine.gpu.loops.depthwise_gradient import depthwise_weight_gradient
from pointwise.engine.gpu.moments import moments, total_moments

Edges = tuple[int, int, int, int]


def forward(
    z: Tensor, norm: Prologue, weight: Tensor, window: Window, edges: Edges, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(the convolution of a normalised image, its mean, its biased variance).

    ``edges`` are the padding, as ``F.pad`` takes it: left, right, top, bottom.
    """
    if is_depthwise(weight.shape, groups):
        out, sums = depthwise(z, weight, window, Epilogue("moments"), norm)
        assert sums is not None
        return out, *total_moments(sums, window.points)
    x = F.pad(_normalised(z, norm), edges)
    out = F.conv2d(x, weight, None, *_steps(window), groups)
    out = out.contiguous(memory_format=torch.channels_last)
    return out, *moments(out)


def backward(
    z: Tensor,
    norm: Prologue,
    weight: Tensor,
    window: Window,
    edges: Edges,
    groups: int,
    out: Tensor,
    out_mean: Tensor,
    grad: Tensor,
    d_mean: Tensor,
    d_variance: Tensor,
    wanted: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]:
    """Gradients of z, scale, shift and weight; those of z, scale and shift where ``wanted``."""
    corrects = correction(out, out_mean, d_mean, d_variance)
    if is_depthwise(weight.shape, groups):
        d_weight = depthwise_weight_gradient(grad, z, window, norm, corrects).to(weight.dtype)
        if not wanted:
            return None, None, None, d_weight
        if norm.mean is None:
            d_z, _ = depthwise_input_gradient(grad, weight, window, prologue=corrects)
            return d_z, None, None, d_weight
        before = Epilogue("norm", z=z, norm=norm)
        d_z, sums = depthwise_input_gradient(grad, weight, window, before, corrects)
        assert sums is not None
        return d_z, *sums.sum(0), d_weight
    x = F.pad(_normalised(z, norm), edges)
    stride, padding, dilation = _steps(window)
    d_x, d_weight, _ = torch.ops.aten.convolution_backward(
        norm_act.corrected(grad, corrects), x, weight, None, stride, [padding] * 2, dilation, False,
        [0, 0], groups, [wanted, True, False],
    )  # fmt: skip
    if not wanted:
        return None, None, None, d_weight
    left, _, top, _ = edges
    d_x = d_x[:, :, top : top + z.shape[2], left : left + z.shape[3]]
    d_x = d_x.contiguous(memory_format=torch.channels_last)
    if norm.mean is None:
        return d_x, None, None, d_weight
    d_z, d_scale, d_shift, _ = norm_act.backward(d_x, z, norm, None, "none")
    return d_z, d_scale, d_shift, d_weight


def _normalised(z: Tensor, norm: Prologue) -> Tensor:
    return z if norm.mean is None else norm_act.forward(z, norm, None, "none")


def _steps(window: Window) -> tuple[list[int], int, list[int]]:
    """Stride, no padding and dilation, as ``F.conv2d`` takes them."""
    y, x = window.y, window.x
    return [y.stride, x.stride], 0, [y.dilation, x.dilation]
