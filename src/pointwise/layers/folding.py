"""Inference: batch norm folded into the weight of the convolution before it, packed once.

With fixed statistics, batch norm is a factor and a shift for each channel, which the weight and the
bias of the convolution before it can take over. What the kernels read is kept until one of the
tensors it came from changes.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pointwise.convolution.epilogue import fold
from pointwise.convolution.problem import Convolution
from pointwise.engine import choose
from pointwise.engine.cpu.changes import State
from pointwise.engine.eager import why_not_plain
from pointwise.layers.unit import Unit, is_batch_norm, is_ordinary, window_of

_kept: WeakKeyDictionary[nn.Module, tuple[State, choose.Choice, choose.Weight]] = (
    WeakKeyDictionary()
)


def is_fixed(unit: Unit) -> bool:
    """Whether a unit is a convolution with fixed statistics or no norm, without gradients."""
    conv, norm, _activation, own = unit
    return (
        is_ordinary(conv, own)
        and (norm is None or _has_fixed_statistics(norm, conv))
        and not (torch.is_grad_enabled() and _wants_grad(conv, norm))
    )


def _has_fixed_statistics(norm: nn.Module, conv: nn.Conv2d) -> bool:
    return is_batch_norm(norm, conv) and not norm.training and norm.running_mean is not None


def _wants_grad(*modules: nn.Module | None) -> bool:
    return any(
        parameter.requires_grad
        for module in modules
        if module is not None
        for parameter in module.parameters(recurse=False)
    )


def prepare(shape: torch.Size, dtype: torch.dtype, unit: Unit) -> choose.Prepared | None:
    """A unit for inputs of this shape, or None where it has to run as the modules it is of."""
    conv = unit.conv
    if shape[1] != conv.in_channels or dtype != conv.weight.dtype or why_not_plain(conv.weight):
        return None
    window = window_of(conv, shape[0], shape[2], shape[3])
    if window is None:
        return None
    convolution = Convolution(window, conv.in_channels, conv.out_channels, conv.groups, dtype,
                              unit.activation or "none")  # fmt: skip
    if choose.why_not(convolution) is not None:
        return None
    # Nobody wants gradients of what is made here, and its weight is kept: see ``_weight``.
    choice = choose.choose(convolution, constant=True, kept=True)
    return choose.Prepared(convolution, choice, _weight(choice, conv, unit.norm))


def _weight(choice: choose.Choice, conv: nn.Conv2d, norm: Any) -> choose.Weight:
    tensors: list[Tensor | None] = [conv.weight, conv.bias]
    numbers: list[float] = []
    if norm is not None:
        tensors += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        numbers = [norm.eps]
    kept = _kept.get(conv)
    if kept is not None and kept[1] == choice and kept[0].is_still(tensors, numbers):
        return kept[2]
    with torch.no_grad():
        weight, bias = fold(conv.weight, conv.bias, norm)
        packed = choose.pack(choice, conv.groups, weight.detach(), bias)
    _kept[conv] = State(tensors, numbers), choice, packed
    return packed
