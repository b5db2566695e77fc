"""A graph of float32 whose products are of bfloat16: weights, and what they are multiplied with.

All else stays float32: sums, what stands between layers, depthwise convolutions and groups, whose
time is that of memory and not of products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
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
    old_end, end = (next(node for node in reversed(part.nodes)) for part in (graph, new))
    end.meta = dict(old_end.meta)
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
