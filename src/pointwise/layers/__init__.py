"""The convolutions as modules: parameters and one functional call."""

from pointwise.layers.cells import (
    CellConv,
    CellDepthwiseConv,
    CellSeparableConv,
    PointwiseConv,
)
from pointwise.layers.conv_norm_act import ConvNormAct, DepthwiseSeparableConv2d, conv_norm_act
from pointwise.layers.images import Conv2d, DepthwiseConv2d, PointwiseConv2d

__all__ = [
    "CellConv",
    "CellDepthwiseConv",
    "CellSeparableConv",
    "Conv2d",
    "ConvNormAct",
    "DepthwiseConv2d",
    "DepthwiseSeparableConv2d",
    "PointwiseConv",
    "PointwiseConv2d",
    "conv_norm_act",
]
