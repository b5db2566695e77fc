"""A run of convolutions with batch norm in training as one call, forward and backward.

It computes what ``norm_conv2d``, ``norm_act`` and the norms' rows between them compute one by one
(see ``normed``), and is launched as one: of a step's time, a tenth was Python between launches,
autograd's nodes of single rows, and what these drove out of the caches. PyTorch's dispatcher never
sees it: it is for tensors that are ``is_unseen``, and everyone else calls the operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointwise.convolution.epilogue import CLAMP_ONLY, kernel_form
from pointwise.convolution.window import window
from pointwise.engine.cpu.gathers.prologue import Correction
from pointwise.engine.cpu.loops import norm_act, normed_images
from pointwise.engine.cpu.loops.normed_images import NormalisedImage
from pointwise.engine.cpu.norm_rows import Parameters, Rows, gradients_of, rows_of
from pointwise.engine.cpu.replay import replayed
from pointwise.engine.library import own
from pointwise.operators.images import ready

_INFINITY = float("inf")


class Layer(NamedTuple):
    """The numbers of a convolution with its norm and activation."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    """Of the top, the bottom, the left and the right."""
    dilation: tuple[int, ...]
    groups: int
    activation: str
    eps: float
    share: float
    """Of the way that running statistics move in a step."""


class Given(NamedTuple):
    """The tensors of a convolution ``[C_out, C/groups, kh, kw]`` and its norm, rows ``[C_out]``."""

    weight: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    running_mean: Tensor | None
    running_variance: Tensor | None


_GIVEN = len(Given._fields)


def normed_run(
    input: Tensor, residual: Tensor | None, layers: Sequence[Layer], given: Sequence[Given]
) -> Tensor:
    """The layers one after the other; ``residual`` is added before the last activation.

    Moves running statistics. Batch norms are over the batch; gradients are exact, and of first
    order.
    """
    return _Run.apply(tuple(layers), input, residual, *(x for each in given for x in each))


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx, layers, input, residual, *given):
        ctx.adds_input = residual is input  # once, so that all tensors are apart
        input, residual = ready(input), None if ctx.adds_input else ready(residual)
        out, *kept = _forward((input, residual, *given), layers, ctx.adds_input)
        # Weights of norms are in their rows, and running statistics have moved on.
        ctx.save_for_backward(input, residual, *given[::_GIVEN], *kept)
        ctx.layers = layers
        return own(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        layers = ctx.layers
        needs = ctx.needs_input_grad[1:]
        of_layers = [any(needs[i : i + _GIVEN]) for i in range(2, len(needs), _GIVEN)]
        begin = 0
        while begin < len(layers) and not (needs[0] or of_layers[begin]):
            begin += 1
        tensors = (ready(grad), *ctx.saved_tensors)
        d_input, d_residual, *found = _backward(tensors, layers, ctx.adds_input, begin, needs[0])
        whole = (d_input, d_residual, *_by_layer(found))
        return None, *(x if need else None for x, need in zip(whole, needs, strict=True))


def _by_layer(found: list) -> Iterator[Tensor | None]:
    """Gradients in the order of ``Given``, as whole as their weights."""
    for i in range(0, len(found), 3):
        for x in found[i : i + 3]:
            yield None if x is None else x.contiguous()
        yield from (None, None)


def _is_read_normalised(layers: Sequence[Layer], number: int, dtype: torch.dtype) -> bool:
    """Whether norm and activation of a layer are applied as the next one reads its result."""
    _, _, kind = kernel_form(layers[number].activation, dtype)
    return number < len(layers) - 1 and kind == CLAMP_ONLY


def _plain(image: Tensor) -> NormalisedImage:
    return NormalisedImage(image, None, None, None, -_INFINITY, _INFINITY)


def _normalised(z: Tensor, rows: Tensor, activation: str) -> NormalisedImage:
    low, high, _ = kernel_form(activation, z.dtype)
    mean, scale, shift, term, _ = Rows(*rows)
    return NormalisedImage(z, mean, scale, shift, low, high, term)


def _window(image: Tensor, weight: Tensor, layer: Layer):
    return window(image.shape[0], image.shape[2:], weight.shape[2:], layer.stride, layer.padding,
                  layer.dilation)  # fmt: skip


# The steps are prepared once each too, for runs that cannot be prepared as a whole.


@replayed
def _convolved(tensors, layer, before):
    """(a layer's convolution of an image, the rows of its norm)."""
    z, rows, *given = tensors
    own = Given(*given)
    image = _plain(z) if rows is None else _normalised(z, rows, before)
    out, moments = normed_images.convolved(
        image, own.weight, _window(z, own.weight, layer), layer.groups
    )
    norm = Parameters(*own[1:], layer.eps, layer.share)
    return out, rows_of(moments, out.numel() // out.shape[1], norm)


@replayed
def _activated(tensors, activation):
    z, rows, residual = tensors
    mean, scale, shift, *_ = rows
    return norm_act.forward(z, mean, scale, shift, residual, kernel_form(activation, z.dtype))


@replayed
def _forward(tensors, layers, adds_input):
    """The result, and then of each layer what comes back to ``_backward``.

    These are the convolution, the norm's rows and, where they are applied there, the image behind
    norm and activation.
    """
    image, residual, *given = tensors
    residual = image if adds_input else residual
    rows, before, kept = None, "none", []
    for number, layer in enumerate(layers):
        own = given[_GIVEN * number : _GIVEN * (number + 1)]
        z, own_rows = _convolved((image, rows, *own), layer, before)
        if _is_read_normalised(layers, number, z.dtype):
            image, rows, before = z, own_rows, layer.activation
            kept += [z, own_rows, None]
            continue
        is_last = number == len(layers) - 1
        added = residual if is_last else None
        image, rows, before = _activated((z, own_rows, added), layer.activation), None, "none"
        kept += [z, own_rows, None if is_last else image]
    return [image, *kept]


@replayed
def _activated_backward(tensors, activation):
    """(the gradient of z, the norm's, the residual's); see ``norm_rows.Gradients``."""
    grad, z, rows, residual = tensors
    mean, scale, shift, *_ = rows
    form = kernel_form(activation, z.dtype)
    d_z, sums, d_residual = norm_act.summed(grad, z, mean, scale, shift, residual, form)
    return d_z, *gradients_of(sums, rows, z.numel() // z.shape[1]), d_residual


@replayed
def _convolved_backward(tensors, layer, before, wanted):
    """(the gradient of the image, its norm's, the weight's)."""
    grad, scale, shift, out, image, rows, weight = tensors
    given = _plain(image) if rows is None else _normalised(image, rows, before)
    d_image, sums, d_weight = normed_images.gradients(
        given, weight, _window(image, weight, layer), layer.groups,
        Correction(grad, out, scale, shift), wanted
    )  # fmt: skip
    if sums is None:
        return d_image, None, None, None, None, d_weight
    return d_image, *gradients_of(sums, rows, image.numel() // image.shape[1]), d_weight


@replayed
def _backward(tensors, layers, adds_input, begin, wanted):
    """Gradients of input and residual, then of each layer's weight and its norm's weight and bias.

    Of layers before ``begin`` there are none; the input's is made where it is ``wanted``.
    """
    grad, input, residual, *rest = tensors
    residual = input if adds_input else residual
    weights, kept = rest[: len(layers)], rest[len(layers) :]
    found: list = [None] * (3 * len(layers))
    d_residual, of_norm = None, None
    for number in range(len(layers) - 1, begin - 1, -1):
        layer = layers[number]
        z, rows, _ = kept[3 * number : 3 * number + 3]
        if of_norm is None:
            added = residual if number == len(layers) - 1 else None
            grad, *of_norm, own = _activated_backward((grad, z, rows, added), layer.activation)
            d_residual = own if added is not None else d_residual
        d_norm_weight, d_norm_bias, scale, shift = of_norm
        image, before_rows, before = input, None, "none"
        if number > 0:
            before_z, before_rows, before_image = kept[3 * number - 3 : 3 * number]
            image, before = before_z, layers[number - 1].activation
            if before_image is not None:
                image, before_rows, before = before_image, None, "none"
        given = grad, scale, shift, z, image, before_rows, weights[number]
        grad, *of_norm, d_weight = _convolved_backward(
            given, layer, before, wanted or number > begin
        )
        if before_rows is None:
            of_norm = None
        found[3 * number : 3 * number + 3] = d_weight, d_norm_weight, d_norm_bias
    if begin == len(layers):  # only the residual's is asked for
        z, rows, _ = kept[-3:]
        *_, d_residual = _activated_backward((grad, z, rows, residual), layers[-1].activation)
        grad = None
    return [grad, d_residual, *found]
