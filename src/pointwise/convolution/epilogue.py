"""What follows a convolution while its result is still at hand: norm, residual, activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": F.sigmoid,
}
"""Name to plain PyTorch form."""


def finish(x: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """``activation(x + residual)`` in plain PyTorch."""
    return ACTIVATIONS[activation](x if residual is None else x + residual)


def fold(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor | None]:
    """The weight ``[C_out, …]`` and bias of a convolution that do what ``norm`` did after it.

    ``norm`` is a batch norm with fixed statistics: ``(x - mean) / √(variance + eps) · γ + β``.
    Folded in float64, so that nothing is lost but the last rounding.
    """
    if norm is None:
        return weight, bias
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale if bias is None else (bias.double() - mean) * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    shaped = scale.view(-1, *[1] * (weight.dim() - 1))
    return (weight.double() * shaped).to(weight.dtype), shift.to(weight.dtype)
