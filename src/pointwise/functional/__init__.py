"""The convolutions as functions, in the style of ``torch.nn.functional``."""

from pointwise.functional.cells import (
    cell_conv,
    cell_depthwise_conv,
    cell_separable_conv,
    cell_shift_conv,
    pointwise_conv,
)
from pointwise.functional.images import (
    conv2d,
    depthwise_conv2d,
    depthwise_separable_conv2d,
    pointwise_conv2d,
    shift_conv2d,
)
from pointwise.functional.lines_and_volumes import (
    depthwise_conv1d,
    depthwise_conv3d,
    depthwise_separable_conv1d,
    depthwise_separable_conv3d,
    pointwise_conv1d,
    pointwise_conv3d,
)

__all__ = [
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
]
