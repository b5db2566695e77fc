"""What a convolution, a layer or a network costs: counted by definition, and measured.

``cost`` counts a whole network from shapes alone; ``convolution``, ``depthwise``, ``pointwise``,
``depthwise_separable``, ``grouped``, ``cell_conv``, ``cell_depthwise_conv`` and
``cell_separable_conv`` count one from its sizes. ``profile`` times a network's layers beside their
counts.
"""

from __future__ import annotations

from pointwise.costs.clouds import cell_conv, cell_depthwise_conv, cell_separable_conv, table_of
from pointwise.costs.convolutions import (
    convolution,
    depthwise,
    depthwise_separable,
    grouped,
    pointwise,
)
from pointwise.costs.count import Count, total
from pointwise.costs.layer import Branch, Layer
from pointwise.costs.network import Cost, cost
from pointwise.costs.profiled import Profile, Row, profile

__all__ = [
    "Branch",
    "Cost",
    "Count",
    "Layer",
    "Profile",
    "Row",
    "cell_conv",
    "cell_depthwise_conv",
    "cell_separable_conv",
    "convolution",
    "cost",
    "depthwise",
    "depthwise_separable",
    "grouped",
    "pointwise",
    "profile",
    "table_of",
    "total",
]
