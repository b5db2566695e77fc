"""MobileNetV1: the network that depthwise separable convolutions became known by.

Source: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", 2017, table 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from pointwise import checks
from pointwise.functional.padding import Padding
from pointwise.layers import ConvNormAct, DepthwiseSeparableConv2d, in_sequence
from pointwise.layers.conv_norm_act import Norm
from pointwise.networks.image_classifier import (
    ImageClassifier,
    check_width,
    divisible,
    initialise,
    initialise_linear,
)

_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
           (1024, 1))  # fmt: skip
"""Output channels and stride."""


class MobileNetV1(ImageClassifier):
    """``images [N, in_channels, H, W]`` to logits ``[N, classes]``: a convolution, 13 blocks, mean.

    ``width`` is the paper's multiplier of channels; its resolution multiplier is the size of the
    images. ``convolution="standard"`` makes each block one 3×3 convolution, the network that the
    paper compares with: 29.3 million parameters and 4,866 million multiply-adds at 224 × 224, where
    ``"separable"`` takes 4.2 and 569.

    ``padding=1`` is what PyTorch's networks do; weights that were trained in TensorFlow need
    ``padding="same"``, which at stride 2 extends even images at the bottom and right only. The
    paper writes ReLU, the authors' code and weights have ReLU6. ``norm=None`` gives a network with
    biases in place of batch norm: what is left when that is folded into the weights. See
    ``ImageClassifier`` for ``stem_stride``, and ``load_weights``.

    >>> MobileNetV1(classes=10, width=0.25)(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        classes: int = 1000,
        width: float = 1.0,
        in_channels: int = 3,
        convolution: str = "separable",
        dropout: float = 0.001,
        activation: str = "relu6",
        norm: Norm | None = nn.BatchNorm2d,
        padding: Padding = 1,
        stem_stride: int = 2,
    ) -> None:
        super().__init__(classes, in_channels, stem_stride)
        check_width("MobileNetV1", width)
        checks.one_of("MobileNetV1", "convolution", convolution, ("separable", "standard"))
        block = DepthwiseSeparableConv2d if convolution == "separable" else ConvNormAct
        channels = divisible(32 * width)
        self.stem = ConvNormAct(in_channels, channels, 3, stem_stride, padding, norm=norm,
                                activation=activation)  # fmt: skip
        blocks = []
        for base, stride in _BLOCKS:
            wide = divisible(base * width)
            blocks.append(
                block(channels, wide, 3, stride, padding, norm=norm, activation=activation)
            )
            channels = wide
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, classes)
        self.depths = (1, 2, 2, 6, 2)
        self.padding = padding
        self.activation = activation
        initialise(self)
        initialise_linear(self.classifier)

    def features(self, images: Tensor) -> Tensor:
        return in_sequence(images, (self.stem, *self.blocks))

    def head(self, pooled: Tensor) -> Tensor:
        return self.classifier(self.dropout(pooled))
