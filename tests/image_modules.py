"""What the tests of the image layers share: pictures, PyTorch's activations, tolerances, copies."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pointwise.layers import ConvNormAct

CLOSE: dict[torch.dtype, dict[str, Any]] = {
    torch.float32: {"rtol": 2e-5, "atol": 2e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-11},
}
PLAIN: dict[str | None, Callable] = {
    None: lambda x: x, "relu": F.relu, "relu6": F.relu6, "hardswish": F.hardswish, "silu": F.silu,
    "gelu": F.gelu, "sigmoid": torch.sigmoid,
}  # fmt: skip


def by_turns(names: Iterable) -> list[tuple[Any, torch.dtype]]:
    """Each name with float32 or float64 by turns: modules do the same in both."""
    return list(zip(names, itertools.cycle(CLOSE)))


def picture(*sizes: int, dtype=torch.float32, seed=0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed)).to(dtype)


def copied(module: nn.Module, way: str, make) -> nn.Module:
    if way == "deepcopy":
        return copy.deepcopy(module)
    if way == "pickle":
        return pickle.loads(pickle.dumps(module))
    file = io.BytesIO()
    torch.save(module if way == "torch.save" else module.state_dict(), file)
    file.seek(0)
    if way == "torch.save":
        return torch.load(file, weights_only=False)
    other = make()
    other.load_state_dict(torch.load(file))
    return other


# --- convolution, norm, activation ----------------------------------------------------------------

NORMS = {
    "none": None,
    "BatchNorm2d": nn.BatchNorm2d,
    "momentum None": lambda c: nn.BatchNorm2d(c, momentum=None),
    "momentum 0.3, eps 0.01": lambda c: nn.BatchNorm2d(c, eps=0.01, momentum=0.3),
    "no affine": lambda c: nn.BatchNorm2d(c, affine=False),
    "no statistics": lambda c: nn.BatchNorm2d(c, track_running_stats=False),
    "neither": lambda c: nn.BatchNorm2d(c, affine=False, track_running_stats=False),
    "GroupNorm": lambda c: nn.GroupNorm(2, c),
    "InstanceNorm2d": lambda c: nn.InstanceNorm2d(c, affine=True),
    "Identity": lambda c: nn.Identity(),
}
KINDS: dict[str, dict[str, Any]] = {
    "standard": {"in_channels": 6, "out_channels": 10, "kernel_size": 3, "stride": 2},
    "pointwise": {"in_channels": 6, "out_channels": 18, "kernel_size": 1},
    "depthwise": {"in_channels": 6, "out_channels": 6, "kernel_size": 5, "groups": 6},
    "biased": {"in_channels": 6, "out_channels": 4, "kernel_size": (1, 3), "bias": True},
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def pair(kind: str, norm: str, activation, dtype=torch.float32):
    """(ours, the same modules of PyTorch, one behind the other), with weights that matter."""
    torch.manual_seed(7)
    ours = ConvNormAct(**KINDS[kind], norm=NORMS[norm], activation=activation).to(dtype)
    conv = ours.conv
    before = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
                       tuple(conv.padding), conv.dilation, conv.groups,
                       conv.bias is not None)  # fmt: skip
    behind = nn.Identity() if ours.norm is None else copy.deepcopy(ours.norm)
    with torch.no_grad():
        for name, value in [*behind.named_parameters(), *behind.named_buffers()]:
            if value.is_floating_point():  # variances and scales positive and negative weights
                value.copy_(torch.rand_like(value) + (0.5 if "var" in name else -0.3))
    if ours.norm is not None:
        ours.norm.load_state_dict(behind.state_dict())
    before = before.to(dtype)
    before.load_state_dict(conv.state_dict())

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = before, behind

        def forward(self, x, residual=None):
            x = self.norm(self.conv(x))
            return PLAIN[activation](x if residual is None else x + residual)

    return ours, Theirs()


def compare(ours, theirs, dtype, residual: bool, gradients=True, sizes=(4, 6, 7, 8)):
    """Results, gradients and everything the norm remembers."""
    close = CLOSE[dtype]
    values = []
    for module in (ours, theirs):
        x = picture(*sizes, dtype=dtype).requires_grad_(gradients)
        with torch.set_grad_enabled(gradients):
            added = None
            if residual:
                with torch.no_grad():
                    shape = theirs.conv(x).shape
                added = picture(*shape, dtype=dtype, seed=5).requires_grad_(gradients)
            out = module(x, added) if residual else module(x)
        slopes: Sequence[torch.Tensor] = []
        if gradients:
            wanted: list[Any] = [x, *([added] if residual else [])]
            wanted += [p for p in module.parameters() if p.requires_grad]
            grad = picture(*out.shape, dtype=dtype, seed=6)
            slopes = torch.autograd.grad(out, wanted, grad)
        values.append((out.detach(), slopes))
    (out, slopes), (expected, expected_slopes) = values
    torch.testing.assert_close(out, expected, **close)
    assert len(slopes) == len(expected_slopes)
    for a, b in zip(slopes, expected_slopes, strict=True):
        # A gradient sums over the batch: relative to its own largest number.
        scale = 1 + float(b.abs().max())
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=10 * close["atol"])
    for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, **close, msg=lambda m: f"{name}: {m}")  # noqa: B023
