"""What formulas of operators' costs return, and what they need to know of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pointwise.costs.count import Count


@dataclass(frozen=True)
class Work:
    """Work of one kind, and the tensors that are its weights."""

    kind: str
    count: Count
    weights: tuple[Tensor | None, ...] = ()


Formula = Callable[[dict[str, Any], Any], list[Work]]


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor's numbers, each once where it is expanded."""
    distinct = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        distinct *= size if stride or size == 0 else 1
    return distinct * tensor.element_size()


def applied(kind: str, count: Count, *weights: Tensor | None) -> Work:
    """Work whose parameters are counted once in their module, and not in each call."""
    return Work(kind, replace(count, parameters=0), weights)


def arguments(operator: torch._ops.OpOverload, args, kwargs) -> dict[str, Any]:
    """A call's arguments by their names in the operator's schema, defaults included."""
    named = dict(kwargs)
    for argument, value in zip(operator._schema.arguments, args, strict=False):
        named[argument.name] = value
    for argument in operator._schema.arguments:
        if argument.name not in named:
            named[argument.name] = argument.default_value if argument.has_default_value() else None
    return named
