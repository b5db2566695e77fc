"""Graphs of calls: making a call, putting it in the place of another, and what shapes are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

Node = Any
"""An ``fx.Node``; its arguments are typed as anything at all, and here we know what they are."""


def call(graph: fx.Graph, function: Callable, arguments: tuple, like: Node | None) -> Node:
    """A new call with the same shape and the same place in the model as ``like``."""
    new = graph.call_function(function, arguments)
    if like is not None:
        new.meta = dict(like.meta)
    return new


def replace(graph: fx.Graph, old: Node, new: Node) -> None:
    old.replace_all_uses_with(new)
    graph.erase_node(old)


def end_of(graph: fx.Graph) -> Node:
    """The node that gives a graph's results."""
    return next(node for node in reversed(graph.nodes) if node.op == "output")


def results_of(end: Node) -> list[Any]:
    """What a graph gives, also where that is one result and no list of them."""
    found = end.args[0]
    return list(found) if isinstance(found, (list, tuple)) else [found]


def shape(node: Any) -> Any:
    """A node's shape, a tuple of numbers or expressions; None of what is no tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def same(a: Sequence, b: Sequence) -> bool:
    """Whether shapes are the same for certain; expressions are compared as they are written."""
    return len(a) == len(b) and all(map(_are_same, a, b))


def _are_same(a: Any, b: Any) -> bool:
    """Of two sizes. To compare open ones as numbers would be to ask for it in the trace."""
    a, b = (size if isinstance(size, int) else size.node.expr for size in (a, b))
    return bool(a == b)
