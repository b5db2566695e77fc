"""Convolution at every point of an image or of a point cloud.

The public names are loaded when first used, so that ``import pointwise`` and the command line's
help answer at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_WHERE = {
    "accelerate": "pointwise.acceleration",
    "Neighborhood": "pointwise.cloud.neighborhood",
    "PointCloud": "pointwise.cloud.point_cloud",
    "pack_padded": "pointwise.cloud.point_cloud",
    "pad_packed": "pointwise.cloud.point_cloud",
    "Scan": "pointwise.cloud.scan",
    "cost": "pointwise.costs",
    "separate": "pointwise.separation",
    **dict.fromkeys(
        (
            "cell_conv",
            "cell_depthwise_conv",
            "cell_separable_conv",
            "cell_shift_conv",
            "conv2d",
            "depthwise_conv1d",
            "depthwise_conv2d",
            "depthwise_conv3d",
            "depthwise_separable_conv1d",
            "depthwise_separable_conv2d",
            "depthwise_separable_conv3d",
            "pointwise_conv",
            "pointwise_conv1d",
            "pointwise_conv2d",
            "pointwise_conv3d",
            "shift_conv2d",
        ),
        "pointwise.functional",
    ),
    **dict.fromkeys(
        (
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
            "freeze",
        ),
        "pointwise.layers",
    ),
}

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
    "Neighborhood",
    "PointCloud",
    "PointwiseConv",
    "PointwiseConv2d",
    "Scan",
    "ShiftConv2d",
    "SqueezeExcite",
    "__version__",
    "accelerate",
    "cell_conv",
    "cell_depthwise_conv",
    "cell_separable_conv",
    "cell_shift_conv",
    "conv2d",
    "cost",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "depthwise_conv3d",
    "depthwise_separable_conv1d",
    "depthwise_separable_conv2d",
    "depthwise_separable_conv3d",
    "freeze",
    "pack_padded",
    "pad_packed",
    "pointwise_conv",
    "pointwise_conv1d",
    "pointwise_conv2d",
    "pointwise_conv3d",
    "separate",
    "shift_conv2d",
]

if TYPE_CHECKING:
    from pointwise.acceleration import accelerate
    from pointwise.cloud.neighborhood import Neighborhood
    from pointwise.cloud.point_cloud import PointCloud, pack_padded, pad_packed
    from pointwise.cloud.scan import Scan
    from pointwise.costs import cost
    from pointwise.functional import (
        cell_conv,
        cell_depthwise_conv,
        cell_separable_conv,
        cell_shift_conv,
        conv2d,
        depthwise_conv1d,
        depthwise_conv2d,
        depthwise_conv3d,
        depthwise_separable_conv1d,
        depthwise_separable_conv2d,
        depthwise_separable_conv3d,
        pointwise_conv,
        pointwise_conv1d,
        pointwise_conv2d,
        pointwise_conv3d,
        shift_conv2d,
    )
    from pointwise.layers import (
        Bottleneck,
        CellConv,
        CellDepthwiseConv,
        CellSeparableConv,
        CellShiftConv,
        ChannelAttention,
        Conv2d,
        ConvNormAct,
        DepthwiseConv2d,
        DepthwiseSeparableConv2d,
        EfficientChannelAttention,
        InceptionReduction,
        InvertedResidual,
        PointwiseConv,
        PointwiseConv2d,
        ShiftConv2d,
        SqueezeExcite,
        freeze,
    )
    from pointwise.separation import separate


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'pointwise' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
