"""Convolutions on lines run as kernels, and give what PyTorch gives, whatever stands between."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_as_eager, compiled, exported
from random_networks import settle
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

WAYS = pytest.mark.parametrize("way", [exported, compiled])


class Causal(nn.Module):
    """Temporal convolution: padded on both sides, the end cut off, weights normed; a residual."""

    def __init__(self, channels: int = 12, dilation: int = 2) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.one = weight_norm(nn.Conv1d(channels, channels, 3, 1, self.pad, dilation))
        self.two = weight_norm(nn.Conv1d(channels, channels, 3, 1, self.pad, dilation))

    def forward(self, x):
        y = F.relu(self.one(x)[:, :, : -self.pad].contiguous())
        y = F.relu(self.two(F.dropout(y, training=False))[:, :, : -self.pad])
        return F.relu(y + x)


class Gated(nn.Module):
    """Padded to the left before; tanh times sigmoid; norms; sums over what was skipped."""

    def __init__(self, channels: int = 10) -> None:
        super().__init__()
        self.filter = nn.Conv1d(channels, channels, 2, dilation=4)
        self.gate = nn.Conv1d(channels, channels, 2, dilation=4)
        self.norm = nn.BatchNorm1d(channels)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        y = F.pad(x, (4, 0))
        z = torch.tanh(self.filter(y)) * torch.sigmoid(self.gate(y))
        return x + self.out(self.norm(z)), z.mean(2)


MODELS = {
    "causal": (lambda: nn.Sequential(Causal(), Causal(dilation=1)), (2, 12, 37)),
    "gated": (Gated, (3, 10, 29)),
    "strides and groups": (lambda: nn.Sequential(
        nn.Conv1d(6, 12, 5, stride=2, padding=1, groups=3), nn.LeakyReLU(0.1),
        nn.Conv1d(12, 12, 3, padding="same", groups=12), nn.Conv1d(12, 7, 1), nn.ELU(),
        nn.Conv1d(7, 7, 4, padding="same", dilation=2), nn.Tanh()), (2, 6, 41)),
    "one channel, one point": (lambda: nn.Sequential(nn.Conv1d(1, 1, 1), nn.LeakyReLU(0.2)),
                               (1, 1, 1)),
    "norm and images": (lambda: nn.Sequential(
        nn.Conv1d(4, 8, 3, bias=False), nn.BatchNorm1d(8), nn.SiLU(), nn.Unflatten(1, (2, 4)),
        nn.Conv2d(2, 5, 3), nn.ReLU()), (2, 4, 19)),
}  # fmt: skip


@WAYS
@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_pytorch(name, way):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = settle(make())
    faster = way(model, torch.rand(shape))
    assert_as_eager(model, faster, torch.randn(shape))
    assert_as_eager(model, faster, torch.randn(4, *shape[1:]))


def test_other_lengths_and_layouts():
    model = settle(MODELS["causal"][0]())
    faster = exported(model, torch.rand(2, 12, 37))
    for length in (5, 38, 100):
        assert_as_eager(model, faster, torch.randn(2, 12, length))
    assert_as_eager(model, faster, torch.randn(2, 37, 12).mT)
    assert_as_eager(model, faster, torch.randn(2, 12, 74)[:, :, ::2])


KERNELS = {
    "causal": ["conv 1×3 + relu", "conv 1×3 + relu", "add + relu"] * 2,
    "gated": ["conv 1×2 + tanh", "conv 1×2 + sigmoid", "multiply", "affine",
              "pointwise conv + residual", "reduce"],
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_convolutions_are_kernels_and_take_in_what_follows(name):
    make, shape = MODELS[name]
    faster = exported(settle(make()), torch.rand(shape))
    faster(torch.rand(shape))
    report = faster.reports()[-1]
    assert [entry.what for entry in report.fused] == KERNELS[name]
    assert {entry.what for entry in report.plain} <= {"aten.unsqueeze", "aten.mean.dim"}


class Both(nn.Module):
    """Two convolutions of one line, of which one is padded before."""

    def __init__(self) -> None:
        super().__init__()
        self.far, self.near = nn.Conv1d(5, 7, 3, dilation=4), nn.Conv1d(5, 7, 1)

    def forward(self, x):
        return F.relu(self.far(F.pad(x, (8, 0)))) + self.near(x)


def test_a_line_that_several_read_becomes_an_image_once():
    model = settle(Both())
    faster = exported(model, torch.rand(2, 5, 30))
    assert_as_eager(model, faster, torch.randn(2, 5, 30))
    (report,) = faster.reports()
    assert sum("unsqueeze" in entry.what for entry in report.plain) == 1
