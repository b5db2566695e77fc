"""Separable convolutions in the place of standard ones: the structure, without the numbers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from pointwise.layers import DepthwiseSeparableConv2d
from pointwise.separation.candidates import convolutions, reasons

M = TypeVar("M", bound=nn.Module)


def separate_as(module: nn.Module, ranks: Mapping[str, int], *, inplace: bool = False) -> nn.Module:
    """The network that ``separate`` makes with these ranks, with initial values as weights.

    The weights of a separated network can be loaded into it, and into no other. ``ranks`` are by
    the name of the convolution, as ``SeparationReport.ranks`` has them.

    >>> from pointwise.separation import separate_as
    >>> network = separate_as(Conv2d(8, 16, 3), {"": 2})
    >>> sum(parameter.numel() for parameter in network.parameters())
    416
    """
    if not isinstance(ranks, Mapping):
        raise TypeError(f"separate_as: ranks must be {{name: rank}}, got {type(ranks).__name__}")
    module = module if inplace else copy.deepcopy(module)
    found, why = convolutions(module), reasons(module)
    made: dict[nn.Module, nn.Module] = {}
    for name, rank in ranks.items():
        if name not in found:
            known = ", ".join(repr(each) for each in found) or "none"
            raise ValueError(f"separate_as: no convolution is called {name!r}; there are {known}")
        if why[name]:
            raise ValueError(f"separate_as: {name!r} cannot be separated: {why[name]}")
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"separate_as: the rank of {name!r} must be 1 or more, got {rank!r}")
        conv = found[name]
        assert isinstance(conv, nn.Conv2d)
        made[conv] = stand_in(conv, rank)
    return put(module, made)


def stand_in(conv: nn.Conv2d, rank: int) -> DepthwiseSeparableConv2d:
    """A separable convolution that takes and gives what ``conv`` does, with its bias."""
    made = DepthwiseSeparableConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        depth_multiplier=rank,
        groups=conv.groups,
        bias=conv.bias is not None,
        activation=getattr(conv, "activation", None),
        between=False,
    )
    made.to(conv.weight.device, conv.weight.dtype).train(conv.training)
    for half in (made.depthwise.conv, made.pointwise.conv):
        half.weight.requires_grad_(conv.weight.requires_grad)
    if conv.bias is not None:
        own = made.pointwise.conv.bias
        assert own is not None
        with torch.no_grad():
            own.copy_(conv.bias)
        own.requires_grad_(conv.bias.requires_grad)
    return made


def fill(made: DepthwiseSeparableConv2d, depthwise: Tensor, pointwise: Tensor) -> None:
    """Writes the weights of both halves."""
    with torch.no_grad():
        made.depthwise.conv.weight.copy_(depthwise)
        made.pointwise.conv.weight.copy_(pointwise)


def put(module: M, made: Mapping[nn.Module, nn.Module]) -> M | nn.Module:
    """Replaces modules wherever they occur; returns the network, which may be one of them."""
    for part in list(module.modules()):
        for name, child in part._modules.items():
            if child is not None and child in made:
                part._modules[name] = made[child]
    return made.get(module, module)
