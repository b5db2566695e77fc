"""ONNX operators on sizes: whole numbers and lists of them, which are no tensors here.

So sizes that are open stay open, where a tensor would have to be read. A single number stands for a
tensor without dimensions, a list for one with one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from pointwise.acceleration.onnx_operators import Call


def sizes(x: Tensor, start: int = 0, end: int | None = None) -> list[int]:
    return list(x.shape)[start:end]


def length(x: list, *_: Any) -> list[int]:
    """The sizes of sizes."""
    return [len(x)]


def repeat(value: int, shape: list[int]) -> list[int]:
    return [value] * shape[0]


def gather(x: list, index: Any) -> Any:
    return [gather(x, i) for i in index] if isinstance(index, list) else x[index]


def part(x: list, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> list:
    first = [value[0] if isinstance(value, list) else value for value in (starts, ends, steps)]
    return x[slice(*first)]


def concat(*parts: list) -> list:
    return [number for each in parts for number in each]


def as_list(x: Any, *_: Any) -> list:
    return x if isinstance(x, list) else [x]


def as_number(x: Any, *_: Any) -> Any:
    return x[0] if isinstance(x, list) else x


def same(x: Any) -> Any:
    return x


def where(condition: Any, x: Any, y: Any) -> Any:
    if not any(isinstance(value, list) for value in (condition, x, y)):
        return x if condition else y
    return [a if c else b for c, a, b in zip(*_alike(condition, x, y), strict=True)]


def _each(function: Callable) -> Callable:
    def both(x: Any, y: Any) -> Any:
        if not isinstance(x, list) and not isinstance(y, list):
            return function(x, y)
        return [function(a, b) for a, b in zip(*_alike(x, y), strict=True)]

    return both


def _alike(*values: Any) -> list[list]:
    """Lists of one length; a single number stands for all."""
    lists = [as_list(value) for value in values]
    longest = max(map(len, lists))
    return [value * longest if len(value) == 1 else value for value in lists]


FUNCTIONS: dict[str, Callable] = {
    "Shape": length,
    "Gather": gather,
    "Slice": part,
    "Concat": concat,
    "Unsqueeze": as_list,
    "Squeeze": as_number,
    "Reshape": as_list,
    "Cast": same,
    "Identity": same,
    "Where": where,
    "Add": _each(operator.add),
    "Sub": _each(operator.sub),
    "Mul": _each(operator.mul),
    "Div": _each(operator.floordiv),
    "Equal": _each(operator.eq),
}


def options(call: Call) -> Sequence[Any]:
    """What an operator of an older version has as attributes, and reads as inputs since."""
    if call.kind == "Slice" and "starts" in call.attributes:
        return call.attributes["starts"], call.attributes["ends"]
    return ()
