"""Operands for the operators of training with batch norm, and what they are to give, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from image_cases import CASES, F64, ImageCase, in_turn, named
from image_oracle import assert_close
from torch import Tensor

OPERATORS = torch.ops.pointwise
BOUNDS = (0.0, 6.0)

# What these operators are for: a batch of pixels, and as many channels out of a stencil as into it.
TRAINED = [
    case for case in CASES
    if case.batch and (not case.is_depthwise or case.channels[0] == case.channels[1])
]  # fmt: skip

# One of each path through the kernels.
FEW = in_turn(named(
    "3 to 16 channels", "3 groups, stride 2", "pointwise, 5 to 15 channels", "pointwise, 7 groups",
    "pointwise, stride 2 and groups", "depthwise, 17 channels", "depthwise, kernel 4 × 4",
    "depthwise, stride 2, 2", "depthwise, dilation 1 and 3, stride 2", "kernel 7 on 3 × 2",
    "depthwise, uneven padding, stride 2", "pointwise, 5 pixels", "groups of two, many",
))  # fmt: skip


@dataclass
class Operands:
    """``clamp((z - mean)·scale + shift)``, a weight, and gradients of all three results."""

    z: Tensor
    mean: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    weight: Tensor
    grad: Tensor
    d_mean: Tensor
    d_variance: Tensor
    case: ImageCase
    bounds: tuple[float, float] = BOUNDS

    @property
    def given(self) -> tuple:
        """The arguments of ``norm_conv2d``."""
        norm = (self.z, self.mean, self.scale, self.shift, *self.bounds)
        return (*norm, self.weight, *self.case.numbers)

    @property
    def wanted(self) -> list[Tensor]:
        every = (self.z, self.mean, self.scale, self.shift, self.weight)
        return [t for t in every if t is not None]

    @property
    def slopes(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.grad, self.d_mean, self.d_variance

    def of_type(self, dtype) -> Operands:
        """The same numbers in tensors of their own."""
        return self._each(lambda old: old.detach().to(dtype, copy=True))

    def on(self, device: str) -> Operands:
        """The same tensors on a device; themselves on the CPU."""
        return self if device == "cpu" else self._each(lambda old: old.detach().to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Operands:
        names = ("z", "mean", "scale", "shift", "weight", "grad", "d_mean", "d_variance")
        made = {}
        for name in names:
            old = getattr(self, name)
            made[name] = None if old is None else change(old)
        return Operands(**made, case=self.case, bounds=self.bounds)


def operands(case: ImageCase, dtype: torch.dtype | None = None, normed: bool = True) -> Operands:
    """Numbers that fit into float32; none of them so near a bound that rounding decides. In the
    case's own precision unless ``dtype`` says another."""
    dtype = dtype or case.dtype
    z = case.tensor("input", dtype)
    channels = case.channels[0]
    norm: list[Tensor | None] = [None] * 3
    if normed:
        values = case.values("norm", (3, channels))
        values[1] = np.sign(values[1]) * (np.abs(values[1]) + 0.5)
        rows = torch.from_numpy(values)
        mean, scale, shift = (row.view(-1, 1, 1) for row in rows)
        before = (z.double() - mean) * scale + shift
        near = sum((before - bound).abs() < 1e-2 for bound in BOUNDS).bool()
        z = z.masked_fill(near, 0)
        before = (z.double() - mean) * scale + shift
        rows[2] += 0.03 * sum(((before - b).abs() < 1e-2).any(0).any(1).any(1) for b in BOUNDS)
        norm = list(rows.to(dtype))
    outs = case.channels[1]
    slopes = [torch.from_numpy(case.values(role, (outs,))).to(dtype) for role in ("dm", "dv")]
    weight, grad = case.tensor("weight", dtype), case.tensor("grad", dtype)
    return Operands(z, *norm, weight, grad, *slopes, case)


def before(o: Operands, size: bool = False) -> Tensor:
    """What is convolved; with ``size``, the sum of the absolute values it is made of."""
    if o.mean is None:
        return o.z.abs() if size else o.z
    mean, scale, shift = (t.view(-1, 1, 1) for t in (o.mean, o.scale, o.shift))
    if size:
        return (o.z.abs() + mean.abs()) * scale.abs() + shift.abs()
    return ((o.z - mean) * scale + shift).clamp(*o.bounds)


