"""Xception: Inception taken to its end, depthwise separable convolutions with residuals.

Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017,
figure 5.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from pointwise.layers import ConvNormAct, DepthwiseSeparableConv2d
from pointwise.layers.conv_norm_act import Norm
from pointwise.networks.image_classifier import ImageClassifier, initialise, initialise_linear

_ENTRY = ((64, 128, 128), (128, 256, 256), (256, 728, 728))
_MIDDLE = ((728, 728, 728, 728),) * 8
_EXIT = ((728, 728, 1024),)
"""The channels before, between and after a block's separable convolutions."""


class XceptionBlock(nn.Module):
    """Separable convolutions with a residual, ReLU before each; or, at the edges, a max pool too.

    ``[N, widths[0], H, W]`` to ``[N, widths[-1], H, W]``; where these widths differ, the result is
    ``[N, widths[-1], ⌈H/2⌉, ⌈W/2⌉]``, the residual then a 1×1 convolution with stride 2.
    """

    def __init__(self, widths: tuple[int, ...], norm: Norm | None, first: bool = False) -> None:
        super().__init__()
        last = len(widths) - 2
        self.separables = nn.ModuleList(
            DepthwiseSeparableConv2d(
                before, after, norm=norm, activation="relu" if number < last else None,
                between=False,
            )
            for number, (before, after) in enumerate(pairwise(widths))
        )  # fmt: skip
        self.shortcut = (
            ConvNormAct(widths[0], widths[-1], 1, 2, norm=norm, activation=None)
            if widths[0] != widths[-1]
            else None
        )
        self.first = first  # what comes in has been through a ReLU already

    def forward(self, input: Tensor) -> Tensor:
        *others, last = self.separables
        x = input if self.first else F.relu(input)
        for separable in others:
            x = separable(x)
        if self.shortcut is None:
            return last(x, residual=input)
        return self.shortcut(input, residual=F.max_pool2d(last(x), 3, 2, 1))


class Xception(ImageClassifier):
    """``images [N, in_channels, H, W]`` to logits ``[N, classes]``: 36 convolutional layers.

    22.9 million parameters and 8.4 billion multiply-adds at the paper's 299 × 299. See
    ``ImageClassifier`` for ``stem_stride``; the two convolutions of the stem have no padding, so
    images need 7 × 7 pixels or (with ``stem_stride=1``) 5 × 5.

    >>> Xception(classes=10, stem_stride=1)(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """

    def __init__(
        self,
        classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
        norm: Norm | None = nn.BatchNorm2d,
        stem_stride: int = 2,
    ) -> None:
        super().__init__(classes, in_channels, stem_stride)
        self.stem = nn.Sequential(
            ConvNormAct(in_channels, 32, 3, stem_stride, 0, norm=norm),
            ConvNormAct(32, 64, 3, 1, 0, norm=norm),
        )
        self.blocks = nn.Sequential(
            *(
                XceptionBlock(widths, norm, first=number == 0)
                for number, widths in enumerate(_ENTRY + _MIDDLE + _EXIT)
            )
        )
        self.last = nn.Sequential(
            DepthwiseSeparableConv2d(1024, 1536, norm=norm, activation="relu", between=False),
            DepthwiseSeparableConv2d(1536, 2048, norm=norm, activation="relu", between=False),
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2048, classes)
        initialise(self)
        initialise_linear(self.classifier)

    def features(self, images: Tensor) -> Tensor:
        return self.last(self.blocks(self.stem(images)))

    def head(self, pooled: Tensor) -> Tensor:
        return self.classifier(self.dropout(pooled))
