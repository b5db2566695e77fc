"""Transposed convolutions run as kernels, and give what PyTorch gives for every stride and edge."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_as_eager, compiled, exported
from random_networks import settle
from torch import nn

from pointwise.acceleration.vocabulary import phase_taps, phases_weight


@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("stride", range(1, 5))
def test_phases_add_up_to_the_transposed_convolution(kernel, stride):
    """By the definition: phases as a convolution, put between one another by hand."""
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    weight = torch.randn(3, 4, kernel, dtype=torch.float64)
    most = (5 * stride + kernel - 1) // 2  # beyond, nothing is left
    for padding in range(min(kernel, most + 1)):
        wanted = F.conv_transpose1d(x, weight, stride=stride, padding=padding)
        first, taps = phase_taps(kernel, stride, padding)
        own = phases_weight(weight[:, :, None], (1, stride), (0, padding))[:, :, 0]
        assert own.shape == (4 * stride, 3, taps)
        rounds = -(-wanted.shape[2] // stride)
        wide = F.pad(x, (20, 20))
        found = F.conv1d(wide[:, :, 20 + first : 20 + first + rounds + taps - 1], own)
        found = found.view(2, stride, 4, rounds).permute(0, 2, 3, 1).flatten(2)
        torch.testing.assert_close(found[:, :, : wanted.shape[2]], wanted)


GEOMETRIES = [  # kernel, stride, padding, output padding
    (2, 2, 0, 0), (4, 2, 1, 0), (3, 2, 1, 1), (3, 1, 1, 0), (5, 3, 1, 2), (1, 2, 0, 1),
    (16, 8, 4, 0),
    ((2, 3), (1, 2), (0, 1), 0), ((4, 1), (2, 1), (1, 0), 0),
]  # fmt: skip


class Decoder(nn.Module):
    """Up, with a norm and what was there before; as in a U-Net."""

    def __init__(self, kernel, stride, padding, more, bias) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(6, 5, kernel, stride, padding, more, bias=bias)
        self.norm, self.out = nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3, padding=1)

    def forward(self, x):
        return self.out(F.relu(self.norm(self.up(x))))


@pytest.mark.parametrize("way", [exported, compiled])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_images(geometry, way):
    torch.manual_seed(0)
    model = settle(Decoder(*geometry, bias=geometry[0] != 3))
    faster = way(model, torch.rand(2, 6, 7, 9))
    assert_as_eager(model, faster, torch.randn(2, 6, 7, 9))
    assert_as_eager(model, faster, torch.randn(3, 6, 8, 5))
    if way is exported:
        fused = [entry.what for entry in faster.reports()[-1].fused]
        assert sum("conv" in what for what in fused) == 2, fused


@pytest.mark.parametrize("way", [exported, compiled])
@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if isinstance(g[0], int)])
def test_lines(geometry, way):
    model = settle(nn.Sequential(
        nn.LeakyReLU(0.1), nn.ConvTranspose1d(6, 5, *geometry), nn.LeakyReLU(0.1),
        nn.Conv1d(5, 3, 3, padding=1),
    ))  # fmt: skip
    faster = way(model, torch.rand(2, 6, 11))
    assert_as_eager(model, faster, torch.randn(2, 6, 11))
    assert_as_eager(model, faster, torch.randn(1, 6, 4))


@pytest.mark.parametrize("given", [{"groups": 2}, {"dilation": 2}, {"padding": 4}])
def test_what_stays_pytorchs(given):
    model = settle(nn.Sequential(nn.ConvTranspose2d(6, 4, 5, 2, **given), nn.ReLU()))
    faster = exported(model, torch.rand(2, 6, 7, 9))
    assert_as_eager(model, faster, torch.randn(2, 6, 7, 9))


def test_weights_that_change_are_seen():
    model = settle(nn.Sequential(nn.ConvTranspose2d(6, 4, 4, 2, 1)))
    faster = compiled(model, torch.rand(2, 6, 7, 9))
    assert_as_eager(model, faster, torch.randn(2, 6, 7, 9))
    with torch.no_grad():
        for parameter in itertools.chain(model.parameters()):
            parameter.mul_(1.5)
    assert_as_eager(model, faster, torch.randn(2, 6, 7, 9))
