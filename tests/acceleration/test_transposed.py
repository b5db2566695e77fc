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
@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_phases_add_up_to_the_transposed_convolution(kernel, stride, groups, dilation):
    """By the definition: phases as a convolution, put between one another by hand."""
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    weight = torch.randn(4, 6 // groups, kernel, dtype=torch.float64)
    reach = dilation * (kernel - 1) + 1
    most = (5 * stride + reach - 1) // 2  # beyond, nothing is left
    for padding in range(min(reach, most + 1)):
        wanted = F.conv_transpose1d(x, weight, None, stride, padding, 0, groups, dilation)
        own = phases_weight(weight[:, :, None], (1, stride), (0, padding), (1, dilation), groups)
        own, apart = own[:, :, 0], dilation if stride == 1 else 1
        whole = kernel if stride == 1 else reach
        first, taps = phase_taps(whole, stride, padding)
        assert own.shape == (6 * stride, 4 // groups, taps)
        first = padding - reach + 1 if stride == 1 else first
        rounds, wide = -(-wanted.shape[2] // stride), F.pad(x, (20, 20))
        end = 20 + first + rounds + apart * (taps - 1)
        phases = [F.conv1d(wide[:, :, 20 + first : end], part, None, 1, 0, apart, groups)
                  for part in own.split(6)]  # fmt: skip
        found = torch.stack(phases, -1).flatten(2)
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


OTHERS = [
    {"stride": 2, "groups": 2}, {"stride": 2, "dilation": 2}, {"dilation": 3, "padding": 2},
    {"stride": 2, "groups": 4, "output_padding": 1}, {"groups": 4, "padding": 1},
    {"stride": 3, "dilation": 2, "groups": 2, "padding": 1, "output_padding": 1},
]  # fmt: skip


@pytest.mark.parametrize("way", [exported, compiled])
@pytest.mark.parametrize("given", OTHERS)
@pytest.mark.parametrize("lines", [False, True])
def test_groups_and_dilation(given, lines, way):
    torch.manual_seed(0)
    kind = nn.ConvTranspose1d if lines else nn.ConvTranspose2d
    model = settle(
        nn.Sequential(kind(4, 4 if given.get("groups") == 4 else 8, 4, **given), nn.ReLU())
    )
    shape = (2, 4, 11) if lines else (2, 4, 7, 9)
    faster = way(model, torch.rand(shape))
    assert_as_eager(model, faster, torch.randn(shape))
    assert_as_eager(model, faster, torch.randn(1, *shape[1:]))
    if way is exported:
        fused = [entry.what for entry in faster.reports()[-1].fused]
        assert any("conv" in what for what in fused), fused


def test_what_stays_pytorchs():
    model = settle(nn.Sequential(nn.ConvTranspose2d(6, 4, 5, 2, padding=4), nn.ReLU()))
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
