"""MobileNetV1, MobileNetV2 and ResNet-50 as anyone would write them in plain PyTorch.

Every step is a module of its own, as in torchvision, and nothing here uses pointwise, so that
agreeing with it means something. The modules stand in the order in which pointwise's have them,
so that weights are handed over one by one (``copy_weights``). Sources: Howard et al., "MobileNets",
2017, table 1; Sandler et al., "MobileNetV2", 2018, table 2; He et al., "Deep Residual Learning",
2016, table 1, with the stride on the 3×3 convolutions as in all PyTorch's weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_norm(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution without bias, and its batch norm."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class Separable(nn.Sequential):
    """MobileNetV1's block: depthwise 3×3, then pointwise."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__(
            *conv_norm(c_in, c_in, 3, stride, groups=c_in), nn.ReLU6(inplace=True),
            *conv_norm(c_in, c_out), nn.ReLU6(inplace=True))  # fmt: skip


class Inverted(nn.Module):
    """MobileNetV2's block: wider by ``expansion``, depthwise 3×3, narrow again."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = c_in * expansion
        widen = [*conv_norm(c_in, inner), nn.ReLU6(inplace=True)] if expansion > 1 else []
        self.steps = nn.Sequential(
            *widen, *conv_norm(inner, inner, 3, stride, groups=inner), nn.ReLU6(inplace=True),
            *conv_norm(inner, c_out))  # fmt: skip
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.steps(x) if self.residual else self.steps(x)


class Bottleneck(nn.Module):
    """ResNet's block: narrow, 3×3, four times as wide again, plus the input."""

    def __init__(self, c_in: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            *conv_norm(c_in, inner), nn.ReLU(inplace=True),
            *conv_norm(inner, inner, 3, stride), nn.ReLU(inplace=True),
            *conv_norm(inner, 4 * inner))  # fmt: skip
        same = stride == 1 and c_in == 4 * inner
        self.shortcut = nn.Sequential(*([] if same else conv_norm(c_in, 4 * inner, 1, stride)))
        self.last = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.steps(x) + self.shortcut(x))


def head(channels: int, classes: int) -> list[nn.Module]:
    """The mean over the image, and a score for each class."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def mobilenet_v1(width: float = 1.0, classes: int = 1000) -> nn.Sequential:
    """``[N, 3, H, W]`` to ``[N, classes]``; ``width`` such that all channels are multiples of 8."""

    def wide(channels: int) -> int:
        return int(channels * width)

    outputs = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    layers, channels = [*conv_norm(3, wide(32), 3, 2), nn.ReLU6(inplace=True)], wide(32)
    for c_out, stride in zip(map(wide, outputs), strides, strict=True):
        layers.append(Separable(channels, c_out, stride))
        channels = c_out
    return nn.Sequential(*layers, *head(channels, classes))


def mobilenet_v2(classes: int = 1000) -> nn.Sequential:
    """``[N, 3, H, W]`` to ``[N, classes]``."""
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
            (6, 160, 3, 2), (6, 320, 1, 1))  # expansion, channels, blocks, stride  # fmt: skip
    layers, channels = [*conv_norm(3, 32, 3, 2), nn.ReLU6(inplace=True)], 32
    for expansion, c_out, blocks, stride in plan:
        for number in range(blocks):
            step = stride if number == 0 else 1
            layers.append(Inverted(channels, c_out, step, expansion))
            channels = c_out
    last = [*conv_norm(channels, 1280), nn.ReLU6(inplace=True)]
    return nn.Sequential(*layers, *last, *head(1280, classes))


def resnet50(classes: int = 1000) -> nn.Sequential:
    """``[N, 3, H, W]`` to ``[N, classes]``."""
    layers: list[nn.Module] = [
        *conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    channels = 64
    for inner, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(blocks):
            layers.append(Bottleneck(channels, inner, stride if number == 0 else 1))
            channels = 4 * inner
    return nn.Sequential(*layers, *head(channels, classes))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Gives ``target`` the parameters and statistics of ``source``, in order.

    Raises ValueError where the two do not have the same shapes in the same order.
    """
    given, wanted = source.state_dict(), target.state_dict()
    theirs = [(name, tuple(value.shape)) for name, value in given.items()]
    mine = [(name, tuple(value.shape)) for name, value in wanted.items()]
    for one, other in zip(theirs, mine, strict=False):
        if one[1] != other[1]:
            raise ValueError(f"bench: {one[0]} is {one[1]} where {other[0]} is {other[1]}")
    if len(theirs) != len(mine):
        raise ValueError(f"bench: {len(theirs)} weights and statistics for {len(mine)}")
    target.load_state_dict(dict(zip(wanted, given.values(), strict=True)))


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> nn.Module:
    """Statistics of ``images`` and uneven scales for all batch norms; in place.

    Without this every norm would be the identity, and a mistake in folding it would not show.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return network
    for norm in norms:
        norm.momentum = 1.0
        norm.weight.uniform_(0.8, 1.2)
        norm.bias.normal_(0, 0.1)
    network.train()
    network(images)
    for norm in norms:
        norm.momentum = 0.1
    return network
