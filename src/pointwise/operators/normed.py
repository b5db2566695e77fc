"""The operators of training with batch norm: convolutions that pass their statistics on.

``norm_conv2d`` convolves ``clamp((z - mean)·scale + shift)`` and gives mean and variance of its
result beside it; ``norm_act`` is what comes at the end of such a chain. Both have CPU kernels that
do it in one pass (``engine/cpu/loops/normed_images.py``); elsewhere they are plain PyTorch.
Gradients are exact, and of first order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input, conv2d_weight

from pointwise.convolution.epilogue import finish, kernel_form, why_not
from pointwise.convolution.problem import is_depthwise
from pointwise.convolution.window import window
from pointwise.engine.cpu.loops import norm_act, normed_images
from pointwise.engine.cpu.replay import replayed
from pointwise.engine.library import define, differentiate, ops
from pointwise.operators import normed_gpu, requirements
from pointwise.operators.images import GEOMETRY, as_float, channels_last, pad, ready, sizes_of

_NORM = "Tensor z, Tensor? mean, Tensor? scale, Tensor? shift, float low, float high"
_CONV = f"{_NORM}, Tensor weight, {GEOMETRY}"


def _column(row: Tensor) -> Tensor:
    return row.view(-1, 1, 1)


# --- norm_conv2d ----------------------------------------------------------------------------------


def _is_multiplied(weight: Tensor, groups: int) -> bool:
    """Whether it is a depthwise convolution with a multiplier, which has no kernel in training."""
    return is_depthwise(weight.shape, groups) and weight.shape[0] != groups


def _norm_conv2d_cpu(z, mean, scale, shift, low, high, weight, stride, padding, dilation, groups):
    if _is_multiplied(weight, groups):
        return _norm_conv2d_plain(z, mean, scale, shift, low, high, weight, stride, padding,
                                  dilation, groups)  # fmt: skip
    tensors = *map(ready, (z, mean, scale, shift)), as_float(weight)
    geometry = tuple(stride), tuple(padding), tuple(dilation), groups
    return tuple(_image_forward(tensors, low, high, *geometry))


@replayed
def _image_forward(tensors, low, high, stride, padding, dilation, groups):
    z, mean, scale, shift, weight = tensors
    seen = window(z.shape[0], z.shape[2:], weight.shape[2:], stride, padding, dilation)
    given = normed_images.NormalisedImage(z, mean, scale, shift, low, high)
    return normed_images.forward(given, weight, seen, groups)


def _before(z, mean, scale, shift, low, high):
    if mean is None:
        return z
    before = ((z - _column(mean)) * _column(scale) + _column(shift)).clamp(low, high)
    return before.to(z.dtype)


def _wide(tensor: Tensor) -> Tensor:
    """Float32 of what has 16 bits: sums are taken of that, and rows of channels are that."""
    return tensor.float() if tensor.element_size() == 2 else tensor


def _empty_row(z: Tensor, channels: int) -> Tensor:
    return _wide(z.new_empty(0)).new_empty(channels)


def _norm_conv2d_plain(z, mean, scale, shift, low, high, weight, stride, padding, dilation, groups):
    x = pad(_before(z, mean, scale, shift, low, high), padding)
    out = F.conv2d(x, weight, None, stride, 0, dilation, groups)
    out = out.contiguous(memory_format=torch.channels_last)
    wide = _wide(out)
    return out, wide.mean((0, 2, 3)), wide.var((0, 2, 3), unbiased=False)


def _norm_conv2d_fake(z, mean, scale, shift, low, high, weight, stride, padding, dilation, groups):
    sizes = sizes_of(z, weight, stride, padding, dilation)
    out = channels_last(z, z.shape[0], weight.shape[0], *sizes)
    return out, _empty_row(z, weight.shape[0]), _empty_row(z, weight.shape[0])


define(
    f"norm_conv2d({_CONV}) -> (Tensor, Tensor, Tensor)",
    _norm_conv2d_cpu,
    _norm_conv2d_plain,
    _norm_conv2d_fake,
    requirements.norm_conv2d,
    cuda=normed_gpu.norm_conv2d,
)


def _backward_cpu(grad, d_mean, d_variance, out, out_mean, wanted, z, mean, scale, shift, low, high,
                  weight, stride, padding, dilation, groups):  # fmt: skip
    if _is_multiplied(weight, groups):
        return _backward_plain(grad, d_mean, d_variance, out, out_mean, wanted, z, mean, scale,
                               shift, low, high, weight, stride, padding, dilation,
                               groups)  # fmt: skip
    given = grad, d_mean, d_variance, out, out_mean, z, mean, scale, shift
    tensors = *map(ready, given), as_float(weight)
    geometry = tuple(stride), tuple(padding), tuple(dilation), groups
    d_z, d_scale, d_shift, d_weight = _image_backward(tensors, wanted, low, high, *geometry)
    d_scale, d_shift = (z.new_empty(0) if d is None else d.clone() for d in (d_scale, d_shift))
    return z.new_empty(0) if d_z is None else d_z, d_scale, d_shift, d_weight.contiguous()


@replayed
def _image_backward(tensors, wanted, low, high, stride, padding, dilation, groups):
    grad, d_mean, d_variance, out, out_mean, z, mean, scale, shift, weight = tensors
    seen = window(z.shape[0], z.shape[2:], weight.shape[2:], stride, padding, dilation)
    given = normed_images.NormalisedImage(z, mean, scale, shift, low, high)
    return normed_images.backward(given, weight, seen, groups, out, out_mean, grad, d_mean,
                                  d_variance, wanted)  # fmt: skip


def _backward_plain(grad, d_mean, d_variance, out, out_mean, wanted, z, mean, scale, shift, low,
                    high, weight, stride, padding, dilation, groups):  # fmt: skip
    count = out.numel() // out.shape[1]
    apart = out - _column(out_mean)
    grad = grad + _column(d_mean) / count + apart * _column(d_variance) * (2 / count)
    grad = grad.to(z.dtype)
    x = pad(_before(z, mean, scale, shift, low, high), padding)
    d_weight = conv2d_weight(x, weight.shape, grad, stride, 0, dilation, groups).contiguous()
    none = _empty_row(z, 0)
    if not wanted:
        return z.new_empty(0), none, none.clone(), d_weight
    top, _, left, _ = padding
    d_x = conv2d_input(x.shape, weight, grad, stride, 0, dilation, groups)
    d_x = d_x[:, :, top : top + z.shape[2], left : left + z.shape[3]]
    if mean is None:
        d_x = d_x.contiguous(memory_format=torch.channels_last)
        return d_x, none, none.clone(), d_weight
    away = z - _column(mean)
    before = away * _column(scale) + _column(shift)
    d_x = _wide(d_x).masked_fill((before <= low) | (before >= high), 0)
    d_z = (d_x * _column(scale)).to(z.dtype).contiguous(memory_format=torch.channels_last)
    return d_z, (d_x * away).sum((0, 2, 3)), d_x.sum((0, 2, 3)), d_weight


def _backward_fake(grad, d_mean, d_variance, out, out_mean, wanted, z, mean, scale, shift, low,
                   high, weight, *geometry):  # fmt: skip
    channels = z.shape[1] if wanted and mean is not None else 0
    d_z = channels_last(z, *z.shape) if wanted else z.new_empty(0)
    d_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return d_z, _empty_row(z, channels), _empty_row(z, channels), d_weight


define(
    "norm_conv2d_backward(Tensor grad, Tensor d_mean, Tensor d_variance, Tensor out, "
    f"Tensor out_mean, bool wanted, {_CONV}) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward_cpu,
    _backward_plain,
    _backward_fake,
    requirements.norm_conv2d_backward,
    cuda=normed_gpu.norm_conv2d_backward,
)


def _norm_conv2d_setup(ctx, inputs, output) -> None:
    z, mean, scale, shift, ctx.low, ctx.high, weight, *ctx.geometry = inputs
    out, out_mean, _ = output
    ctx.save_for_backward(z, mean, scale, shift, weight, out, out_mean)


@once_differentiable
def _norm_conv2d_backward(ctx, grad, d_mean, d_variance):
    z, mean, scale, shift, weight, out, out_mean = ctx.saved_tensors
    wanted = any(ctx.needs_input_grad[:4])  # scale and shift get theirs with the input's
    d_z, d_scale, d_shift, d_weight = ops.norm_conv2d_backward(
        grad, d_mean, d_variance, out, out_mean, wanted, z, mean, scale, shift, ctx.low, ctx.high,
        weight, *ctx.geometry)  # fmt: skip
    through = wanted and mean is not None
    return (d_z if wanted else None, -scale * d_shift if through else None,
            d_scale if through else None, d_shift if through else None, None, None, d_weight,
            *[None] * 4)  # fmt: skip


# --- norm_act -------------------------------------------------------------------------------------


def _norm_act_cpu(z, mean, scale, shift, residual, activation):
    z, mean, scale, shift, residual = map(ready, (z, mean, scale, shift, residual))
    if why_not(activation, z.dtype):
        return _norm_act_plain(z, mean, scale, shift, residual, activation)
    return _applied((z, mean, scale, shift, residual), activation)


@replayed
def _applied(tensors, activation):
    z, mean, scale, shift, residual = tensors
    return norm_act.forward(z, mean, scale, shift, residual, kernel_form(activation, z.dtype))


def _norm_act_plain(z, mean, scale, shift, residual, activation):
    out = finish((z - _column(mean)) * _column(scale) + _column(shift), residual, activation)
    return out.to(z.dtype).contiguous(memory_format=torch.channels_last)


define(
    "norm_act(Tensor z, Tensor mean, Tensor scale, Tensor shift, Tensor? residual, "
    "str activation) -> Tensor",
    _norm_act_cpu,
    _norm_act_plain,
    lambda z, *rest: channels_last(z, *z.shape),
    requirements.norm_act,
    cuda=normed_gpu.norm_act,
)


def _norm_act_backward_cpu(grad, z, mean, scale, shift, residual, activation):
    grad, z, mean, scale, shift, residual = map(ready, (grad, z, mean, scale, shift, residual))
    if why_not(activation, z.dtype):
        return _norm_act_backward_plain(grad, z, mean, scale, shift, residual, activation)
    d_z, d_scale, d_shift, d_residual = _applied_backward(
        (grad, z, mean, scale, shift, residual), activation
    )
    d_residual = z.new_empty(0) if d_residual is None else d_residual
    return d_z, d_scale.clone(), d_shift.clone(), d_residual


@replayed
def _applied_backward(tensors, activation):
    grad, z, mean, scale, shift, residual = tensors
    form = kernel_form(activation, z.dtype)
    return norm_act.backward(grad, z, mean, scale, shift, residual, form)


def _norm_act_backward_plain(grad, z, mean, scale, shift, residual, activation):
    away = z - _column(mean)
    before = away * _column(scale) + _column(shift)
    before = (before if residual is None else before + residual).detach().requires_grad_()
    with torch.enable_grad():
        out = finish(before, None, activation)
    (d_before,) = torch.autograd.grad(out, before, grad)
    d_residual = z.new_empty(0)
    if residual is not None:
        d_residual = d_before.to(z.dtype, copy=True, memory_format=torch.channels_last)
    d_z = (d_before * _column(scale)).to(z.dtype).contiguous(memory_format=torch.channels_last)
    return d_z, (d_before * away).sum((0, 2, 3)), d_before.sum((0, 2, 3)), d_residual


define(
    "norm_act_backward(Tensor grad, Tensor z, Tensor mean, Tensor scale, Tensor shift, "
    "Tensor? residual, str activation) -> (Tensor, Tensor, Tensor, Tensor)",
    _norm_act_backward_cpu,
    _norm_act_backward_plain,
    lambda grad, z, mean, scale, shift, residual, activation: (
        channels_last(z, *z.shape),
        torch.empty_like(scale),
        torch.empty_like(shift),
        z.new_empty(0) if residual is None else channels_last(z, *z.shape),
    ),
    requirements.norm_act_backward,
    cuda=normed_gpu.norm_act_backward,
)


def _norm_act_setup(ctx, inputs, output) -> None:
    *tensors, ctx.activation = inputs
    ctx.save_for_backward(*tensors)


@once_differentiable
def _norm_act_backward(ctx, grad):
    z, mean, scale, shift, residual = ctx.saved_tensors
    d_z, d_scale, d_shift, d_residual = ops.norm_act_backward(
        grad, z, mean, scale, shift, residual, ctx.activation
    )
    d_residual = None if residual is None else d_residual
    return d_z, -scale * d_shift, d_scale, d_shift, d_residual, None


for _name, _backward, _setup in (
    ("norm_conv2d", _norm_conv2d_backward, _norm_conv2d_setup),
    ("norm_act", _norm_act_backward, _norm_act_setup),
):
    differentiate(_name, _backward, _setup)
