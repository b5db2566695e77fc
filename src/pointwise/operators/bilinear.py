"""The gradients of a convolution of images, which is linear in its input and in its weight.

They are two operators more, ``…_grad_input`` and ``…_grad_weight``, and each one's gradients are
made of the other two, to any order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise.convolution.epilogue import finish
from pointwise.engine.eager import why_not_plain
from pointwise.engine.library import differentiate, ops


def register_gradients(name: str, sized: bool) -> None:
    """Registers the gradients of an operator and of its two gradients.

    ``NAME(input, weight, bias, residual, *geometry, activation)``, ``NAME_grad_input(grad, weight,
    size, *geometry)`` and ``NAME_grad_weight(grad, input, *geometry)``, which takes the weight's
    size before its geometry where it is ``sized``.
    """

    def convolve(input, weight, geometry):
        return getattr(ops, name)(input, weight, None, None, *geometry, "none")

    def grad_input(grad, weight, input, geometry):
        return getattr(ops, f"{name}_grad_input")(grad, weight, input.shape, *geometry)

    def grad_weight(grad, input, weight, geometry):
        size = (weight.shape,) if sized else ()
        return getattr(ops, f"{name}_grad_weight")(grad, input, *size, *geometry)

    def setup(ctx, inputs, output) -> None:
        input, weight, bias, residual, *ctx.geometry, ctx.activation = inputs
        ctx.with_residual = residual is not None
        # The functions apply the activation afterwards where gradients are needed. A graph that was
        # traced without them has it inside; then what it was applied to is computed once more.
        more = (bias, residual) if ctx.activation != "none" else ()
        ctx.save_for_backward(input, weight, *more)

    def backward(ctx, grad):
        input, weight, *more = ctx.saved_tensors
        wants, geometry = ctx.needs_input_grad, ctx.geometry
        d_input = d_weight = d_bias = None
        if ctx.activation != "none":
            before = getattr(ops, name)(input, weight, *more, *geometry, "none")
            grad = _through(ctx.activation, before, grad)
        laid = grad
        if why_not_plain(grad) is None:  # once, for both: the kernels take no other layout
            laid = grad.contiguous(memory_format=torch.channels_last)
        if wants[0]:
            d_input = grad_input(laid, weight, input, geometry)
        if wants[1]:
            d_weight = grad_weight(laid, input, weight, geometry)
        if wants[2]:
            d_bias = grad.sum((0, 2, 3))
        d_residual = grad if ctx.with_residual else None
        return d_input, d_weight, d_bias, d_residual, *[None] * (len(geometry) + 1)

    def setup_grad_input(ctx, inputs, output) -> None:
        grad, weight, _, *ctx.geometry = inputs
        ctx.save_for_backward(grad, weight)

    def backward_grad_input(ctx, d_out):
        grad, weight = ctx.saved_tensors
        d_grad = d_weight = None
        if ctx.needs_input_grad[0]:
            d_grad = convolve(d_out, weight, ctx.geometry)
        if ctx.needs_input_grad[1]:
            d_weight = grad_weight(grad, d_out, weight, ctx.geometry)
        return d_grad, d_weight, *[None] * (len(ctx.geometry) + 1)

    def setup_grad_weight(ctx, inputs, output) -> None:
        grad, input, *rest = inputs
        ctx.geometry = rest[sized:]
        ctx.save_for_backward(grad, input)

    def backward_grad_weight(ctx, d_weight):
        grad, input = ctx.saved_tensors
        d_grad = d_input = None
        if ctx.needs_input_grad[0]:
            d_grad = convolve(input, d_weight, ctx.geometry)
        if ctx.needs_input_grad[1]:
            d_input = grad_input(grad, d_weight, input, ctx.geometry)
        return d_grad, d_input, *[None] * (len(ctx.geometry) + sized)

    for operator, gradient, prepare in (
        (name, backward, setup),
        (f"{name}_grad_input", backward_grad_input, setup_grad_input),
        (f"{name}_grad_weight", backward_grad_weight, setup_grad_weight),
    ):
        differentiate(operator, gradient, prepare)


def _through(activation: str, before: Tensor, grad: Tensor) -> Tensor:
    """The gradient before an activation."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        before = before if again else before.detach().requires_grad_()
        out = finish(before, None, activation)
    return torch.autograd.grad(out, before, grad, create_graph=again)[0]
