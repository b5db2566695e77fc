"""Standard convolutions as depthwise separable ones: decomposed, fitted, counted, measured."""

from pointwise.separation.replace import separate_as
from pointwise.separation.report import SeparatedLayer, SeparationReport
from pointwise.separation.separated import Separated, separate

__all__ = ["Separated", "SeparatedLayer", "SeparationReport", "separate", "separate_as"]
