"""Standard convolutions as depthwise separable ones: decomposed, fitted, counted, measured."""

from pointwise.separation.replace import separate_as
from pointwise.separation.report import Layer, Report
from pointwise.separation.separated import Separated, separate

__all__ = ["Layer", "Report", "Separated", "separate", "separate_as"]
