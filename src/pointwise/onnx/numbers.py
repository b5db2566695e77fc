"""ONNX operators on sizes: whole numbers and lists of them, which are no tensors here.

So sizes that are open stay open, where a tensor would have to be read. A single number stands for a
tensor without dimensions, a list for one with one. What these cannot say (other dimensions, other
types) is done with tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pointwise.onnx.call import Call


class Numbers(NamedTuple):
    """What a node gives that is no tensor: one number (rank 0) or a list (rank 1), of a type."""

    rank: int
    dtype: torch.dtype = torch.int64


class Made(NamedTuple):
    """How an operator's result is worked out: a function, its arguments, and what it gives."""

    function: Callable
    args: tuple
    gives: Numbers


# --- what stands in the graph ---------------------------------------------------------------------


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
    """Truth as 0 and 1."""
    return [int(value) for value in x] if isinstance(x, list) else int(x)


def where(condition: Any, x: Any, y: Any) -> Any:
    if not any(isinstance(value, list) for value in (condition, x, y)):
        return x if condition else y
    return [a if c else b for c, a, b in zip(*_alike(condition, x, y), strict=True)]


def quotient(x: int, y: int) -> int:
    """That of whole numbers is rounded towards zero."""
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
    """Lists of one length; a single number, or a list of one, stands for all."""
    lists = [as_list(value) for value in values]
    longest = max((len(value) for value in lists if len(value) != 1), default=1)
    return [value * longest if len(value) == 1 else value for value in lists]


add, sub, mul = _each(operator.add), _each(operator.sub), _each(operator.mul)
div, equal = _each(quotient), _each(operator.eq)


# --- how operators are read -----------------------------------------------------------------------


def read(call: Call, values: Sequence[Any], kinds: Sequence[Numbers | None]) -> Made | None:
    """An operator on numbers, or None where it needs tensors.

    ``values`` are nodes, numbers and lists; ``kinds`` says what each of them is, and is None for an
    input that is left out.
    """
    reader = _READERS.get(call.kind)
    return None if reader is None else reader(call, values, kinds)


def _axes(call: Call, value: Any) -> Any:
    """Axes that are an attribute or, in newer versions, an input."""
    return call.get("axes", value)


def _read_shape(call: Call, values: Any, kinds: Any) -> Made | None:
    ends = call.get("start", 0), call.get("end")
    return Made(length, (values[0], *ends), Numbers(1)) if kinds[0].rank == 1 else None


def _read_gather(call: Call, values: Any, kinds: Any) -> Made | None:
    if kinds[0].rank != 1 or call.get("axis", 0) not in (0, -1):
        return None
    return Made(gather, tuple(values), Numbers(kinds[1].rank, kinds[0].dtype))


def _read_slice(call: Call, values: Any, kinds: Any) -> Made | None:
    names = ("starts", "ends", "axes", "steps")
    given = [*values[1:], *[None] * (5 - len(values))]
    start, end, axes, step = (
        call.get(name, value) for name, value in zip(names, given, strict=True)
    )
    ends = all(not isinstance(value, list) or len(value) == 1 for value in (start, end, step))
    if kinds[0].rank != 1 or axes not in (None, [0], [-1]) or not ends:
        return None
    if any(kind is not None and kind.rank != 1 for kind in kinds[1:]):
        return None
    return Made(part, (values[0], start, end, step), kinds[0])


def _read_concat(call: Call, values: Any, kinds: Any) -> Made | None:
    if call.get("axis") not in (0, -1) or any(kind.rank != 1 for kind in kinds):
        return None
    return Made(concat, tuple(values), kinds[0])


def _read_unsqueeze(call: Call, values: Any, kinds: Any) -> Made | None:
    if kinds[0].rank != 0 or _axes(call, values[-1]) not in ([0], [-1]):
        return None
    return Made(as_list, (values[0],), Numbers(1, kinds[0].dtype))


def _read_squeeze(call: Call, values: Any, kinds: Any) -> Made | None:
    axes = _axes(call, values[1] if len(values) > 1 else None)
    if kinds[0].rank != 1 or axes not in ([0], [-1]):
        return None
    return Made(as_number, (values[0],), Numbers(0, kinds[0].dtype))


def _read_reshape(call: Call, values: Any, kinds: Any) -> Made | None:
    call.without_effect("allowzero")
    if values[1:] == [[]]:
        return Made(as_number, (values[0],), Numbers(0, kinds[0].dtype))
    return Made(as_list, (values[0],), Numbers(1, kinds[0].dtype)) if values[1:] == [[-1]] else None


def _read_cast(call: Call, values: Any, kinds: Any) -> Made | None:
    from pointwise.onnx.file import dtype_of

    call.without_effect("saturate", "round_mode")
    wanted = dtype_of(call.get("to"))
    if wanted not in (torch.int64, torch.int32):
        return None
    function = whole if kinds[0].dtype is torch.bool else same
    return Made(function, (values[0],), Numbers(kinds[0].rank, wanted))


def _read_identity(call: Call, values: Any, kinds: Any) -> Made | None:
    return Made(same, (values[0],), kinds[0])


def _read_where(call: Call, values: Any, kinds: Any) -> Made | None:
    rank = max(kind.rank for kind in kinds)
    return Made(where, tuple(values), Numbers(rank, kinds[1].dtype))


def _read_each(function: Callable, dtype: torch.dtype | None = None) -> Callable:
    def read(call: Call, values: Any, kinds: Any) -> Made | None:
        rank = max(kind.rank for kind in kinds)
        return Made(function, tuple(values), Numbers(rank, dtype or kinds[0].dtype))

    return read


_READERS: dict[str, Callable[..., Made | None]] = {
    "Shape": _read_shape,
    "Gather": _read_gather,
    "Slice": _read_slice,
    "Concat": _read_concat,
    "Unsqueeze": _read_unsqueeze,
    "Squeeze": _read_squeeze,
    "Reshape": _read_reshape,
    "Cast": _read_cast,
    "Identity": _read_identity,
    "Where": _read_where,
    "Add": _read_each(add),
    "Sub": _read_each(sub),
    "Mul": _read_each(mul),
    "Div": _read_each(div),
    "Equal": _read_each(equal, torch.bool),
}
