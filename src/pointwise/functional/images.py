"""The convolutions on images as functions: pointwise, depthwise, separable, standard, shift.

All take what ``torch.nn.functional.conv2d`` takes where it makes sense, ``"same"`` padding with any
stride, and what follows a convolution: ``activation(convolution + bias + residual)``, where the
activation is a name of ``convolution/epilogue.py``, such as relu, silu or gelu. Inputs are
``[N, C, H, W]`` or ``[C, H, W]``. The CPU kernels work on ``channels_last``: another layout is
converted first, and results are channels_last.
"""

from __future__ import annotations

from torch import Tensor

from pointwise.functional.convolve import Size, convolve, separable, shift_convolve
from pointwise.functional.padding import Padding


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Standard convolution, as ``torch.nn.functional.conv2d``, with its epilogue.

    ``input [N, C_in, H, W]``, ``weight [C_out, C_in/groups, kh, kw]``, ``bias [C_out]``,
    ``residual`` like the result ``[N, C_out, H_out, W_out]``. Raises ValueError or TypeError for
    what does not fit.

    >>> conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3), padding="same")
    tensor([[[[4., 6., 4.],
              [6., 9., 6.],
              [4., 6., 4.]]]])
    """
    return convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups,
                    activation, residual)  # fmt: skip


def pointwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    groups: int = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Pointwise (1×1) convolution: a linear map from C_in to C_out channels at every pixel.

    ``weight [C_out, C_in/groups]`` or ``[C_out, C_in/groups, 1, 1]``; a stride reads every
    ``stride``-th pixel. Source: Lin, Chen, Yan, "Network In Network", 2014.

    >>> image = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two channels of two pixels
    >>> pointwise_conv2d(image, torch.tensor([[1.0, 1.0]]))
    tensor([[[[4., 6.]]]])
    """
    return convolve("pointwise_conv2d", 2, input, weight, bias, stride, padding, 1, groups,
                    activation, residual, kind="pointwise")  # fmt: skip


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Depthwise convolution: every channel by kernels of its own.

    ``weight [C·m, 1, kh, kw]`` with the depth multiplier m: channel c gives the outputs c·m to
    c·m+m-1. Source: Howard et al., "MobileNets", 2017, equation 3.

    >>> depthwise_conv2d(torch.ones(1, 1, 3), torch.ones(1, 1, 1, 3), padding="same")
    tensor([[[2., 3., 2.]]])
    """
    return convolve("depthwise_conv2d", 2, input, weight, bias, stride, padding, dilation, None,
                    activation, residual, kind="depthwise")  # fmt: skip


def depthwise_separable_conv2d(
    input: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    depthwise_bias: Tensor | None = None,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    depthwise_activation: str | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Depthwise separable convolution: a depthwise one, then a pointwise one.

    ``depthwise [C_in·m, 1, kh, kw]`` with its bias ``[C_in·m]`` and activation, ``pointwise
    [C_out, C_in·m/groups]``; ``stride``, ``padding`` and ``dilation`` are the depthwise half's,
    ``groups``, ``bias``, ``activation`` and ``residual`` the pointwise half's. Without gradients
    both halves run in one tile loop, and what lies between them never leaves the cache. Source:
    Howard et al., "MobileNets", 2017, section 3.1.

    >>> image = torch.ones(1, 2, 1, 3)
    >>> depthwise_separable_conv2d(image, torch.ones(2, 1, 1, 3), torch.ones(1, 2), padding="same")
    tensor([[[[4., 6., 4.]]]])
    """
    return separable("depthwise_separable_conv2d", 2, input, depthwise, pointwise, depthwise_bias,
                     bias, stride, padding, dilation, groups, depthwise_activation, activation,
                     residual)  # fmt: skip


def shift_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_size: Size = 3,
    stride: Size = 1,
    dilation: Size = 1,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Shift convolution: every channel moved by an offset of a kernel, then a pointwise one.

    ``weight [C_out, C_in]`` or ``[C_out, C_in, 1, 1]``. ⌊C_in/k²⌋ consecutive channels go with each
    offset of a k×k kernel (k odd), row by row; what is left over is not moved. Zeros come in from
    outside, so that stride 1 keeps the size. Moving has no parameters and multiplies nothing.
    Source: Wu et al., "Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions",
    CVPR 2018.

    >>> image = torch.tensor([[1.0, 2.0, 3.0]]).expand(1, 3, 1, 3)  # three channels of one row
    >>> shift_conv2d(image, torch.eye(3), kernel_size=(1, 3))  # from the left, here, from the right
    tensor([[[[0., 1., 2.]],
    <BLANKLINE>
             [[1., 2., 3.]],
    <BLANKLINE>
             [[2., 3., 0.]]]])
    """
    return shift_convolve("shift_conv2d", input, weight, bias, kernel_size, stride, dilation,
                          activation, residual)  # fmt: skip
