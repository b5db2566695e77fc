"""The convolutions as functions, in the style of ``torch.nn.functional``."""

from pointwise.functional.cells import (
    cell_conv,
    cell_depthwise_conv,
    cell_separable_conv,
    pointwise_conv,
)

__all__ = ["cell_conv", "cell_depthwise_conv", "cell_separable_conv", "pointwise_conv"]
