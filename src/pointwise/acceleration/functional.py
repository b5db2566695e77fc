"""Calls that write to their argument, as calls that return what they would have written.

PyTorch does the same by tracing a graph once more, which takes several seconds for a network whose
sizes are left open. Here it is done where it is plain to see that nobody notices.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from pointwise.acceleration.graph import Node

aten = torch.ops.aten

# In inference these return their argument itself, which their schema does not say.
_RETURN_THEIR_OWN = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default,
                     aten._unsafe_view.default, aten.lift_fresh.default)  # fmt: skip


def make_functional(graph: fx.Graph) -> bool:
    """Rewrites all such calls in place; False where one of them needs more thought."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload):
            if node.op == "call_function" and not _is_known(node.target):
                return False
            continue
        if not node.target._schema.is_mutable:
            continue
        target = _without_writing(node.target)
        written: Node = node.args[0] if node.args else None
        if target is None or not _is_private(written, node, order) or not _keeps_type(node):
            return False
        with graph.inserting_before(node):
            new = graph.call_function(target, node.args, node.kwargs)
        new.meta = dict(node.meta)
        order[new] = order[node]
        node.replace_all_uses_with(new)
        for user in list(written.users):
            if user not in (node, new) and order[user] > order[node]:
                user.replace_input_with(written, new)
        graph.erase_node(node)
    return True


def _is_known(target: Any) -> bool:
    return target is operator.getitem or getattr(target, "__module__", "") in (
        "_operator", "math", "torch",
    )  # fmt: skip


def _without_writing(target: Any) -> Any:
    """``relu`` for ``relu_``; None where only something else is written to."""
    arguments = target._schema.arguments
    writes = [i for i, x in enumerate(arguments) if x.alias_info and x.alias_info.is_write]
    space, _, name = target._schema.name.partition("::")
    if writes != [0] or space != "aten" or not name.endswith("_") or name == "copy_":
        return None
    packet = getattr(aten, name[:-1], None)
    return getattr(packet, target._overloadname, None)


def _is_private(written: Any, writer: Node, order: dict[Node, int]) -> bool:
    """Whether what is written to is new, and read later by its own name alone.

    It may be a view, such as some channels of what was joined, of which nothing else is read after.
    """
    origin = written
    while isinstance(origin, fx.Node) and origin.op == "call_function" and _may_share(origin):
        origin = origin.args[0] if origin.args else None
    if not isinstance(origin, fx.Node) or origin.op != "call_function":
        return False
    family = _sharing(origin)
    if family is None:
        return False
    others = [user for part in family if part is not written for user in part.users]
    return all(order[user] < order[writer] for user in others)


def _sharing(origin: Node) -> list[Node] | None:
    """All that lies in the memory of a new tensor; None where a result of the graph does."""
    family = [origin]
    for part in family:
        for user in part.users:
            if user.op == "output":
                return None
            if _may_share(user, part) and user not in family:
                family.append(user)
    return family


def _may_share(node: Node, with_: Node | None = None) -> bool:
    """Whether a call may return its argument's memory; writing to that argument is no sharing."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload) or target in _RETURN_THEIR_OWN:
        return True
    schema = target._schema
    if schema.is_mutable:
        return with_ is None or not node.args or node.args[0] is not with_
    return any(part.alias_info is not None for part in schema.returns)


def _keeps_type(node: Node) -> bool:
    """Whether what is returned has the type of what would be written to."""
    values = [part.meta.get("val") for part in node.all_input_nodes]
    types = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    return len(types) == 1 and types <= {torch.float32, torch.float64, torch.bfloat16}
