"""A standard convolution as a sum of depthwise separable ones: the best of any number of terms.

The kernels that a weight ``[C_out, C_in, kh, kw]`` has for one input channel c are a matrix
``W[:, c]`` of ``[C_out, kh·kw]``. Written as a sum of r products of a column and a row, each row is
a depthwise filter of the channel, and the column says how much its result counts in each output:

    Σ_c W[o, c] ∗ x[c]  =  Σ_c Σ_j  U[o, c, j] · (V[c, j] ∗ x[c])

The right side is a depthwise convolution with depth multiplier r and a pointwise one behind it. The
first r terms of the singular value decomposition leave the smallest sum of squared errors of all
sums of r terms, and none from r = min(C_out, kh·kw) on. Sources: Eckart, Young, "The approximation
of one matrix by another of lower rank", Psychometrika 1936; for convolutions, Guo, Li, Lin, Chen,
Li, "Network Decoupling: From Regular to Depthwise Separable Convolutions", BMVC 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Expansion:
    """The decomposition of a weight, in float64 and on the CPU; R is its full rank."""

    filters: Tensor  # [C_in, R, kh·kw], each of length 1, at right angles to its channel's others
    shares: Tensor  # [C_in, R, C_out/groups]: what each filter's result counts in each output
    kernel: tuple[int, int]
    groups: int

    @property
    def full_rank(self) -> int:
        return self.filters.shape[1]

    def depthwise(self, rank: int) -> Tensor:
        """The filters ``[C_in·rank, 1, kh, kw]``, those of a channel side by side."""
        return self.filters[:, :rank].reshape(-1, 1, *self.kernel)

    def pointwise(self, rank: int) -> Tensor:
        """The filters' weights in each result, ``[C_out, C_in/groups·rank, 1, 1]``."""
        own = self.shares[:, :rank].unflatten(0, (self.groups, -1))  # [g, C/g, rank, C_out/g]
        return own.permute(0, 3, 1, 2).flatten(2).flatten(0, 1)[:, :, None, None]

    def error(self, rank: int) -> float:
        """``‖W − W_rank‖ / ‖W‖``, from the terms left out; 0 for a weight of zeros."""
        squares = self.shares.square().sum((0, 2))  # [R]: squared singular values, of all channels
        total = float(squares.sum())
        return math.sqrt(float(squares[rank:].sum()) / total) if total else 0.0


def expand(weight: Tensor, groups: int = 1) -> Expansion:
    """Decomposes a weight ``[C_out, C_in/groups, kh, kw]``."""
    kernel = (weight.shape[2], weight.shape[3])
    own = weight.detach().to("cpu", torch.float64).flatten(2)  # [C_out, C_in/g, K]
    matrices = own.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # [C_in, C_out/g, K]
    columns, sizes, rows = torch.linalg.svd(matrices, full_matrices=False)
    return Expansion(rows, (columns * sizes[:, None]).transpose(1, 2), kernel, groups)


def composed(depthwise: Tensor, pointwise: Tensor, rank: int, groups: int = 1) -> Tensor:
    """The weight ``[C_out, C_in/groups, kh, kw]`` of the convolution that equals both halves."""
    filters = depthwise.flatten(1).unflatten(0, (groups, -1, rank))  # [g, C_in/g, rank, K]
    shares = pointwise.flatten(1).unflatten(1, (-1, rank)).unflatten(0, (groups, -1))
    found = torch.einsum("gcrk,gocr->gock", filters, shares)
    return found.flatten(0, 1).unflatten(2, depthwise.shape[2:])
