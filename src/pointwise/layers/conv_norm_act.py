"""A convolution, its normalisation and its activation, run as one wherever that is possible."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pointwise import checks
from pointwise.epilogue import ACTIVATIONS, finish
from pointwise.functional.convolve import Size
from pointwise.functional.padding import Padding
from pointwise.layers import folded
from pointwise.layers.images import Conv2d, DepthwiseConv2d, PointwiseConv2d

Norm = Callable[[int], nn.Module]
"""From a number of channels, the module that normalises them; such as ``nn.BatchNorm2d``."""


def conv_norm_act(
    input: Tensor,
    conv: nn.Conv2d,
    norm: nn.Module | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(norm(conv(input)) + residual)``.

    Whatever module ``norm`` is, the result is that of the separate modules, and so are gradients
    and running statistics.
    """
    what = folded.folded(input, conv, norm, activation, residual)
    if what is not None:
        return folded.run(input, what, activation, residual)
    x = conv(input)
    if norm is not None:
        x = norm(x)
    return finish(x, residual, activation or "none")


def one_after_the_other(
    input: Tensor, first: ConvNormAct, second: ConvNormAct, residual: Tensor | None = None
) -> Tensor:
    """``second(first(input), residual)``.

    A depthwise ``first`` and a pointwise ``second`` run in one tile loop in inference, where that
    is faster.
    """
    if not folded.has_hooks(first) and not folded.has_hooks(second):
        what = folded.folded(input, first.conv, first.norm, first.activation, None)
        then = what and folded.behind(
            what.shape, input.dtype, second.conv, second.norm, second.activation
        )
        if what is not None and then is not None:
            out = folded.run_pair(input, what, first.activation, then, second.activation, residual)
            if out is not None:
                return out
    return second(first(input), residual)


class ConvNormAct(nn.Module):
    """Convolution, norm, activation: ``activation(norm(conv(x)) + residual)``.

    ``conv`` is a ``PointwiseConv2d``, ``DepthwiseConv2d`` or ``Conv2d``, as kernel and groups say.
    Without ``padding`` it is ``kernel // 2`` (times the dilation), as in PyTorch's networks;
    without ``bias`` there is one only if there is no norm.

    >>> ConvNormAct(3, 16, kernel_size=3, stride=2)(torch.rand(1, 3, 8, 8)).shape
    torch.Size([1, 16, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Padding | None = None,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm: Norm | None = nn.BatchNorm2d,
        activation: str | None = "relu",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        kernel = checks.per_dimension(name, "kernel_size", kernel_size, 2)
        spread = checks.per_dimension(name, "dilation", dilation, 2)
        checks.groups(name, groups, in_channels)
        if activation is not None:
            checks.one_of(name, "activation", activation, tuple(ACTIVATIONS))
        if padding is None:
            padding = [(k - 1) // 2 * d for k, d in zip(kernel, spread, strict=True)]
        bias = norm is None if bias is None else bias
        if kernel == [1, 1]:
            conv: Conv2d = PointwiseConv2d(in_channels, out_channels, stride, padding, groups, bias)
        elif 1 < groups == in_channels:
            conv = DepthwiseConv2d(in_channels, kernel, stride, padding, dilation,
                                   out_channels // in_channels, bias)  # fmt: skip
        else:
            conv = Conv2d(
                in_channels, out_channels, kernel, stride, padding, dilation, groups, bias
            )
        self.conv = conv
        self.norm = None if norm is None else norm(out_channels)
        self.activation = activation

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return conv_norm_act(input, self.conv, self.norm, self.activation, residual)

    def extra_repr(self) -> str:
        return f"activation={self.activation}"


class DepthwiseSeparableConv2d(nn.Module):
    """Depthwise separable convolution: two ``ConvNormAct``, ``depthwise`` and ``pointwise``.

    With ``between``, norm and activation follow each half, as in MobileNet; without, only the
    second, as Xception has it: "the absence of any non-linearity leads to both faster convergence
    and better final performance". Sources: Howard et al., "MobileNets", 2017, section 3.1; Chollet,
    "Xception", 2017, section 4.7.

    >>> DepthwiseSeparableConv2d(16, 32, stride=2)(torch.rand(1, 16, 8, 8)).shape
    torch.Size([1, 32, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Padding | None = None,
        dilation: Size = 1,
        depth_multiplier: int = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm: Norm | None = None,
        activation: str | None = None,
        between: bool = True,
    ) -> None:
        super().__init__()
        inner = in_channels * depth_multiplier
        self.depthwise = ConvNormAct(
            in_channels, inner, kernel_size, stride, padding, dilation, in_channels,
            bias if between else False, norm if between else None,
            activation if between else None)  # fmt: skip
        self.pointwise = ConvNormAct(inner, out_channels, 1, groups=groups, bias=bias, norm=norm,
                                     activation=activation)  # fmt: skip

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return one_after_the_other(input, self.depthwise, self.pointwise, residual)
