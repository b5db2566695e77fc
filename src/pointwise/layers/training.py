"""Training: a run of convolutions with batch norm, each activation written and read once.

A convolution's mean and variance come with its result; norm and activation are applied as the next
convolution reads it (``engine/cpu/loops/normed_images.py``). Outputs, gradients and running
statistics are those of the separate modules, but for rounding. There are no gradients of gradients:
who needs them runs the modules one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pointwise.convolution.epilogue import CLAMP_ONLY, kernel_form, why_not
from pointwise.convolution.problem import is_depthwise
from pointwise.engine.eager import why_not_eager, why_not_on_gpu
from pointwise.functional.padding import resolve
from pointwise.layers.unit import Unit, is_batch_norm, is_ordinary, window_of
from pointwise.operators import ops

_INFINITY = float("inf")


def can_run(input: Tensor, units: Sequence[Unit], residual: Tensor | None) -> bool:
    """Whether all units are convolutions with batch norm in training, on ordinary tensors."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    if not isinstance(input, Tensor) or input.dim() != 4:
        return False  # and the first of the modules says what is wrong
    given = (input,) if residual is None else (input, residual)
    dtype = input.dtype
    if input.is_cuda:
        if why_not_on_gpu(*given):
            return False
        dtype = torch.promote_types(dtype, torch.float32) if _is_autocast(input) else dtype
    elif why_not_eager(*given) is not None:
        return False
    return (
        dtype in (torch.float32, torch.float64)
        and all(_is_trained(unit, dtype) for unit in units)
        # Without a depthwise convolution, cuDNN's own norms are as fast.
        and (not input.is_cuda or any(map(_is_depthwise, units)))
        and _fit(input, units, residual)
    )


def _is_autocast(input: Tensor) -> bool:
    return input.is_cuda and torch.is_autocast_enabled("cuda") and input.dtype != torch.float64


def _is_depthwise(unit: Unit) -> bool:
    return is_depthwise(unit.conv.weight.shape, unit.conv.groups)


def _is_trained(unit: Unit, dtype: torch.dtype) -> bool:
    conv, norm, activation, own = unit
    return (
        is_ordinary(conv, own)
        and conv.bias is None
        and conv.weight.dtype == dtype
        and why_not(activation or "none", dtype) is None
        and norm is not None
        and is_batch_norm(norm, conv)
        and (norm.training or norm.running_mean is None)
    )


def _fit(input: Tensor, units: Sequence[Unit], residual: Tensor | None) -> bool:
    """Whether shapes agree from unit to unit, and every norm sees more than one value."""
    images, channels, *sizes = input.shape
    for conv, *_ in units:
        if channels != conv.in_channels:
            return False
        if is_depthwise(conv.weight.shape, conv.groups) and conv.out_channels != channels:
            return False  # a depth multiplier
        seen = window_of(conv, images, *sizes)
        if seen is None or seen.points < 2:
            return False
        channels, sizes = conv.out_channels, [seen.y.points, seen.x.points]
    dtype = torch.get_autocast_dtype("cuda") if _is_autocast(input) else input.dtype
    return residual is None or (
        residual.shape == (images, channels, *sizes) and residual.dtype == dtype
    )


def run(input: Tensor, units: Sequence[Unit], residual: Tensor | None = None) -> Tensor:
    """The units one after the other; ``residual`` is added before the last activation."""
    plain = (None, None, None, -_INFINITY, _INFINITY)
    if _is_autocast(input):  # on GPUs only
        dtype = torch.get_autocast_dtype("cuda")
        input = input.to(dtype)
    z, norm = input, plain  # type: tuple[Tensor, tuple]
    for number, (conv, module, activation, _) in enumerate(units):
        edges = resolve("", conv.padding, z.shape[2:], conv.kernel_size, conv.stride,
                        conv.dilation)  # fmt: skip
        z, mean, variance = ops.norm_conv2d(
            z, *norm, conv.weight.to(z.dtype), conv.stride, edges, conv.dilation, conv.groups
        )
        scale, shift = _statistics(module, mean, variance, z.numel() // z.shape[1])
        low, high, kind = kernel_form(activation or "none", mean.dtype)
        if number < len(units) - 1 and kind == CLAMP_ONLY:
            norm = (mean, scale, shift, low, high)
            continue
        added = residual if number == len(units) - 1 else None
        z = ops.norm_act(z, mean, scale, shift, added, activation or "none")
        norm = plain
    return z


def _statistics(norm: Any, mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm; moves its running statistics, as PyTorch does."""
    if norm.training and norm.track_running_stats and norm.running_mean is not None:
        with torch.no_grad():
            share = norm.momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
                if share is None:
                    share = 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * (count / (count - 1)), share)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is None:
        return scale, torch.zeros_like(mean)
    return scale * norm.weight, norm.bias
