"""``accelerate(…, precision="mixed")``: as many convolutions in bytes as an error allows.

Which ones cost most is measured on each by itself: what rounding its input, its weight and its
result does to its result, on calibration data. They stay float32 from there on down, as many as it
takes for the results of the whole model to be within the error that is asked for, which is measured
on the model as it will run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.module import Accelerated
from pointwise.acceleration.quantise import Scale, scale_of, steps_of
from pointwise.acceleration.ranges import Seen
from pointwise.acceleration.vocabulary_int8 import dequantize, quantize

_IMAGES = 8  # of the calibration data, on which single convolutions are measured


def within(
    tolerance: float,
    nodes: Sequence[fx.Node],
    make: Callable[[set[fx.Node]], Accelerated],
    allowed: Callable[[set[fx.Node]], set[fx.Node]],
) -> Accelerated | float:
    """The model with the most of ``nodes``, the best first, in bytes whose error is small enough.

    ``allowed`` are those of some nodes that are worth it without the others, and ``make`` the model
    with these in bytes, with its cost. Where even one is too much, the least error that was found.
    """
    low, high, found, least = 0, len(nodes), None, float("inf")
    at = high
    while high > low:  # the error grows with their number, or nearly so
        some = allowed(set(nodes[:at]))
        if not some:
            low = at
        else:
            model = make(some)
            assert model.cost is not None
            least = min(least, model.cost.error)
            if model.cost.error <= tolerance:
                low, found = at, model
            else:
                high = at - 1
        at = (low + high + 1) // 2
    return least if found is None else found


def by_error(
    graph: fx.Graph, tensors: Mapping[str, Tensor], nodes: set[fx.Node],
    seen: Mapping[fx.Node, Seen], inputs: Sequence[Any],
) -> list[fx.Node]:  # fmt: skip
    """``nodes`` in the order of what bytes cost each by itself, the least first."""
    scales = {node: scale_of(found.low, found.high) for node, found in seen.items()}
    comparing = _Comparing(fx.GraphModule({}, graph), nodes, scales)
    some = [x[:_IMAGES] if isinstance(x, Tensor) and x.dim() else x for x in inputs]
    with torch.no_grad():
        comparing.run(*tensors.values(), *some)
    places = {node: i for i, node in enumerate(graph.nodes)}
    return sorted(nodes, key=lambda node: (comparing.errors[node], places[node]))


class _Comparing(fx.Interpreter):
    """Runs a graph of float32, and each convolution once more on what bytes can stand for."""

    def __init__(
        self, module: fx.GraphModule, nodes: set[fx.Node], scales: Mapping[fx.Node, Scale]
    ) -> None:
        super().__init__(module)
        names = {node.name: node for node in nodes}
        self.nodes = {node: names[node.name] for node in self.graph.nodes if node.name in names}
        self.scales = scales
        self.errors: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        node = self.nodes.get(n)
        if node is not None:
            args: Any = self.fetch_args_kwargs_from_env(n)[0]
            x, weight, bias, residual, *rest = args
            x = _rounded(x, self.scales[node.args[0]])  # type: ignore[index]
            if residual is not None:
                residual = _rounded(residual, self.scales[node.args[3]])  # type: ignore[index]
            found = vocabulary.conv(x, _by_channel(weight), bias, residual, *rest)
            found = _rounded(found, self.scales[node])
            power = value.double().square().sum().item()
            apart = (found.double() - value).square().sum().item()
            self.errors[node] = apart / power if power else 0.0
        return value


def _rounded(x: Tensor, scale: Scale) -> Tensor:
    """The numbers that bytes would stand for."""
    return dequantize(quantize(x, 1 / scale.step, scale.zero), scale.step, scale.zero)


def _by_channel(weight: Tensor) -> Tensor:
    """A weight with 255 numbers for each output channel."""
    steps = steps_of(weight).view(-1, 1, 1, 1)
    return (weight / steps).round() * steps
