"""From the vocabulary to launches: reductions, softmax, and the terms of norms over pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.buffers import Value, order_of, strides_of
from pointwise.acceleration.builder import Builder, Constant, Found, why_not
from pointwise.engine.cpu.loops import group_norm, reduce


def _reduce(plan: Builder, node: fx.Node, x: Any, name: str, dims: Sequence[int],
            keep: bool) -> Found:  # fmt: skip
    x = plan.settled(x)
    why = why_not(x)
    if why:
        return why
    x = _dense(plan, x)
    order, taken = order_of(x.fake.stride(), x.shape), {dim % len(x.shape) for dim in dims}
    wide = [dim for dim in order if x.shape[dim] > 1]
    first = next((i for i, dim in enumerate(wide) if dim in taken), len(wide))
    end = next((i for i, dim in enumerate(wide) if i > first and dim not in taken), len(wide))
    if taken & set(wide[end:]):
        return "what is taken together does not lie side by side"
    parts = (wide[:first], wide[first:end], wide[end:])
    around, count, columns = (prod(x.shape[dim] for dim in part) for part in parts)
    shape = [1 if dim in taken else size for dim, size in enumerate(x.shape)]
    out = plan.room(shape, strides_of(shape, order), x.dtype)
    plan.emit(
        lambda: reduce.reduced(name, plan.real(x), plan.real(out), around, count, columns), [x], out
    )
    return out if keep else Value(out.fake.squeeze(tuple(taken)), out.buffer)


def _dense(plan: Builder, x: Value) -> Value:
    """A value without gaps, in whatever order of its dimensions."""
    if x.fake.stride() == strides_of(x.shape, order_of(x.fake.stride(), x.shape)):
        return x
    return plan.as_pixels(x) if len(x.shape) == 4 else plan.as_rows(x)


def _softmax(plan: Builder, node: fx.Node, x: Any, dim: int) -> Found:
    x = plan.settled(x)
    why = why_not(x)
    if why:
        return why
    dim %= len(x.shape)
    order = (0, 2, 3, 1) if len(x.shape) == 4 and dim == 1 else tuple(range(len(x.shape)))
    strides = strides_of(x.shape, (*(other for other in order if other != dim), dim))
    columns = x.shape[dim]
    x = x if x.fake.stride() == strides else plan.copied(x, strides)
    out = plan.room(x.shape, strides, x.dtype)
    rows = x.fake.numel() // columns
    return plan.emit(
        lambda: reduce.softmax(plan.real(x), plan.real(out), rows, columns), [x], out
    )  # fmt: skip


def _norm_terms(plan: Builder, node: fx.Node, x: Any, groups: int, weight: Any, bias: Any,
                eps: float) -> Found:  # fmt: skip
    if not all(isinstance(part, (Constant, type(None))) for part in (weight, bias)):
        return "its factors are not parameters"
    x = plan.settled(x)
    why = why_not(x)
    if why:
        return why
    images, channels, height, width = x.shape
    gain, shift = (None if row is None else row.contiguous()
                   for row in map(plan.fixed, (weight, bias)))  # fmt: skip
    given = [row for row in (gain, shift) if row is not None]
    if any(row.dtype != x.dtype for row in given):
        return "factors of another type"
    if channels % groups or any(row.numel() != channels for row in given):
        return "its groups do not fit"  # and PyTorch says so
    x = plan.as_pixels(x)
    moments = plan.room((images, 2, channels), strides_of((images, 2, channels), range(3)), x.dtype)
    plan.emit(lambda: group_norm.moments(plan.real(x), plan.real(moments)), [x], moments)
    shape = (images, 2, channels, 1, 1)
    out = plan.room(shape, strides_of(shape, range(5)), x.dtype)
    return plan.emit(
        lambda: group_norm.terms(plan.real(moments), plan.real(out), height * width, groups, gain,
                                 shift, eps),
        [moments], out)  # fmt: skip


def _part(plan: Builder, node: fx.Node, x: Any, place: int) -> Found:
    if not isinstance(x, Value):
        return "an operand is a constant"
    x.buffer.is_rigid = True
    return Value(x.fake.select(1, place), x.buffer)


LOWERINGS: dict[Any, Callable[..., Found]] = {
    vocabulary.reduce: _reduce,
    vocabulary.softmax: _softmax,
    vocabulary.norm_terms: _norm_terms,
    vocabulary.part: _part,
}
