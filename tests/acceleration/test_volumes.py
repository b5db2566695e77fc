"""Convolutions on volumes run as kernels, and give what PyTorch gives, whatever stands between."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_as_eager, compiled, exported
from random_networks import settle
from torch import nn

from pointwise.acceleration.vocabulary import planes, planes_weight

WAYS = pytest.mark.parametrize("way", [exported, compiled])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_planes_are_what_a_window_along_the_depth_reads(stride, dilation, groups):
    """By the definition: an image's convolution of the planes is the volume's."""
    x = torch.randn(2, 6, 9, 4, 5, dtype=torch.float64)
    weight = torch.randn(12, 6 // groups, 3, 2, 2, dtype=torch.float64)
    images = planes(x, 3, stride, (1, 2), dilation, groups)
    given = F.conv2d(images, planes_weight(weight), groups=groups)
    wanted = F.conv3d(F.pad(x, (0, 0, 0, 0, 1, 2)), weight, None, (stride, 1, 1), 0,
                      (dilation, 1, 1), groups)  # fmt: skip
    given = given.unflatten(0, (2, -1)).transpose(1, 2)
    torch.testing.assert_close(given, wanted)


class Residual(nn.Module):
    """R3D's basic block."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv3d(c_in, c_out, 3, stride, 1, bias=False)
        self.two = nn.Conv3d(c_out, c_out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm3d(c_out) for _ in range(3))
        self.short = nn.Conv3d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x):
        y = self.norms[1](self.two(F.relu(self.norms[0](self.one(x)))))
        return F.relu(y + self.norms[2](self.short(x)))


class Decoder(nn.Module):
    """As 3-d U-Nets are: group norms, pools, what was there before added."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv3d(2, 8, 3, padding=1), nn.Conv3d(8, 8, 3, padding="same")
        self.norm, self.last = nn.GroupNorm(2, 8), nn.Conv3d(8, 3, 1)

    def forward(self, x):
        x = F.leaky_relu(self.norm(self.one(x)), 0.1)
        y = self.two(F.max_pool3d(x, 2))
        y = F.interpolate(y, size=x.shape[2:])
        return self.last(x + y), F.adaptive_avg_pool3d(y, 1).flatten(1)


MODELS = {
    "one": (lambda: nn.Conv3d(3, 8, 3), (2, 3, 6, 7, 8)),
    "residual": (lambda: nn.Sequential(Residual(3, 8, 2), Residual(8, 8, 1)), (2, 3, 8, 9, 10)),
    "decoder": (Decoder, (1, 2, 6, 8, 8)),
    "2+1": (lambda: nn.Sequential(
        nn.Conv3d(3, 12, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False), nn.BatchNorm3d(12),
        nn.ReLU(), nn.Conv3d(12, 8, (3, 1, 1), (2, 1, 1), (1, 0, 0)), nn.SiLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5)), (2, 3, 7, 12, 11)),
    "groups": (lambda: nn.Sequential(
        nn.Conv3d(4, 8, 3, padding=1, groups=2), nn.Conv3d(8, 8, 3, padding=(2, 1, 1), groups=8,
                                                           dilation=(2, 1, 1)), nn.ReLU(),
        nn.Conv3d(8, 4, 1)), (2, 4, 5, 6, 7)),
    "pools": (lambda: nn.Sequential(
        nn.Conv3d(2, 6, 1), nn.MaxPool3d(3, 2, 1), nn.AvgPool3d((1, 2, 2), 1, (0, 1, 1)),
        nn.AvgPool3d(2), nn.InstanceNorm3d(6), nn.MaxPool3d((1, 2, 2), ceil_mode=True)),
        (2, 2, 9, 13, 16)),
    "norms between": (lambda: nn.Sequential(
        nn.Conv3d(2, 4, 2), nn.ReLU(), nn.BatchNorm3d(4), nn.Hardswish(), nn.BatchNorm3d(4)),
        (1, 2, 4, 5, 6)),
}  # fmt: skip


def _settled(make) -> nn.Module:
    torch.manual_seed(0)
    return settle(make())


@WAYS
@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_pytorch(name, way):
    make, shape = MODELS[name]
    model = _settled(make)
    faster = way(model, torch.rand(shape))
    for sizes in (shape, (3, *shape[1:])):
        x = torch.randn(sizes)
        assert_as_eager(model, faster, x)
        assert_as_eager(model, faster, x.contiguous(memory_format=torch.channels_last_3d))


KERNELS = {
    "one": ["planes", "conv 3×3"],
    "residual": ["planes", "conv 3×3 + relu", "planes", "conv 3×3", "planes",
                 "pointwise conv + residual + relu"] + ["planes", "conv 3×3 + relu", "planes",
                 "conv 3×3", "pointwise conv + residual + relu"],
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_convolutions_are_kernels_and_take_in_what_follows(name):
    make, shape = MODELS[name]
    faster = exported(_settled(make), torch.rand(shape))
    faster(torch.rand(shape))
    report = faster.reports()[-1]
    assert not report.plain, report
    fused = [entry.what.partition(",")[0] for entry in report.fused]
    assert sorted(fused) == sorted(KERNELS[name]), fused


@torch.no_grad()
def test_results_lie_in_memory_as_eager_has_them():
    model = nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), nn.Conv3d(8, 6, 1)).eval()
    x = torch.rand(2, 3, 6, 7, 8)
    faster = exported(model, x)
    for given in (x, x.contiguous(memory_format=torch.channels_last_3d)):
        assert faster(given).stride() == model(given).stride()


def test_other_sizes_of_volumes():
    make, shape = MODELS["residual"]
    model = _settled(make)
    faster = exported(model, torch.rand(shape))
    for size in ((8, 9, 10), (5, 16, 7)):
        assert_as_eager(model, faster, torch.randn(2, 3, *size))
