"""Whole numbers and lists of them, such as sizes, in the graph of an ONNX file.

So sizes that are open stay open, where a tensor would have to be read. A single number stands for a
tensor without dimensions, a list for one with one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Numbers(NamedTuple):
    """What a node gives that is no tensor: one number (rank 0) or a list (rank 1), of a type."""

    rank: int
    dtype: torch.dtype = torch.int64


def sizes(x: Tensor, start: int = 0, end: int | None = None) -> list[int]:
    return list(x.shape)[start:end]


def length(x: list, start: int = 0, end: int | None = None) -> list[int]:
    """The sizes of sizes."""
    return [len(x)][start:end]


def repeat(value: int, shape: list[int]) -> list[int]:
    return [value] * shape[0]


def gather(x: list, index: Any) -> Any:
    return [x[i] for i in index] if isinstance(index, list) else x[index]


def part(x: list, start: list, end: list, step: list | None = None) -> list:
    return x[slice(start[0], end[0], step[0] if step else None)]


def concat(*parts: list) -> list:
    return [number for each in parts for number in each]


def as_list(x: Any) -> list:
    return x if isinstance(x, list) else [x]


def as_number(x: Any) -> Any:
    if not isinstance(x, list):
        return x
    (number,) = x
    return number


def same(x: Any) -> Any:
    return x


def whole(x: Any) -> Any:
    """Booleans as 0 and 1."""
    return [int(value) for value in x] if isinstance(x, list) else int(x)


def where(condition: Any, x: Any, y: Any) -> Any:
    if not any(isinstance(value, list) for value in (condition, x, y)):
        return x if condition else y
    return [a if c else b for c, a, b in zip(*_alike(condition, x, y), strict=True)]


def quotient(x: int, y: int) -> int:
    """The quotient of whole numbers, rounded towards zero."""
    return x // y if (x < 0) == (y < 0) else -(-x // y)


def tensor(x: Any, dtype: torch.dtype) -> Tensor:
    return torch.tensor(x, dtype=dtype)


def _each(function: Callable) -> Callable:
    def both(x: Any, y: Any) -> Any:
        if not isinstance(x, list) and not isinstance(y, list):
            return function(x, y)
        return [function(a, b) for a, b in zip(*_alike(x, y), strict=True)]

    return both


def _alike(*values: Any) -> list[list]:
    """Lists of one length; a single number, or a list of one, is broadcast."""
    lists = [as_list(value) for value in values]
    longest = max((len(value) for value in lists if len(value) != 1), default=1)
    return [value * longest if len(value) == 1 else value for value in lists]


add, sub, mul = _each(operator.add), _each(operator.sub), _each(operator.mul)
div, equal = _each(quotient), _each(operator.eq)
