"""ONNX operators on whole numbers and lists of them, which are no tensors here.

What numbers cannot say (other dimensions, other types) is done with tensors (``operators.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from pointwise.onnx import numbers
from pointwise.onnx.call import Call
from pointwise.onnx.numbers import Numbers
from pointwise.onnx.protobuf import dtype_of


class Made(NamedTuple):
    """How an operator's result is worked out: a function, its arguments, and what it gives."""

    function: Callable
    args: tuple
    gives: Numbers


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
    return Made(numbers.length, (values[0], *ends), Numbers(1)) if kinds[0].rank == 1 else None


def _read_gather(call: Call, values: Any, kinds: Any) -> Made | None:
    if kinds[0].rank != 1 or call.get("axis", 0) not in (0, -1):
        return None
    return Made(numbers.gather, tuple(values), Numbers(kinds[1].rank, kinds[0].dtype))


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
    return Made(numbers.part, (values[0], start, end, step), kinds[0])


def _read_concat(call: Call, values: Any, kinds: Any) -> Made | None:
    if call.get("axis") not in (0, -1) or any(kind.rank != 1 for kind in kinds):
        return None
    return Made(numbers.concat, tuple(values), kinds[0])


def _read_unsqueeze(call: Call, values: Any, kinds: Any) -> Made | None:
    if kinds[0].rank != 0 or _axes(call, values[-1]) not in ([0], [-1]):
        return None
    return Made(numbers.as_list, (values[0],), Numbers(1, kinds[0].dtype))


def _read_squeeze(call: Call, values: Any, kinds: Any) -> Made | None:
    axes = _axes(call, values[1] if len(values) > 1 else None)
    if kinds[0].rank != 1 or axes not in ([0], [-1]):
        return None
    return Made(numbers.as_number, (values[0],), Numbers(0, kinds[0].dtype))


def _read_reshape(call: Call, values: Any, kinds: Any) -> Made | None:
    call.without_effect("allowzero")
    if values[1:] == [[]]:
        return Made(numbers.as_number, (values[0],), Numbers(0, kinds[0].dtype))
    return (
        Made(numbers.as_list, (values[0],), Numbers(1, kinds[0].dtype))
        if values[1:] == [[-1]]
        else None
    )


def _read_cast(call: Call, values: Any, kinds: Any) -> Made | None:
    call.without_effect("saturate", "round_mode")
    wanted = dtype_of(call.get("to"))
    if wanted not in (torch.int64, torch.int32):
        return None
    function = numbers.whole if kinds[0].dtype is torch.bool else numbers.same
    return Made(function, (values[0],), Numbers(kinds[0].rank, wanted))


def _read_identity(call: Call, values: Any, kinds: Any) -> Made | None:
    return Made(numbers.same, (values[0],), kinds[0])


def _read_where(call: Call, values: Any, kinds: Any) -> Made | None:
    rank = max(kind.rank for kind in kinds)
    return Made(numbers.where, tuple(values), Numbers(rank, kinds[1].dtype))


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
    "Add": _read_each(numbers.add),
    "Sub": _read_each(numbers.sub),
    "Mul": _read_each(numbers.mul),
    "Div": _read_each(numbers.div),
    "Equal": _read_each(numbers.equal, torch.bool),
}
