"""The convolutions as modules: parameters and one functional call."""

from pointwise.layers.cells import (
    CellConv,
    CellDepthwiseConv,
    CellSeparableConv,
    PointwiseConv,
)

__all__ = ["CellConv", "CellDepthwiseConv", "CellSeparableConv", "PointwiseConv"]
