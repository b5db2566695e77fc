"""From the vocabulary of bytes to launches; where no kernel can, they stay plain and exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary_int8
from pointwise.acceleration.buffers import Value, is_pixels
from pointwise.acceleration.builder import Builder, Constant, Deferred, Found, dtype_of
from pointwise.convolution.problem import Rescaling, describe
from pointwise.engine import choose
from pointwise.engine.cpu import dots
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops import to_bytes

# Up to so many channels, an image that has them first is turned round as it is rounded.
_FEW = 4


def _quantize(plan: Builder, node: fx.Node, x: Any, per: float, zero: int) -> Found:
    x = plan.settled(x)
    if dots.WHY_NOT:
        return dots.WHY_NOT
    if not isinstance(x, Value) or x.dtype != torch.float32 or len(x.shape) != 4:
        return "not images in float32"
    if x.fake.numel() == 0:
        return "there is nothing to compute"
    out = plan.new(x.shape, torch.uint8)
    if not is_pixels(x.fake) and x.shape[1] <= _FEW and x.fake.stride(3) == 1:
        return plan.emit(
            lambda: to_bytes.quantize_planes(plan.real(x), plan.real(out), per, zero), [x], out
        )
    x = plan.as_pixels(x)
    return plan.emit(lambda: to_bytes.quantize(plan.real(x), plan.real(out), per, zero), [x], out)


def _dequantize(plan: Builder, node: fx.Node, x: Any, scale: float, zero: int) -> Found:
    x = plan.settled(x)
    if dots.WHY_NOT:
        return dots.WHY_NOT
    if not isinstance(x, Value) or x.dtype != torch.uint8 or not is_pixels(x.fake):
        return "not images in bytes"
    out = plan.new(x.shape, torch.float32)
    return plan.emit(
        lambda: to_bytes.dequantize(plan.real(x), plan.real(out), scale, zero), [x], out
    )


def _conv(plan: Builder, node: fx.Node, x: Any, weight: Any, factor: Any, shift: Any, residual: Any,
          stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int,
          zero: int, times: float, low: float, high: float,
          as_bytes: bool) -> Value | Deferred | str:  # fmt: skip
    if not all(isinstance(part, Constant) for part in (weight, factor, shift)):
        return "its weight is not a parameter"
    residual = plan.settled(residual)
    if any(isinstance(part, Constant) or (part is not None and dtype_of(part) != torch.uint8)
           for part in (x, residual)):  # fmt: skip
        return "an operand is not of bytes"
    shape = x.prepared.shape if isinstance(x, Deferred) else x.shape
    sizes, _ = plan.constants.like(weight.node)
    if len(shape) != 4 or shape[1] != sizes[1] * groups:
        return "its input does not fit"
    convolution = describe(shape, sizes, stride, padding, dilation, groups, torch.uint8)
    rescaling = Rescaling(times, low, high, as_bytes)
    convolution = convolution._replace(rescaling=rescaling)
    why = choose.why_not(convolution)
    if why:
        return why
    if convolution.is_depthwise and not (as_bytes and residual is None):
        return "no stencil of this shape for bytes"
    if residual is not None and residual.shape != convolution.shape:
        return "a residual of another shape"
    choice = choose.choose(convolution)
    packed = plan.constants.packed_bytes(weight.node, factor.node, shift.node, choice, zero)
    prepared = choose.Prepared(convolution, choice, packed)
    if convolution.is_depthwise and _leads_to_mix(plan, node):
        image = plan.settled(x)
        return Deferred(image, prepared, lambda plan: _launched(plan, image, (prepared,), None))
    if isinstance(x, Deferred) and x.value is None and choose.fused(x.prepared, prepared) == 2:
        return _launched(plan, x.x, (x.prepared, prepared), residual)
    return _launched(plan, plan.settled(x), (prepared,), residual)


def _leads_to_mix(plan: Builder, node: fx.Node) -> bool:
    """Whether all that reads a depthwise convolution is a pointwise one."""
    if len(node.users) != 1:
        return False
    user: Any = next(iter(node.users))
    if user.target is not vocabulary_int8.conv_int8 or user.args[0] is not node:
        return False
    return user.args[8] == 1 and plan.constants.like(user.args[1])[0][2:] == (1, 1)


def _launched(
    plan: Builder, x: Value, chain: Sequence[choose.Prepared], residual: Value | None
) -> Value:
    """The result of the convolutions of a chain, in one launch."""
    x, last = plan.as_pixels(x), chain[-1].convolution
    residual = None if residual is None else plan.as_pixels(residual)
    assert last.rescaling is not None
    out = plan.new(last.shape, torch.uint8 if last.rescaling.as_bytes else torch.float32)

    def make() -> Launch:
        added = None if residual is None else plan.real(residual)
        return choose.launch(plan.real(x), chain, plan.real(out), added)

    return plan.emit(make, [x, residual], out)


LOWERINGS: dict[Any, Callable[..., Found | Deferred]] = {
    vocabulary_int8.quantize: _quantize,
    vocabulary_int8.dequantize: _dequantize,
    vocabulary_int8.conv_int8: _conv,
}
