"""What the numbers of a graph are like on data of the user's: their range, and their mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

PERCENTILE = 99.999
"""Of the numbers on each side; the others are cut off: a single far number would otherwise make the
steps between bytes coarser for all others."""

_BINS = 4096


@dataclass
class Seen:
    """What was seen of a node's numbers, over all batches."""

    low: float
    high: float
    total: Tensor  # [C], in float64
    count: int = 0

    @property
    def mean(self) -> Tensor:
        """Of each channel, ``[C]``."""
        return self.total / max(1, self.count)


def watch(
    graph: fx.Graph, constants: Sequence[Tensor], batches: Iterable[Sequence[Any]],
    wanted: set[fx.Node], percentile: float = PERCENTILE,
) -> dict[fx.Node, Seen]:  # fmt: skip
    """Ranges and means of the nodes in ``wanted``, which are images.

    Runs the graph call by call. Raises ValueError for numbers that are not finite.
    """
    watching = _Watching(fx.GraphModule({}, graph), wanted, percentile)
    with torch.no_grad():
        for inputs in batches:
            watching.run(*constants, *inputs)
    return watching.found


class _Watching(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, wanted: set[fx.Node], percentile: float) -> None:
        super().__init__(module)
        self.percentile = percentile
        # The module has a copy of the graph.
        names = {node.name: node for node in wanted}
        self.wanted = {node: names[node.name] for node in self.graph.nodes if node.name in names}
        self.found: dict[fx.Node, Seen] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.wanted:
            node, (low, high) = self.wanted[n], extent(value, self.percentile)
            if node not in self.found:
                zeros = torch.zeros(value.shape[1], dtype=torch.float64)
                self.found[node] = Seen(low, high, zeros)
            seen = self.found[node]
            seen.low, seen.high = min(low, seen.low), max(high, seen.high)
            seen.total += value.sum((0, 2, 3), dtype=torch.float64)
            seen.count += value.numel() // value.shape[1]
        return value


def extent(x: Tensor, percentile: float = PERCENTILE) -> tuple[float, float]:
    """Lowest and highest number of a tensor but for those beyond a percentile, and 0 between."""
    low, high = x.min().item(), x.max().item()
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise ValueError("accelerate: the calibration data give numbers that are not finite")
    few = int(x.numel() * (1 - percentile / 100) + 1e-6)
    if few and high > low:
        counts = torch.histc(x, _BINS, low, high).cumsum(0)
        step = (high - low) / _BINS
        first = int((counts <= few).sum())
        last = int((counts < x.numel() - few).sum())
        low, high = low + first * step, min(high, low + (last + 1) * step)
    return min(low, 0.0), max(high, 0.0)
