"""What follows a convolution while its result is still at hand: a residual, then an activation."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": F.sigmoid,
}
"""Name to plain PyTorch form."""


def finish(x: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """``activation(x + residual)`` in plain PyTorch."""
    return ACTIVATIONS[activation](x if residual is None else x + residual)
