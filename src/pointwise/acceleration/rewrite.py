"""A graph of ATen calls in the planner's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from pointwise.acceleration.buffers import layout_of
from pointwise.acceleration.fuse import fuse
from pointwise.acceleration.graph import end_of, results_of
from pointwise.acceleration.normalise import normalise


def rewritten(graph: fx.GraphModule, fixed: Sequence[int]) -> fx.Graph:
    """A copy of a graph in the planner's vocabulary, with the inputs ``fixed`` as constants."""
    copy = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    copy.output(copy.graph_copy(graph.graph, values))
    copy.owning_module = graph
    end_of(copy).meta["orders"] = [
        layout_of(result.meta.get("val")) if isinstance(result, fx.Node) else None
        for result in results_of(end_of(graph.graph))
    ]
    inputs = [node for node in copy.nodes if node.op == "placeholder"]
    normalise(copy)
    fuse(copy, {inputs[i] for i in fixed})
    for node in copy.nodes:
        node.meta["order"] = layout_of(node.meta.get("val"))
    return copy
