"""From the vocabulary of bytes to launches; on machines without VNNI they stay plain and exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary_int8
from pointwise.acceleration.operands import Fixed, Found, Waiting, dtype_of
from pointwise.acceleration.values import Value, is_pixels
from pointwise.convolution.window import Window, window
from pointwise.engine.cpu.gemm_int8 import HAS_VNNI
from pointwise.engine.cpu.loops import images_int8 as int8
from pointwise.engine.cpu.loops import to_bytes
from pointwise.engine.cpu.loops.images import Step, is_stencil

if TYPE_CHECKING:
    from pointwise.acceleration.planner import Planner

NO_VNNI = "this machine has no AVX512-VNNI"
# Beyond, the weight is better read once for many rows than once for each band.
_JOINED_WEIGHT = 2 * 1024 * 1024
# Up to so many channels, an image that has them first is turned round as it is rounded.
_FEW = 4


def _quantize(plan: Planner, node: fx.Node, x: Any, per: float, zero: int) -> Found:
    x = plan.settled(x)
    if not HAS_VNNI:
        return NO_VNNI
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


def _dequantize(plan: Planner, node: fx.Node, x: Any, scale: float, zero: int) -> Found:
    x = plan.settled(x)
    if not HAS_VNNI:
        return NO_VNNI
    if not isinstance(x, Value) or x.dtype != torch.uint8 or not is_pixels(x.fake):
        return "not images in bytes"
    out = plan.new(x.shape, torch.float32)
    return plan.emit(
        lambda: to_bytes.dequantize(plan.real(x), plan.real(out), scale, zero), [x], out
    )


@dataclass(frozen=True, eq=False)
class Piece:
    """A convolution of bytes."""

    weights: int8.Mix | int8.Taps
    window: Window
    shape: torch.Size
    times: float
    low: float
    high: float
    as_bytes: bool

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.as_bytes else torch.float32


def _conv(plan: Planner, node: fx.Node, x: Any, weight: Any, factor: Any, shift: Any, residual: Any,
          stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int,
          zero: int, times: float, low: float, high: float,
          as_bytes: bool) -> Value | Waiting | str:  # fmt: skip
    if not HAS_VNNI:
        return NO_VNNI
    if not all(isinstance(part, Fixed) for part in (weight, factor, shift)):
        return "its weight is not a parameter"
    residual = plan.settled(residual)
    if any(isinstance(part, Fixed) or (part is not None and dtype_of(part) != torch.uint8)
           for part in (x, residual)):  # fmt: skip
        return "an operand is not of bytes"
    shape = x.piece.shape if isinstance(x, Waiting) else x.shape
    sizes, _ = plan.constants.like(weight.node)
    stencil = is_stencil(sizes, groups)
    if len(shape) != 4 or shape[1] != sizes[1] * groups:
        return "its input does not fit"
    seen = window(shape[0], shape[2:], sizes[2:], stride, padding, dilation)
    if seen.y.points < 1 or seen.x.points < 1 or shape.numel() == 0:
        return "there is nothing to compute"
    dilation = (seen.y.dilation, seen.x.dilation)
    known = dilation == (1, 1) and int8.has_rows(seen.x.taps, seen.x.stride)
    if stencil and not (as_bytes and residual is None and known):
        return "no stencil of this shape for bytes"
    if not stencil and groups != 1:
        return "groups"
    out = torch.Size((seen.images, sizes[0], seen.y.points, seen.x.points))
    if residual is not None and residual.shape != out:
        return "a residual of another shape"
    weights = plan.constants.packed_int8(weight.node, factor.node, shift.node, groups, zero)
    piece = Piece(weights, seen, out, times, low, high, as_bytes)
    if stencil and _leads_to_mix(plan, node):
        image = plan.settled(x)
        return Waiting(image, piece, lambda plan: _one(plan, image, piece, None))
    if isinstance(x, Waiting) and x.value is None and _are_better_joined(piece):
        return _two(plan, x, piece, residual)
    return _one(plan, plan.settled(x), piece, residual)


def _leads_to_mix(plan: Planner, node: fx.Node) -> bool:
    """Whether all that reads a depthwise convolution is a pointwise one."""
    if len(node.users) != 1:
        return False
    user: Any = next(iter(node.users))
    if user.target is not vocabulary_int8.conv_int8 or user.args[0] is not node:
        return False
    return user.args[8] == 1 and plan.constants.like(user.args[1])[0][2:] == (1, 1)


def _are_better_joined(piece: Piece) -> bool:
    weights = piece.weights
    return (
        isinstance(weights, int8.Mix)
        and piece.window.is_identity
        and weights.packed.numel() <= _JOINED_WEIGHT
    )


def _one(plan: Planner, x: Value, piece: Piece, residual: Value | None) -> Value:
    x = plan.as_pixels(x)
    residual = None if residual is None else plan.as_pixels(residual)
    out = plan.new(piece.shape, piece.dtype)

    def make() -> Step:
        if isinstance(piece.weights, int8.Taps):
            return int8.depthwise_step(plan.real(x), piece.weights, piece.window, plan.real(out))
        more = None if residual is None else plan.real(residual)
        return int8.mixed_step(plan.real(x), piece.weights, piece.window, plan.real(out), more,
                               piece.times, piece.low, piece.high)  # fmt: skip

    return plan.emit(make, [x, residual], out)


def _two(plan: Planner, waiting: Waiting, piece: Piece, residual: Value | None) -> Value:
    x, first = plan.as_pixels(waiting.x), waiting.piece
    residual = None if residual is None else plan.as_pixels(residual)
    out = plan.new(piece.shape, piece.dtype)

    def make() -> Step:
        assert isinstance(piece.weights, int8.Mix)
        more = None if residual is None else plan.real(residual)
        return int8.separable_step(plan.real(x), first.weights, piece.weights, first.window,
                                   plan.real(out), more, piece.times, piece.low,
                                   piece.high)  # fmt: skip

    return plan.emit(make, [x, residual], out)


LOWERINGS: dict[Any, Callable[..., Found | Waiting]] = {
    vocabulary_int8.quantize: _quantize,
    vocabulary_int8.dequantize: _dequantize,
    vocabulary_int8.conv_int8: _conv,
}
