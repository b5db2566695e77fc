"""The operators on images [N, C, H, W]: schema, CPU kernels, a plain form, shapes, gradients.

A convolution is linear in its input and in its weight: its gradients are two more operators, and
each one's gradients are made of the other two, to any order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from pointwise.convolution import epilogue
from pointwise.convolution.epilogue import finish
from pointwise.convolution.problem import describe
from pointwise.engine import choose
from pointwise.engine.cpu.loops import norm_act
from pointwise.engine.cpu.memory import empty_image
from pointwise.engine.cpu.replay import replayed
from pointwise.engine.library import define
from pointwise.operators import images_gpu, requirements
from pointwise.operators.bilinear import register_gradients

GEOMETRY = "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups"


def pad(input: Tensor, padding: list[int]) -> Tensor:
    top, bottom, left, right = padding
    return F.pad(input, (left, right, top, bottom)) if any(padding) else input


def channels_last(like: Tensor, *sizes: int) -> Tensor:
    return torch.empty(
        sizes, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def sizes_of(input, weight, stride, padding, dilation) -> list[int]:
    """Height and width of the result."""
    return [
        (size + before + after - (k - 1) * spread - 1) // step + 1
        for size, k, step, before, after, spread in zip(
            input.shape[2:],
            weight.shape[2:],
            stride,
            padding[::2],
            padding[1::2],
            dilation,
            strict=True,
        )
    ]


def ready(tensor):
    """As the kernels read it: channels_last (one dimension: contiguous), float32 or float64."""
    if tensor is None:
        return None
    tensor = as_float(tensor)
    if tensor.dim() < 4:
        return tensor.contiguous()
    return tensor.contiguous(memory_format=torch.channels_last)


def as_float(tensor):
    """In a type that kernels compute in; of weights, which are packed, strides may be any."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def repeated(input: Tensor, multiplier: int) -> Tensor:
    """Every channel ``multiplier`` times, side by side; of images in channels_last.

    ``repeat_interleave`` would go through PyTorch's usual order, which takes several times as long.
    """
    pixels = input.permute(0, 2, 3, 1)
    places = torch.arange(input.shape[1]).repeat_interleave(multiplier)
    rows = pixels.flatten(0, 2).index_select(1, places)
    return rows.view(*pixels.shape[:3], len(places)).permute(0, 3, 1, 2)


# --- conv2d ---------------------------------------------------------------------------------------


def _conv2d_cpu(input, weight, bias, residual, stride, padding, dilation, groups, activation):
    dtype = input.dtype
    tensors = ready(input), as_float(weight), ready(bias), ready(residual)
    geometry = tuple(stride), tuple(padding), tuple(dilation), groups
    out = _convolved(tensors, *geometry, activation)
    return out if out.dtype == dtype else out.to(dtype)


@replayed
def _convolved(tensors, stride, padding, dilation, groups, activation):
    """A convolution by its kernel; what that does not apply, by PyTorch or in one more pass."""
    input, weight, bias, residual = tensors
    convolution = describe(input.shape, weight.shape, stride, padding, dilation, groups,
                           input.dtype, activation)  # fmt: skip
    activation = convolution.activation
    late = epilogue.why_not(activation, convolution.dtype) is not None
    added = residual is not None and convolution.is_depthwise  # its loop takes none
    if convolution.depth_multiplier > 1:
        input = repeated(input, convolution.depth_multiplier)
        convolution = convolution._replace(in_channels=input.shape[1], groups=input.shape[1])
    if late or added:
        convolution = convolution._replace(activation="none")
    prepared = choose.prepare(convolution, weight, bias)
    out = empty_image(convolution.shape, convolution.dtype)
    out = choose.launch(input, (prepared,), out, None if added else residual).run()
    if late:
        return finish(out, residual if added else None, activation)
    if added:
        row = torch.zeros(out.shape[1], dtype=out.dtype)
        return norm_act.forward(
            out, row, row + 1, row, residual, epilogue.kernel_form(activation, out.dtype)
        )
    return out


def _conv2d_plain(input, weight, bias, residual, stride, padding, dilation, groups, activation):
    out = F.conv2d(pad(input, padding), weight, bias, stride, 0, dilation, groups)
    out = finish(out, residual, activation)
    return out.contiguous(memory_format=torch.channels_last)


def _conv2d_fake(input, weight, bias, residual, stride, padding, dilation, groups, activation):
    sizes = sizes_of(input, weight, stride, padding, dilation)
    return channels_last(input, input.shape[0], weight.shape[0], *sizes)


define(
    f"conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, {GEOMETRY}, "
    "str activation) -> Tensor",
    _conv2d_cpu,
    _conv2d_plain,
    _conv2d_fake,
    requirements.conv2d,
    cuda=images_gpu.conv2d,
)

# --- both halves of the separable convolution at once, for inference ------------------------------


def _separable_plain(input, depthwise, pointwise, depthwise_bias, bias, residual, stride, padding,
                     dilation, between, activation):  # fmt: skip
    groups = input.shape[1]
    x = _conv2d_plain(input, depthwise, depthwise_bias, None, stride, padding, dilation, groups,
                      between)  # fmt: skip
    return _conv2d_plain(x, pointwise, bias, residual, [1, 1], [0] * 4, [1, 1], 1, activation)


