"""What follows a convolution while its result is still at hand: norm, residual, activation.

Every activation that any part of the library knows is a row of ``ACTIVATIONS``. A new one is a row
here, and its formula and slope for kernels, under its name, in ``engine/cpu/activation.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_INFINITY = float("inf")


@dataclass(frozen=True)
class Activation:
    """A function of one number, applied to every number of a tensor."""

    name: str  # as in torch.nn.functional; and in torch.ops.aten, where it is a call of its own
    plain: Callable[[Tensor], Tensor]  # in plain PyTorch
    module: Callable[[], nn.Module]  # PyTorch's module of it
    bounds: tuple[float, float] | None = None  # where clamping between them is all that it does
    cost: int = 1  # operations for each number, besides multiplications and additions
    is_gate: bool = False  # whether results lie between 0 and 1
    exact: bool = True  # whether the kernel's formula is good to float64's precision
    onnx: str | None = None  # ONNX's operator, where it has no attributes


LEAKS = {"leaky_relu": 0.01, "leaky_relu_0.1": 0.1, "leaky_relu_0.2": 0.2}
"""The negative slopes in use: PyTorch's default, that of detectors and vocoders, that of GANs."""

_ROWS = (
    Activation("none", lambda x: x, nn.Identity, (-_INFINITY, _INFINITY), cost=0),
    Activation("relu", F.relu, nn.ReLU, (0.0, _INFINITY), onnx="Relu"),
    Activation("relu6", F.relu6, nn.ReLU6, (0.0, 6.0)),
    Activation("hardswish", F.hardswish, nn.Hardswish, onnx="HardSwish"),
    Activation("hardsigmoid", F.hardsigmoid, nn.Hardsigmoid, is_gate=True),
    Activation("silu", F.silu, nn.SiLU),
    Activation("sigmoid", torch.sigmoid, nn.Sigmoid, is_gate=True, onnx="Sigmoid"),
    Activation("gelu", F.gelu, nn.GELU, exact=False),
    Activation("mish", F.mish, nn.Mish, onnx="Mish"),
    Activation("tanh", torch.tanh, nn.Tanh, onnx="Tanh"),
    Activation("elu", F.elu, nn.ELU),
    *(
        Activation(name, partial(F.leaky_relu, negative_slope=leak), partial(nn.LeakyReLU, leak))
        for name, leak in LEAKS.items()
    ),
)

ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}
"""By name."""

CLAMP_ONLY = 0
"""The number by which kernels know that clamping is all there is to do."""

_KERNEL_FORMS = {
    row.name: (-_INFINITY, _INFINITY, number) if row.bounds is None else (*row.bounds, CLAMP_ONLY)
    for number, row in enumerate(_ROWS)
}


def why_not(activation: str, dtype: torch.dtype) -> str | None:
    """Why kernels of this type have no such activation; None where they have it."""
    if dtype == torch.float64 and not ACTIVATIONS[activation].exact:
        return f"{activation} in float64"
    return None


def kernel_form(activation: str, dtype: torch.dtype) -> tuple[float, float, int]:
    """(low, high, kind): the bounds that a kernel clamps to, and what it then applies.

    ``kind`` is the activation's place in the table; ``CLAMP_ONLY`` where the bounds are all of it.
    """
    assert why_not(activation, dtype) is None
    return _KERNEL_FORMS[activation]


def finish(x: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """``activation(x + residual)`` in plain PyTorch."""
    return ACTIVATIONS[activation].plain(x if residual is None else x + residual)


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
