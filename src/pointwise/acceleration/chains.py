"""Calls that work number by number, as chains: what stands between two others becomes one call.

A call joins the chain of the call that reads it, if no other chain does and both are of one shape:
so nothing is computed twice, and nothing is read before it is there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.expressions import expression_of
from pointwise.acceleration.graph import Node, call, replace, same, shape
from pointwise.convolution.steps import check

_MOST = 24  # calls in a chain: registers are few
_MOST_INPUTS = 8

_KERNELS = (vocabulary.activate, vocabulary.add, vocabulary.multiply, vocabulary.scale,
            vocabulary.affine)  # fmt: skip
"""What has a kernel of its own, and needs no chain where it is alone."""


def chains(graph: fx.Graph, fixed: set[Node]) -> None:
    """Makes chains of a graph's calls, in place."""
    nodes = [node for node in graph.nodes if node not in fixed]
    found = {node: expression_of(node) for node in nodes}
    expressions = {node: part for node, part in found.items() if part is not None}
    for root, members in _grouped(expressions).items():
        if len(members) == 1 and root.target in _KERNELS and not _is_joined(root):
            continue
        made = _steps({node: expressions[node] for node in members}, root)
        if made is not None:
            with graph.inserting_before(root):
                new = call(graph, vocabulary.chain, made, root)
            replace(graph, root, new)


def _grouped(expressions: dict[Node, Any]) -> dict[Node, list[Node]]:
    """Chains by their last calls, which others read."""
    roots: dict[Node, Node] = {}
    members: dict[Node, list[Node]] = {}
    for node in reversed(expressions):
        readers = {roots.get(user) for user in node.users}
        root = readers.pop() if len(readers) == 1 else None
        if root is None or len(members[root]) == _MOST or not same(shape(node), shape(root)):
            root = node
        roots[node] = root
        members.setdefault(root, []).append(node)
    return members


def _steps(expressions: dict[Node, Any], root: Node) -> tuple | None:
    """The inputs and steps of a chain; None where kernels take no such inputs, or not so many."""
    inputs: dict[Node, int] = {}
    places: dict[Any, int] = {}
    steps: list[tuple] = []

    def whole(part: Any) -> Any:
        """An expression whose leaves are inputs and numbers."""
        if isinstance(part, fx.Node):
            if part in expressions:
                return whole(expressions[part])
            inputs.setdefault(part, len(inputs))
            return part
        return (part[0], *map(whole, part[1:])) if isinstance(part, tuple) else part

    def place(part: Any) -> Any:
        if isinstance(part, float):
            return part
        if isinstance(part, fx.Node):
            return inputs[part]
        if part not in places:
            step = (part[0], *map(place, part[1:]))
            places[part] = len(inputs) + len(steps)
            steps.append(step)
        return places[part]

    place(whole(root))
    if len(inputs) > _MOST_INPUTS or any(_is_mask(part) for part in (root, *inputs)):
        return None
    try:
        check(steps, len(inputs))
    except ValueError:  # a mask as a number, or a number as a mask
        return None
    return list(inputs), tuple(steps)


def _is_joined(node: Node) -> bool:
    """Whether a result is joined with others: a chain writes it to its part of the whole."""
    return any(user.target is vocabulary.join for user in node.users)


def _is_mask(node: Node) -> bool:
    return node.meta["val"].dtype is torch.bool
