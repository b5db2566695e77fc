"""The operators on images on GPUs; None where PyTorch's own are to run (``engine/choose_gpu.py``).

Kernels are imported where they run: they need Triton.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.problem import describe
from pointwise.engine import choose_gpu


def as_read(tensor: Tensor) -> Tensor:
    """As kernels read an image: channels_last."""
    return tensor.contiguous(memory_format=torch.channels_last)


def residual_as_read(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else as_read(tensor)


def conv2d(input, weight, bias, residual, stride, padding, dilation, groups, activation):
    convolution = describe(input.shape, weight.shape, stride, padding, dilation, groups,
                           input.dtype, activation)  # fmt: skip
    follows = activation != "none" or residual is not None
    if not choose_gpu.runs(convolution, choose_gpu.FORWARD, input.device, follows):
        return None
    from pointwise.engine.gpu.loops.depthwise import Epilogue, depthwise

    epilogue = Epilogue(bias=_row(bias), activation=activation, z=residual_as_read(residual))
    out, _ = depthwise(as_read(input), weight.contiguous(), convolution.window, epilogue)
    return out


def separable_conv2d(input, depthwise, pointwise, depthwise_bias, bias, residual, stride, padding,
                     dilation, between, activation):  # fmt: skip
    convolution = describe(input.shape, depthwise.shape, stride, padding, dilation, input.shape[1],
                           input.dtype, between)  # fmt: skip
    columns = len(pointwise)
    if not choose_gpu.runs(convolution, choose_gpu.SEPARABLE, input.device, columns=columns):
        return None
    from pointwise.engine.gpu.loops.separable import separable

    weights = depthwise.contiguous(), pointwise.contiguous()
    biases = _row(depthwise_bias), _row(bias)
    return separable(as_read(input), *weights, convolution.window, *biases,
                     residual_as_read(residual), between, activation)  # fmt: skip


def conv2d_grad_input(grad, weight, size, stride, padding, dilation, groups):
    convolution = describe(size, weight.shape, stride, padding, dilation, groups, grad.dtype)
    if not choose_gpu.runs(convolution, choose_gpu.INPUT_GRADIENT, grad.device):
        return None
    from pointwise.engine.gpu.loops.depthwise import depthwise_input_gradient

    many = convolution.depth_multiplier
    out, _ = depthwise_input_gradient(as_read(grad), weight.contiguous(), convolution.window,
                                      wide=many > 1)  # fmt: skip
    if many > 1:
        out = out.unflatten(1, (groups, many)).sum(2).to(grad.dtype)
    return as_read(out)


def conv2d_grad_weight(grad, input, size, stride, padding, dilation, groups):
    convolution = describe(input.shape, size, stride, padding, dilation, groups, input.dtype)
    if not choose_gpu.runs(convolution, choose_gpu.WEIGHT_GRADIENT, grad.device):
        return None
    from pointwise.engine.gpu.loops.depthwise_gradient import depthwise_weight_gradient

    found = depthwise_weight_gradient(as_read(grad), as_read(input), convolution.window)
    return found.to(grad.dtype)


def _row(row: Tensor | None) -> Tensor | None:
    return None if row is None else row.contiguous()
