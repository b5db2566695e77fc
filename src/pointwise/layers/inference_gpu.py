"""Inference of a chain of units on a GPU: norms folded, and what runs as one kernel there.

A depthwise convolution and the pointwise one behind it run in one kernel where that is faster
(``engine/choose_gpu.py``); other depthwise ones with their activation; the rest is cuDNN's, with
the norm in its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pointwise.convolution.problem import describe
from pointwise.engine import choose_gpu
from pointwise.functional.padding import resolve
from pointwise.layers.folding import is_fixed
from pointwise.layers.unit import Unit, window_of
from pointwise.operators import ops

_Folded = tuple[Tensor, "Tensor | None"]
_kept: WeakKeyDictionary[nn.Module, tuple[tuple, _Folded]] = WeakKeyDictionary()


def run(
    input: Tensor, units: Sequence[Unit], residual: Tensor | None = None, frozen: bool = False
) -> Tensor | None:
    """The units one after the other, for ordinary tensors without gradients; else None.

    Of ``frozen`` ones, folded weights are kept.
    """
    dtype = _type_of(input)
    if not all(map(is_fixed, units)) or not _fit(input, dtype, units, residual):
        return None
    x = input.to(dtype)
    number = 0
    while number < len(units):
        unit = units[number]
        weight, bias = _folded(unit, dtype, frozen)
        stride, edges, dilation, groups = _geometry(unit.conv, x)
        then = units[number + 1] if number + 1 < len(units) else None
        both = then is not None and _in_one(unit, then, x)
        last = number + 1 + both == len(units)
        added = residual if last else None
        activation = unit.activation or "none"
        if both:
            assert then is not None
            pointwise, then_bias = _folded(then, dtype, frozen)
            x = ops.separable_conv2d(x, weight, pointwise, bias, then_bias, added, stride, edges,
                                     dilation, activation, then.activation or "none")  # fmt: skip
        else:
            x = ops.conv2d(x, weight, bias, added, stride, edges, dilation, groups, activation)
        number += 1 + both
    return x


def forget(module: nn.Module) -> None:
    """Drops what was folded of a module."""
    _kept.pop(module, None)


def _type_of(input: Tensor) -> torch.dtype:
    """That of convolutions: autocast's, where it is on."""
    device = input.device.type
    if input.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return input.dtype
    return torch.get_autocast_dtype(device)


def _fit(input: Tensor, dtype: torch.dtype, units: Sequence[Unit], residual: Tensor | None) -> bool:
    """Whether shapes and types agree; for others, the modules' own code says best what is wrong."""
    if input.dim() != 4:
        return False
    images, channels, *sizes = input.shape
    cast = torch.is_autocast_enabled(input.device.type)
    for conv, *_ in units:
        of_weight = conv.weight.dtype
        if of_weight == torch.float64 or not (cast or of_weight == input.dtype):
            return False
        if channels != conv.in_channels or conv.weight.device != input.device:
            return False
        seen = window_of(conv, images, *sizes)
        if seen is None:
            return False
        channels, sizes = conv.out_channels, [seen.y.points, seen.x.points]
    return residual is None or (
        residual.shape == (images, channels, *sizes) and residual.dtype == dtype
    )


def _geometry(conv: nn.Conv2d, x: Tensor) -> tuple:
    """Stride, edges, dilation and groups, as the operators take them."""
    stride, dilation = list(conv.stride), list(conv.dilation)
    edges = resolve("", conv.padding, x.shape[2:], conv.kernel_size, stride, dilation)  # type: ignore[arg-type]
    return stride, edges, dilation, conv.groups


def _in_one(unit: Unit, then: Unit, x: Tensor) -> bool:
    """Whether a depthwise and a pointwise convolution are faster in one kernel."""
    conv, second = unit.conv, then.conv
    pointwise = second.kernel_size == (1, 1) and second.stride == (1, 1) and second.groups == 1
    if not pointwise or set(_geometry(second, x)[1]) != {0} or conv.out_channels != x.shape[1]:
        return False
    stride, edges, dilation, groups = _geometry(conv, x)
    first = describe(x.shape, conv.weight.shape, stride, edges, dilation, groups, x.dtype)
    task = choose_gpu.SEPARABLE
    return choose_gpu.runs(first, task, x.device, columns=second.out_channels)


def _folded(unit: Unit, dtype: torch.dtype, frozen: bool) -> _Folded:
    conv, norm = unit.conv, unit.norm
    if norm is None:
        weight, bias = conv.weight.detach(), conv.bias
        return weight.to(dtype), None if bias is None else bias.detach().to(dtype)
    key = (id(norm), conv.weight.data_ptr(), dtype)
    kept = _kept.get(conv)
    if frozen and kept is not None and kept[0] == key:
        return kept[1]
    from pointwise.engine.gpu.loops.fold import fold  # needs Triton

    found = fold(conv.weight.detach(), conv.bias, norm, dtype)
    if frozen:
        _kept[conv] = key, found
    return found