def convolved(x: Tensor, weight: Tensor, case: ImageCase) -> Tensor:
    stride, (top, bottom, left, right), dilation, groups = case.numbers
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, None, stride, 0, dilation, groups)


def plain(o: Operands) -> tuple[Tensor, Tensor, Tensor]:
    """``norm_conv2d`` out of PyTorch's own operations."""
    out = convolved(before(o), o.weight, o.case)
    return out, out.mean((0, 2, 3)), out.var((0, 2, 3), unbiased=False)


def gradients(o: Operands) -> list[Tensor]:
    """By PyTorch's autograd, for z, mean, scale, shift and weight, in float64."""
    o = o.of_type(torch.float64)
    for tensor in o.wanted:
        tensor.requires_grad_()
    return list(torch.autograd.grad(plain(o), o.wanted, o.slopes))


def gradient_sizes(o: Operands) -> list[Tensor]:
    """The sums of absolute values that those gradients are sums of."""
    o = o.of_type(torch.float64)
    count = o.grad.numel() // o.grad.shape[1]
    size = before(o, size=True)
    out = convolved(size, o.weight.abs(), o.case)
    d_mean, d_variance = o.d_mean.view(-1, 1, 1), o.d_variance.view(-1, 1, 1)
    slope = o.grad.abs() + d_mean.abs() / count + 4 * out * d_variance.abs() / count
    x, weight = size.detach().requires_grad_(), o.weight.abs().requires_grad_()
    d_x, d_weight = torch.autograd.grad(convolved(x, weight, o.case), (x, weight), slope)
    if o.mean is None:
        return [d_x, d_weight]
    away = o.z.abs() + o.mean.abs().view(-1, 1, 1)
    d_shift = d_x.sum((0, 2, 3))
    d_z = d_x * o.scale.abs().view(-1, 1, 1)
    return [d_z, d_shift * o.scale.abs(), (d_x * away).sum((0, 2, 3)), d_shift, d_weight]


def check_result(o: Operands, found) -> None:
    """(out, mean, variance) are what they should be, the statistics of ``out`` itself."""
    out, mean, variance = (t.detach() for t in found)
    double, eps = o.of_type(F64), torch.finfo(o.z.dtype).eps
    size = convolved(before(double, size=True), double.weight.abs(), o.case)
    exact = convolved(before(double), double.weight, o.case)
    assert out.dtype == mean.dtype == variance.dtype == o.z.dtype
    assert_close(out.numpy(), exact.numpy(), size.numpy(), o.case.terms + 16)
    values = out.double()
    middle = values.mean((0, 2, 3))
    far = (values - middle.view(-1, 1, 1)).abs().amax((0, 2, 3))
    terms = (out.numel() // len(middle)) ** 0.5
    limit = 2 * eps * terms * far + 4 * eps * middle.abs()
    assert bool(((mean - middle).abs() <= limit).all()), "mean"
    exact = values.var((0, 2, 3), unbiased=False)
    limit = 8 * eps * terms * far**2 + (4 * eps * middle) ** 2
    assert bool(((variance - exact).abs() <= limit).all()), "variance"


def check_gradients(o: Operands, found) -> None:
    """``found`` are the gradients of all tensors of ``o`` that there are."""
    expected, sizes = gradients(o), gradient_sizes(o)
    pixels = o.z.numel() // o.z.shape[1]
    inputs, outputs = o.case.input_terms + o.case.terms, o.case.weight_terms + o.case.terms
    terms = [inputs, *[inputs + pixels] * (len(expected) - 2), outputs]
    assert len(found) == len(expected)
    names = ("z", "mean", "scale", "shift", "weight") if len(found) == 5 else ("z", "weight")
    for name, a, b, size, k in zip(names, found, expected, sizes, terms, strict=True):
        assert a.dtype == o.z.dtype
        assert_close(a.numpy(), b.numpy(), size.numpy(), k + 16, what=f"d {name}")


def check_all(o: Operands, by: Operands | None = None, device: str = "cpu") -> None:
    """Results and gradients of ``by`` are those of ``o`` (itself, if there is no other)."""
    by = (by or o).on(device)
    for tensor in by.wanted:
        tensor.requires_grad_()
    found = OPERATORS.norm_conv2d(*by.given)
    check_result(o, [t.cpu() for t in found])
    slopes = torch.autograd.grad(found, by.wanted, by.slopes)
    check_gradients(o, [t.cpu() for t in slopes])
