"""ATen's elementwise calls as expressions of steps (``convolution/steps.py``).

An expression is a node of the graph, a float, or ``(step, expression, …)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.graph import Node, call, same, shape
from pointwise.acceleration.normalise import arguments_of
from pointwise.engine.cpu.by_dtype import ZEROS

aten = torch.ops.aten


def expression_of(node: Node) -> Any:
    """What a call does to each number, or None where it is more than that, or other types."""
    make = _EXPRESSIONS.get(node.target) if node.op == "call_function" else None
    if make is None or len({_dtype(part) for part in _numbers(node)}) > 1:
        return None
    if not all(_dtype(part) in (*ZEROS, torch.bool) for part in (node, *node.all_input_nodes)):
        return None
    found = make(*arguments_of(node))
    return found if isinstance(found, tuple) and _is_whole(found) else None


def _dtype(node: Node) -> Any:
    value = node.meta.get("val")
    on_cpu = isinstance(value, torch.Tensor) and value.device.type == "cpu"
    return value.dtype if on_cpu else None  # type: ignore[union-attr]


def _numbers(node: Node) -> list[Node]:
    """The call itself, and its operands; masks have no type to agree with."""
    return [part for part in (node, *node.all_input_nodes) if _dtype(part) is not torch.bool]


def _is_whole(part: Any) -> bool:
    """Whether all leaves are tensors or numbers that are known."""
    if isinstance(part, tuple):
        return all(_is_whole(x) for x in part[1:])
    return shape(part) is not None if isinstance(part, fx.Node) else type(part) is float


def _number(x: Any) -> Any:
    """Numbers as floats; what is open, or a tensor, stays what it is."""
    return float(x) if type(x) in (int, float, bool) else x


def _step(name: str) -> Callable:
    return lambda *operands: (name, *map(_number, operands))


def _activated(x: Any, activation: str) -> Any:
    return x if activation == "none" else (activation, x)


def _times(x: Any, factor: Any) -> Any:
    if type(x) is float and type(factor) in (int, float):
        return x * factor
    return x if factor == 1 else ("multiply", x, _number(factor))


def _scaled(name: str) -> Callable:
    """``x + alpha · y``, and the like."""
    return lambda x, y, alpha=1: (name, _number(x), _times(_number(y), alpha))


def _reversed(x: Any, y: Any, alpha: Any = 1) -> Any:
    return ("subtract", _number(y), _times(x, alpha))


# Klambauer et al., "Self-Normalizing Neural Networks", 2017.
_SELU, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _power(x: Any, exponent: Any) -> Any:
    """Powers that are a few products, roots or quotients."""
    if type(exponent) not in (int, float):
        return None
    if exponent < 0:
        found = _power(x, -exponent)
        return found and ("divide", 1.0, found)
    if exponent == 0.5:
        return ("sqrt", x)
    if exponent not in (1, 2, 3, 4):
        return None
    square = ("multiply", x, x)
    return {1: x, 2: square, 3: ("multiply", square, x), 4: ("multiply", square, square)}[exponent]


def _within(x: Any, low: Any = None, high: Any = None) -> Any:
    found = x if low is None else ("maximum", x, _number(low))
    return found if high is None else ("minimum", found, _number(high))


def _leaky(x: Any, slope: Any = 0.01) -> Any:
    return ("where", ("less", x, 0.0), ("multiply", x, _number(slope)), x)


def _elu(x: Any, alpha: Any, scale: Any, input_scale: Any) -> Any:
    if input_scale <= 0:
        return None
    below = _times(("elu", _times(x, input_scale)), alpha * scale)
    return ("where", ("less", x, 0.0), below, _times(x, scale))


def _softplus(x: Any, beta: Any, threshold: Any) -> Any:
    curved = _times(("log1p_exp", _times(x, beta)), 1 / beta)
    return ("where", ("less", float(threshold), _times(x, beta)), x, curved)


def _gelu(x: Any, approximate: str) -> Any:
    if approximate == "none":
        return None if _dtype(x) is torch.float64 else ("gelu", x)
    cube = ("multiply", ("multiply", x, x), x)
    inner = ("multiply", ("add", x, ("multiply", cube, 0.044715)), math.sqrt(2 / math.pi))
    return ("multiply", ("multiply", x, 0.5), ("add", ("tanh", inner), 1.0))


def _fused(name: str) -> Callable:
    """``x + value · (a · b)``, or of a quotient."""
    return lambda x, a, b, value=1: ("add", x, _times((name, a, b), value))


def _lerp(x: Any, y: Any, weight: Any) -> Any:
    return ("add", x, ("multiply", ("subtract", y, x), _number(weight)))


def _where(mask: Any, x: Any, y: Any) -> Any:
    return ("where", mask, _number(x), _number(y))


def _filled(x: Any, mask: Any, value: Any) -> Any:
    return ("where", mask, _number(value), x)


def _compared(name: str, turned: bool) -> Callable:
    if turned:
        return lambda x, y: (name, _number(y), _number(x))
    return _step(name)


def _affine(x: Any, factor: Any, shift: Any, activation: str) -> Any:
    parts = [_along_channels(part, x) for part in (factor, shift)]
    return _activated(("add", ("multiply", x, parts[0]), parts[1]), activation)


def _along_channels(part: Node, x: Node) -> Node:
    """One number for each channel, as it is combined with ``x [N, C, …]``."""
    dims = len(shape(x)) - 2
    if dims == 0:
        return part
    after: Any = part
    with part.graph.inserting_after(_last_input(part)):
        new = call(part.graph, aten.view.default, (after, [-1, *[1] * dims]), None)
    new.meta["val"] = part.meta["val"].view(-1, *[1] * dims)
    return new


def _last_input(part: Node) -> Node:
    """Where a call that reads ``part`` may stand: placeholders come first in a graph."""
    last = part
    while last.op == "placeholder" and last.next.op == "placeholder":
        last = last.next
    return last


def _prelu(x: Any, weight: Any) -> Any:
    if same(shape(weight) or (0,), (1,)):
        slope = weight
    elif len(shape(weight) or ()) == 1:
        slope = _along_channels(weight, x)
    else:
        slope = weight
    return ("where", ("less", x, 0.0), ("multiply", x, slope), x)


_EXPRESSIONS: dict[Any, Callable] = {
    vocabulary.activate: _activated,
    vocabulary.add: lambda x, y, then: _activated(("add", x, y), then),
    vocabulary.multiply: lambda x, y, then: _activated(("multiply", x, y), then),
    vocabulary.scale: lambda x, y, then: _activated(("multiply", x, y), then),
    vocabulary.affine: _affine,
    aten.add.Tensor: _scaled("add"),
    aten.add.Scalar: _scaled("add"),
    aten.sub.Tensor: _scaled("subtract"),
    aten.sub.Scalar: _scaled("subtract"),
    aten.rsub.Tensor: _reversed,
    aten.rsub.Scalar: _reversed,
    aten.mul.Tensor: _step("multiply"),
    aten.mul.Scalar: _step("multiply"),
    aten.div.Tensor: _step("divide"),
    aten.div.Scalar: _step("divide"),
    aten.reciprocal.default: lambda x: ("divide", 1.0, x),
    aten.neg.default: _step("negate"),
    aten.abs.default: _step("abs"),
    aten.square.default: lambda x: ("multiply", x, x),
    aten.sqrt.default: _step("sqrt"),
    aten.rsqrt.default: lambda x: ("divide", 1.0, ("sqrt", x)),
    aten.exp.default: _step("exp"),
    aten.log.default: _step("log"),
    aten.floor.default: _step("floor"),
    aten.ceil.default: _step("ceil"),
    aten.pow.Tensor_Scalar: _power,
    aten.maximum.default: _step("maximum"),
    aten.minimum.default: _step("minimum"),
    aten.clamp.default: _within,
    aten.clamp_min.default: _within,
    aten.clamp_max.default: lambda x, high: _within(x, None, high),
    aten.hardtanh.default: _within,
    aten.relu.default: _step("relu"),
    aten.leaky_relu.default: _leaky,
    aten.prelu.default: _prelu,
    aten._prelu_kernel.default: _prelu,
    aten.elu.default: _elu,
    aten.selu.default: lambda x: _elu(x, _SELU, _SELU_SCALE, 1),
    aten.celu.default: lambda x, alpha: _elu(x, alpha, 1, 1 / alpha),
    aten.gelu.default: _gelu,
    aten.softplus.default: _softplus,
    aten.log_sigmoid.default: lambda x: ("negate", ("log1p_exp", ("negate", x))),
    aten.addcmul.default: _fused("multiply"),
    aten.addcdiv.default: _fused("divide"),
    aten.lerp.Scalar: _lerp,
    aten.lerp.Tensor: _lerp,
    aten.where.self: _where,
    aten.where.ScalarSelf: _where,
    aten.where.ScalarOther: _where,
    aten.masked_fill.Scalar: _filled,
    **{
        getattr(getattr(aten, name), kind): _compared(step, turned)
        for name, step, turned in (
            ("lt", "less", False), ("le", "at_most", False), ("gt", "less", True),
            ("ge", "at_most", True), ("eq", "equal", False), ("ne", "unequal", False),
        )
        for kind in ("Scalar", "Tensor")
    },
    aten.logical_and.default: _step("both"),
    aten.logical_or.default: _step("either"),
    aten.logical_not.default: _step("not"),
    **dict.fromkeys((aten.bitwise_and.Tensor, aten.__and__.Tensor), _step("both")),
    **dict.fromkeys((aten.bitwise_or.Tensor, aten.__or__.Tensor), _step("either")),
    aten.bitwise_not.default: _step("not"),
}  # fmt: skip
