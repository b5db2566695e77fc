"""EfficientNet-B0: MobileNetV2's blocks with attention everywhere, found by search.

Source: Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML
2019, table 1.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from pointwise.functional.padding import Padding
from pointwise.layers import ConvNormAct, InvertedResidual
from pointwise.layers.conv_norm_act import Norm
from pointwise.networks.image_classifier import ImageClassifier, initialise

_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
           (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1))  # fmt: skip
"""Expansion, kernel, stride of the first, output channels, number of blocks."""


class EfficientNetB0(ImageClassifier):
    """``images [N, in_channels, H, W]`` to logits ``[N, classes]``.

    5.3 million parameters and 386 million multiply-adds at 224 × 224. In training, an image skips
    blocks (stochastic depth), the last ones with a probability of nearly ``drop``, earlier ones in
    proportion. Without ``padding`` it is half the kernel, as in PyTorch's networks; weights trained
    in TensorFlow need ``"same"`` and a norm with ``eps=0.001``. See ``ImageClassifier`` for
    ``stem_stride``.

    >>> EfficientNetB0(classes=10)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
        drop: float = 0.2,
        activation: str = "silu",
        norm: Norm | None = nn.BatchNorm2d,
        padding: Padding | None = None,
        stem_stride: int = 2,
    ) -> None:
        super().__init__(classes, in_channels, stem_stride)
        self.depths = tuple(depth for *_, depth in _STAGES)
        channels = 32
        self.stem = ConvNormAct(in_channels, channels, 3, stem_stride, padding, norm=norm,
                                activation=activation)  # fmt: skip
        blocks: list[nn.Module] = []
        for expansion, kernel, stride, wide, depth in _STAGES:
            for place in range(depth):
                blocks.append(
                    InvertedResidual(
                        channels, wide, expansion * channels, kernel, stride if place == 0 else 1,
                        channels // 4, activation=activation, squeeze_activation=activation,
                        padding=padding, norm=norm, drop=drop * len(blocks) / sum(self.depths),
                    )
                )  # fmt: skip
                channels = wide
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvNormAct(channels, 1280, 1, norm=norm, activation=activation)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(1280, classes)
        initialise(self)
        bound = 1 / math.sqrt(classes)
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.zeros_(self.classifier.bias)

    def features(self, images: Tensor) -> Tensor:
        return self.last(self.blocks(self.stem(images)))

    def head(self, pooled: Tensor) -> Tensor:
        return self.classifier(self.dropout(pooled))
