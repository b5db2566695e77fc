"""One job, eight kinds of convolution: counted, timed in ours and in PyTorch, side by side."""

from pointwise.comparison.budget import Budget, budget_of
from pointwise.comparison.compared import Comparison, VariantResult, compare
from pointwise.comparison.recommend import Recommendation, recommend
from pointwise.comparison.variants import MEANING, VARIANTS, Job

__all__ = [
    "MEANING",
    "VARIANTS",
    "Budget",
    "Comparison",
    "Job",
    "Recommendation",
    "VariantResult",
    "budget_of",
    "compare",
    "recommend",
]
