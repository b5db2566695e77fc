"""MobileNetV3, large and small: MobileNetV2's blocks with attention, found by search.

Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, tables 1 and 2.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from pointwise import checks
from pointwise.functional.padding import Padding
from pointwise.layers import ConvNormAct, InvertedResidual
from pointwise.layers.conv_norm_act import Norm
from pointwise.networks.image_classifier import (
    ImageClassifier,
    check_width,
    divisible,
    initialise,
    initialise_linear,
)

RE, HS = "relu", "hardswish"

_LARGE = (
    (3, 16, 16, False, RE, 1),
    (3, 64, 24, False, RE, 2), (3, 72, 24, False, RE, 1),
    (5, 72, 40, True, RE, 2), (5, 120, 40, True, RE, 1), (5, 120, 40, True, RE, 1),
    (3, 240, 80, False, HS, 2), (3, 200, 80, False, HS, 1), (3, 184, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 480, 112, True, HS, 1), (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2), (5, 960, 160, True, HS, 1), (5, 960, 160, True, HS, 1),
)  # fmt: skip
"""Kernel, expanded channels, output channels, attention, activation, stride."""

_SMALL = (
    (3, 16, 16, True, RE, 2),
    (3, 72, 24, False, RE, 2), (3, 88, 24, False, RE, 1),
    (5, 96, 40, True, HS, 2), (5, 240, 40, True, HS, 1), (5, 240, 40, True, HS, 1),
    (5, 120, 48, True, HS, 1), (5, 144, 48, True, HS, 1),
    (5, 288, 96, True, HS, 2), (5, 576, 96, True, HS, 1), (5, 576, 96, True, HS, 1),
)  # fmt: skip

_SIZES = {
    "large": (_LARGE, (1, 2, 3, 4, 2, 3), 1280),
    "small": (_SMALL, (1, 2, 3, 2, 3), 1024),
}
"""Blocks, how many in each stage, channels of the hidden layer."""


class MobileNetV3(ImageClassifier):
    """``images [N, in_channels, H, W]`` to logits ``[N, classes]``; ``size`` "large" or "small".

    At 224 × 224 with ``width=1``, large has 5.5 million parameters and 217 million multiply-adds,
    small 2.5 and 57. The hidden layer is as wide with any ``width``. The norm's ``eps`` is the
    authors' 0.001, as in torchvision; timm has PyTorch's 0.00001: for its weights,
    ``norm=torch.nn.BatchNorm2d``. Without ``padding`` it is half the kernel, as in PyTorch's
    networks; weights trained in TensorFlow need ``"same"``. See ``ImageClassifier`` for
    ``stem_stride``.

    >>> MobileNetV3(classes=10, size="small")(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        classes: int = 1000,
        width: float = 1.0,
        in_channels: int = 3,
        size: str = "large",
        dropout: float = 0.2,
        norm: Norm | None = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01),
        padding: Padding | None = None,
        stem_stride: int = 2,
    ) -> None:
        super().__init__(classes, in_channels, stem_stride)
        check_width("MobileNetV3", width)
        checks.one_of("MobileNetV3", "size", size, tuple(_SIZES))
        table, self.depths, hidden = _SIZES[size]
        channels = divisible(16 * width)
        self.stem = ConvNormAct(in_channels, channels, 3, stem_stride, padding, norm=norm,
                                activation=HS)  # fmt: skip
        blocks = []
        narrow = 16
        for kernel, inner, base, attends, activation, stride in table:
            expanded, wide = divisible(channels * inner / narrow), divisible(base * width)
            squeezed = divisible(expanded // 4) if attends else None
            blocks.append(
                InvertedResidual(channels, wide, expanded, kernel, stride, squeezed, "hardsigmoid",
                                 activation, padding=padding, norm=norm)
            )  # fmt: skip
            channels, narrow = wide, base
        self.blocks = nn.Sequential(*blocks)
        last = divisible(6 * narrow * width)
        self.last = ConvNormAct(channels, last, 1, norm=norm, activation=HS)
        self.hidden = nn.Linear(last, hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)
        initialise(self)
        initialise_linear(self.hidden)
        initialise_linear(self.classifier)

    def features(self, images: Tensor) -> Tensor:
        return self.last(self.blocks(self.stem(images)))

    def head(self, pooled: Tensor) -> Tensor:
        return self.classifier(self.dropout(F.hardswish(self.hidden(pooled))))
