"""ResNet-50, with torchvision's names.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1; the stride on
the 3×3 convolutions (version 1.5).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pointwise.layers import Bottleneck, Conv2d, conv_norm_act
from pointwise.layers.conv_norm_act import Norm
from pointwise.networks.image_classifier import ImageClassifier, initialise

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Channels inside the blocks, number of blocks, stride of the first."""


class ResNet50(ImageClassifier):
    """``images [N, in_channels, H, W]`` to logits ``[N, classes]``: 16 bottlenecks.

    25.6 million parameters and 4.1 billion multiply-adds at 224 × 224. ``state_dict``s
    interchange with torchvision's and timm's ``resnet50``. With ``stem_stride=1``, for small
    images, neither the first convolution nor a max pool behind it takes every second pixel; weights
    remain interchangeable.

    >>> ResNet50(classes=10, stem_stride=1)(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """

    LAST_LAYER = "fc"

    def __init__(
        self,
        classes: int = 1000,
        in_channels: int = 3,
        norm: Norm = nn.BatchNorm2d,
        stem_stride: int = 2,
    ) -> None:
        super().__init__(classes, in_channels, stem_stride)
        channels = 64
        self.conv1 = Conv2d(in_channels, channels, 7, stem_stride, 3, bias=False)
        self.bn1 = norm(channels)
        stages = []
        for inner, depth, stride in _STAGES:
            blocks = [Bottleneck(channels, inner, stride, norm=norm)]
            channels = Bottleneck.EXPANSION * inner
            blocks += [Bottleneck(channels, inner, norm=norm) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(channels, classes)
        self.stem_stride = stem_stride
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        x = conv_norm_act(images, self.conv1, self.bn1, "relu")
        if self.stem_stride == 2:
            x = F.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def head(self, pooled: Tensor) -> Tensor:
        return self.fc(pooled)
