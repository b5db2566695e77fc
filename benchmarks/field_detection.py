"""Detectors' pyramids and heads, in plain PyTorch: one model for several sizes of a picture.

Each function returns a model with random weights and settled norms, and an input for it. Boxes and
scores of all levels come as one tensor, a row for each place.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from field_networks import made, unit
from plain_networks import Inverted, conv_norm
from torch import Tensor, nn


def _rows(x: Tensor, columns: int) -> Tensor:
    """``[N, boxes·columns, H, W]`` as ``[N, H·W·boxes, columns]``."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, columns)


class SmallHeads(nn.Module):
    """SSDLite: depthwise separable heads on levels that get smaller; scores and boxes."""

    def __init__(self, classes: int = 21, boxes: int = 6) -> None:
        super().__init__()
        plan = ((6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 64, 2), (6, 96, 1))
        layers: list[nn.Module] = [unit(3, 32, 3, 2, act=nn.ReLU6), Inverted(32, 16, 1, 1)]
        channels = 16
        for expansion, c_out, stride in plan:
            layers.append(Inverted(channels, c_out, stride, expansion))
            channels = c_out
        self.body, self.classes = nn.Sequential(*layers), classes
        sizes = (96, 320, 256, 256, 128)
        self.downs = nn.ModuleList(
            nn.Sequential(unit(a, b // 2, act=nn.ReLU6),
                          unit(b // 2, b // 2, 3, 2, b // 2, nn.ReLU6), unit(b // 2, b))
            for a, b in pairwise(sizes))  # fmt: skip
        self.scores, self.boxes = (
            nn.ModuleList(nn.Sequential(*conv_norm(c, c, 3, 1, c), nn.ReLU6(),
                                        nn.Conv2d(c, boxes * each, 1)) for c in sizes)
            for each in (classes, 4))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.body(x)]
        for down in self.downs:
            levels.append(down(levels[-1]))
        scores = [_rows(f(y), self.classes) for f, y in zip(self.scores, levels, strict=True)]
        boxes = [_rows(f(y), 4) for f, y in zip(self.boxes, levels, strict=True)]
        return torch.cat((torch.cat(scores, 1).softmax(2), torch.cat(boxes, 1)), 2)


def ssdlite(size: int = 320) -> tuple[nn.Module, Tensor]:
    """Sandler et al., "MobileNetV2", 2018, section 6.2."""
    return made(SmallHeads(), 3, size, size)


class Basic(nn.Module):
    """ResNet's basic block."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        stride = 1 if c_in == c_out else 2
        self.steps = nn.Sequential(unit(c_in, c_out, 3, stride), *conv_norm(c_out, c_out, 3))
        self.short = nn.Sequential(*([] if c_in == c_out else conv_norm(c_in, c_out, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.steps(x) + self.short(x))


def _tower(channels: int, count: int = 2) -> nn.Sequential:
    """Convolutions with group norms."""
    return nn.Sequential(*(
        layer for _ in range(count) for layer in
        (nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(16, channels), nn.ReLU())
    ))  # fmt: skip


class Pyramid(nn.Module):
    """FCOS: a pyramid downwards by addition, and one pair of heads for all of its levels."""

    def __init__(self, classes: int = 20, wide: int = 64) -> None:
        super().__init__()
        sizes = (32, 64, 128, 256)
        self.first = nn.Sequential(unit(3, 32, 7, 2), nn.MaxPool2d(3, 2, 1), Basic(32, 32))
        self.downs = nn.ModuleList(
            nn.Sequential(Basic(a, b), Basic(b, b)) for a, b in pairwise(sizes)
        )
        self.across = nn.ModuleList(nn.Conv2d(c, wide, 1) for c in sizes[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(wide, wide, 3, padding=1) for _ in sizes[1:])
        self.of_scores, self.of_boxes = _tower(wide), _tower(wide)
        self.scores, self.centre, self.boxes = (
            nn.Conv2d(wide, each, 3, padding=1) for each in (classes, 1, 4)
        )
        self.factors = nn.Parameter(torch.rand(3) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x, found = self.first(x), []
        for down, across in zip(self.downs, self.across, strict=True):
            x = down(x)
            found.append(across(x))
        levels = [found[-1]]
        for level in found[-2::-1]:
            levels.insert(0, level + F.interpolate(levels[0], scale_factor=2.0, mode="nearest"))
        results = []
        for i, (level, smooth) in enumerate(zip(levels, self.smooth, strict=True)):
            level = smooth(level)
            scores, boxes = self.of_scores(level), self.of_boxes(level)
            parts = (self.scores(scores).sigmoid(), self.centre(boxes).sigmoid(),
                     F.relu(self.boxes(boxes) * self.factors[i]))  # fmt: skip
            results.append(torch.cat(parts, 1).flatten(2))
        return torch.cat(results, 2)


def fcos(size: int = 256) -> tuple[nn.Module, Tensor]:
    """Tian et al., "FCOS", 2019, on a small backbone."""
    return made(Pyramid(), 3, size, size)


MODELS = {function.__name__: function for function in (ssdlite, fcos)}
