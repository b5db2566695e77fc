"""Accelerated models on GPUs: what is different there.

Norms are folded when a model is traced, as on the CPU. Then the graph runs call by call in PyTorch,
but for depthwise convolutions, which are kernels of ours with what follows them, where those are
faster (``engine/choose_gpu.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pointwise.convolution.problem import is_depthwise
from pointwise.engine.eager import why_not_on_gpu


def device_of(values: Iterable[Any]) -> torch.device | None:
    """The GPU that the first of some tensors on one is on; None where none of them is."""
    return next((x.device for x in values if isinstance(x, Tensor) and x.is_cuda), None)


def words(device: torch.device) -> str:
    """What becomes of a model there, for its report."""
    return (
        f"on {device}: norms folded, depthwise convolutions as kernels for GPUs where they are "
        "faster, all else PyTorch's own"
    )


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], groups: int, activation: str,
) -> Tensor | None:  # fmt: skip
    """A convolution with what follows it as one of ours; None where PyTorch is to run it."""
    given = [t for t in (x, weight, bias, residual) if t is not None]
    if not is_depthwise(weight.shape, groups) or device_of(given) is None:
        return None
    if torch.is_autocast_enabled(x.device.type) or len({t.dtype for t in given}) > 1:
        return None
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return None
    if why_not_on_gpu(*given):
        return None
    if residual is not None and residual.shape[0] != x.shape[0]:
        return None  # one for all images
    from pointwise.operators import ops  # which saved models on the CPU do without

    return ops.conv2d(x, weight, bias, residual, list(stride), list(padding), list(dilation),
                      groups, activation)  # fmt: skip
