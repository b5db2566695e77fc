"""Training: a run of convolutions with batch norm, each activation written and read once.

A convolution's mean and variance come with its result; norm and activation are applied as the next
convolution reads it (``engine/cpu/loops/normed_images.py``). Outputs, gradients and running
statistics are those of the separate modules, but for rounding. There are no gradients of gradients:
who needs them runs the modules one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pointwise.convolution.epilogue import CLAMP_ONLY, kernel_form, why_not
from pointwise.convolution.problem import is_depthwise
from pointwise.convolution.window import window
from pointwise.engine.eager import is_unseen, why_not_eager, why_not_on_gpu
from pointwise.functional.padding import resolve
from pointwise.layers.unit import Unit, is_batch_norm, is_ordinary, window_of
from pointwise.operators import normed_run, ops

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
    given = [_given(unit) for unit in units]
    if _run_as_one(input, units, residual, given):
        return _as_one(input, units, residual, given)
    return _one_by_one(input, units, residual)


def _given(unit: Unit) -> normed_run.Given:
    norm: Any = unit.norm
    mean, variance = (norm.running_mean, norm.running_var) if _moves(norm) else (None, None)
    return normed_run.Given(unit.conv.weight, norm.weight, norm.bias, mean, variance)


def _moves(norm: Any) -> bool:
    """Whether a step moves a norm's running statistics."""
    return norm.training and norm.track_running_stats and norm.running_mean is not None


def _run_as_one(
    input: Tensor,
    units: Sequence[Unit],
    residual: Tensor | None,
    given: Sequence[normed_run.Given],
) -> bool:
    """Whether nobody watches, and the kernels of a run as a whole can write to all rows."""
    rows = [row for each in given for row in each[1:]]
    return (
        not input.is_cuda
        and input.dtype in (torch.float32, torch.float64)
        and all(unit.norm.momentum is not None for unit in units)  # type: ignore[union-attr]
        and all(row is None or row.is_contiguous() for row in rows)
        and is_unseen((input, residual, *(each.weight for each in given), *rows))
    )


def _as_one(
    input: Tensor,
    units: Sequence[Unit],
    residual: Tensor | None,
    given: Sequence[normed_run.Given],
) -> Tensor:
    layers, counts, sizes = [], [], tuple(input.shape[2:])
    for conv, module, activation, _ in units:
        norm: Any = module
        padding = tuple(conv.padding) if isinstance(conv.padding, list) else conv.padding
        numbers = tuple(conv.kernel_size), tuple(conv.stride), tuple(conv.dilation)
        (stride, edges, dilation), sizes = _geometry(sizes, padding, *numbers)
        layers.append(
            normed_run.Layer(
                stride, edges, dilation, conv.groups, activation or "none", norm.eps, norm.momentum
            )
        )
        if _moves(norm) and norm.num_batches_tracked is not None:
            counts.append(norm.num_batches_tracked)
    if counts:
        torch._foreach_add_(counts, 1)
    return normed_run.normed_run(input, residual, layers, given)


@lru_cache(maxsize=4096)
def _geometry(sizes, padding, kernel, stride, dilation):
    """((stride, padding at each edge, dilation), how large the result is)."""
    edges = tuple(resolve("", padding, sizes, kernel, stride, dilation))
    seen = window(1, sizes, kernel, stride, edges, dilation)
    return (stride, edges, dilation), (seen.y.points, seen.x.points)


def _one_by_one(input: Tensor, units: Sequence[Unit], residual: Tensor | None) -> Tensor:
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
    if _moves(norm):
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
