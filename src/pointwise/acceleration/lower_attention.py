"""From the vocabulary to launches: attention, and products of matrices that both vary."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.buffers import Value, strides_of
from pointwise.acceleration.builder import Builder, Constant, Found, why_not
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops import attention, matrices

aten = torch.ops.aten


@cache
def _empty() -> float:
    """What PyTorch's call gives for a query that sees nothing: 0 in some versions, else NaN."""
    x, nothing = torch.ones(1, 1, 1, 8), torch.full((1, 1), -math.inf)
    return F.scaled_dot_product_attention(x, x, x, nothing).flatten()[0].item()


def _attention(plan: Builder, node: fx.Node, q: Any, k: Any, v: Any, terms: Sequence[Any],
               periods: Sequence[int], scale: float | None, is_causal: bool, is_named: bool,
               is_grouped: bool) -> Found:  # fmt: skip
    q, k, v = (plan.held(x) if isinstance(x, Constant) else plan.settled(x) for x in (q, k, v))
    moving = [plan.settled(x) for x in terms if not isinstance(x, Constant)]
    why = why_not(q, k, v, *moving)
    if why:
        return why
    fixed = [plan.fixed(x) for x in terms if isinstance(x, Constant)]
    if any(x is None or x.dtype != q.dtype for x in fixed):
        return "a constant of another type"
    if min(len(x.shape) for x in (q, k, v)) < 2:
        return "its operands are no matrices"
    if k.shape[-1] != q.shape[-1] or k.shape[-2] != v.shape[-2]:
        return "shapes do not fit"  # and PyTorch says so
    views, lead, again = _same_heads(q, k, v, is_grouped)
    if views is None:
        return "its heads do not fit"
    sizes = (*lead, q.shape[-2], k.shape[-2])
    given = [
        _expanded(plan.settled(x) if not isinstance(x, Constant) else plan.fixed(x), sizes, period,
                  again)
        for x, period in zip(terms, periods, strict=True)
    ]  # fmt: skip
    if any(x is None for x in given):
        return "a term does not fit its scores"
    q, k, v = (_with_neighbours(plan, x) for x in (q, k, v))
    views, _, _ = _same_heads(q, k, v, is_grouped)
    assert views is not None
    shape = (*lead, q.shape[-2], v.shape[-1])
    rank = len(shape)  # tokens around heads, as whoever puts heads together reads them
    order = [*range(rank - 3), rank - 2, rank - 3, rank - 1] if rank > 2 else range(rank)
    if again > 1:  # groups and their heads are the heads
        order = [*range(rank - 4), rank - 2, rank - 4, rank - 3, rank - 1]
    out = plan.room(shape, strides_of(shape, order), q.dtype)
    factor = q.shape[-1] ** -0.5 if scale is None else scale

    def make() -> Launch:
        query, key, value, result = (plan.real(x) for x in (*views, out))
        added = [plan.real(x) if isinstance(x, Value) else x for x in given]
        empty = _empty() if is_named else math.nan
        return attention.attention(query, key, value, result, added, factor, is_causal,
                                   empty)  # fmt: skip

    reads = [x for x in (*views, *given) if isinstance(x, Value)]
    plan.emit(make, reads, out)
    if again == 1:
        return out
    out.buffer.is_rigid = True
    return Value(out.fake.flatten(-4, -3), out.buffer)


def _with_neighbours(plan: Builder, x: Value) -> Value:
    """A value each of whose rows lies in one piece."""
    if x.shape[-1] == 1 or x.fake.stride(-1) == 1:
        return x
    return plan.copied(x, strides_of(x.shape, range(len(x.shape))))


def _same_heads(
    q: Value, k: Value, v: Value, is_grouped: bool
) -> tuple[list[Value] | None, tuple[int, ...], int]:
    """(q, k and v with the same leading dimensions, these, how many heads of q share one of k)."""
    fakes, again = [x.fake for x in (q, k, v)], 1
    if is_grouped and all(fake.dim() > 2 for fake in fakes):
        heads, shared = q.shape[-3], k.shape[-3]
        if shared == 0 or heads % shared or v.shape[-3] != shared:
            return None, (), 1
        again = heads // shared
    if again > 1:
        fakes = [fakes[0].unflatten(-3, (-1, again)), *(fake.unsqueeze(-3) for fake in fakes[1:])]
    try:
        lead = torch.broadcast_shapes(*(fake.shape[:-2] for fake in fakes))
    except RuntimeError:
        return None, (), 1
    fakes = [fake.expand(*lead, *fake.shape[-2:]) for fake in fakes]
    views = [Value(fake, x.buffer) for fake, x in zip(fakes, (q, k, v), strict=True)]
    return views, tuple(lead), again


def _expanded(x: Any, sizes: Sequence[int], period: int, again: int) -> Any:
    """A term, value or tensor, with a number for each score; None where it does not fit."""
    fake = x.fake if isinstance(x, Value) else _turned(x)
    if again > 1 and fake.dim() > 2:
        fake = fake.unflatten(-3, (-1, again)) if fake.shape[-3] > 1 else fake.unsqueeze(-3)
    if period:
        if len(sizes) < 3 or sizes[0] % period:
            return None
        sizes = (sizes[0] // period, period, *sizes[1:])
    try:
        fake = fake.expand(sizes)
    except RuntimeError:
        return None
    return Value(fake, x.buffer) if isinstance(x, Value) else fake


def _turned(x: Tensor) -> Tensor:
    """A constant whose queries are neighbours, as its kernel reads it."""
    if x.dim() < 2 or x.shape[-2] == 1:
        return x.contiguous()
    return x.transpose(-2, -1).contiguous().transpose(-2, -1)


def _product(plan: Builder, node: fx.Node, a: Any, b: Any) -> Found:
    """``a @ b`` of many matrices, none of them large: of large ones PyTorch's is as fast."""
    if node.kwargs or isinstance(a, Constant):
        return "PyTorch's own"
    a, b = (plan.held(x) if isinstance(x, Constant) else plan.settled(x) for x in (a, b))
    why = why_not(a, b)
    if why:
        return why
    if min(len(a.shape), len(b.shape)) < 3 or a.shape[-1] != b.shape[-2]:
        return "PyTorch's own"
    depth, columns = b.shape[-2:]
    if depth * columns * b.fake.element_size() > matrices.MOST_BYTES:
        return "a product of large matrices"
    if a.shape[-2] < matrices.LEAST_ROWS:
        return "a product of few rows"
    try:
        lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except RuntimeError:
        return "shapes do not fit"
    a = _with_neighbours(plan, a)
    views = [Value(x.fake.expand(*lead, *x.shape[-2:]), x.buffer) for x in (a, b)]
    shape = (*lead, a.shape[-2], columns)
    out = plan.room(shape, strides_of(shape, range(len(shape))), a.dtype)
    return plan.emit(
        lambda: matrices.product(plan.real(views[0]), plan.real(views[1]), plan.real(out)),
        views,
        out,
    )


LOWERINGS: dict[Any, Callable[..., Found]] = {
    vocabulary.attention: _attention,
    aten.matmul.default: _product,
    aten.bmm.default: _product,
}
