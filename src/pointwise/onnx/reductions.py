"""What ONNX files add up, compare and normalise over some of the dimensions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.onnx.call import Call


def _reduce(function: Callable) -> Callable:
    """``function`` of a tensor, the dimensions to be reduced, and whether they stay, as 1."""

    def read(call: Call, x: Any, axes: Any = None) -> Any:
        dims, keep = call.whole(axes, "axes"), bool(call.get("keepdims", 1))
        if call.get("noop_with_empty_axes"):
            return call(function, x, dims or [], keep)
        return call(function, x, dims or None, keep)

    return read


def _every(x: Tensor, dims: list[int] | None) -> list[int]:
    return list(range(x.dim())) if dims is None else dims


def mean(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    every = _every(x, dims)
    return x.mean(every, keepdim=keep) if every else x


def total(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    every = _every(x, dims)
    return x.sum(every, keepdim=keep, dtype=x.dtype) if every else x


def largest(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    every = _every(x, dims)
    return x.amax(every, keepdim=keep) if every else x


def smallest(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    every = _every(x, dims)
    return x.amin(every, keepdim=keep) if every else x


def product(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    for dim in sorted((dim % x.dim() for dim in _every(x, dims)), reverse=True):
        x = x.prod(dim, keepdim=keep, dtype=x.dtype)
    return x


def absolute(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    return total(x.abs(), dims, keep)


def squares(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    return total(x * x, dims, keep)


def euclidean(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    return squares(x, dims, keep).sqrt()


def log_of_total(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    return total(x, dims, keep).log()


def log_of_exponentials(x: Tensor, dims: list[int] | None, keep: bool) -> Tensor:
    every = _every(x, dims)
    return torch.logsumexp(x, every, keepdim=keep) if every else x


def _softmax(function: Callable, of_all_behind: Callable) -> Callable:
    def read(call: Call, x: Any) -> Any:
        if call.version >= 13:
            return call(function, x, call.get("axis", -1))
        return call(of_all_behind, x, call.get("axis", 1))

    return read


def softmax_of_all_behind(x: Tensor, axis: int) -> Tensor:
    """Over all dimensions from ``axis`` on, as up to version 12."""
    return F.softmax(x.flatten(axis), -1).reshape(x.shape)


def log_softmax_of_all_behind(x: Tensor, axis: int) -> Tensor:
    return F.log_softmax(x.flatten(axis), -1).reshape(x.shape)


def _place(largest_first: bool) -> Callable:
    def read(call: Call, x: Any) -> Any:
        last = bool(call.get("select_last_index", 0))
        keep = bool(call.get("keepdims", 1))
        return call(place, x, call.get("axis", 0), keep, largest_first, last)

    return read


def place(x: Tensor, axis: int, keep: bool, largest_first: bool, last: bool) -> Tensor:
    """Where the largest or smallest number stands, the first or the last of those that are so."""
    if last:
        x = x.flip(axis)
    found = (x.argmax if largest_first else x.argmin)(axis, keepdim=keep)
    return x.shape[axis] - 1 - found if last else found


def _top(call: Call, x: Any, count: Any = None) -> Any:
    counts = call.whole(count, "k" if call.version < 10 else "K")
    axis, first = call.get("axis", -1), bool(call.get("largest", 1))
    call.without_effect("sorted")  # which they always are here
    (k,) = [call.get("k")] if counts is None else counts
    made = call(top, x, k, axis, first)
    return tuple(call(operator.getitem, made, i) for i in range(2))


def top(x: Tensor, count: int, axis: int, first: bool) -> tuple[Tensor, Tensor]:
    """The largest numbers, or the smallest, and where they stand; of equal ones the first."""
    values, places = x.sort(dim=axis, descending=first, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def _cumulative(call: Call, x: Any, axis: Any) -> Any:
    (dim,) = call.whole(axis, "axis") or [0]
    return call(cumulative, x, dim, bool(call.get("exclusive", 0)), bool(call.get("reverse", 0)))


def cumulative(x: Tensor, axis: int, exclusive: bool, backwards: bool) -> Tensor:
    x = x.flip(axis) if backwards else x
    found = x.cumsum(axis, dtype=x.dtype)
    found = found - x if exclusive else found
    return found.flip(axis) if backwards else found


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": _reduce(mean),
    "ReduceSum": _reduce(total),
    "ReduceMax": _reduce(largest),
    "ReduceMin": _reduce(smallest),
    "ReduceProd": _reduce(product),
    "ReduceL1": _reduce(absolute),
    "ReduceL2": _reduce(euclidean),
    "ReduceSumSquare": _reduce(squares),
    "ReduceLogSum": _reduce(log_of_total),
    "ReduceLogSumExp": _reduce(log_of_exponentials),
    "Softmax": _softmax(F.softmax, softmax_of_all_behind),
    "LogSoftmax": _softmax(F.log_softmax, log_softmax_of_all_behind),
    "ArgMax": _place(True),
    "ArgMin": _place(False),
    "TopK": _top,
    "CumSum": _cumulative,
}