def _separable_cpu(input, depthwise, pointwise, depthwise_bias, bias, residual, stride, padding,
                   dilation, between, activation):  # fmt: skip
    dtype = input.dtype
    weights = as_float(depthwise), as_float(pointwise)
    tensors = ready(input), *weights, ready(depthwise_bias), ready(bias), ready(residual)
    geometry = tuple(stride), tuple(padding), tuple(dilation)
    return _separable(tensors, *geometry, between, activation).to(dtype)


@replayed
def _separable(tensors, stride, padding, dilation, between, activation):
    input, depthwise, pointwise, depthwise_bias, bias, residual = tensors
    first = describe(input.shape, depthwise.shape, stride, padding, dilation, input.shape[1],
                     input.dtype, between)  # fmt: skip
    second = describe(first.shape, pointwise.shape, (1, 1), (0,) * 4, (1, 1), 1, input.dtype,
                      activation)  # fmt: skip
    chain = _prepared_separable(first, depthwise, depthwise_bias, second, pointwise, bias)
    if chain is None:
        x = _conv2d_cpu(input, depthwise, depthwise_bias, None, stride, padding, dilation,
                        input.shape[1], between)  # fmt: skip
        return _conv2d_cpu(x, pointwise, bias, residual, (1, 1), (0,) * 4, (1, 1), 1, activation)
    return choose.launch(input, chain, empty_image(second.shape, input.dtype), residual).run()


def _prepared_separable(first, depthwise, depthwise_bias, second, pointwise, bias):
    """Both halves for one loop; None where they had better run one by one."""
    if any(epilogue.why_not(each.activation, each.dtype) for each in (first, second)):
        return None
    if first.out_channels != first.in_channels:  # a depth multiplier, of one channel too
        return None
    chain = (
        choose.prepare(first, depthwise, depthwise_bias, choose.DEPTHWISE),
        choose.prepare(second, pointwise, bias, choose.MIXED),
    )
    return chain if choose.fused(*chain) == 2 else None


def _separable_fake(input, depthwise, pointwise, depthwise_bias, bias, residual, stride, padding,
                    dilation, between, activation):  # fmt: skip
    sizes = sizes_of(input, depthwise, stride, padding, dilation)
    return channels_last(input, input.shape[0], pointwise.shape[0], *sizes)


define(
    "separable_conv2d(Tensor input, Tensor depthwise, Tensor pointwise, Tensor? depthwise_bias, "
    "Tensor? bias, Tensor? residual, SymInt[] stride, SymInt[] padding, SymInt[] dilation, "
    "str between, str activation) -> Tensor",
    _separable_cpu,
    _separable_plain,
    _separable_fake,
    requirements.separable_conv2d,
    cuda=images_gpu.separable_conv2d,
)

# --- its gradients --------------------------------------------------------------------------------


def _grad_input_plain(grad, weight, size, stride, padding, dilation, groups):
    batch, channels, height, width = size
    top, bottom, left, right = padding
    padded = (batch, channels, height + top + bottom, width + left + right)
    out = conv2d_input(padded, weight, grad, stride, 0, dilation, groups)
    out = out[:, :, top : top + height, left : left + width]
    return out.contiguous(memory_format=torch.channels_last)


def _grad_input_cpu(grad, weight, size, stride, padding, dilation, groups):
    dtype = grad.dtype
    geometry = tuple(stride), tuple(padding), tuple(dilation), groups
    return _input_gradient((ready(grad), as_float(weight)), tuple(size), *geometry).to(dtype)


@replayed
def _input_gradient(tensors, size, stride, padding, dilation, groups):
    grad, weight = tensors
    convolution = describe(size, weight.shape, stride, padding, dilation, groups, grad.dtype)
    out = choose.input_gradient(convolution, grad, weight)
    if convolution.depth_multiplier > 1:
        out = ready(out.unflatten(1, (groups, convolution.depth_multiplier)).sum(2))
    return out


define(
    f"conv2d_grad_input(Tensor grad, Tensor weight, SymInt[] size, {GEOMETRY}) -> Tensor",
    _grad_input_cpu,
    _grad_input_plain,
    lambda grad, weight, size, *rest: channels_last(grad, *size),
    requirements.conv2d_grad_input,
    cuda=images_gpu.conv2d_grad_input,
)


def _grad_weight_plain(grad, input, size, stride, padding, dilation, groups):
    padded = pad(input, padding)
    return conv2d_weight(padded, list(size), grad, stride, 0, dilation, groups).contiguous()


def _grad_weight_cpu(grad, input, size, stride, padding, dilation, groups):
    dtype = grad.dtype
    geometry = tuple(stride), tuple(padding), tuple(dilation), groups
    found = _weight_gradient((ready(grad), ready(input)), tuple(size), *geometry)
    return found.contiguous().to(dtype)


@replayed
def _weight_gradient(tensors, size, stride, padding, dilation, groups):
    grad, input = tensors
    convolution = describe(input.shape, size, stride, padding, dilation, groups, input.dtype)
    if convolution.depth_multiplier > 1:
        input = repeated(input, convolution.depth_multiplier)
    return choose.weight_gradient(convolution, grad, input)


define(
    f"conv2d_grad_weight(Tensor grad, Tensor input, SymInt[] size, {GEOMETRY}) -> Tensor",
    _grad_weight_cpu,
    _grad_weight_plain,
    lambda grad, input, size, *rest: grad.new_empty(size),
    requirements.conv2d_grad_weight,
    cuda=images_gpu.conv2d_grad_weight,
)

register_gradients("conv2d", sized=True)
