"""The blocks that image networks are made of: attention over channels, residuals, reductions.

Every convolution goes through ``conv_norm_act``, and every residual into it, so that they run as
one wherever that is possible.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointwise import checks
from pointwise.convolution.epilogue import ACTIVATIONS, finish
from pointwise.functional.convolve import Size
from pointwise.functional.lines_and_volumes import depthwise_conv1d
from pointwise.functional.padding import Padding
from pointwise.layers.conv_norm_act import (
    ConvNormAct,
    Norm,
    conv_norm_act,
    in_sequence,
    links_of,
    run,
)
from pointwise.layers.images import Conv2d, PointwiseConv2d

_GATES = tuple(row.name for row in ACTIVATIONS.values() if row.is_gate)


def _squeezed(caller: str, channels: int, given: int | None) -> int:
    """The width of the narrow layer: as given, or a sixteenth of the channels."""
    if given is None:
        return max(1, channels // 16)
    if not isinstance(given, int) or given < 1:
        raise ValueError(
            f"{caller}: squeezed must be a number of channels, at least 1, got {given!r}; leave it "
            f"out for a sixteenth of the {channels} channels"
        )
    return given


class SqueezeExcite(nn.Module):
    """``x · gate(restore(activation(reduce(mean of x over its pixels))))``.

    ``x [N, C, H, W]``; two pointwise convolutions on the means ``[N, C, 1, 1]``, over ``squeezed``
    channels (a sixteenth of C), give each channel of each image its factor. MobileNetV3 takes the
    gate ``"hardsigmoid"``, EfficientNet the activation ``"silu"``. Source: Hu, Shen, Sun,
    "Squeeze-and-Excitation Networks", CVPR 2018, section 3.

    >>> SqueezeExcite(64)(torch.rand(2, 64, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        squeezed: int | None = None,
        activation: str = "relu",
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        checks.one_of("SqueezeExcite", "gate", gate, _GATES)
        squeezed = _squeezed("SqueezeExcite", channels, squeezed)
        self.reduce = ConvNormAct(channels, squeezed, 1, norm=None, activation=activation)
        self.restore = ConvNormAct(squeezed, channels, 1, norm=None, activation=None)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * finish(self.restore(self.reduce(means)), None, self.gate)

    def extra_repr(self) -> str:
        return f"gate={self.gate}"


class ChannelAttention(nn.Module):
    """``x · sigmoid(mlp(mean of x) + mlp(maximum of x))``, mean and maximum over the pixels.

    ``x [N, C, H, W]``; ``mlp`` is ``restore(relu(reduce(·)))`` over ``squeezed`` channels (a
    sixteenth of C), the same for both. Source: Woo, Park, Lee, Kweon, "CBAM: Convolutional Block
    Attention Module", ECCV 2018, section 3, equation 2.

    >>> ChannelAttention(64)(torch.rand(2, 64, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(self, channels: int, squeezed: int | None = None) -> None:
        super().__init__()
        squeezed = _squeezed("ChannelAttention", channels, squeezed)
        self.reduce = ConvNormAct(channels, squeezed, 1, norm=None)
        self.restore = PointwiseConv2d(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        means = self.reduce(x.mean((2, 3), keepdim=True))
        maxima = self.restore(self.reduce(x.amax((2, 3), keepdim=True)))
        return x * conv_norm_act(means, self.restore, None, "sigmoid", maxima)


class EfficientChannelAttention(nn.Module):
    """``x · sigmoid(convolution over the channels (mean of x over its pixels))``.

    ``x [N, C, H, W]``; ``weight [1, 1, k]`` slides along the channels, so that k weights do what
    ``SqueezeExcite`` does with C²/8. Without ``kernel_size``, k is the odd number at or above
    ``(log2(C) + 1) / 2``. Source: Wang et al., "ECA-Net", CVPR 2020, section 3.2.3, equation 12.

    >>> EfficientChannelAttention(64)(torch.rand(2, 64, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(self, channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        if kernel_size is None:
            kernel_size = int((math.log2(channels) + 1) / 2) | 1
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                "EfficientChannelAttention: kernel_size must be an odd whole number, so that each "
                f"channel has as many neighbours on both sides, got {kernel_size!r}"
            )
        self.weight = nn.Parameter(torch.empty(1, 1, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.weight.shape[2])
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3)).unsqueeze(1)  # [N, 1, C]
        factors = depthwise_conv1d(means, self.weight, padding="same", activation="sigmoid")
        return x * factors.transpose(1, 2).unsqueeze(3)

    def extra_repr(self) -> str:
        return f"kernel_size={self.weight.shape[2]}"


class Bottleneck(nn.Module):
    """ResNet's block: 1×1 to ``channels``, 3×3, 1×1 to four times as many, plus the input.

    ``[N, in_channels, H, W]`` to ``[N, 4·channels, ⌈H/stride⌉, ⌈W/stride⌉]``. The stride is on the
    3×3 convolution (often called version 1.5). Where shapes differ, a 1×1 convolution,
    ``downsample``, makes the input fit. Parameters are named as in torchvision. Source: He et al.,
    "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.1.

    >>> Bottleneck(64, 32, stride=2)(torch.rand(1, 64, 8, 8)).shape
    torch.Size([1, 128, 4, 4])
    """

    EXPANSION = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: Norm = nn.BatchNorm2d,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        out_channels = self.EXPANSION * channels
        self.conv1 = PointwiseConv2d(in_channels, channels, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = Conv2d(channels, channels, 3, stride, dilation, dilation, groups, bias=False)
        self.bn2 = norm(channels)
        self.conv3 = PointwiseConv2d(channels, out_channels, bias=False)
        self.bn3 = norm(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            shortcut = PointwiseConv2d(in_channels, out_channels, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm(out_channels))
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        shortcut = input if self.downsample is None else conv_norm_act(input, *self.downsample)
        links = [
            *links_of(self.conv1, self.bn1, self.activation),
            *links_of(self.conv2, self.bn2, self.activation),
            *links_of(self.conv3, self.bn3, self.activation),
        ]
        return run(input, links, shortcut)


class InvertedResidual(nn.Module):
    """MobileNetV2's block, with what MobileNetV3 and EfficientNet added to it.

    ``expand`` (1×1 to ``expanded`` channels; left out if there are as many already), ``depthwise``,
    ``excite`` (``SqueezeExcite`` over ``squeezed`` channels, if given) and ``project`` (1×1, no
    activation); plus the input where shapes agree. In training, ``drop`` is the probability with
    which an image skips the block (stochastic depth; Huang et al., 2016). Sources: Sandler et al.,
    "MobileNetV2", CVPR 2018, table 1; Howard et al., "Searching for MobileNetV3", ICCV 2019,
    section 3; Tan, Le, "EfficientNet", ICML 2019, section 4.

    >>> InvertedResidual(16, 24, expanded=96, stride=2)(torch.rand(1, 16, 8, 8)).shape
    torch.Size([1, 24, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expanded: int,
        kernel_size: Size = 3,
        stride: int = 1,
        squeezed: int | None = None,
        gate: str = "sigmoid",
        activation: str = "relu6",
        squeeze_activation: str = "relu",
        padding: Padding | None = None,
        norm: Norm | None = nn.BatchNorm2d,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(drop, (int, float)) or not 0 <= drop < 1:
            raise ValueError(
                "InvertedResidual: drop must be a probability, at least 0 and less than 1, "
                f"got {drop!r}"
            )
        self.expand = (
            ConvNormAct(in_channels, expanded, 1, norm=norm, activation=activation)
            if expanded != in_channels
            else None
        )
        self.depthwise = ConvNormAct(expanded, expanded, kernel_size, stride, padding,
                                     groups=expanded, norm=norm, activation=activation)  # fmt: skip
        self.excite = (
            SqueezeExcite(expanded, squeezed, squeeze_activation, gate)
            if squeezed is not None
            else None
        )
        self.project = ConvNormAct(expanded, out_channels, 1, norm=norm, activation=None)
        self.residual = stride == 1 and in_channels == out_channels
        self.drop = float(drop)

    def forward(self, input: Tensor) -> Tensor:
        every = (self.expand, self.depthwise, self.excite, self.project)
        parts: list[nn.Module] = [part for part in every if part is not None]
        if not self.residual:
            return in_sequence(input, parts)
        if self.training and self.drop > 0:
            return input + stochastic_depth(in_sequence(input, parts), self.drop)
        return in_sequence(input, parts, residual=input)

    def extra_repr(self) -> str:
        return f"residual={self.residual}, drop={self.drop:g}"


def stochastic_depth(x: Tensor, drop: float) -> Tensor:
    """Zero for each image of ``x [N, C, H, W]`` with probability ``drop``, else ``x / (1 - drop)``.

    Dividing keeps the mean, so that nothing is left to do in inference. Source: Huang et al., "Deep
    Networks with Stochastic Depth", ECCV 2016, with the division moved into training.
    """
    keep = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device)
    return x * keep.bernoulli_(1 - drop).div_(1 - drop)


class InceptionReduction(nn.Module):
    """Halves an image in three ways at once and puts the channels side by side.

    ``direct``, a 3×3 convolution with stride 2; ``deep``, 1×1, 3×3, and 3×3 with stride 2, over
    the channels ``through`` (a pair); and the maximum of 3×3 pixels. ``[N, C, H, W]`` to
    ``[N, direct + deep + C, ⌊(H-1)/2⌋, …]``, or with ``padding=1`` ⌈H/2⌉. Source: Szegedy et al.,
    "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning", AAAI 2017,
    figure 7, where Inception-v4 has 384 direct, 256 deep, through (192, 224).

    >>> InceptionReduction(384, 384, 256, (192, 224))(torch.rand(1, 384, 35, 35)).shape
    torch.Size([1, 1024, 17, 17])
    """

    def __init__(
        self,
        in_channels: int,
        direct: int,
        deep: int,
        through: tuple[int, int],
        padding: int = 0,
        norm: Norm | None = nn.BatchNorm2d,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if padding not in (0, 1):
            raise ValueError(
                "InceptionReduction: padding must be 0, as in the paper, or 1, which keeps the "
                f"border of the image, got {padding!r}"
            )
        reduced, widened = through
        self.direct = ConvNormAct(
            in_channels, direct, 3, 2, padding, norm=norm, activation=activation
        )
        self.deep = nn.Sequential(
            ConvNormAct(in_channels, reduced, 1, norm=norm, activation=activation),
            ConvNormAct(reduced, widened, 3, norm=norm, activation=activation),
            ConvNormAct(widened, deep, 3, 2, padding, norm=norm, activation=activation),
        )
        self.padding = padding
        self.out_channels = direct + deep + in_channels

    def forward(self, input: Tensor) -> Tensor:
        largest = F.max_pool2d(input, 3, 2, self.padding)
        return torch.cat((self.direct(input), self.deep(input), largest), dim=1)
