"""Results of accelerated models lie in memory as eager PyTorch's do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pointwise

torch.manual_seed(0)


class Flattened(nn.Module):
    """In PyTorch's order whatever its input is in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        found = self.conv(x).relu()
        return found, found.flatten(2), found.permute(0, 2, 3, 1)


class InOrder(nn.Module):
    def forward(self, x):
        return x.relu().contiguous()


MODELS = {
    "one": lambda: nn.Conv2d(3, 8, 3),
    "chain": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1, stride=2),
    ),
    "results of many kinds": Flattened,
    "put in order": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), InOrder()),
    "up": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Upsample(scale_factor=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("example", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_in_memory_as_eager_has_them(name, example):
    model = MODELS[name]().eval()
    x = torch.rand(2, 3, 64, 96)
    faster = pointwise.accelerate(model, x.contiguous(memory_format=example))
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        wanted, found = model(given), faster(given)
        if isinstance(wanted, torch.Tensor):
            wanted, found = [wanted], [found]
        for one, other in zip(wanted, found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
            assert other.stride() == one.stride()


@torch.no_grad()
def test_of_a_transposed_convolution_too_where_the_example_was_as_the_input():
    model = nn.Sequential(nn.ConvTranspose2d(3, 8, 2, 2), nn.ReLU()).eval()
    x = torch.rand(2, 3, 32, 40)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        faster = pointwise.accelerate(model, given)
        assert faster(given).stride() == model(given).stride()
