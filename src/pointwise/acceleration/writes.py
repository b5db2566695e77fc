"""Writes into parts of a tensor, as the concatenation that they are.

``y[:, :8] = a`` comes as a call that returns a copy of y with a in it, for each write one, and each
would copy all of y. What lies along that dimension is then known: pieces of what was there before,
and what has been written since. Side by side they are the same tensor, and those that nobody reads
any more are gone. A concatenation is also what its producers can write to directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.graph import Node, call, same, shape

aten = torch.ops.aten


def joined(graph: fx.Graph, node: Node, parts: Sequence[Node], dim: int) -> Node:
    """Tensors of one type behind one another, in the place of ``node``."""
    if len(parts) == 1:
        return parts[0]
    if len(shape(node)) == 4 and dim == 1:
        return call(graph, vocabulary.join, (list(parts),), node)
    return call(graph, aten.cat.default, (list(parts), dim), node)


def with_slice(graph, node, x, source, dim, start, end, step):
    """``x`` with ``source`` in ``x[start:end]`` along ``dim``."""
    if not _fit(node, x, source) or step != 1:
        return None
    dim %= len(shape(x))
    if _is_all(shape(x)[dim], start, end):
        return source if same(shape(source), shape(node)) else None
    reach = _reach(shape(x)[dim], start, end)
    if reach is None or shape(source)[dim] != reach[1] - reach[0]:
        return None
    if not all(same(shape(each)[:dim], shape(x)[:dim]) and
               same(shape(each)[dim + 1 :], shape(x)[dim + 1 :])
               for each in (node, source)):  # fmt: skip
        return None
    return _with(graph, node, x, source, dim, *reach)


def with_selected(graph, node, x, source, dim, index):
    """``x`` with ``source`` in ``x[index]`` along ``dim``."""
    if not _fit(node, x, source) or type(index) is not int:
        return None
    dim %= len(shape(x))
    size = shape(x)[dim]
    if type(size) is not int or not same(shape(source), (*shape(x)[:dim], *shape(x)[dim + 1 :])):
        return None
    row = call(graph, aten.unsqueeze.default, (source, dim), None)
    row.meta["val"] = source.meta["val"].unsqueeze(dim)
    return _with(graph, node, x, row, dim, index % size, index % size + 1)


def slice_of(graph, x, dim, start, end, step):
    """What a slice of a concatenation reads, where that lies in one of its parts."""
    dim = dim % len(shape(x)) if shape(x) else 0
    parts = _parts(x, dim)
    if parts is None or step != 1:
        return None
    reach = _reach(shape(x)[dim], start, end)
    if reach is None or reach[0] >= reach[1]:
        return None
    place = _place(parts, dim, *reach)
    if place is None:
        return None
    part, begin = place
    return _cut(graph, part, dim, begin, begin + reach[1] - reach[0])


def selected_from(graph, node, x, dim, index):
    """One row of a concatenation, as of the part that it lies in."""
    dim = dim % len(shape(x)) if shape(x) else 0
    parts = _parts(x, dim)
    if parts is None or type(index) is not int:
        return None
    index %= shape(x)[dim]
    place = _place(parts, dim, index, index + 1)
    if place is None:
        return None
    part, index = place
    if part.target is aten.unsqueeze.default and part.args[1] % len(shape(part)) == dim:
        return part.args[0]
    return call(graph, aten.select.int, (part, dim, index), node)


# --- what lies where ------------------------------------------------------------------------------


def _with(graph: fx.Graph, node: Node, x: Node, source: Node, dim: int, begin: int,
          end: int) -> Node:  # fmt: skip
    """The parts of ``x`` with ``source`` over those from ``begin`` to ``end``."""
    if begin >= end:
        return x
    found, first, is_in = [], 0, False
    for part in _parts(x, dim) or [x]:
        last = first + shape(part)[dim]
        if first == last:
            continue
        if first < begin:
            found.append(_cut(graph, part, dim, 0, min(last, begin) - first))
        if last > begin and not is_in:
            found.append(source)
            is_in = True
        if last > end:
            found.append(_cut(graph, part, dim, max(first, end) - first, last - first))
        first = last
    return joined(graph, node, found, dim)


def _parts(x: Node, dim: int) -> list[Node] | None:
    """What ``x`` is made of along a dimension; None where it is no concatenation there."""
    if shape(x) is None:
        return None
    if x.target is vocabulary.join:
        parts, along = list(x.args[0]), 1
    elif x.target is aten.cat.default and not x.kwargs:
        parts, along = list(x.args[0]), (*x.args, 0)[1] % len(shape(x))
    else:
        return None
    if along != dim or any(len(shape(part) or ()) != len(shape(x)) for part in parts):
        return None  # an empty list of numbers may be among them
    if any(type(shape(part)[dim]) is not int for part in parts) or not _are_alike(x, *parts):
        return None
    return parts


def _place(parts: Sequence[Node], dim: int, begin: int, end: int) -> tuple[Node, int] | None:
    """The part that numbers from ``begin`` to ``end`` lie in, and where they begin in it."""
    first = 0
    for part in parts:
        last = first + shape(part)[dim]
        if first <= begin and end <= last:
            return part, begin - first
        first = last
    return None


def _cut(graph: fx.Graph, x: Node, dim: int, begin: int, end: int) -> Node:
    """Part of a tensor; of part of another, part of that."""
    if (begin, end) == (0, shape(x)[dim]):
        return x
    while x.target is aten.slice.Tensor and x.args[1:2] == (dim,) and len(x.args) == 4:
        start = x.args[2]
        if type(start) is not int or start < 0 or type(shape(x.args[0])[dim]) is not int:
            break
        x, begin, end = x.args[0], begin + start, end + start
    part = call(graph, aten.slice.Tensor, (x, dim, begin, end), None)
    part.meta["val"] = x.meta["val"].narrow(dim, begin, end - begin)
    return part


def _reach(size: Any, start: Any, end: Any) -> tuple[int, int] | None:
    """From where to where a slice reaches, as PyTorch has it; None where sizes are left open."""
    numbers = (size, 0 if start is None else start, size if end is None else end)
    if not all(type(number) is int for number in numbers):
        return None
    begin, end, _ = slice(*numbers[1:]).indices(size)
    return begin, max(begin, end)


def _is_all(size: Any, start: Any, end: Any) -> bool:
    """Whether a slice is of everything, also of a size that is left open."""
    if start not in (0, None):
        return False
    return end in (None, _END) or (type(size) is type(end) is int and end >= size)


_END = (1 << 63) - 1  # how ``[2:]`` ends


def _fit(node: Node, *tensors: Any) -> bool:
    known = [shape(x) for x in (node, *tensors)]
    return all(known) and _are_alike(node, *tensors)


def _are_alike(*nodes: Node) -> bool:
    """Of one type: a write converts what is written, and a concatenation might all of it."""
    return len({node.meta["val"].dtype for node in nodes}) == 1
