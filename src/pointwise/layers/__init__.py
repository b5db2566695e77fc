"""The convolutions as modules: parameters and one functional call."""

from pointwise.layers.blocks import (
    Bottleneck,
    ChannelAttention,
    EfficientChannelAttention,
    InceptionReduction,
    InvertedResidual,
    SqueezeExcite,
)
from pointwise.layers.cells import (
    CellConv,
    CellDepthwiseConv,
    CellSeparableConv,
    CellShiftConv,
    PointwiseConv,
)
from pointwise.layers.conv_norm_act import (
    ConvNormAct,
    DepthwiseSeparableConv2d,
    conv_norm_act,
    in_sequence,
)
from pointwise.layers.images import Conv2d, DepthwiseConv2d, PointwiseConv2d, ShiftConv2d
from pointwise.layers.inference import freeze

__all__ = [
    "Bottleneck",
    "CellConv",
    "CellDepthwiseConv",
    "CellSeparableConv",
    "CellShiftConv",
    "ChannelAttention",
    "Conv2d",
    "ConvNormAct",
    "DepthwiseConv2d",
    "DepthwiseSeparableConv2d",
    "EfficientChannelAttention",
    "InceptionReduction",
    "InvertedResidual",
    "PointwiseConv",
    "PointwiseConv2d",
    "ShiftConv2d",
    "SqueezeExcite",
    "conv_norm_act",
    "freeze",
    "in_sequence",
]
