"""Depthwise convolutions with a depth multiplier, as ``pointwise.separate`` makes them."""

from __future__ import annotations

import pytest
import torch
from both_ways import assert_as_eager, exported
from random_networks import settle
from torch import nn

import pointwise


def _both(channels, many, then, **options):
    """A depthwise convolution with ``many`` results for each channel, and what follows it."""
    options = {"kernel_size": 3, "padding": 1, **options}
    wide = nn.Conv2d(channels, many * channels, groups=channels, **options)
    return nn.Sequential(wide, *then(many * channels))


FUSED = {
    "bare": lambda: _both(5, 2, lambda n: [nn.Conv2d(n, 17, 1)]),
    "norms": lambda: _both(33, 3, lambda n: [nn.BatchNorm2d(n), nn.ReLU6(), nn.Conv2d(n, 9, 1),
                                             nn.BatchNorm2d(9), nn.Hardswish()], bias=False),
    "stride": lambda: _both(16, 4, lambda n: [nn.SiLU(), nn.Conv2d(n, 16, 1)], kernel_size=5,
                            stride=2, padding=2),
    "gelu": lambda: _both(7, 2, lambda n: [nn.GELU(), nn.Conv2d(n, 8, 1), nn.GELU()]),
    "strided": lambda: _both(7, 2, lambda n: [nn.Conv2d(n, 8, 1, stride=2)]),
    "padded": lambda: _both(7, 3, lambda n: [nn.ReLU(), nn.Conv2d(n, 8, 1, padding=1)]),
    "one after the other": lambda: nn.Sequential(
        _both(5, 2, lambda n: [nn.Conv2d(n, 6, 1)]), _both(6, 3, lambda n: [nn.Conv2d(n, 6, 1)])
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.float64 if name in ("norms", "strided") else torch.float32) for name in FUSED],
)
def test_with_a_pointwise_convolution_behind(name, dtype, threads):
    torch.manual_seed(0)
    model = settle(FUSED[name]()).to(dtype)
    x = torch.randn(2, _channels(model), 11, 9, dtype=dtype)
    faster = exported(model, x)
    assert_as_eager(model, faster, x)
    assert_as_eager(model, faster, x[:1, :, 2:])
    for report in faster.reports():
        assert not report.plain, str(report)
    with torch.no_grad():
        results = []
        for count in (1, 2):
            threads(count)
            results.append(faster(x))
    assert torch.equal(*results)


def _channels(model: nn.Module) -> int:
    return next(part for part in model.modules() if isinstance(part, nn.Conv2d)).in_channels


def test_a_residual_behind_it():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = _both(6, 2, lambda n: [nn.ReLU(), nn.Conv2d(n, 6, 1)])

        def forward(self, x):
            return torch.relu(x + self.parts(x))

    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(2, 6, 8, 7)
    faster = exported(model, x)
    assert_as_eager(model, faster, x)
    assert [entry.what for entry in faster.reports()[0].entries] == [
        "depthwise conv 3×3 + relu → pointwise conv + residual + relu"
    ]


@pytest.mark.parametrize(
    "then", [lambda n: [], lambda n: [nn.Conv2d(n, 4, 3)], lambda n: [nn.MaxPool2d(2)]]
)
def test_alone_it_is_pytorchs(then):
    torch.manual_seed(0)
    model, x = _both(5, 2, then).eval(), torch.randn(2, 5, 8, 7)
    faster = exported(model, x)
    assert_as_eager(model, faster, x)
    (entry,) = faster.reports()[0].plain
    assert entry.why == "a depth multiplier without a pointwise convolution behind it"


def test_what_separate_makes_is_fused():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2),
                        nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1))  # fmt: skip
    x = torch.randn(1, 3, 20, 20)
    model = pointwise.separate(settle(net), rank=2, input=tuple(x.shape)).module
    faster = exported(model, x)
    assert_as_eager(model, faster, x)
    assert not faster.reports()[0].plain, str(faster.reports()[0])
