"""Blocks of several links, the same blocks one module at a time, and how to compare the two."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from image_modules import picture
from torch import nn

from pointwise.layers import ConvNormAct, DepthwiseSeparableConv2d, in_sequence
from pointwise.layers.blocks import Bottleneck, InvertedResidual

F32, F64 = torch.float32, torch.float64
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


class Chain(nn.Module):
    """Modules in a row; a ``residual`` to the last, or the input itself."""

    def __init__(self, *modules: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.all = nn.ModuleList(modules)
        self.residual = residual

    def forward(self, x):
        return in_sequence(x, self.all, x if self.residual else None)


BLOCKS = {
    "separable": lambda **o: DepthwiseSeparableConv2d(9, 17, activation="relu6", **o),
    "separable, stride 2, 5 × 5": lambda **o: DepthwiseSeparableConv2d(
        9, 17, 5, 2, activation="relu", **o),
    "separable, hardswish": lambda **o: DepthwiseSeparableConv2d(
        9, 33, activation="hardswish", **o),
    "separable, dilated": lambda **o: DepthwiseSeparableConv2d(
        9, 8, 3, padding="same", dilation=2, activation="silu", **o),
    "separable, nothing between": lambda **o: DepthwiseSeparableConv2d(9, 17, between=False, **o),
    "separable, times 2": lambda **o: DepthwiseSeparableConv2d(
        9, 17, depth_multiplier=2, activation="relu", **o),
    "separable, groups": lambda **o: DepthwiseSeparableConv2d(
        9, 12, groups=3, activation="relu", **o),
    "inverted": lambda **o: InvertedResidual(9, 9, 27, **o),
    "inverted, excite": lambda **o: InvertedResidual(9, 9, 27, 5, squeezed=4, **o),
    "inverted, stride 2": lambda **o: InvertedResidual(9, 17, 27, stride=2, **o),
    "inverted, not expanded, hardswish": lambda **o: InvertedResidual(
        9, 9, 9, activation="hardswish", **o),
    "bottleneck": lambda **o: Bottleneck(9, 5, **o),
    "bottleneck, stride 2": lambda **o: Bottleneck(9, 5, stride=2, **o),
    "bottleneck, plain input, dilated": lambda **o: nn.Sequential(
        ConvNormAct(9, 20, 1, **o), Bottleneck(20, 5, dilation=2, **o)),
    "three with a residual": lambda **o: Chain(
        ConvNormAct(9, 5, 1, **o), ConvNormAct(5, 7, (1, 4), stride=1, padding=(0, 2), **o),
        ConvNormAct(7, 9, (1, 2), padding=0, activation="relu6", **o), residual=True),
    "groups, silu between": lambda **o: Chain(
        ConvNormAct(9, 12, 3, groups=3, activation="silu", **o),
        ConvNormAct(12, 12, 7, groups=12, activation=None, **o),
        ConvNormAct(12, 16, 3, stride=2, groups=4, activation="sigmoid", **o)),
}  # fmt: skip
EACH = pytest.mark.parametrize("block", BLOCKS)
NORMS = {
    "plain": nn.BatchNorm2d,
    "momentum None": partial(nn.BatchNorm2d, momentum=None),
    "momentum 0": partial(nn.BatchNorm2d, momentum=0.0),
    "eps 0.1": partial(nn.BatchNorm2d, eps=0.1, momentum=0.7),
    "no affine": partial(nn.BatchNorm2d, affine=False),
    "no statistics": partial(nn.BatchNorm2d, track_running_stats=False),
    "neither": partial(nn.BatchNorm2d, affine=False, track_running_stats=False),
}


def made(block: str, dtype=F32, training=True, norm=nn.BatchNorm2d) -> nn.Module:
    """The block with numbers that matter everywhere."""
    torch.manual_seed(3)
    module = BLOCKS[block](norm=norm)
    return settled(module).to(dtype).train(training)


def settled(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for name, value in [*part.named_parameters(), *part.named_buffers()]:
                    if value.is_floating_point():
                        value.copy_(torch.rand(value.shape, generator=generator))
                        value.add_({"weight": 0.5, "running_var": 0.5}.get(name, -0.3))
    return module


def one_by_one(module: nn.Module) -> nn.Module:
    """The same, where a hook on every convolution and norm keeps anything from being joined."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.BatchNorm2d)):
            part.register_forward_hook(lambda *given: None)
    return module


def step(module: nn.Module, x: torch.Tensor, gradients: bool) -> dict[str, torch.Tensor]:
    """Result, gradients of input and parameters, and everything the norms remember."""
    x = x.detach().clone().requires_grad_(gradients)
    module.zero_grad()
    with torch.set_grad_enabled(gradients):
        out = module(x)
    found = {"result": out.detach()}
    if gradients:
        out.backward(picture(*out.shape, dtype=out.dtype, seed=6))
        found["d input"] = x.grad
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name} has no gradient"
                found[f"d {name}"] = parameter.grad.clone()
    return found | {name: buffer.clone() for name, buffer in module.named_buffers()}


def compare(ours, theirs, dtype, gradients=True, sizes=(3, 9, 8, 7), factor=1.0) -> None:
    """Relative to the largest number of each tensor: these are sums over the whole batch."""
    limit = factor * {F32: 1e-4, F64: 1e-11}[dtype]
    x = picture(*sizes, dtype=dtype)
    found, expected = step(ours, x, gradients), step(theirs, x, gradients)
    assert found.keys() == expected.keys()
    for name, b in expected.items():
        a = found[name]
        assert a.dtype == b.dtype, name
        if not b.is_floating_point():
            assert torch.equal(a, b), name
            continue
        scale = 1 + float(b.abs().max())
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=limit,
                                   msg=lambda m: f"{name}: {m}")  # noqa: B023  # fmt: skip
