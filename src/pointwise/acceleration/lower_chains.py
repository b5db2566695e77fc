"""From chains to launches: how operands of any layout are gone through in one loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.buffers import Value, are_parts, order_of, strides_of
from pointwise.acceleration.builder import Builder, Constant, Found, why_not
from pointwise.convolution import epilogue
from pointwise.convolution.steps import Step, check
from pointwise.engine.cpu.launch import Launch
from pointwise.engine.cpu.loops import chain


def _chain(plan: Builder, node: fx.Node, inputs: Sequence[Any], steps: Sequence[Step]) -> Found:
    check(steps, len(inputs))
    moving = [plan.settled(x) for x in inputs if not isinstance(x, Constant)]
    why = why_not(*moving) or next(filter(None, (_why_not(step, moving) for step in steps)), None)
    if why:
        return why
    fixed = [plan.fixed(x) for x in inputs if isinstance(x, Constant)]
    if any(x is None or x.dtype != moving[0].dtype for x in fixed):
        return "a constant of another type"
    try:
        shape = torch.broadcast_shapes(*(x.shape for x in moving))
        whole = torch.broadcast_shapes(shape, *(x.shape for x in fixed if x is not None))
    except RuntimeError:
        return "shapes do not fit"
    if whole != shape:  # a batch, say, of which only some images run at a time
        return "a constant is larger than what it is combined with"
    order = _order(moving, shape)
    operands = [_operand(plan, plan.settled(x), order, shape) for x in inputs]
    out = plan.room(shape, strides_of(shape, order), moving[0].dtype)

    def way() -> chain.Strides:
        own = [_strides(x, order, shape) or [1] for x in (*operands, out)]
        return chain.collapsed([shape[dim] for dim in order] or [1], own)

    why = chain.why_not(way())
    if why:
        plan.buffers.remove(out.buffer)
        return why

    def make() -> Launch:
        tensors = [plan.real(x) if isinstance(x, Value) else x for x in operands]
        return chain.chain(tensors, steps, plan.real(out), way())

    values = [x for x in operands if isinstance(x, Value)]
    # Among others, pixels are one dimension more, of however many images.
    # Of one channel, pixels are the neighbours, and would lie apart.
    is_room = len(way().sizes) < chain.MOST and len(shape) == 4 and shape[1] > 1
    images = [x for x in (*values, out) if x.shape == shape and are_parts(x.fake)]
    return plan.emit(make, values, out, images if is_room else [])


def _why_not(step: Step, values: Sequence[Value]) -> str | None:
    name = step[0]
    return epilogue.why_not(name, values[0].dtype) if name in epilogue.ACTIVATIONS else None


def _order(values: Sequence[Value], shape: torch.Size) -> tuple[int, ...]:
    """The result's dimensions from the outermost to the innermost, as most of what is read has."""
    whole = [x.fake for x in values if x.shape == shape]
    if len(shape) == 4 and (not whole or any(map(are_parts, whole))):
        return (0, 2, 3, 1)
    for fake in whole:
        order = order_of(fake.stride(), fake.shape)
        if fake.stride() == strides_of(shape, order):
            return order
    return tuple(range(len(shape)))


def _operand(plan: Builder, x: Any, order: Sequence[int], shape: torch.Size) -> Any:
    """A value or a tensor whose numbers are neighbours where those of the result are."""
    if isinstance(x, Constant):
        tensor = plan.fixed(x)
        assert tensor is not None
        return tensor if _is_in_line(tensor, order, shape) else _in_order(tensor, order, shape)
    if _is_in_line(x.fake, order, shape):
        return x
    return plan.copied(x, _dense(x.shape, order, shape))


def _strides(x: Any, order: Sequence[int], shape: torch.Size) -> list[int]:
    """Of each dimension in ``order``; 0 where an operand has one number for all."""
    fake = x.fake if isinstance(x, Value) else x
    missing = len(shape) - fake.dim()
    return [
        0 if dim < missing or fake.shape[dim - missing] == 1 else fake.stride(dim - missing)
        for dim in order
    ]  # fmt: skip


def _is_in_line(x: Tensor, order: Sequence[int], shape: torch.Size) -> bool:
    own = [stride for stride, dim in zip(_strides(x, order, shape), order, strict=True)
           if shape[dim] > 1]  # fmt: skip
    return not own or own[-1] in (0, 1)


def _dense(sizes: Sequence[int], order: Sequence[int], shape: torch.Size) -> tuple[int, ...]:
    missing = len(shape) - len(sizes)
    return strides_of(sizes, [dim - missing for dim in order if dim >= missing])


def _in_order(x: Tensor, order: Sequence[int], shape: torch.Size) -> Tensor:
    return torch.empty_strided(x.shape, _dense(x.shape, order, shape), dtype=x.dtype).copy_(x)


LOWERINGS: dict[Any, Callable[..., Found]] = {vocabulary.chain: _chain}
