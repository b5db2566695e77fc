"""Convolution at every point of an image or of a point cloud.

The public names are loaded when first used, so that ``import pointwise`` and the command line's
help answer at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_WHERE = {
    "PointCloud": "pointwise.cloud.point_cloud",
    "Neighborhood": "pointwise.cloud.neighborhood",
    "pack_padded": "pointwise.cloud.point_cloud",
    "pad_packed": "pointwise.cloud.point_cloud",
    "Scan": "pointwise.cloud.scan",
    "CellConv": "pointwise.layers",
    "CellDepthwiseConv": "pointwise.layers",
    "CellSeparableConv": "pointwise.layers",
    "PointwiseConv": "pointwise.layers",
    "cell_conv": "pointwise.functional",
    "cell_depthwise_conv": "pointwise.functional",
    "cell_separable_conv": "pointwise.functional",
    "pointwise_conv": "pointwise.functional",
}

__all__ = [
    "CellConv",
    "CellDepthwiseConv",
    "CellSeparableConv",
    "Neighborhood",
    "PointCloud",
    "PointwiseConv",
    "Scan",
    "__version__",
    "cell_conv",
    "cell_depthwise_conv",
    "cell_separable_conv",
    "pack_padded",
    "pad_packed",
    "pointwise_conv",
]

if TYPE_CHECKING:
    from pointwise.cloud.neighborhood import Neighborhood
    from pointwise.cloud.point_cloud import PointCloud, pack_padded, pad_packed
    from pointwise.cloud.scan import Scan
    from pointwise.functional import (
        cell_conv,
        cell_depthwise_conv,
        cell_separable_conv,
        pointwise_conv,
    )
    from pointwise.layers import CellConv, CellDepthwiseConv, CellSeparableConv, PointwiseConv


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'pointwise' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
