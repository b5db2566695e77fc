"""What ONNX files compute number by number, and of several tensors at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.onnx.call import Call, are_constant

_SELU = (1.6732631921768188, 1.0507010221481323)
"""ONNX's slope and scale, which are also PyTorch's to the last bit of float32."""


def unary(function: Callable) -> Callable:
    return lambda call, x: call(function, x)


def binary(function: Callable) -> Callable:
    def read(call: Call, a: Any, b: Any) -> Any:
        call.one_of("broadcast", 0)
        return call(function, call.scalar(a), call.scalar(b))

    return read


def _of_tensors(function: Callable) -> Callable:
    """A function of two tensors, which takes no plain numbers."""

    def read(call: Call, a: Any, b: Any) -> Any:
        call.one_of("broadcast", 0)
        return call(function, a, b)

    return read


def _of_all(function: Callable) -> Callable:
    """A function of two tensors, of any number of them."""

    def read(call: Call, *xs: Any) -> Any:
        return reduce(lambda a, b: call(function, a, b), xs)

    return read


def _mean(call: Call, *xs: Any) -> Any:
    return call(torch.div, _of_all(torch.add)(call, *xs), len(xs))


def _modulo(call: Call, a: Any, b: Any) -> Any:
    return call(torch.fmod if call.one_of("fmod", 0, 1) else torch.remainder, a, b)


def pow_(call: Call, x: Any, exponent: Any) -> Any:
    call.one_of("broadcast", 0)
    return call(power, x, call.scalar(exponent))


def power(x: Tensor, exponent: Any) -> Tensor:
    """A power, in the type of the base."""
    return torch.pow(x, exponent).to(x.dtype)


def divide(a: Any, b: Any) -> Any:
    """A quotient; of whole numbers it is a whole number, rounded towards zero."""
    real = any(
        isinstance(x, float) or (isinstance(x, Tensor) and x.is_floating_point()) for x in (a, b)
    )
    return a / b if real else torch.div(a, b, rounding_mode="trunc")


# --- activations ----------------------------------------------------------------------------------


def _prelu(call: Call, x: Any, slope: Any) -> Any:
    if call.version >= 7:
        return call(prelu, x, slope)
    if not are_constant(slope):
        raise call.refuse("has slopes that are computed")
    return call(F.prelu, x, slope.reshape(-1))  # one of each channel, or one of all


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    if not are_constant(low, high):
        raise call.refuse("has bounds that are computed")
    largest = torch.finfo(torch.float32).max if 6 <= call.version < 11 else None
    least = None if largest is None else -largest
    low = call.get("min", least if low is None else low.item())
    high = call.get("max", largest if high is None else high.item())
    if low is None and high is None:
        return x
    if low == 0 and high == 6:
        return call(F.relu6, x)
    return call(torch.clamp, x, low, high)


def _hard_sigmoid(call: Call, x: Any) -> Any:
    slope, shift = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-8 and shift == 0.5:
        return call(F.hardsigmoid, x)
    return call(hard_sigmoid, x, slope, shift)


def hard_sigmoid(x: Tensor, slope: float, shift: float) -> Tensor:
    return (x * slope + shift).clamp(0, 1)


def _gelu(call: Call, x: Any) -> Any:
    return call(F.gelu, x, approximate=call.one_of("approximate", "none", "tanh"))


def _selu(call: Call, x: Any) -> Any:
    alpha, gamma = call.get("alpha", _SELU[0]), call.get("gamma", _SELU[1])
    if max(abs(alpha - _SELU[0]), abs(gamma - _SELU[1])) < 1e-6:
        return call(F.selu, x)
    return call(torch.mul, call(F.elu, x, alpha), gamma)


def _swish(call: Call, x: Any) -> Any:
    alpha = call.get("alpha", 1.0)
    return call(F.silu, x) if alpha == 1 else call(swish, x, alpha)


def swish(x: Tensor, alpha: float) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def _shrink(call: Call, x: Any) -> Any:
    return call(shrink, x, call.get("lambd", 0.5), call.get("bias", 0.0))


def shrink(x: Tensor, border: float, bias: float) -> Tensor:
    inside = torch.zeros_like(x)
    return torch.where(x < -border, x + bias, torch.where(x > border, x - bias, inside))


def _is_infinite(call: Call, x: Any) -> Any:
    negative, positive = call.get("detect_negative", 1), call.get("detect_positive", 1)
    return call(is_infinite, x, bool(negative), bool(positive))


def is_infinite(x: Tensor, negative: bool, positive: bool) -> Tensor:
    return (torch.isneginf(x) & negative) | (torch.isposinf(x) & positive)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "LeakyRelu": lambda call, x: call(F.leaky_relu, x, call.get("alpha", 0.01)),
    "Elu": lambda call, x: call(F.elu, x, call.get("alpha", 1.0)),
    "Celu": lambda call, x: call(F.celu, x, call.get("alpha", 1.0)),
    "ThresholdedRelu": lambda call, x: call(F.threshold, x, call.get("alpha", 1.0), 0.0),
    "Selu": _selu,
    "Swish": _swish,
    "PRelu": _prelu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Shrink": _shrink,
    "Softplus": unary(F.softplus),
    "Softsign": unary(F.softsign),
    "Erf": unary(torch.erf),
    "Tanh": unary(torch.tanh),
    "Sin": unary(torch.sin),
    "Cos": unary(torch.cos),
    "Atan": unary(torch.atan),
    "Exp": unary(torch.exp),
    "Log": unary(torch.log),
    "Sqrt": unary(torch.sqrt),
    "Reciprocal": unary(torch.reciprocal),
    "Neg": unary(torch.neg),
    "Abs": unary(torch.abs),
    "Sign": unary(torch.sign),
    "Floor": unary(torch.floor),
    "Ceil": unary(torch.ceil),
    "Round": unary(torch.round),  # halves to the even one, both
    "Not": unary(torch.logical_not),
    "IsNaN": unary(torch.isnan),
    "IsInf": _is_infinite,
    "Sub": binary(torch.sub),
    "Mul": binary(torch.mul),
    "Div": binary(divide),
    "Pow": pow_,
    "Mod": _modulo,
    "Equal": binary(torch.eq),
    "Less": _of_tensors(torch.lt),
    "LessOrEqual": _of_tensors(torch.le),
    "Greater": _of_tensors(torch.gt),
    "GreaterOrEqual": _of_tensors(torch.ge),
    "And": _of_tensors(torch.logical_and),
    "Or": _of_tensors(torch.logical_or),
    "Xor": _of_tensors(torch.logical_xor),
    "Max": _of_all(torch.maximum),
    "Min": _of_all(torch.minimum),
    "Sum": _of_all(torch.add),
    "Mean": _mean,
    "Where": lambda call, *parts: call(torch.where, *parts),
}
