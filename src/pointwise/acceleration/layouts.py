"""How a graph's tensors lie in memory in eager PyTorch.

Known from the trace for inputs that lie as those of the trace did. For others (channels_last ones
where the example was not) the calls say so, on tensors without memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.buffers import order_of
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.graph import end_of, results_of

_LAID_OUT = (vocabulary.conv, vocabulary.planes, vocabulary.volumes,
             torch.ops.aten.convolution.default)  # fmt: skip
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
Order = tuple[int, ...] | None
"""Dimensions from the outermost to the innermost; None where any order will do."""


class Layouts:
    """How what a graph's calls give lies in memory in eager PyTorch, for inputs that lie so."""

    def __init__(self, graph: fx.Graph, constants: Constants, inputs: Sequence[Any]) -> None:
        """``inputs`` are those of the graph that are no constants."""
        output = end_of(graph)
        self._results = results_of(output)
        self._traced = output.meta.get("orders") or [None] * len(self._results)
        self._always = set(output.meta.get("always") or ())
        places = [n for n in graph.nodes if n.op == "placeholder" and n not in constants.fixed]
        given = dict(zip(places, inputs, strict=True))
        self._known: dict[fx.Node, Order] | None = None
        if not all(_lies_as_traced(node, x) for node, x in given.items()):
            with suppress(Exception):  # a call that needs numbers
                self._known = _followed(graph, constants, given)

    def of(self, node: fx.Node) -> Order:
        if self._known is None:
            return node.meta.get("order")
        return self._known.get(node)

    def results(self) -> list[Order]:
        """Of each result of the graph."""
        found = []
        for place, (result, traced) in enumerate(zip(self._results, self._traced, strict=True)):
            follows = self._known and result in self._known and place not in self._always
            found.append(self._known[result] if self._known and follows else traced)
        return found


def _lies_as_traced(node: fx.Node, x: Any) -> bool:
    order = node.meta.get("order")
    if not isinstance(x, Tensor) or order is None or len(order) != x.dim():
        return True
    steps = [x.stride(dim) for dim in order if x.shape[dim] != 1]
    return steps == sorted(steps, reverse=True)


def _followed(
    graph: fx.Graph, constants: Constants, given: Mapping[fx.Node, Any]
) -> dict[fx.Node, Order]:
    """The order of each call's result, worked out with tensors without memory."""
    known: dict[fx.Node, Any] = {}

    def of(node: fx.Node) -> Any:
        if node in constants.fixed and node not in known:
            shape, dtype = constants.like(node)
            known[node] = torch.empty(shape, dtype=dtype, device="meta")
        return known[node]

    for node in graph.nodes:
        if node in constants.fixed or node.op == "output":
            continue
        if node.op == "placeholder":
            x = given[node]
            known[node] = x.to("meta") if isinstance(x, Tensor) else x
            continue
        args, kwargs = (fx.map_arg(part, of) for part in (node.args, node.kwargs))
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("meta")}
        result = node.target(*args, **kwargs)
        known[node] = _laid_out(node.target, result, args)
    return {
        node: order_of(x.stride(), x.shape) for node, x in known.items() if isinstance(x, Tensor)
    }


def _laid_out(target: Any, result: Any, args: tuple) -> Any:
    """A convolution's result has its channels last where its image has; not so without memory.

    Volumes and their planes alike.
    """
    x = args[0] if args else None
    if target not in _LAID_OUT or not isinstance(x, Tensor):
        return result
    form = _CHANNELS_LAST.get(x.dim())
    is_last = form is not None and x.is_contiguous(memory_format=form) and not x.is_contiguous()
    form = _CHANNELS_LAST[result.dim()] if is_last else torch.contiguous_format
    return result.contiguous(memory_format=form)
