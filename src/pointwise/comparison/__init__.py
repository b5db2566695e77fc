"""One job, seven kinds of convolution: counted, timed in ours and in PyTorch, side by side."""

from pointwise.comparison.compared import Comparison, Row, compare
from pointwise.comparison.kinds import KINDS, MEANING, Job

__all__ = ["KINDS", "MEANING", "Comparison", "Job", "Row", "compare"]
