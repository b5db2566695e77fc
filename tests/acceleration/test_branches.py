"""Branches beside one another become one convolution; what does nothing is gone."""

from __future__ import annotations

import pytest
import torch
from both_ways import assert_as_eager, compiled, exported
from random_networks import settle
from torch import Tensor, nn

WAYS = pytest.mark.parametrize("way", [exported, compiled])


class Branches(nn.Module):
    """Convolutions of several kernels and a norm, added up as RepVGG and MobileOne do."""

    def __init__(self, kernels, stride=1, groups=1, norm=True, channels=8, bias=False) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, k, stride, tuple(n // 2 for n in k), groups=groups,
                          bias=bias),
                nn.BatchNorm2d(channels),
            )
            for k in kernels
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        y = 0
        for part in self.parts:
            y = y + part(x)
        return torch.relu(y if self.norm is None else y + self.norm(x))


ONE = [  # arguments, as all of which is one convolution
    {"kernels": [(3, 3), (1, 1)]},
    {"kernels": [(1, 1), (3, 3)], "bias": True},
    {"kernels": [(3, 3), (1, 1)], "stride": 2, "norm": False},
    {"kernels": [(3, 3), (1, 1)], "groups": 8},
    {"kernels": [(3, 3), (1, 1)], "groups": 2},
    {"kernels": [(5, 5), (3, 3), (3, 1), (1, 1)]},
    {"kernels": [(1, 1), (1, 1), (1, 1)]},
]  # fmt: skip


@WAYS
@pytest.mark.parametrize("given", ONE)
def test_they_are_one_convolution(given, way):
    torch.manual_seed(1)
    model = settle(Branches(**given))
    faster = way(model, torch.rand(2, 8, 9, 11))
    assert_as_eager(model, faster, torch.randn(2, 8, 9, 11))
    if way is exported:
        report = faster.reports()[-1]
        assert len(report.fused) == 1
        assert not report.plain


class Apart(nn.Module):
    """Pairs that are no single convolution."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.one = nn.Conv2d(8, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.even = nn.Conv2d(8, 8, 2, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.how == "dilation":
            return self.one(x) + self.two(x)
        if self.how == "other input":
            return self.one(x) + self.one(x.flip(3))
        if self.how == "read twice":
            y = self.one(x)
            return y + self.norm(x), y
        if self.how == "activated":
            return self.one(x) + torch.relu(self.norm(x))
        if self.how == "itself":
            y = self.one(x)
            return y + y
        return self.even(x)[:, :, 1:, 1:] + self.norm(x)


@WAYS
@pytest.mark.parametrize(
    "how", ["dilation", "other input", "read twice", "activated", "itself", "even"]
)
def test_what_cannot_be_one_stays_two(how, way):
    model = settle(Apart(how))
    assert_as_eager(model, way(model, torch.rand(2, 8, 9, 11)), torch.randn(2, 8, 9, 11))


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.pad(x + 0, (0, 0, 0, 0))[:, :, 0:, :]
        return torch.relu((y - 0) * 1 / 1)


@WAYS
def test_what_does_nothing_is_gone(way):
    model = Nothing().eval()
    faster = way(model, torch.rand(2, 3, 4, 5))
    assert_as_eager(model, faster, torch.randn(2, 3, 4, 5))
    if way is exported:
        report = faster.reports()[-1]
        assert [entry.what for entry in report.fused] == ["activate + relu"]
        assert not report.plain


class Ghost(nn.Module):
    """Adds in place to some channels of what it joined, as GhostNet does."""

    def __init__(self, keep: int, after: str = "") -> None:
        super().__init__()
        self.conv, self.keep, self.after = nn.Conv2d(6, 6, 3, padding=1), keep, after

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([x, self.conv(x)], 1)
        view = joined[:, : self.keep]
        view += self.conv(x[:, :6]).mean()
        view.relu_()
        return view + (joined[:, : self.keep] if self.after else 0)


@WAYS
@pytest.mark.parametrize("keep", [5, 12])
@pytest.mark.parametrize("after", ["", "read again"])
def test_writes_to_slices(keep, after, way):
    model = Ghost(keep, after).eval()
    assert_as_eager(model, way(model, torch.rand(2, 6, 7, 7)), torch.randn(2, 6, 7, 7))
