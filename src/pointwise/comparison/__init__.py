"""One job, eight kinds of convolution: counted, timed in ours and in PyTorch, side by side."""

from pointwise.comparison.compared import Comparison, VariantResult, compare
from pointwise.comparison.variants import MEANING, VARIANTS, Job

__all__ = ["MEANING", "VARIANTS", "Comparison", "Job", "VariantResult", "compare"]
