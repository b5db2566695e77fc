"""Classifiers made for phones whose blocks are more than convolutions in a row, in plain PyTorch.

GhostNet, MobileOne and RepVGG with their branches as they are trained, and networks of the kind of
EfficientFormerV2 and FastViT. Each function returns a model with random weights and settled norms,
and an input for it.
"""

from __future__ import annotations

import torch
from field_networks import made, unit
from plain_networks import conv_norm, head
from torch import Tensor, nn


def _normed(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Module:
    return nn.Sequential(*conv_norm(c_in, c_out, kernel, stride, groups))


class Scale(nn.Module):
    """A factor for each channel, as blocks learn how much they add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(0.5 * torch.rand(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class Residual(nn.Module):
    def __init__(self, *steps: nn.Module) -> None:
        super().__init__()
        self.steps = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.steps(x)


# --- GhostNet -------------------------------------------------------------------------------------


class Ghost(nn.Module):
    """Han et al., "GhostNet", 2020: half of the channels are a cheap function of the other half.

    The two halves are joined and cut to size, as published; with ``writes`` each is written to its
    part of the result.
    """

    def __init__(self, c_in: int, c_out: int, relu: bool = True, writes: bool = False) -> None:
        super().__init__()
        act, half = nn.ReLU if relu else nn.Identity, -(-c_out // 2)
        self.first = unit(c_in, half, act=act)
        self.cheap = unit(half, half, 3, groups=half, act=act)
        self.c_out, self.writes = c_out, writes

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        other = self.cheap(one)
        if not self.writes:
            return torch.cat((one, other), 1)[:, : self.c_out]
        result = one.new_empty(one.shape[0], self.c_out, *one.shape[2:])
        result[:, : one.shape[1]] = one
        result[:, one.shape[1] :] = other[:, : self.c_out - one.shape[1]]
        return result


class Gate(nn.Module):
    """Squeeze and excitation with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.steps = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(),
            nn.Conv2d(inner, channels, 1), nn.Hardsigmoid())  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.steps(x)


class GhostBlock(nn.Module):
    """Wider by a ghost, smaller by a depthwise one, gated, narrow by a ghost; plus the input."""

    def __init__(self, c_in: int, inner: int, c_out: int, kernel: int, stride: int, gate: bool,
                 writes: bool) -> None:  # fmt: skip
        super().__init__()
        deep = _normed(inner, inner, kernel, stride, inner)
        self.steps = nn.Sequential(
            Ghost(c_in, inner, writes=writes), *([deep] if stride > 1 else []),
            *([Gate(inner)] if gate else []), Ghost(inner, c_out, False, writes))  # fmt: skip
        same = stride == 1 and c_in == c_out
        short = nn.Sequential(_normed(c_in, c_in, kernel, stride, c_in), _normed(c_in, c_out))
        self.short = nn.Identity() if same else short

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x) + self.short(x)


# Kernel, inner channels, channels, whether it is gated, stride.
_GHOSTS = (
    (3, 16, 16, 0, 1), (3, 48, 24, 0, 2), (3, 72, 24, 0, 1), (5, 72, 40, 1, 2), (5, 120, 40, 1, 1),
    (3, 240, 80, 0, 2), (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1),
    (3, 480, 112, 1, 1), (3, 672, 112, 1, 1), (5, 672, 160, 1, 2), (5, 960, 160, 0, 1),
    (5, 960, 160, 1, 1), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1))  # fmt: skip


