"""From where to where the numbers of a graph go, on data of the user's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

# Of so many numbers, the outermost one may be cut off at each end: a single far number would
# otherwise make the steps between bytes coarser for all others.
_OUTERMOST = 100_000
_BINS = 4096


def ranges(
    graph: fx.Graph, constants: Sequence[Tensor], batches: Iterable[Sequence[Any]],
    wanted: set[fx.Node],
) -> dict[fx.Node, tuple[float, float]]:  # fmt: skip
    """Lowest and highest number of each node in ``wanted``, over all batches.

    Runs the graph call by call. Raises ValueError for numbers that are not finite.
    """
    watching = _Watching(fx.GraphModule({}, graph), wanted)
    with torch.no_grad():
        for inputs in batches:
            watching.run(*constants, *inputs)
    return watching.found


class _Watching(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(module)
        # The module has a copy of the graph.
        names = {node.name: node for node in wanted}
        self.wanted = {node: names[node.name] for node in self.graph.nodes if node.name in names}
        self.found: dict[fx.Node, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.wanted:
            node, (low, high) = self.wanted[n], extent(value)
            before = self.found.get(node, (low, high))
            self.found[node] = min(low, before[0]), max(high, before[1])
        return value


def extent(x: Tensor) -> tuple[float, float]:
    """Lowest and highest number of a tensor but for one in 100,000 at each end, and 0 between."""
    low, high = x.min().item(), x.max().item()
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise ValueError("accelerate: the calibration data give numbers that are not finite")
    few = x.numel() // _OUTERMOST
    if few and high > low:
        counts = torch.histc(x, _BINS, low, high).cumsum(0)
        step = (high - low) / _BINS
        first = int((counts <= few).sum())
        last = int((counts < x.numel() - few).sum())
        low, high = low + first * step, min(high, low + (last + 1) * step)
    return min(low, 0.0), max(high, 0.0)
