"""A graph of float32 whose products are of bfloat16: weights, and what they are multiplied with.

All else stays float32: sums, what stands between layers, depthwise convolutions and groups, whose
time is that of memory and not of products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pointwise.acceleration import vocabulary
from pointwise.acceleration.graph import end_of, results_of
from pointwise.convolution.problem import is_depthwise

_TWINS: dict[Any, Any] = {
    vocabulary.conv: vocabulary.conv_bf16,
    vocabulary.linear: vocabulary.linear_bf16,
}


def in_bf16(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> fx.Graph | None:
    """The graph with its products in bfloat16; None where it has none that can be.

    ``tensors`` are its constants.
    """
    new, twins = fx.Graph(), dict[fx.Node, fx.Node]()
    new.output(new.graph_copy(graph, twins))
    end_of(new).meta = dict(end_of(graph).meta)
    changed = [twins[node] for node in graph.nodes if _can_be(node, tensors)]
    for node in changed:
        node.target = _TWINS[node.target]
    return new if changed else None


def _can_be(node: fx.Node, tensors: Mapping[str, Tensor]) -> bool:
    if node.target not in _TWINS:
        return False
    weight: Any = node.args[1]
    kernel = tensors.get(weight.name) if isinstance(weight, fx.Node) else None
    if kernel is None or kernel.dtype != torch.float32:
        return False
    groups: Any = node.args[7] if node.target is vocabulary.conv else 1
    return groups == 1 and not is_depthwise(kernel.shape, groups)


# --- models that are in bfloat16 themselves -------------------------------------------------------


def is_in_bf16(model: nn.Module) -> bool:
    """Whether some of a model's parameters or buffers are."""
    return any(x.dtype == torch.bfloat16 for x in (*model.parameters(), *model.buffers()))


def widened(x: Any) -> Any:
    """A tensor of bfloat16 in float32, which holds all its numbers; all else as it is."""
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x


def between_bf16(
    graph: fx.Graph, inputs: Sequence[torch.dtype | None], results: Sequence[torch.dtype | None]
) -> fx.Graph:
    """A graph of float32 for inputs and results of which some are of bfloat16, as listed."""
    new, twins = fx.Graph(), dict[fx.Node, fx.Node]()
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    given = dict(zip(placeholders[-len(inputs) :], inputs, strict=True)) if inputs else {}
    end = end_of(graph)
    for node in graph.nodes:
        if node is end:
            continue
        twins[node] = new.node_copy(node, lambda part: twins[part])
        if given.get(node) == torch.bfloat16:
            twins[node] = _cast(new, twins[node], torch.float32)
    parts = []
    for part, dtype in zip(results_of(end), results, strict=True):
        own = twins[part] if isinstance(part, fx.Node) else part
        is_cast = dtype == torch.bfloat16 and isinstance(own, fx.Node)
        parts.append(_cast(new, own, torch.bfloat16) if is_cast else own)
    new.output(tuple(parts)).meta = dict(end.meta)
    return new


def _cast(graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    cast = graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": dtype})
    cast.meta = {name: node.meta[name] for name in ("path", "order") if name in node.meta}
    return cast
