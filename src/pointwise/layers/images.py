"""The convolutions on images as modules: ``nn.Conv2d`` with our padding, kernels and epilogue."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointwise import checks
from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.functional.convolve import Size, convolve, shift_convolve
from pointwise.functional.padding import Padding, resolve
from pointwise.layers import inference
from pointwise.layers.unit import PLAIN_FORWARDS


class Conv2d(nn.Conv2d):
    """Standard convolution, ``functional.conv2d``.

    Seen from outside, a ``torch.nn.Conv2d``: its parameters, initialisation and ``state_dict``.
    Beyond that, ``padding`` may be ``"same"`` with any stride, or a pair (before, after) for each
    dimension, and an ``activation`` may follow.

    Where no gradients are wanted, 3×3 kernels of stride 1 are multiplied by Winograd's algorithm if
    that is faster. It rounds otherwise than the direct sum of training: errors are between two
    thirds and twice as large (root mean square of 256 channels: 0.9e-7 or 2.5e-7 of the largest
    result, instead of 1.3e-7), and an infinity or a NaN spreads to neighbours up to three pixels
    further.

    >>> Conv2d(3, 16, 3, stride=2, padding="same", activation="relu")(torch.rand(1, 3, 8, 8)).shape
    torch.Size([1, 16, 4, 4])
    """

    kind = "standard"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        name = type(self).__name__
        checks.positive(name, "in_channels", in_channels)
        checks.groups(name, groups, in_channels)
        kernel_size = checks.per_dimension(name, "kernel_size", kernel_size, 2)
        stride = checks.per_dimension(name, "stride", stride, 2)
        dilation = checks.per_dimension(name, "dilation", dilation, 2)
        checks.outputs(name, out_channels, groups)
        if activation is not None:
            checks.one_of(name, "activation", activation, tuple(ACTIVATIONS))
        resolve(name, padding, (64, 64), kernel_size, stride, dilation)  # only to check it
        super().__init__(in_channels, out_channels, tuple(kernel_size), tuple(stride), 0,  # type: ignore[arg-type]
                         tuple(dilation), groups, bias)  # type: ignore[arg-type]  # fmt: skip
        self.padding = _hashable(padding)  # type: ignore[assignment]
        self.activation = activation

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """``activation(convolution + residual)``."""
        out = inference.alone(self, input, residual)
        if out is not None:
            return out
        groups = None if self.kind == "depthwise" else self.groups
        return convolve(type(self).__name__, 2, input, self.weight, self.bias, self.stride,
                        self.padding, self.dilation, groups, self.activation, residual,
                        kind=self.kind)  # fmt: skip

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")


PLAIN_FORWARDS.add(Conv2d.forward)


def _hashable(padding: Padding) -> Padding:
    """The same with tuples for lists, so that it can be looked up."""
    if isinstance(padding, int):
        return padding, padding
    if isinstance(padding, str):
        return padding
    return tuple(part if isinstance(part, int) else tuple(part) for part in padding)  # type: ignore[return-value]


class PointwiseConv2d(Conv2d):
    """Pointwise (1×1) convolution, ``functional.pointwise_conv2d``.

    ``weight [C_out, C_in/groups, 1, 1]``, as of an ``nn.Conv2d`` with kernel 1.
    """

    kind = "pointwise"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Size = 1,
        padding: Padding = 0,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, 1, stride, padding, 1, groups, bias,
                         activation)  # fmt: skip


class DepthwiseConv2d(Conv2d):
    """Depthwise convolution, ``functional.depthwise_conv2d``; ``weight [C·m, 1, kh, kw]``.

    ``depth_multiplier`` is m, the number of outputs of each channel.
    """

    kind = "depthwise"

    def __init__(
        self,
        channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        checks.positive("DepthwiseConv2d", "depth_multiplier", depth_multiplier)
        super().__init__(channels, channels * depth_multiplier, kernel_size, stride, padding,
                         dilation, channels, bias, activation)  # fmt: skip


class ShiftConv2d(nn.Module):
    """Shift convolution, ``functional.shift_conv2d``: channels moved, then mixed at every pixel.

    ``weight [C_out, C_in, 1, 1]``, ``bias [C_out]``; ``state_dict``s as of a 1×1 ``nn.Conv2d``.

    >>> ShiftConv2d(18, 16, stride=2, activation="relu")(torch.rand(1, 18, 8, 8)).shape
    torch.Size([1, 16, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        dilation: Size = 1,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        checks.positive(name, "in_channels", in_channels)
        checks.positive(name, "out_channels", out_channels)
        self.kernel_size = tuple(checks.odd_kernel(name, kernel_size, 2))
        self.stride = tuple(checks.per_dimension(name, "stride", stride, 2))
        self.dilation = tuple(checks.per_dimension(name, "dilation", dilation, 2))
        if activation is not None:
            checks.one_of(name, "activation", activation, tuple(ACTIVATIONS))
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As of ``nn.Conv2d``."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """``activation(convolution + residual)``."""
        return shift_convolve(type(self).__name__, input, self.weight, self.bias, self.kernel_size,
                              self.stride, self.dilation, self.activation, residual)  # fmt: skip

    def extra_repr(self) -> str:
        shown = f"{self.weight.shape[1]}, {self.weight.shape[0]}, kernel_size={self.kernel_size}"
        shown += f", stride={self.stride}, dilation={self.dilation}"
        return shown + (f", activation={self.activation}" if self.activation else "")
