"""Transformers on images, in plain PyTorch: ViT-S on 16×16 patches, and Swin-T.

Each function returns a model with random weights and an input for it. Sources: Dosovitskiy et al.,
"An image is worth 16×16 words", 2021; Liu et al., "Swin Transformer", 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from field_networks import made
from torch import Tensor, nn


def _heads(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    """``[N, length, 3·C]`` as three tensors ``[N, heads, length, C/heads]``."""
    return qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.last = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = _heads(self.qkv(x), self.heads)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.last(y.transpose(1, 2).flatten(2))


def _wide(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
    )


class Block(nn.Module):
    """Attention, then a wider layer, each normed before and added to its input."""

    def __init__(self, channels: int, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.wide = attention, _wide(channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.wide(self.norms[1](x))


class ViT(nn.Module):
    def __init__(self, size: int, channels: int = 384, heads: int = 6, depth: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 16, 16)
        self.first = nn.Parameter(0.02 * torch.randn(1, 1, channels))
        self.places = nn.Parameter(0.02 * torch.randn(1, (size // 16) ** 2 + 1, channels))
        blocks = (Block(channels, Attention(channels, heads)) for _ in range(depth))
        self.blocks, self.norm = nn.Sequential(*blocks), nn.LayerNorm(channels)
        self.classes = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.first.expand(x.shape[0], -1, -1), x), 1) + self.places
        return self.classes(self.norm(self.blocks(x))[:, 0])


def vit_s(size: int = 224) -> tuple[nn.Module, Tensor]:
    return made(ViT(size), 3, size, size)


# --- Swin -----------------------------------------------------------------------------------------


def _windows(x: Tensor, side: int) -> Tensor:
    """``[N, H, W, C]`` as ``[N·windows, side², C]``."""
    n, high, wide, channels = x.shape
    x = x.view(n, high // side, side, wide // side, side, channels)
    return x.transpose(2, 3).reshape(-1, side * side, channels)


def _whole(x: Tensor, side: int, high: int, wide: int) -> Tensor:
    """The inverse of ``_windows``."""
    x = x.view(-1, high // side, wide // side, side, side, x.shape[2])
    return x.transpose(2, 3).reshape(-1, high, wide, x.shape[5])


def _closer(side: int) -> Tensor:
    """Which entry of a table of offsets belongs to each pair of a window's pixels."""
    at = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    apart = at[:, None] - at[None] + side - 1
    return apart[..., 0] * (2 * side - 1) + apart[..., 1]


def _strangers(high: int, wide: int, side: int, shift: int) -> Tensor:
    """What keeps those pixels of a window apart that a roll has brought together."""
    parts = [slice(0, -side), slice(-side, -shift), slice(-shift, None)]
    image = torch.zeros(1, high, wide, 1)
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            image[:, rows, columns] = 3 * i + j
    found = _windows(image, side)[..., 0]
    return torch.where(found[:, :, None] == found[:, None], 0.0, -100.0)


class Windowed(nn.Module):
    """Attention within windows of an image ``[N, H, W, C]``, moved by ``shift`` pixels."""

    pairs: Tensor
    apart: Tensor | None

    def __init__(self, channels: int, heads: int, size: int, side: int, shift: int) -> None:
        super().__init__()
        self.heads, self.side, self.shift = heads, side, shift if size > side else 0
        self.qkv, self.last = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.table = nn.Parameter(0.02 * torch.randn((2 * side - 1) ** 2, heads))
        self.register_buffer("pairs", _closer(side))
        apart = _strangers(size, size, side, shift) if self.shift else None
        self.register_buffer("apart", apart)

    def forward(self, x: Tensor) -> Tensor:
        high, wide = x.shape[1:3]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = _whole(self.attend(_windows(x, self.side)), self.side, high, wide)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = _heads(self.qkv(x), self.heads)
        scores = q * q.shape[3] ** -0.5 @ k.transpose(2, 3)
        scores = scores + self.table[self.pairs].permute(2, 0, 1)
        if self.apart is not None:
            scores = scores.unflatten(0, (-1, len(self.apart))) + self.apart[:, None]
            scores = scores.flatten(0, 1)
        return self.last((scores.softmax(3) @ v).transpose(1, 2).flatten(2))


class Merge(nn.Module):
    """Two by two pixels as one with twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.narrow = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, high, wide, channels = x.shape
        x = x.view(n, high // 2, 2, wide // 2, 2, channels).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.narrow(self.norm(x))


class Swin(nn.Module):
    def __init__(self, size: int, channels: int = 96, side: int = 7) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels)
        layers: list[nn.Module] = []
        size //= 4
        for stage, (count, heads) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), strict=True)):
            if stage:
                layers.append(Merge(channels))
                channels, size = 2 * channels, size // 2
            for i in range(count):
                attention = Windowed(channels, heads, size, side, side // 2 * (i % 2))
                layers.append(Block(channels, attention))
        self.layers, self.norm = nn.Sequential(*layers), nn.LayerNorm(channels)
        self.classes = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.first(self.patches(x).permute(0, 2, 3, 1)))
        return self.classes(self.norm(x).mean((1, 2)))


def swin_t(size: int = 224) -> tuple[nn.Module, Tensor]:
    """``size`` is a multiple of 32 times the windows' 7 pixels."""
    return made(Swin(size), 3, size, size)


MODELS = {function.__name__: function for function in (vit_s, swin_t)}
