"""What a job needs by its definition, whoever does it: operations, and bytes moved at least.

Counted are the operations that equation 1 of Hua et al. asks for, on the cells that are not empty:
an addition for each neighbour and channel, a product for each occupied cell and channel (the mean),
and a multiply-add, two operations, for each occupied cell and weight. Finding neighbours is not
counted as arithmetic. Of memory, only what enters and leaves is counted (input, weights, result):
what lies between could stay in cache. So no implementation can be below these numbers, and a good
one may well be far above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pointwise import costs
from pointwise.cloud.neighborhood import Neighborhood


@dataclass(frozen=True)
class Table:
    """The size of a neighbourhood."""

    queries: int
    pairs: int
    occupied: int  # cells with a neighbour in them, over all queries

    @property
    def bytes(self) -> float:
        """Of the table itself: where each row starts, and a cell and a point for each pair."""
        return 8 * (self.queries + 1) + 4 * self.pairs


@dataclass(frozen=True)
class Layer:
    """A convolution on a table."""

    table: Table
    in_channels: int
    out_channels: int

    @property
    def gather(self) -> float:
        """Operations of the means, or of their adjoint."""
        return (self.table.pairs + self.table.occupied) * self.in_channels

    @property
    def mix(self) -> float:
        """Operations of the product with the weights, or with what comes back from behind."""
        return 2 * self.table.occupied * self.in_channels * self.out_channels


def table_of(neighborhood: Neighborhood) -> Table:
    """Counts the pairs and occupied cells of a neighbourhood."""
    found = costs.table_of(neighborhood)
    return Table(found.queries, found.pairs, found.occupied)


def forward(layers: Sequence[Layer]) -> float:
    """Operations of a network's convolutions."""
    return sum(layer.gather + layer.mix for layer in layers)


def backward(layers: Sequence[Layer]) -> float:
    """Operations of their gradients; the first layer's input, the points, needs none.

    The means are taken to be known from the forward pass.
    """
    weights = sum(layer.mix for layer in layers)
    return weights + sum(layer.mix + layer.gather for layer in layers[1:])
