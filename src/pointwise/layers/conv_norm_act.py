"""A convolution, its normalisation and its activation, run as one wherever that is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from pointwise import checks
from pointwise.convolution.epilogue import ACTIVATIONS, finish
from pointwise.functional.convolve import Size
from pointwise.functional.padding import Padding
from pointwise.layers import inference, training
from pointwise.layers.images import Conv2d, DepthwiseConv2d, PointwiseConv2d
from pointwise.layers.unit import Unit, has_hooks

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
    return run(input, units_of(conv, norm, activation), residual)


def units_of(conv: nn.Module, norm: nn.Module | None, activation: str | None) -> list[Unit]:
    """What ``run`` is to run for a convolution with a norm and an activation.

    A ``DepthwiseSeparableConv2d`` in the place of a convolution (see ``pointwise.separate``) is two
    units, so that norm and activation join its pointwise half.
    """
    if isinstance(conv, DepthwiseSeparableConv2d) and not conv.is_called():
        *first, last = conv.units()
        if last.norm is None and last.activation is None:
            return [*first, Unit(last.conv, norm, activation)]
    return [Unit(conv, norm, activation)]  # type: ignore[arg-type]


def run(input: Tensor, units: Sequence[Unit], residual: Tensor | None = None) -> Tensor:
    """``conv_norm_act`` of one unit after the other, with a ``residual`` to the last.

    In inference norms are folded into weights, and a depthwise convolution runs in one tile loop
    with the pointwise one behind it; in training, norm and activation are applied as the next
    convolution reads. Otherwise the modules run one by one.
    """
    if not units:
        return input
    if training.can_run(input, units, residual):
        return training.run(input, units, residual)
    out = inference.run(input, units, residual)
    if out is not None:
        return out
    if len(units) > 1:
        for unit in units[:-1]:
            input = run(input, [unit])
        return run(input, units[-1:], residual)
    (unit,) = units
    x = unit.conv(input)
    if unit.norm is not None:
        x = unit.norm(x)
    return finish(x, residual, unit.activation or "none")


def in_sequence(
    input: Tensor, modules: Iterable[nn.Module], residual: Tensor | None = None
) -> Tensor:
    """Calls modules one after the other; neighbours that are ``ConvNormAct`` become one ``run``.

    A ``residual`` goes to the last, which is to be such a module.
    """
    modules = list(modules)
    out = inference.again(input, modules, residual) if modules else None
    if out is not None:
        return out
    units: list[Unit] = []
    given = input
    for module in modules:
        if isinstance(module, (ConvNormAct, DepthwiseSeparableConv2d)) and not module.is_called():
            units += module.units()
            continue
        input, units = run(input, units), []
        if residual is not None and module is modules[-1]:
            return module(input, residual)
        input = module(input)
    out = run(input, units, residual)
    if input is given and units and not torch.is_grad_enabled():
        inference.remember(input, modules, units, residual)
    return out


class ConvNormAct(nn.Module):
    """Convolution, norm, activation: ``activation(norm(conv(x)) + residual)``.

    ``conv`` is a ``PointwiseConv2d``, ``DepthwiseConv2d`` or ``Conv2d``, by its kernel and groups.
    Left out, ``padding`` is ``kernel // 2`` (times the dilation), as in PyTorch's networks, and
    there is a ``bias`` only if there is no norm.

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
        apart = checks.per_dimension(name, "dilation", dilation, 2)
        checks.groups(name, groups, in_channels)
        checks.outputs(name, out_channels, groups)
        if activation is not None:
            checks.one_of(name, "activation", activation, tuple(ACTIVATIONS))
        if padding is None:
            padding = [(k - 1) // 2 * d for k, d in zip(kernel, apart, strict=True)]
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
        out = inference.again(input, (self,), residual)
        if out is not None:
            return out
        units = self.units()
        out = run(input, units, residual)
        if not torch.is_grad_enabled() and not has_hooks(self):
            inference.remember(input, (self,), units, residual)
        return out

    def units(self) -> list[Unit]:
        """What ``run`` is to run."""
        return units_of(self.conv, self.norm, self.activation)

    def is_called(self) -> bool:
        """Whether this module itself has to be called (``run`` sees to its parts' hooks)."""
        return has_hooks(self) or type(self).forward is not ConvNormAct.forward

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
        return in_sequence(input, (self.depthwise, self.pointwise), residual)

    def units(self) -> list[Unit]:
        """What ``run`` is to run."""
        return self.depthwise.units() + self.pointwise.units()

    def is_called(self) -> bool:
        """Whether this module itself, or one of its halves, has to be called."""
        return (
            has_hooks(self)
            or type(self).forward is not DepthwiseSeparableConv2d.forward
            or self.depthwise.is_called()
            or self.pointwise.is_called()
        )
