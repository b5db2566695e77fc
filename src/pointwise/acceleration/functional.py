"""Calls that write to their argument, as calls that return what they would have written.

PyTorch does the same by tracing a graph once more, which takes several seconds for a network whose
sizes are left open. Here it is done where it is plain to see that nobody notices: what is written
to is new, and either nothing else of it is read later, or all that is are views of it, which are
made again of what it is then.
"""

from __future__ import annotations

import itertools
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
        if target is None or not isinstance(written, fx.Node) or not _keeps_type(node):
            return False
        is_private = _is_private(written, node, order)
        path = None if is_private else _path_of(written)
        if not is_private and (path is None or not _may_be_made_again(path[-1], node, order)):
            return False
        if path is not None and torch.Tag.inplace_view in node.target.tags:
            return False  # it changes what is seen, not what is there
        with graph.inserting_before(node):
            new = graph.call_function(target, node.args, node.kwargs)
            new.meta = dict(node.meta)
            order[new] = order[node]
            if path is None:
                _read_instead(written, new, node, order)
                node.replace_all_uses_with(new)
            else:
                node.replace_all_uses_with(written)  # which is what it returns
                _write_through(graph, path, new, node, order)
        graph.erase_node(node)
    return True


def _read_instead(old: Node, new: Node, writer: Node, order: dict[Node, int]) -> None:
    """Whoever reads ``old`` behind the writer reads ``new``."""
    for user in list(old.users):
        if user is not writer and order[user] > order[writer]:
            user.replace_input_with(old, new)


# --- writes to what is also read by other names ---------------------------------------------------

_SCATTERS = {aten.slice.Tensor: aten.slice_scatter.default,
             aten.select.int: aten.select_scatter.default}  # fmt: skip
_VIEWS = (*_SCATTERS, aten.narrow.default, aten.transpose.int, aten.permute.default,
          aten.unsqueeze.default, aten.alias.default, aten.detach.default)  # fmt: skip


def _path_of(written: Node) -> list[Node] | None:
    """A part that is written to, what it is a part of, and so on to a new tensor, which is last.

    None where it is seen in another way than as slices of slices.
    """
    path = [written]
    while path[-1].target in _SCATTERS:
        path.append(path[-1].args[0])
    origin = path[-1]
    is_new = origin.op == "call_function" and not _may_share(origin)
    return path if is_new else None


def _may_be_made_again(origin: Node, writer: Node, order: dict[Node, int]) -> bool:
    """Whether all that has seen the memory of a new tensor, and is read later, is a view of it.

    At most one of what sees it is a result: several would share their memory.
    """
    family = [origin]
    for part in family:
        for user in part.users:
            sees = user is writer or (user.op == "call_function" and _may_share(user, part))
            if sees and user not in family:
                family.append(user)
    results = sum(user.op == "output" for part in family for user in part.users)
    before = [part for part in family[1:] if order[part] < order[writer]]
    is_read = [part for part in before if any(order[user] > order[writer] for user in part.users)]
    return results < 2 and all(part.target in _VIEWS for part in is_read)


def _write_through(
    graph: fx.Graph, path: list[Node], new: Node, writer: Node, order: dict[Node, int]
) -> None:
    """Puts what is written into what it is a part of, and makes views that are read later again."""
    for part, whole in itertools.pairwise(path):
        into = _SCATTERS[part.target]
        new = graph.call_function(into, (whole, new, *part.args[1:]), part.kwargs)
        new.meta = dict(whole.meta)
        order[new] = order[writer]
    latest = {path[-1]: new}
    for old in list(graph.nodes):
        if order[old] >= order[writer]:
            break
        if old in latest or not old.args or old.args[0] not in latest or old.target not in _VIEWS:
            continue
        view = graph.call_function(old.target, (latest[old.args[0]], *old.args[1:]), old.kwargs)
        view.meta = dict(old.meta)
        order[view] = order[writer]
        latest[old] = view
    for old, view in latest.items():
        _read_instead(old, view, writer, order)
    for view in reversed(latest.values()):
        if not view.users:
            graph.erase_node(view)


# --- what may be written otherwise ----------------------------------------------------------------


def _is_known(target: Any) -> bool:
    return target is operator.getitem or getattr(target, "__module__", "") in (
        "_operator", "math", "torch",
    )  # fmt: skip


def _without_writing(target: Any) -> Any:
    """``relu`` for ``relu_``; None where only something else is written to."""
    arguments = target._schema.arguments
    writes = [i for i, x in enumerate(arguments) if x.alias_info and x.alias_info.is_write]
    space, _, name = target._schema.name.partition("::")
    if writes != [0] or space != "aten" or not name.endswith("_"):
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
