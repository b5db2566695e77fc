"""Whether a trace stands for its model, where torch.export does not say: it is tried.

The model is run again, on less than the example, and on the example as it may lie in memory
otherwise. Sizes that the trace does not hold for become its conditions; everything else is a reason
against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pointwise.acceleration import guards
from pointwise.acceleration.arguments import Given, called
from pointwise.acceleration.buffers import order_of
from pointwise.acceleration.module import Accelerated
from pointwise.acceleration.module_state import ModuleState
from pointwise.acceleration.trace import Trace


def why_not(model: nn.Module, found: Accelerated, example: Given) -> str:
    """Why the new module cannot stand for the model, as far as the example tells."""
    with torch.no_grad():
        first = called(model, example)
        if why := _compared(first, called(found, example)):
            return why
        before = ModuleState(model)
        second = called(model, example)
    if _compared(first, second):
        return "the model gives something else each time it runs"
    name = before.changed(ModuleState(model), _is_still)
    return "" if name is None else f"the model changes its own {name} as it runs"


def _compared(wanted: Any, given: Any) -> str:
    other_results = "the traced model gives other results"
    (one, spec), (other, other_spec) = pytree.tree_flatten(wanted), pytree.tree_flatten(given)
    if spec != other_spec:
        return other_results
    return "" if all(map(_are_close, one, other)) else other_results


def _are_close(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and (one == other or one != one)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    finite = one[one.isfinite()]
    scale = finite.abs().max().item() if finite.numel() else 0.0
    rough = one.dtype not in (torch.float32, torch.float64)
    relative, absolute = (0.1, 0.05) if rough else (1e-3, 1e-4)
    return torch.allclose(one, other, relative, absolute * scale, equal_nan=True)


def _is_still(one: Any, other: Any) -> bool:
    if type(one) in (int, float, str, bool, tuple):
        return type(one) is type(other) and repr(one) == repr(other)
    if type(one) is list and type(other) is list:
        return len(one) == len(other) and all(map(_is_still, one, other))
    if type(one) is dict and type(other) is dict:
        return list(one) == list(other) and all(map(_is_still, one.values(), other.values()))
    if isinstance(one, Tensor) and isinstance(other, Tensor):  # a weight made before every run
        return _are_close(one, other)
    return one is other or (type(one) is set and one == other)


def tried(model: nn.Module, trace: Trace, example: Given) -> str:
    """Tries a trace on what export does not guard: sizes of 0 and 1, and order in memory.

    Sizes that it does not hold for become conditions.
    """
    found = trace.found
    for symbol, size, condition in _small_sizes(trace):
        small = _narrowed(trace, example, symbol, size)
        if small is None or not _takes(found, small):
            continue
        if _differs(model, found, small):
            found.inputs.conditions.append(condition)
    _relax(model, trace, example)
    for why, change in _CHANGES.items():
        if _differs(model, found, change(example), only_if_it_runs=True):
            return why
    found.keep_orders(_in_order_always(model, found, example))
    return ""


def _in_order_always(model: nn.Module, found: Accelerated, example: Given) -> list[int]:
    """Results that lie in memory as in the trace where inputs lie otherwise.

    So they do behind ``contiguous()``, which a trace leaves out where it does nothing.
    """
    try:
        with torch.no_grad():
            results = pytree.tree_leaves(called(model, pytree.tree_map(_in_other_order, example)))
    except Exception:
        return []
    pairs = zip(results, found.orders(), strict=False)
    return [
        place
        for place, (x, order) in enumerate(pairs)
        if isinstance(x, Tensor) and order and order_of(x.stride(), x.shape) == tuple(order)
    ]


def _relax(model: nn.Module, trace: Trace, example: Given) -> None:
    """Drops conditions that a size differs from some number, where the trace holds without them.

    export asks so of what would be 1 further on, as it takes a size of 1 for one that is broadcast.
    """
    asked = trace.found.inputs.conditions
    needless = {condition for condition in asked if re.fullmatch(r"[^=!<>]* != \d+", condition)}
    if not needless:
        return
    confirmed: set[str] = set()
    for symbol, most in _open_sizes(trace, example):
        ends: dict[frozenset[str], list[int]] = {}  # the first and the last size that breaks these
        for size in range(1, most + 1):
            small = _narrowed(trace, example, symbol, size, copied=False)
            if small is None:
                continue
            leaves = pytree.tree_leaves(small)
            against = frozenset(one for one in asked if guards.broken([one], leaves))
            if against and against <= needless:
                ends[against] = [ends.get(against, [size])[0], size]
        for against, sizes in ends.items():
            tried_ = [_narrowed(trace, example, symbol, size) for size in dict.fromkeys(sizes)]
            found = [_is_same(model, trace.found, x) for x in tried_ if x]
            if False in found:
                needless -= against
            elif True in found:
                confirmed |= against
    asked[:] = [condition for condition in asked if condition not in needless & confirmed]


def _open_sizes(trace: Trace, example: Given) -> Iterator[tuple[Any, int]]:
    """Each size that is open, and what it is in the example."""
    seen = set()
    for leaf, shape in zip(pytree.tree_leaves(example), trace.sizes, strict=True):
        for dim, size in enumerate(shape):
            if not isinstance(size, int) and size.is_symbol and size not in seen:
                seen.add(size)
                yield size, leaf.shape[dim]


def _takes(found: Accelerated, example: Given) -> bool:
    """Whether no condition is in the way already."""
    try:
        found.inputs.check(pytree.tree_leaves(example))
    except ValueError:
        return False
    return True


def _small_sizes(trace: Trace) -> Iterator[tuple[Any, int, str]]:
    """Each open size with 1 and 0 in its place, and the condition that rules that out."""
    seen = set()
    for i, shape in enumerate(trace.sizes):
        for dim, size in enumerate(shape):
            if not isinstance(size, int) and size.is_symbol and size not in seen:
                seen.add(size)
                for small in (1, 0):
                    yield size, small, f"sizes[{i}][{dim}] != {small}"


def _narrowed(
    trace: Trace, example: Given, symbol: Any, size: int, copied: bool = True
) -> Given | None:
    """The example cut down to ``size`` wherever a size is ``symbol``; None where that cannot be."""
    leaves, spec = pytree.tree_flatten(example)
    known = {
        expr: leaf.shape[dim]
        for leaf, shape in zip(leaves, trace.sizes, strict=True)
        for dim, expr in enumerate(shape)
        if not isinstance(expr, int) and expr.is_symbol
    } | {symbol: size}
    found = []
    for leaf, shape in zip(leaves, trace.sizes, strict=True):
        for dim, expr in enumerate(shape):
            if isinstance(expr, int) or symbol not in expr.free_symbols:
                continue
            length = size if expr == symbol else expr.subs(known)
            if length != int(length) or not 0 <= length <= leaf.shape[dim]:
                return None
            leaf = leaf.narrow(dim, 0, int(length))
        found.append(leaf.clone() if copied and isinstance(leaf, Tensor) else leaf)
    return pytree.tree_unflatten(found, spec)


def _in_other_order(x: Any) -> Any:
    """Channels of an image or a volume last where they are first, and first where they are last.

    Of other tensors the dimensions backwards in memory.
    """
    if not isinstance(x, Tensor) or x.dim() < 2:
        return x
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    if last is None:
        backwards = tuple(reversed(range(x.dim())))
        return x.permute(backwards).contiguous().permute(backwards)
    return x.contiguous(memory_format=last if x.is_contiguous() else torch.contiguous_format)


def _with_gaps(x: Any) -> Any:
    """The same numbers with others before, between and behind them in memory."""
    if not isinstance(x, Tensor) or not x.dim():
        return x
    wide = x.new_zeros((*x.shape[:-1], 2 * x.shape[-1] + 1))
    wide[..., 1::2] = x
    return wide[..., 1::2]


def _shared(example: Given) -> Given:
    """The same tensor wherever types and sizes are the same, and of those that take gradients."""
    known: dict[tuple, Tensor] = {}

    def of(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        wanted = x.is_floating_point() and not x.is_inference()
        return known.setdefault(
            (x.shape, x.dtype, x.device), x.detach().clone().requires_grad_(wanted)
        )

    return pytree.tree_map(of, example)


_IN_MEMORY = "it depends on how its inputs lie in memory"
_CHANGES: dict[str, Callable[[Given], Given]] = {
    _IN_MEMORY: lambda given: pytree.tree_map(_in_other_order, given),
    f"{_IN_MEMORY}, with gaps": lambda given: pytree.tree_map(_with_gaps, given),
    "it asks whether its inputs are the same tensor, or take gradients": _shared,
}


def _differs(
    model: nn.Module, found: Accelerated, example: Given, only_if_it_runs: bool = False
) -> bool:
    """Whether the trace gives something else than the model, which may refuse such inputs."""
    same = _is_same(model, found, example)
    return not only_if_it_runs if same is None else not same


def _is_same(model: nn.Module, found: Accelerated, example: Given) -> bool | None:
    """Whether the trace gives what the model does; None where the model does not run."""
    with torch.no_grad():
        try:
            wanted = called(model, example)
        except Exception:
            return None
        try:
            given = found.run_plain(pytree.tree_leaves(example))
            given = pytree.tree_unflatten(given, found.out_spec)
        except Exception:
            return False
    return not _compared(wanted, given)
