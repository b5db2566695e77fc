"""The shift convolution on images and on clouds: schema, CPU kernels, a plain form, gradients.

Each channel is moved by one of the offsets of a kernel (``convolution/shift.py``), then a pointwise
convolution mixes them. On images its gradients are two more operators, and each one's gradients are
made of the other two, to any order; on clouds they are of first order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointwise.convolution import epilogue
from pointwise.convolution.cells import adjoint_weights, index_bits
from pointwise.convolution.epilogue import finish
from pointwise.convolution.shift import (
    cells_of_channels,
    gather_shift,
    shift,
    shift_adjoint,
    shift_window,
)
from pointwise.convolution.window import Window
from pointwise.engine.cpu.gathers.points import CELLS_SHIFT, IDENTITY, Gather
from pointwise.engine.cpu.loops.points import mixed_points
from pointwise.engine.cpu.loops.shift import shift_input_gradient, shift_launch
from pointwise.engine.cpu.loops.weight_gradient import (
    points_weight_gradient,
    shift_weight_gradient,
)
from pointwise.engine.cpu.memory import empty_result
from pointwise.engine.cpu.weights import pack_matrix
from pointwise.engine.library import define, differentiate, ops
from pointwise.operators import cells_on_gpus, requirements
from pointwise.operators.autocast import follow_autocast
from pointwise.operators.bilinear import register_gradients
from pointwise.operators.cells import TABLE, adjoint_over_table, gather_over_table
from pointwise.operators.images import channels_last, ready

_GEOMETRY = "SymInt[] kernel_size, SymInt[] stride, SymInt[] dilation"


# --- on images ------------------------------------------------------------------------------------


def _window(size, kernel_size, stride, dilation) -> Window:
    """That of an input of this size ``[N, C, H, W]``."""
    return shift_window(size[0], size[2:], kernel_size, stride, dilation)


def _square(weight: Tensor) -> Tensor:
    """``[C_out, C]`` as the weight of a 1×1 convolution."""
    return weight[:, :, None, None]


def _shift_cpu(input, weight, bias, residual, kernel_size, stride, dilation, activation):
    dtype = input.dtype
    input, weight, bias, residual = map(ready, (input, weight, bias, residual))
    seen = _window(input.shape, kernel_size, stride, dilation)
    packed = pack_matrix(weight.t(), bias)
    out = empty_result(seen, weight.shape[0], input.dtype)
    if epilogue.why_not(activation, input.dtype):  # no kernel has it
        out = shift_launch(input, packed, seen, out).run()
        return finish(out, residual, activation).to(dtype)
    return shift_launch(input, packed, seen, out, residual, activation).run().to(dtype)


def _shift_plain(input, weight, bias, residual, kernel_size, stride, dilation, activation):
    moved = shift(input, _window(input.shape, kernel_size, stride, dilation))
    out = finish(F.conv2d(moved, _square(weight), bias), residual, activation)
    return out.contiguous(memory_format=torch.channels_last)


def _shift_fake(input, weight, bias, residual, kernel_size, stride, dilation, activation):
    sizes = [(size - 1) // step + 1 for size, step in zip(input.shape[2:], stride, strict=True)]
    return channels_last(input, input.shape[0], weight.shape[0], *sizes)


define(
    f"shift_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, {_GEOMETRY}, "
    "str activation) -> Tensor",
    _shift_cpu,
    _shift_plain,
    _shift_fake,
    requirements.shift_conv2d,
)


def _shift_grad_input_cpu(grad, weight, size, kernel_size, stride, dilation):
    seen = _window(size, kernel_size, stride, dilation)
    return shift_input_gradient(ready(grad), ready(weight), seen).to(grad.dtype)


def _shift_grad_input_plain(grad, weight, size, kernel_size, stride, dilation):
    seen = _window(size, kernel_size, stride, dilation)
    out = shift_adjoint(F.conv2d(grad, _square(weight.t())), seen)
    return out.contiguous(memory_format=torch.channels_last)


define(
    f"shift_conv2d_grad_input(Tensor grad, Tensor weight, SymInt[] size, {_GEOMETRY}) -> Tensor",
    _shift_grad_input_cpu,
    _shift_grad_input_plain,
    lambda grad, weight, size, *rest: channels_last(grad, *size),
    requirements.shift_conv2d_grad_input,
)


def _shift_grad_weight_cpu(grad, input, kernel_size, stride, dilation):
    seen = _window(input.shape, kernel_size, stride, dilation)
    total = shift_weight_gradient(ready(grad), ready(input), seen)
    return total.contiguous().to(grad.dtype)


def _shift_grad_weight_plain(grad, input, kernel_size, stride, dilation):
    moved = shift(input, _window(input.shape, kernel_size, stride, dilation))
    return grad.transpose(0, 1).flatten(1) @ moved.transpose(0, 1).flatten(1).t()


define(
    f"shift_conv2d_grad_weight(Tensor grad, Tensor input, {_GEOMETRY}) -> Tensor",
    _shift_grad_weight_cpu,
    _shift_grad_weight_plain,
    lambda grad, input, *rest: grad.new_empty(grad.shape[1], input.shape[1]),
    requirements.shift_conv2d_grad_weight,
)


register_gradients("shift_conv2d", sized=False)


# --- on clouds ------------------------------------------------------------------------------------


def _cells_cpu(features, weight, bias, row_start, pairs, back_row_start, back_pairs, kernel_size,
               mean):  # fmt: skip
    gather = gather_over_table(CELLS_SHIFT, features, row_start, pairs, kernel_size**3, mean)
    return mixed_points(gather, weight.t(), bias)


def _cells_plain(features, weight, bias, row_start, pairs, back_row_start, back_pairs, kernel_size,
                 mean):  # fmt: skip
    bits = index_bits(len(features))
    out = gather_shift(features, row_start, pairs, bits, kernel_size**3, mean) @ weight.t()
    return out if bias is None else out + bias


define(
    f"cell_shift_conv(Tensor features, Tensor weight, Tensor? bias, {TABLE}, "
    "Tensor? back_row_start, Tensor? back_pairs, int kernel_size, bool mean) -> Tensor",
    _cells_cpu,
    _cells_plain,
    lambda features, weight, bias, row_start, *rest: features.new_empty(
        row_start.shape[0] - 1, weight.shape[0]
    ),
    requirements.cell_shift_conv,
    requirements.cell_shift_conv_table,
    cuda=cells_on_gpus.cell_shift_conv,
)


def _cells_grad_input_cpu(
    grad, weight, row_start, pairs, back_row_start, back_pairs, kernel_size, mean, points
):
    mixed = mixed_points(Gather(IDENTITY, grad.contiguous(), len(grad)), weight, None)
    table, back = (row_start, pairs), (back_row_start, back_pairs)
    gather = adjoint_over_table(CELLS_SHIFT, mixed, table, back, kernel_size**3, mean, points)
    return mixed_points(gather, None, None)


def _cells_grad_input_plain(
    grad, weight, row_start, pairs, back_row_start, back_pairs, kernel_size, mean, points
):
    cells, channels = kernel_size**3, weight.shape[1]
    where, point, scale = adjoint_weights(
        row_start, pairs, index_bits(points), cells, mean, grad.dtype
    )
    own = cells_of_channels(channels, cells).to(grad.device)
    pair = (grad @ weight)[where // cells] * scale[:, None]
    pair = pair * (own == (where % cells)[:, None])
    return grad.new_zeros(points, channels).index_add(0, point, pair)


define(
    f"cell_shift_conv_grad_input(Tensor grad, Tensor weight, {TABLE}, Tensor? back_row_start, "
    "Tensor? back_pairs, int kernel_size, bool mean, SymInt points) -> Tensor",
    _cells_grad_input_cpu,
    _cells_grad_input_plain,
    lambda grad, weight, a, b, c, d, kernel_size, mean, points: grad.new_empty(
        points, weight.shape[1]
    ),
    requirements.cell_shift_conv_grad_input,
    requirements.cell_shift_conv_grad_input_tables,
    cuda=cells_on_gpus.cell_shift_conv_grad_input,
)


def _cells_grad_weight_cpu(grad, features, row_start, pairs, kernel_size, mean):
    gather = gather_over_table(CELLS_SHIFT, features, row_start, pairs, kernel_size**3, mean)
    total, bias = points_weight_gradient(gather, grad.contiguous())
    return total.t().contiguous(), bias.clone()


def _cells_grad_weight_plain(grad, features, row_start, pairs, kernel_size, mean):
    bits = index_bits(len(features))
    moved = gather_shift(features, row_start, pairs, bits, kernel_size**3, mean)
    return (moved.t() @ grad).t().contiguous(), grad.sum(0)


define(
    f"cell_shift_conv_grad_weight(Tensor grad, Tensor features, {TABLE}, int kernel_size, "
    "bool mean) -> (Tensor, Tensor)",
    _cells_grad_weight_cpu,
    _cells_grad_weight_plain,
    lambda grad, features, *rest: (
        grad.new_empty(grad.shape[1], features.shape[1]),
        grad.new_empty(grad.shape[1]),
    ),
    requirements.cell_shift_conv_grad_weight,
    requirements.cell_shift_conv_grad_weight_table,
    cuda=cells_on_gpus.cell_shift_conv_grad_weight,
)


def _cells_setup(ctx, inputs, output) -> None:
    features, weight, bias, *tables, ctx.kernel_size, ctx.mean = inputs
    ctx.save_for_backward(features, weight, *tables)
    ctx.with_bias = bias is not None


@once_differentiable
def _cells_backward(ctx, grad):
    features, weight, *tables = ctx.saved_tensors
    wants, kernel = ctx.needs_input_grad, (ctx.kernel_size, ctx.mean)
    d_features = d_weight = d_bias = None
    if wants[0]:
        d_features = ops.cell_shift_conv_grad_input(
            grad, weight, *tables, *kernel, features.shape[0]
        )
    if wants[1] or wants[2]:
        d_weight, d_bias = ops.cell_shift_conv_grad_weight(grad, features, *tables[:2], *kernel)
    return d_features, d_weight, d_bias if ctx.with_bias else None, *[None] * 6


differentiate("cell_shift_conv", _cells_backward, _cells_setup)

follow_autocast("cell_shift_conv")
