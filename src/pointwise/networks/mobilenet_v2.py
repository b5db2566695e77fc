"""MobileNetV2: narrow residual blocks that widen inside, and end without an activation.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
table 2.
"""

from __future__ import annotations

from torch import Tensor, nn

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

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
           (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
"""Expansion, output channels, number of blocks, stride of the first: the table's t, c, n, s."""


class MobileNetV2(ImageClassifier):
    """``images [N, in_channels, H, W]`` to logits ``[N, classes]``: 17 inverted residuals.

    3.5 million parameters and 301 million multiply-adds at 224 × 224 with ``width=1``. The last
    convolution's 1,280 channels become more, but not fewer, with ``width``. Without ``padding`` it
    is half the kernel, as in PyTorch's networks; weights trained in TensorFlow need ``"same"``. See
    ``ImageClassifier`` for ``stem_stride``.

    >>> MobileNetV2(classes=10, width=0.5)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        classes: int = 1000,
        width: float = 1.0,
        in_channels: int = 3,
        dropout: float = 0.2,
        activation: str = "relu6",
        norm: Norm | None = nn.BatchNorm2d,
        padding: Padding | None = None,
        stem_stride: int = 2,
    ) -> None:
        super().__init__(classes, in_channels, stem_stride)
        check_width("MobileNetV2", width)
        channels = divisible(32 * width)
        self.stem = ConvNormAct(in_channels, channels, 3, stem_stride, padding, norm=norm,
                                activation=activation)  # fmt: skip
        blocks = []
        for expansion, base, depth, stride in _STAGES:
            wide = divisible(base * width)
            for place in range(depth):
                blocks.append(
                    InvertedResidual(
                        channels, wide, expansion * channels, stride=stride if place == 0 else 1,
                        activation=activation, padding=padding, norm=norm,
                    )
                )  # fmt: skip
                channels = wide
        self.blocks = nn.Sequential(*blocks)
        self.depths = tuple(depth for _, _, depth, _ in _STAGES)
        last = divisible(1280 * max(1.0, width))
        self.last = ConvNormAct(channels, last, 1, norm=norm, activation=activation)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(last, classes)
        initialise(self)
        initialise_linear(self.classifier)

    def features(self, images: Tensor) -> Tensor:
        return self.last(self.blocks(self.stem(images)))

    def head(self, pooled: Tensor) -> Tensor:
        return self.classifier(self.dropout(pooled))
