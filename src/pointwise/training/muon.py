"""The optimiser: AdamW, and Muon for the matrices of pointwise convolutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOST = 128  # rows or columns: larger matrices cost most of the time, and gain nothing by it
RATE = 4  # times AdamW's learning rate: Jordan's 0.02 where that is 0.005
MOMENTUM = 0.95
ROUNDS = 5
_POLYNOMIAL = 3.4445, -4.7750, 2.0315  # Jordan's: x becomes a x + b x³ + c x⁵


class Muon(torch.optim.AdamW):
    """AdamW, but that matrices ``[m, n]`` are updated by ``orthogonal(momentum)``.

    Gradients of a matrix point in few directions, and Adam follows these; here all directions are
    learned at the same pace (Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural
    networks"). Their learning rate is ``RATE`` · √max(1, m/n) times that of all else, as it is his;
    as large as AdamW's updates (Liu et al., 2025, arXiv:2502.16982), those of small matrices were
    learned more slowly. ``matrices`` of ``parameters`` are updated so.

    ``torch.optim.Muon`` computes in bfloat16, for which processors without instructions for it take
    twenty times as long, and one matrix after the other.
    """

    GROUPS = 2  # of parameters: those of AdamW, and the matrices

    def __init__(self, parameters: Iterable[Tensor], matrices: Iterable[Tensor], **more) -> None:
        matrices = list(matrices)
        known = {id(matrix) for matrix in matrices}
        others = [x for x in parameters if id(x) not in known]
        super().__init__([{"params": others}, {"params": matrices}], **more)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        others, matrices = self.param_groups
        self.param_groups = [others]
        try:
            super().step()
        finally:
            self.param_groups = [others, matrices]
        alike = defaultdict(list)
        for matrix in matrices["params"]:
            if matrix.grad is not None:
                alike[tuple(sorted(matrix.shape))].append(matrix)
        for same in alike.values():
            self._update(same, matrices["lr"], matrices["weight_decay"])
        return loss

    def _update(self, matrices: list[Tensor], rate: float, decay: float) -> None:
        """Of matrices that are of one shape, lying or standing."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        momenta = [self._momentum(matrix) for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's
        wide = torch.promote_types(ahead[0].dtype, torch.float32)
        lying = torch.stack([x if len(x) <= x.shape[1] else x.mT for x in ahead]).to(wide)
        updates = [
            (x if len(matrix) <= matrix.shape[1] else x.mT).to(matrix.dtype)
            for x, matrix in zip(orthogonal(lying), matrices, strict=True)
        ]
        torch._foreach_mul_(matrices, 1 - RATE * rate * decay)
        factors = [-RATE * rate * max(1.0, len(x) / x.shape[1]) ** 0.5 for x in matrices]
        torch._foreach_add_(matrices, torch._foreach_mul(updates, factors))

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum" not in state:
            state["step"] = torch.tensor(0.0)  # AdamW looks for it in all states it loads
            state["momentum"] = torch.zeros_like(matrix)
        return state["momentum"]


def orthogonal(x: Tensor) -> Tensor:
    """For each of ``[B, m, n]``, m ≤ n, about U·Vᵀ of its singular values' U·S·Vᵀ.

    By Newton and Schulz: a polynomial in x that brings all singular values near 1 (0.7 to 1.2),
    whatever they were above a thousandth of the largest.
    """
    a, b, c = _POLYNOMIAL
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


def matrices_of(network: nn.Module) -> list[nn.Parameter]:
    """The matrices that are trained so: the smaller ones but the last, which gives the scores.

    These are the weights of pointwise convolutions on clouds and of linear layers, not kernels of
    more dimensions.
    """
    matrices = [x for x in network.parameters() if x.ndim == 2 and x.requires_grad][:-1]
    return [x for x in matrices if min(x.shape) <= MOST]
