"""Which convolutions of a network can be separated, and why others cannot."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from pointwise.layers import unit
from pointwise.layers.images import Conv2d

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

NOT_FINITE = "its weight is not finite"


def convolutions(module: nn.Module) -> dict[str, _ConvNd]:
    """All convolutions by name, on whatever they are, each once; "" is the module itself."""
    return {name: part for name, part in module.named_modules() if isinstance(part, _ConvNd)}


def reasons(module: nn.Module) -> dict[str, str]:
    """By the name of each convolution, why it cannot be separated; "" where it can."""
    found = convolutions(module)
    owners = Counter(
        id(value)
        for part in module.modules()
        for value in part._parameters.values()
        if value is not None
    )
    shared = "its weight belongs to another module, too"
    return {
        name: why_not(conv) or (shared if owners[id(conv.weight)] > 1 else "")
        for name, conv in found.items()
    }


def why_not(conv: _ConvNd) -> str:
    """Why a convolution cannot become a depthwise separable one; "" where it can.

    Only what a ``DepthwiseSeparableConv2d`` can do in the same words is separated: any kernel,
    stride, dilation, groups, bias, and padding with zeros, in two dimensions.
    """
    if not isinstance(conv, nn.Conv2d):
        return f"a {type(conv).__name__}; only Conv2d is separated"
    if conv.kernel_size == (1, 1):
        return "pointwise (1×1) already"
    if conv.groups == conv.in_channels and conv.groups > 1:
        return "depthwise already"
    if conv.padding_mode != "zeros":
        return f"pads with {conv.padding_mode!r}, and ours pad with zeros"
    if not _computes_as_usual(conv):
        return f"its class {type(conv).__name__} computes in a way of its own"
    weight = conv._parameters.get("weight")
    if not isinstance(weight, Tensor):
        return "its weight is computed from others (parametrized)"
    if isinstance(weight, UninitializedParameter):
        return "its weight has no shape yet; run the network once"
    if weight.dtype not in _FLOATS or weight.is_meta:
        return f"its weight is {'meta' if weight.is_meta else weight.dtype}, which has no SVD"
    if not bool(torch.isfinite(weight).all()):
        return NOT_FINITE
    if unit.has_hooks(conv):
        return "it has hooks, which would be lost"
    return ""


def _computes_as_usual(conv: nn.Conv2d) -> bool:
    return (
        type(conv).forward in (nn.Conv2d.forward, Conv2d.forward)
        and type(conv)._conv_forward is nn.Conv2d._conv_forward
        and "forward" not in conv.__dict__
    )