def ghostnet(size: int = 224, writes: bool = False) -> tuple[nn.Module, Tensor]:
    layers: list[nn.Module] = [unit(3, 16, 3, 2)]
    channels = 16
    for kernel, inner, c_out, gate, stride in _GHOSTS:
        layers.append(GhostBlock(channels, inner, c_out, kernel, stride, bool(gate), writes))
        channels = c_out
    last = [unit(160, 960), nn.AdaptiveAvgPool2d(1), nn.Conv2d(960, 1280, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(1280, 1000)]  # fmt: skip
    return made(nn.Sequential(*layers, *last), 3, size, size)


def ghostnet_writes(size: int = 224) -> tuple[nn.Module, Tensor]:
    """The same with halves that are written to slices."""
    return ghostnet(size, writes=True)


# --- branches that are added up -------------------------------------------------------------------


class Branches(nn.Module):
    """``count`` convolutions, a pointwise one and the norm of the input, added up."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1,
                 count: int = 1, act: type[nn.Module] = nn.ReLU) -> None:  # fmt: skip
        super().__init__()
        same = stride == 1 and c_in == c_out
        self.large = nn.ModuleList(
            _normed(c_in, c_out, kernel, stride, groups) for _ in range(count)
        )
        self.small = _normed(c_in, c_out, 1, stride, groups) if kernel > 1 else None
        self.same = nn.BatchNorm2d(c_in) if same else None
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        y = 0 if self.same is None else self.same(x)
        if self.small is not None:
            y = y + self.small(x)
        for branch in self.large:
            y = y + branch(x)
        return self.act(y)


def mobileone(size: int = 224) -> tuple[nn.Module, Tensor]:
    """Vasu et al., "MobileOne", 2022: the smallest, with four branches each."""
    layers: list[nn.Module] = [Branches(3, 48, 3, 2)]
    channels = 48
    for c_out, count in ((48, 2), (128, 8), (256, 10), (1024, 1)):
        for i in range(count):
            layers.append(Branches(channels, channels, 3, 1 if i else 2, channels, 4))
            layers.append(Branches(channels, c_out, count=4))
            channels = c_out
    return made(nn.Sequential(*layers, *head(1024, 1000)), 3, size, size)


def repvgg(size: int = 224) -> tuple[nn.Module, Tensor]:
    """Ding et al., "RepVGG", 2021: A0."""
    layers: list[nn.Module] = [Branches(3, 48, 3, 2)]
    channels = 48
    for c_out, count in ((48, 2), (96, 4), (192, 14), (1280, 1)):
        for i in range(count):
            layers.append(Branches(channels, c_out, 3, 1 if i else 2))
            channels = c_out
    return made(nn.Sequential(*layers, *head(1280, 1000)), 3, size, size)


# --- attention between convolutions ---------------------------------------------------------------


class Mixed(nn.Module):
    """EfficientFormerV2's attention: heads that talk to each other, and a value seen locally."""

    def __init__(self, channels: int, pixels: int, heads: int = 8, key: int = 32) -> None:
        super().__init__()
        inner = 4 * key * heads
        self.heads, self.key, self.factor = heads, key, key**-0.5
        self.q, self.k = (_normed(channels, heads * key) for _ in range(2))
        self.v, self.local = _normed(channels, inner), _normed(inner, inner, 3, groups=inner)
        self.bias = nn.Parameter(0.02 * torch.randn(heads, pixels, pixels))
        self.talk, self.again = nn.Conv2d(heads, heads, 1), nn.Conv2d(heads, heads, 1)
        self.last = nn.Sequential(nn.GELU(), _normed(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).flatten(2).unflatten(1, (self.heads, self.key)).transpose(2, 3)
        k = self.k(x).flatten(2).unflatten(1, (self.heads, self.key))
        v = self.v(x)
        weights = self.again(self.talk(q @ k * self.factor + self.bias).softmax(-1))
        y = weights @ v.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)
        y = y.transpose(2, 3).reshape(v.shape)
        return self.last(y + self.local(v))


def _local(channels: int) -> nn.Module:
    """EfficientFormerV2's block: wide, depthwise, narrow, scaled."""
    inner = 4 * channels
    return Residual(
        unit(channels, inner, act=nn.GELU), unit(inner, inner, 3, groups=inner, act=nn.GELU),
        _normed(inner, channels), Scale(channels))  # fmt: skip


def efficientformer(size: int = 224) -> tuple[nn.Module, Tensor]:
    """Li et al., "EfficientFormerV2", 2023: like S0, with attention in the last stage."""
    layers: list[nn.Module] = [unit(3, 16, 3, 2, act=nn.GELU), unit(16, 32, 3, 2, act=nn.GELU)]
    channels, side = 32, size // 4
    for c_out, count in ((32, 2), (48, 2), (96, 6), (176, 4)):
        if c_out != channels:
            layers.append(_normed(channels, c_out, 3, 2))
            channels, side = c_out, -(-side // 2)
        for i in range(count):
            if c_out == 176 and i >= count - 2:
                layers.append(Residual(Mixed(channels, side * side), Scale(channels)))
            layers.append(_local(channels))
    return made(nn.Sequential(*layers, *head(176, 1000)), 3, size, size)


class Mixer(nn.Module):
    """FastViT's: depthwise branches less the norm of the input, scaled, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = Branches(channels, channels, 3, groups=channels, act=nn.Identity)
        self.norm, self.scale = nn.BatchNorm2d(channels), Scale(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale(self.branches(x) - self.norm(x))


class Attention(nn.Module):
    """Attention among all pixels of an image, as FastViT has it in its last stage."""

    def __init__(self, channels: int, head: int = 32) -> None:
        super().__init__()
        self.head = head
        self.norm = nn.BatchNorm2d(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.last = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.qkv(self.norm(x).flatten(2).transpose(1, 2))
        q, k, v = y.unflatten(2, (3, -1, self.head)).permute(2, 0, 3, 1, 4)
        y = (q * self.head**-0.5 @ k.transpose(2, 3)).softmax(-1) @ v
        return self.last(y.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(x.shape)


def _wide(channels: int) -> nn.Module:
    """FastViT's: depthwise over 7×7 pixels, wide, narrow, scaled."""
    return Residual(
        _normed(channels, channels, 7, groups=channels), nn.Conv2d(channels, 3 * channels, 1),
        nn.GELU(), nn.Conv2d(3 * channels, channels, 1), Scale(channels))  # fmt: skip


def fastvit(size: int = 224) -> tuple[nn.Module, Tensor]:
    """Vasu et al., "FastViT", 2023: like T8 with its branches, and attention in the last stage."""
    layers: list[nn.Module] = [
        Branches(3, 48, 3, 2, act=nn.GELU), Branches(48, 48, 3, 2, 48, act=nn.GELU),
        Branches(48, 48, act=nn.GELU)]  # fmt: skip
    channels = 48
    for c_out, count in ((48, 2), (96, 2), (192, 4), (384, 2)):
        if c_out != channels:  # twice as many channels by a depthwise convolution
            layers.append(Branches(channels, c_out, 7, 2, channels, act=nn.GELU))
            layers.append(Branches(c_out, c_out, act=nn.GELU))
            channels = c_out
        for _ in range(count):
            last = c_out == 384
            mixer = Residual(Attention(c_out), Scale(c_out)) if last else Mixer(c_out)
            layers += [mixer, _wide(c_out)]
    return made(nn.Sequential(*layers, *head(384, 1000)), 3, size, size)


MODELS = {
    function.__name__: function
    for function in (ghostnet, ghostnet_writes, mobileone, repvgg, efficientformer, fastvit)
}
