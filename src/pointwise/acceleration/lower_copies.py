"""Calls that put tensors beside one another, or one into another, along any dimension: copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration.buffers import Value, order_of, strides_of
from pointwise.acceleration.builder import Builder, Constant, Found, why_not

aten = torch.ops.aten


def _cat(plan: Builder, node: fx.Node, xs: Sequence[Any], dim: int = 0) -> Found:
    if node.kwargs:
        return "arguments by name"
    values = [_held(plan, x) for x in xs]
    why = why_not(*values)
    if why:
        return why
    first = values[0].shape
    dim %= len(first)
    around = {(*x.shape[:dim], *x.shape[dim + 1 :]) for x in values}
    if len(around) > 1 or any(len(x.shape) != len(first) for x in values):
        return "shapes differ"
    shape = (*first[:dim], sum(x.shape[dim] for x in values), *first[dim + 1 :])
    out = plan.room(shape, strides_of(shape, _common_order(values)), values[0].dtype)
    begin = 0
    for x in values:
        part = Value(out.fake.narrow(dim, begin, x.shape[dim]), out.buffer)
        plan.copy_into(part, x)
        begin += x.shape[dim]
    return out


def _common_order(values: Sequence[Value]) -> Sequence[int]:
    """As all of them lie in memory, or in PyTorch's order."""
    orders = {order_of(x.fake.stride(), x.shape) for x in values}
    return orders.pop() if len(orders) == 1 else range(len(values[0].shape))


def _held(plan: Builder, x: Any) -> Any:
    return plan.held(x) if isinstance(x, Constant) else plan.settled(x)


def _expanded(plan: Builder, node: fx.Node, x: Any, sizes: Sequence[int]) -> Found:
    """One for all, of a constant: a way to read it."""
    if not isinstance(x, Constant) or node.kwargs:
        return "PyTorch's own"
    held = plan.held(x)
    return Value(held.fake.expand(sizes), held.buffer)


def _filled(plan: Builder, node: fx.Node, x: Any, y: Any, *_: Any) -> Found:
    """One number, or a tensor that is broadcast, all over what is as large as ``x``."""
    x, y = _held(plan, x), _held(plan, y)
    if not isinstance(y, Value):
        y = plan.constant(torch.tensor(y, dtype=x.dtype))
    why = why_not(x, y)
    if why:
        return why
    if y.buffer.slot is not None or node.kwargs:
        return "PyTorch's own"
    out = plan.room(x.shape, strides_of(x.shape, _common_order([x])), x.dtype)
    plan.copy_into(out, Value(y.fake.expand(x.shape), y.buffer))
    return out


def _written(place_of: Callable[..., Tensor]) -> Callable[..., Found]:
    """A copy of ``x`` with ``part`` in the place that ``place_of`` the copy gives."""

    def lowering(plan: Builder, node: fx.Node, x: Any, part: Any, *rest: Any) -> Found:
        if node.kwargs:
            return "arguments by name"
        return _with_part(plan, x, part, lambda whole: place_of(whole, *rest))

    return lowering


def _with_part(plan: Builder, x: Any, part: Any, place_of: Callable[[Tensor], Tensor]) -> Found:
    x, part = _held(plan, x), _held(plan, part)
    why = why_not(x, part)
    if why:
        return why
    out = plan.room(x.shape, strides_of(x.shape, _common_order([x])), x.dtype)
    place = Value(place_of(out.fake), out.buffer)
    if place.shape != part.shape:
        plan.buffers.remove(out.buffer)
        return "shapes differ"  # and PyTorch says so
    plan.copy_into(out, x)
    if place.fake.numel():
        plan.copy_into(place, part)
    return out


LOWERINGS: dict[Any, Callable[..., Found]] = {
    aten.cat.default: _cat,
    aten.slice_scatter.default: _written(aten.slice.Tensor),
    aten.select_scatter.default: _written(aten.select.int),
    aten.expand.default: _expanded,
    aten.copy.default: _filled,
    aten.fill.Scalar: _filled,
    aten.fill.Tensor: _filled,
}
