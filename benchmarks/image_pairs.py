"""Each convolution, block and network twice: pointwise's, and plain PyTorch's with its weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from image_shapes import NETWORKS, Block, Convolution
from plain_networks import Bottleneck, Inverted, Separable, copy_weights, mobilenet_v1, settle
from torch import Tensor, nn

from pointwise import layers
from pointwise.networks.mobilenet_v1 import MobileNetV1
from pointwise.networks.mobilenet_v2 import MobileNetV2
from pointwise.networks.resnet import ResNet50


@dataclass(frozen=True)
class Pair:
    """The same job for both, and an ``input [N, C, H, W]`` in channels_last."""

    ours: nn.Module
    plain: nn.Module
    input: Tensor

    @property
    def channels_last(self) -> nn.Module:
        """The plain one with its weights in channels_last."""
        return copy.deepcopy(self.plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool) -> Pair:
        """Both in training, without dropout, or both not."""
        for module in (self.ours, self.plain):
            module.train(mode)
            for part in module.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0  # random numbers would differ
        return self


def convolution(shape: Convolution, batch: int) -> Pair:
    """A convolution without bias, as in the networks."""
    torch.manual_seed(0)
    c_in, c_out, kernel, stride = shape.c_in, shape.c_out, shape.kernel, shape.stride
    pad = shape.padding
    plain = nn.Conv2d(c_in, c_out, kernel, stride, pad, groups=shape.groups, bias=False)
    ours: nn.Module
    if shape.kind == "pw":
        ours = layers.PointwiseConv2d(c_in, c_out, stride, bias=False)
    elif shape.kind.startswith("dw"):
        ours = layers.DepthwiseConv2d(c_in, kernel, stride, pad, bias=False)
    else:
        ours = layers.Conv2d(c_in, c_out, kernel, stride, pad, bias=False)
    return _pair(ours, plain, batch, shape.c_in, shape.size)


def block(shape: Block, batch: int) -> Pair:
    """A block with the batch norms that follow each of its convolutions."""
    torch.manual_seed(0)
    c_in, c_out, inner, stride = shape.c_in, shape.c_out, shape.inner, shape.stride
    ours: nn.Module
    plain: nn.Module
    if shape.kind == "separable":
        ours = layers.DepthwiseSeparableConv2d(
            c_in, c_out, 3, stride, norm=nn.BatchNorm2d, activation="relu6"
        )
        plain = Separable(c_in, c_out, stride)
    elif shape.kind == "inverted":
        ours = layers.InvertedResidual(c_in, c_out, inner, stride=stride)
        plain = Inverted(c_in, c_out, stride, inner // c_in)
    else:
        ours, plain = layers.Bottleneck(c_in, inner, stride), Bottleneck(c_in, inner, stride)
    return _pair(ours, plain, batch, c_in, shape.size)


def network(name: str, batch: int, size: int, width: float = 1.0) -> Pair:
    """A network of ``NETWORKS`` with 1,000 classes; only MobileNetV1 has a ``width``."""
    torch.manual_seed(0)
    if name == "mobilenet_v1":
        return _pair(MobileNetV1(width=width), mobilenet_v1(width), batch, 3, size)
    ours = {"mobilenet_v2": MobileNetV2, "resnet50": ResNet50}[name]()
    return _pair(ours, NETWORKS[name](), batch, 3, size)


def _pair(ours: nn.Module, plain: nn.Module, batch: int, channels: int, size: int) -> Pair:
    images = torch.randn(batch, channels, size, size)
    settle(plain, torch.randn(8, channels, size, size))
    copy_weights(plain, ours)
    return Pair(ours, plain, images.contiguous(memory_format=torch.channels_last))
