"""Networks as people bring them, in plain PyTorch: what stands between their convolutions differs.

Each function returns a model with random weights and settled norms, and an input for it, as
``pointwise speedup benchmarks/field_networks.py:unet`` takes them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from plain_networks import conv_norm, head, settle
from torch import Tensor, nn


def unit(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1,
         act: type[nn.Module] = nn.ReLU) -> nn.Sequential:  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out), act())  # fmt: skip


def made(model: nn.Module, *shape: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    settle(model, torch.randn(2, *shape))
    return model.eval(), torch.randn(1, *shape)


# --- detection ------------------------------------------------------------------------------------


class Halves(nn.Module):
    """YOLOv8's C2f: halves of a result, one of which goes on, and all of them joined."""

    def __init__(self, c_in: int, c_out: int, count: int = 1, add: bool = True) -> None:
        super().__init__()
        half = c_out // 2
        self.first, self.add = unit(c_in, c_out, act=nn.SiLU), add
        self.more = nn.ModuleList(
            nn.Sequential(unit(half, half, 3, act=nn.SiLU), unit(half, half, 3, act=nn.SiLU))
            for _ in range(count))  # fmt: skip
        self.last = unit((2 + count) * half, c_out, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for layer in self.more:
            y = layer(parts[-1])
            parts.append(parts[-1] + y if self.add else y)
        return self.last(torch.cat(parts, 1))


class Pools(nn.Module):
    """SPPF: pools of one another, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = unit(channels, channels // 2, act=nn.SiLU)
        self.last = unit(2 * channels, channels, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.pool(x)
        z = self.pool(y)
        return self.last(torch.cat((x, y, z, self.pool(z)), 1))


class Detector(nn.Module):
    """A backbone, a pyramid upwards and downwards, and distributions over distances (YOLOv8n)."""

    distances: Tensor

    def __init__(self, wide: int = 16, classes: int = 80, bins: int = 16) -> None:
        super().__init__()
        sizes = [wide * 2**i for i in range(5)]
        downs = [unit(3, wide, 3, 2, act=nn.SiLU)]
        for before, behind in pairwise(sizes):
            down = unit(before, behind, 3, 2, act=nn.SiLU)
            downs.append(nn.Sequential(down, Halves(behind, behind, 1 + (behind > wide * 2))))
        self.downs, self.pools = nn.ModuleList(downs), Pools(sizes[4])
        self.up = nn.Upsample(scale_factor=2)
        self.one = Halves(sizes[4] + sizes[3], sizes[3], add=False)
        self.two = Halves(sizes[3] + sizes[2], sizes[2], add=False)
        self.back = unit(sizes[2], sizes[2], 3, 2, act=nn.SiLU)
        self.three = Halves(sizes[3] + sizes[2], sizes[3], add=False)
        self.bins, self.classes = bins, classes
        self.boxes, self.scores = (
            nn.ModuleList(nn.Sequential(unit(c, 64, 3, act=nn.SiLU), nn.Conv2d(64, outputs, 1))
                          for c in sizes[2:4])
            for outputs in (4 * bins, classes))  # fmt: skip
        self.register_buffer("distances", torch.arange(bins).float())

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for down in self.downs:
            x = down(x)
            found.append(x)
        deep = self.pools(x)
        middle = self.one(torch.cat((self.up(deep), found[3]), 1))
        small = self.two(torch.cat((self.up(middle), found[2]), 1))
        middle = self.three(torch.cat((self.back(small), middle), 1))
        results = []
        for level, boxes, scores in zip((small, middle), self.boxes, self.scores, strict=True):
            b, s = boxes(level).flatten(2), scores(level).flatten(2)
            b = b.view(b.shape[0], 4, self.bins, -1).softmax(2)
            results.append(torch.cat(((b * self.distances[:, None]).sum(2), s.sigmoid()), 1))
        return torch.cat(results, 2)


def yolo(size: int = 320) -> tuple[nn.Module, Tensor]:
    return made(Detector(), 3, size, size)


# --- classification -------------------------------------------------------------------------------


class ShuffleUnit(nn.Module):
    """Ma et al., "ShuffleNet V2", 2018: half of the channels as they are, then all shuffled."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        half, self.stride = c_out // 2, stride
        inner = c_in if stride == 2 else half
        short = nn.Sequential(*conv_norm(c_in, c_in, 3, 2, c_in), unit(c_in, half))
        self.short = short if stride == 2 else None
        self.long = nn.Sequential(
            unit(inner, half), *conv_norm(half, half, 3, stride, half), unit(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        one, other = (x, x) if self.stride == 2 else x.chunk(2, 1)
        if self.short is not None:
            one = self.short(one)
        y = torch.cat((one, self.long(other)), 1)
        return y.view(y.shape[0], 2, -1, *y.shape[2:]).transpose(1, 2).flatten(1, 2)


def shufflenet(size: int = 224) -> tuple[nn.Module, Tensor]:
    layers: list[nn.Module] = [unit(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 24
    for c_out, count in ((116, 4), (232, 8), (464, 4)):
        for i in range(count):
            layers.append(ShuffleUnit(channels, c_out, 1 if i else 2))
            channels = c_out
    return made(nn.Sequential(*layers, unit(464, 1024), *head(1024, 1000)), 3, size, size)


class NormedBlock(nn.Module):
    """ResNet's basic block with group norms."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(c, c_out, 3, s, 1, bias=False)
                              for c, s in ((c_in, stride), (c_out, 1)))  # fmt: skip
        self.norms = nn.ModuleList(nn.GroupNorm(8, c_out) for _ in range(3))
        self.short = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.one(x)))
        y = self.norms[1](self.two(y))
        return F.relu(y + (x if self.short is None else self.norms[2](self.short(x))))


def resnet_groups(size: int = 224) -> tuple[nn.Module, Tensor]:
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    layers: list[nn.Module] = [stem, nn.GroupNorm(8, 64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for c_out in (64, 128, 256, 512):
        layers += [NormedBlock(channels, c_out, 1 if c_out == channels else 2),
                   NormedBlock(c_out, c_out, 1)]  # fmt: skip
        channels = c_out
    return made(nn.Sequential(*layers, *head(512, 1000)), 3, size, size)


class ResponseBlock(nn.Module):
    """ConvNeXt V2's block, with its global response norm, channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deep = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, 1e-6)
        self.wide, self.narrow = (
            nn.Linear(channels, 4 * channels),
            nn.Linear(4 * channels, channels),
        )
        self.gain, self.shift = (nn.Parameter(torch.rand(1, 1, 1, 4 * channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.wide(self.norm(self.deep(x).permute(0, 2, 3, 1))))
        norm = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        norm = norm / (norm.mean(-1, keepdim=True) + 1e-6)
        y = self.gain * (y * norm) + self.shift + y
        return x + self.narrow(y).permute(0, 3, 1, 2)


class PixelNorm(nn.Module):
    """Layer norm over the channels of each pixel, as ConvNeXt writes it out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain, self.shift = (
            nn.Parameter(torch.rand(channels)),
            nn.Parameter(torch.rand(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.gain[:, None, None] * x + self.shift[:, None, None]


def convnext_v2(size: int = 224) -> tuple[nn.Module, Tensor]:
    """The smallest (atto)."""
    sizes = (40, 80, 160, 320)
    layers: list[nn.Module] = [nn.Conv2d(3, 40, 4, 4), PixelNorm(40)]
    for i, (channels, count) in enumerate(zip(sizes, (2, 2, 6, 2), strict=True)):
        if i:
            layers += [PixelNorm(sizes[i - 1]), nn.Conv2d(sizes[i - 1], channels, 2, 2)]
        layers += [ResponseBlock(channels) for _ in range(count)]
    return made(nn.Sequential(*layers, *head(320, 1000)), 3, size, size)


# --- images from images ---------------------------------------------------------------------------


class UNet(nn.Module):
    """Ronneberger et al., 2015, with batch norms; upwards transposed or bilinear."""

    def __init__(self, wide: int = 16, bilinear: bool = False) -> None:
        super().__init__()
        sizes = [wide * 2**i for i in range(4)]
        self.downs = nn.ModuleList(
            nn.Sequential(unit(a, b, 3), unit(b, b, 3))
            for a, b in zip((3, *sizes), sizes, strict=False))  # fmt: skip
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(2 * c, c, 1))
            if bilinear else nn.ConvTranspose2d(2 * c, c, 2, 2) for c in sizes[-2::-1])  # fmt: skip
        self.after = nn.ModuleList(
            nn.Sequential(unit(2 * c, c, 3), unit(c, c, 3)) for c in sizes[-2::-1]
        )
        self.last = nn.Conv2d(wide, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for i, down in enumerate(self.downs):
            x = down(F.max_pool2d(x, 2) if i else x)
            found.append(x)
        for up, after, beside in zip(self.ups, self.after, found[-2::-1], strict=True):
            x = after(torch.cat((beside, up(x)), 1))
        return self.last(x)


def unet(size: int = 256) -> tuple[nn.Module, Tensor]:
    return made(UNet(), 3, size, size)


def unet_bilinear(size: int = 256) -> tuple[nn.Module, Tensor]:
    return made(UNet(bilinear=True), 3, size, size)


class Styled(nn.Module):
    """Johnson et al., 2016: reflections around, instance norms, residuals, nearest upsampling."""

    def __init__(self, wide: int = 32) -> None:
        super().__init__()

        def layer(a: int, b: int, kernel: int, stride: int = 1) -> list[nn.Module]:
            return [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(a, b, kernel, stride),
                    nn.InstanceNorm2d(b, affine=True)]  # fmt: skip

        self.first = nn.Sequential(
            *layer(3, wide, 9), nn.ReLU(), *layer(wide, 2 * wide, 3, 2), nn.ReLU(),
            *layer(2 * wide, 4 * wide, 3, 2), nn.ReLU())  # fmt: skip
        self.middle = nn.ModuleList(
            nn.Sequential(*layer(4 * wide, 4 * wide, 3), nn.ReLU(), *layer(4 * wide, 4 * wide, 3))
            for _ in range(3))  # fmt: skip
        up = nn.Upsample(scale_factor=2)
        self.last = nn.Sequential(
            up, *layer(4 * wide, 2 * wide, 3), nn.ReLU(), up, *layer(2 * wide, wide, 3), nn.ReLU(),
            nn.ReflectionPad2d(4), nn.Conv2d(wide, 3, 9))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.middle:
            x = x + block(x)
        return self.last(x)


def style(size: int = 256) -> tuple[nn.Module, Tensor]:
    return made(Styled(), 3, size, size)


def espcn(size: int = 128) -> tuple[nn.Module, Tensor]:
    """Shi et al., 2016: three times as large by a pixel shuffle."""
    model = nn.Sequential(
        nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh(),
        nn.Conv2d(32, 9, 3, padding=1), nn.PixelShuffle(3), nn.Sigmoid())  # fmt: skip
    return made(model, 1, size, size)


class Enhancer(nn.Module):
    """Lim et al., "EDSR", 2017: residuals without norms, twice as large by a pixel shuffle."""

    def __init__(self, wide: int = 64, count: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, wide, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU(),
                          nn.Conv2d(wide, wide, 3, padding=1)) for _ in range(count))  # fmt: skip
        self.after = nn.Conv2d(wide, wide, 3, padding=1)
        self.last = nn.Sequential(nn.Conv2d(wide, 4 * wide, 3, padding=1), nn.PixelShuffle(2),
                                  nn.Conv2d(wide, 3, 3, padding=1))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.first(x)
        for block in self.blocks:
            x = x + block(x) * 0.1
        return self.last(first + self.after(x))


def edsr(size: int = 64) -> tuple[nn.Module, Tensor]:
    return made(Enhancer(), 3, size, size)


class Segmenter(nn.Module):
    """LR-ASPP's head on a small backbone: a gate from large pools, bilinear upwards twice."""

    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        self.low = nn.Sequential(unit(3, 16, 3, 2), unit(16, 16, 3, 1, 16), unit(16, 40),
                                 unit(40, 40, 3, 2, 40), unit(40, 40))  # fmt: skip
        self.high = nn.Sequential(unit(40, 40, 3, 2, 40), unit(40, 96), unit(96, 96, 3, 2, 96),
                                  unit(96, 160))  # fmt: skip
        self.main = unit(160, 128)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(160, 128, 1, bias=False),
                                  nn.Sigmoid())  # fmt: skip
        self.from_low, self.from_high = nn.Conv2d(40, classes, 1), nn.Conv2d(128, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        high = self.high(low)
        y = self.main(high) * self.gate(high)
        y = F.interpolate(y, size=low.shape[2:], mode="bilinear", align_corners=False)
        y = self.from_low(low) + self.from_high(y)
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


def lr_aspp(size: int = 320) -> tuple[nn.Module, Tensor]:
    return made(Segmenter(), 3, size, size)


MODELS = {
    function.__name__: function
    for function in (yolo, shufflenet, resnet_groups, convnext_v2, unet, unet_bilinear, style,
                     espcn, edsr, lr_aspp)
}  # fmt: skip
