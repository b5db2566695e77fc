"""Pixels put elsewhere, reductions, norms over pixels, channels joined: all as PyTorch has them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from both_ways import assert_as_eager, assert_same, compiled, exported
from random_networks import Then, settle
from torch import nn

from pointwise.convolution.window import window
from pointwise.engine.cpu.loops import (
    depthwise,
    group_norm,
    mixed,
    pool,
    reduce,
    separable,
    winograd,
)
from pointwise.engine.cpu.weights import pack_stencil, pack_weight

PIXELS = {
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear, corners": lambda x: F.interpolate(x, (19, 3), mode="bilinear", align_corners=True),
    "bilinear, smaller": lambda x: F.interpolate(x, size=(23, 2), mode="bilinear"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest, exact": lambda x: F.interpolate(x, size=(7, 19), mode="nearest-exact"),
    "reflected": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "replicated": lambda x: F.pad(x, (1, 2, 3, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 3, 1), mode="circular"),
    "constant": lambda x: F.pad(x, (1, 2, 3, 1), value=0.7),
    "cut off": lambda x: F.pad(x, (-1, 2, -2, 1), value=-2.0),
    "flipped": lambda x: x.flip((2, 3)),
    "rolled": lambda x: torch.roll(x, (2, -1), (2, 3)),
    "pixel shuffle": lambda x: F.pixel_shuffle(x.abs().sqrt(), 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "channel shuffle": lambda x: F.channel_shuffle(x.abs().sqrt(), 4),
}  # fmt: skip
REDUCED = {
    "channels": lambda x: torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1),
    "pixels": lambda x: x.amax((2, 3)) - x.sum((2, 3)) + x.amin((2, 3)),
    "norm": lambda x: x.norm(p=2, dim=(2, 3), keepdim=True),
    "softmax": lambda x: x.softmax(1),
    "softmax of pixels": lambda x: x.flatten(2).softmax(-1) - x.flatten(2).softmax(1),
    "all": lambda x: x.mean() * x.sum((0, 1)),
}
NORMS = {
    "groups": lambda: nn.GroupNorm(3, 12),
    "one group": lambda: nn.GroupNorm(1, 12, affine=False),
    "instances": lambda: nn.InstanceNorm2d(12),
    "instances, affine": lambda: nn.InstanceNorm2d(12, affine=True),
}


def _check(model: nn.Module, way, shape=(2, 3, 9, 8)) -> list[str]:
    model.eval()
    faster = way(model, torch.randn(shape))
    for sizes in (shape, (1, *shape[1:]), (3, 3, 5, 11)):
        x = torch.randn(sizes)
        assert_as_eager(model, faster, x)
        assert_as_eager(model, faster, x.contiguous(memory_format=torch.channels_last))
    if way is compiled:
        return []
    report = faster.reports()[-1]
    assert not report.plain, report
    return [entry.what for entry in report.fused]


def _around(function) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 1), Then(function))


@pytest.mark.parametrize("way", [exported, compiled])
@pytest.mark.parametrize("name", PIXELS)
def test_pixels_elsewhere(name, way):
    _check(_around(PIXELS[name]), way)


@pytest.mark.parametrize("way", [exported, compiled])
@pytest.mark.parametrize("name", REDUCED)
def test_reductions(name, way):
    model = _around(REDUCED[name]).eval()
    faster = way(model, torch.randn(2, 3, 9, 8))
    for x in (torch.randn(2, 3, 9, 8), torch.randn(3, 3, 5, 11)):
        assert_as_eager(model, faster, x)
        assert_as_eager(model, faster, x.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("way", [exported, compiled])
@pytest.mark.parametrize("name", NORMS)
def test_norms_over_pixels(name, way):
    torch.manual_seed(0)
    make = NORMS[name]
    norm = make()
    for row in norm.parameters():
        nn.init.uniform_(row, 0.3, 2)
    model = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(12, 5, 1))
    what = _check(model, way)
    if way is exported:
        assert what[1] == "norm terms"
        assert what[2] == "chain of multiply, add, relu"
        assert len(what) == 4


def test_norms_of_lines_and_of_whole_images():
    torch.manual_seed(0)
    lines = nn.Sequential(
        nn.Conv1d(4, 8, 3), nn.GroupNorm(2, 8), nn.GELU(), nn.Conv1d(8, 8, 1)
    ).eval()
    x = torch.randn(2, 4, 23)
    assert_as_eager(lines, exported(lines, x), x)
    whole = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm((4, 6, 7))).eval()
    nn.init.uniform_(whole[1].weight)
    x = torch.randn(2, 3, 6, 7)
    assert_as_eager(whole, exported(whole, x), x)


# --- kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 7, 5, 3), (1, 33, 40, 17), (3, 48, 1, 9)])
def test_reductions_norms_and_softmax(shape, dtype, poisoned, threads):
    torch.manual_seed(0)
    images, channels, height, width = shape
    x = (torch.randn(shape, dtype=dtype) + 3).contiguous(memory_format=torch.channels_last)
    plain = {"sum": torch.sum, "mean": torch.mean, "amax": torch.amax, "amin": torch.amin,
             "norm": lambda x, dims: torch.linalg.vector_norm(x, 2, dims)}  # fmt: skip
    pixels, eps = height * width, 1e-5
    for count in (1, 3):
        threads(count)
        for name, function in plain.items():
            out = torch.empty(images * pixels, dtype=dtype)
            reduce.reduced(name, x, out, images * pixels, channels, 1).run()
            torch.testing.assert_close(out.view(images, height, width), function(x, 1))
            if channels > 1:
                out = torch.empty(images, channels, dtype=dtype)
                reduce.reduced(name, x, out, images, pixels, channels).run()
                torch.testing.assert_close(out, function(x, (2, 3)))
        out = torch.empty_like(x)
        reduce.softmax(x, out, images * pixels, channels).run()
        torch.testing.assert_close(out, x.softmax(1))
        weight, bias = torch.randn(2, channels, dtype=dtype)
        for groups in {1, channels, channels // 3 if channels % 3 == 0 else 1}:
            moments, terms = torch.empty(2, images, 2, channels, dtype=dtype)
            group_norm.moments(x, moments).run()
            group_norm.terms(moments, terms, pixels, groups, weight, bias, eps).run()
            given = x * terms[:, 0, :, None, None] + terms[:, 1, :, None, None]
            assert_same(given, F.group_norm(x, groups, weight, bias, eps))


def _part_of(x: torch.Tensor, before: int, behind: int) -> torch.Tensor:
    """The same image as some channels of a wider one."""
    images, channels, height, width = x.shape
    wide = torch.full((images, before + channels + behind, height, width), torch.nan)
    part = wide.contiguous(memory_format=torch.channels_last)[:, before : before + channels]
    part.copy_(x)
    return part


@pytest.mark.parametrize(
    "shape", [(2, 16, 9, 8), (1, 32, 1, 7), (3, 16, 6, 1), (2, 32, 1, 1), (1, 16, 20, 19)]
)
def test_parts_of_pixels_are_read_and_written(shape, poisoned, threads):
    """Convolutions and pools of some channels of a wider image, into some of another."""
    torch.manual_seed(0)
    threads(2)
    channels, kernel = shape[1], 3 if min(shape[2:]) > 1 else 1
    x = torch.randn(shape)
    edges = (kernel // 2,) * 4
    one = window(shape[0], shape[2:], (1, 1), (1, 1), (0,) * 4, (1, 1))
    seen = window(shape[0], shape[2:], (kernel, kernel), (1, 1), edges, (1, 1))
    point, square = torch.randn(24, channels, 1, 1), torch.randn(24, channels, kernel, kernel)
    each, bias = torch.randn(channels, 1, kernel, kernel), torch.randn(24)
    stencil, mix = pack_stencil(each, None), pack_weight(point, bias, 1)
    spread = F.conv2d(x, each, None, 1, kernel // 2, 1, channels)
    cases = {
        "pointwise": (F.conv2d(x, point, bias), lambda x, out: mixed.mixed_launch(
            x, mix, one, out)),
        "standard": (F.conv2d(x, square, bias, 1, kernel // 2), lambda x, out: mixed.mixed_launch(
            x, pack_weight(square, bias, 1), seen, out)),
        "depthwise": (F.hardswish(spread), lambda x, out: depthwise.depthwise_launch(
            x, stencil, seen, out, "hardswish")),
        "separable": (F.silu(F.conv2d(spread, point, bias)), lambda x, out: (
            separable.separable_launch(x, stencil, mix, seen, out, None, "none", "silu"))),
        "pool": (F.max_pool2d(x, kernel, 1, kernel // 2), lambda x, out: pool.pooled(
            x, out, seen, pool.LARGEST, 0)),
    }  # fmt: skip
    if kernel == 3:
        for m in (2, 4):
            weight = winograd.winograd_weight(square, bias, m)
            cases[f"winograd {m}"] = (
                F.silu(F.conv2d(x, square, bias, 1, 1)),
                lambda x, out, weight=weight: winograd.winograd_launch(
                    x, weight, seen, out, None, "silu"
                ),
            )
    for name, (wanted, launch) in cases.items():
        out = _part_of(torch.full_like(wanted, torch.nan), 3, 10)
        launch(_part_of(x, 5, 8), out).run()
        assert torch.allclose(out, wanted, rtol=1e-4, atol=1e-4), name
        around = out._base if out._base is not None else out
        assert around.isnan().sum() == around.numel() - out.numel(), name


# --- joins ----------------------------------------------------------------------------------------


def _unit(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class Pyramid(nn.Module):
    """What SPPF does: pools of one another, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.pool = _unit(3, 8), _unit(32, 8, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        x = self.first(x)
        y = self.pool(x)
        z = self.pool(y)
        return self.last(torch.cat((x, y, z, self.pool(z)), 1))


class Dense(nn.Module):
    """What DenseNet does: each layer reads all before it; and results that are read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_unit(4 + 6 * i, 6) for i in range(3))
        self.first, self.deep = _unit(3, 4, 1), _unit(22, 22, 3, groups=22)

    def forward(self, x):
        found = [self.first(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        whole = torch.cat(found, 1)
        return self.deep(whole), found[1] + found[2], torch.cat((found[3], found[3]), 1)


class Chunks(nn.Module):
    """What C2f does: halves of a result read apart, then joined with what was made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = _unit(3, 16, 1), _unit(32, 9, 1)
        self.more = nn.ModuleList(_unit(8, 8) for _ in range(2))

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        for layer in self.more:
            parts.append(layer(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Skip(nn.Module):
    """Joined with what is added to, scaled, and given back as a result."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = _unit(3, 5), _unit(5, 5), nn.Conv2d(15, 4, 3)

    def forward(self, x):
        a = self.one(x)
        b = self.two(a) + a
        return self.last(torch.cat((a, b, F.avg_pool2d(b, 3, 1, 1)), 1)), a, b * 0.5


@pytest.mark.parametrize("way", [exported, compiled])
@pytest.mark.parametrize("make", [Pyramid, Dense, Chunks, Skip])
def test_joined_results_are_written_where_they_are_read(make, way):
    torch.manual_seed(0)
    model = settle(make())
    what = _check(model, way)
    if way is exported and make is Pyramid:
        assert "join" not in what
    assert_as_eager(model, way(model, torch.randn(9, 3, 40, 40)), torch.randn(9, 3, 40, 40))


def test_a_shuffle_goes_into_the_convolution_before():
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.PixelShuffle(2)).eval()
    assert "shuffle" not in _check(model, exported)
