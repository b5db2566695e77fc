"""What the planner knows, each as a function in plain PyTorch that says what it means.

A graph of ATen calls is rewritten into calls of these. They run as kernels where ``lower`` finds
that they can, and as they stand here where they cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pointwise.acceleration import on_gpu, vocabulary_int8
from pointwise.convolution.epilogue import finish
from pointwise.convolution.steps import Step, run


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
) -> Tensor:
    """``activation(convolution + bias + residual)`` of images; padding top, bottom, left, right."""
    ours = on_gpu.conv(x, weight, bias, residual, stride, padding, dilation, groups, activation)
    if ours is not None:
        return ours
    top, bottom, left, right = padding
    around: Sequence[int] = (top, left)
    if top != bottom or left != right:
        x, around = F.pad(x, (left, right, top, bottom)), (0, 0)
    out = F.conv2d(x, weight, bias, stride, around, dilation, groups)
    return finish(out, residual, activation)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    """``activation(x · weightᵀ + bias + residual)`` over the last dimension."""
    out = F.linear(x, weight, bias)
    return finish(out, residual, activation)


def conv_bf16(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
) -> Tensor:
    """``conv`` of what is rounded to bfloat16, with sums in the type of ``x``."""
    x, weight = (part.bfloat16().to(part.dtype) for part in (x, weight))
    return conv(x, weight, bias, residual, stride, padding, dilation, groups, activation)


def linear_bf16(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    """``linear`` of what is rounded to bfloat16, with sums in the type of ``x``."""
    x, weight = (part.bfloat16().to(part.dtype) for part in (x, weight))
    return linear(x, weight, bias, residual, activation)


def activate(x: Tensor, activation: str) -> Tensor:
    return finish(x, None, activation)


def add(x: Tensor, y: Tensor, activation: str) -> Tensor:
    """``activation(x + y)`` of two of one shape."""
    return finish(x + y, None, activation)


def multiply(x: Tensor, y: Tensor, activation: str) -> Tensor:
    """``activation(x · y)`` of two of one shape."""
    return finish(x * y, None, activation)


def scale(x: Tensor, factor: Tensor, activation: str) -> Tensor:
    """``activation(x · factor)``, ``factor [N, C, 1, 1]`` being one for each image and channel."""
    return finish(x * factor, None, activation)


def affine(x: Tensor, factor: Tensor, shift: Tensor, activation: str) -> Tensor:
    """``activation(x · factor + shift)`` with one ``factor [C]`` and ``shift [C]`` a channel."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    return finish(x * factor.view(shape) + shift.view(shape), None, activation)


def chain(inputs: Sequence[Tensor], steps: Sequence[Step]) -> Tensor:
    """What is done to numbers one after another (``convolution/steps.py``); inputs broadcast."""
    return run(inputs, steps)


def mean(x: Tensor, keep: bool) -> Tensor:
    """The mean over each image."""
    return x.mean((2, 3), keepdim=keep)


def reduce(x: Tensor, name: str, dims: Sequence[int], keep: bool) -> Tensor:
    """The sum, mean, norm (the root of the sum of squares), amax or amin over dimensions."""
    if name == "norm":
        return torch.linalg.vector_norm(x, 2, list(dims), keep)
    functions: dict[str, Callable] = {
        "sum": torch.sum, "mean": torch.mean, "amax": torch.amax, "amin": torch.amin
    }  # fmt: skip
    return functions[name](x, list(dims), keep)


def softmax(x: Tensor, dim: int) -> Tensor:
    return x.softmax(dim)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    terms: Sequence[Tensor],
    periods: Sequence[int],
    scale: float | None,
    is_causal: bool,
    is_named: bool,
    is_grouped: bool,
) -> Tensor:
    """``softmax(q · kᵀ · scale + terms) · v``, all ``[…, length, channels]``.

    Terms broadcast to the scores; one with a period to scores whose first dimension is divided in
    two, the second so long. What ``is_named`` is PyTorch's own call, which gives rows that see
    nothing a number of its own; where it ``is_grouped``, several heads of q share one of k and v.
    """
    if is_named:
        mask = terms[0] if terms else None
        return F.scaled_dot_product_attention(
            q, k, v, mask, 0.0, is_causal, scale=scale, enable_gqa=is_grouped
        )
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    for term, period in zip(terms, periods, strict=True):
        if period:
            scores = (scores.unflatten(0, (-1, period)) + term).flatten(0, 1)
        else:
            scores = scores + term
    return scores.softmax(-1) @ v


def from_bools(mask: Tensor, yes: float, no: float, double: bool) -> Tensor:
    """Two numbers in the places of a mask."""
    dtype = torch.float64 if double else torch.float32
    return torch.where(mask, torch.tensor(yes, dtype=dtype), torch.tensor(no, dtype=dtype))


def norm_terms(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """What a group norm of ``x [N, C, H, W]`` multiplies with, and what it adds: ``[N, 2, C, 1,
    1]``, of each channel of each image."""
    images, channels = x.shape[:2]
    variance, mean = torch.var_mean(x.reshape(images, groups, -1), -1, correction=0)
    each = channels // groups
    factor = torch.rsqrt(variance + eps).repeat_interleave(each, 1)
    factor = factor if weight is None else factor * weight
    shift = -mean.repeat_interleave(each, 1) * factor
    shift = shift if bias is None else shift + bias
    return torch.stack((factor, shift), 1)[..., None, None]


def shuffle(x: Tensor, groups: int) -> Tensor:
    """The channels of groups by turns: ``torch.nn.functional.channel_shuffle``."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def part(x: Tensor, place: int) -> Tensor:
    """One of several that lie behind one another in dimension 1."""
    return x.select(1, place)


def squeeze_excite(
    x: Tensor,
    narrow: Tensor,
    narrow_bias: Tensor | None,
    wide: Tensor,
    wide_bias: Tensor | None,
    between: str,
    gate: str,
    activation: str,
) -> Tensor:
    """``activation(x · gate(wide · between(narrow · mean(x))))``; weights ``[.., .., 1, 1]``."""
    hidden = finish(F.conv2d(mean(x, True), narrow, narrow_bias), None, between)
    factor = finish(F.conv2d(hidden, wide, wide_bias), None, gate)
    return finish(x * factor, None, activation)


def max_pool(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil: bool,
) -> Tensor:
    return F.max_pool2d(x, kernel, stride, padding, dilation, ceil)


def avg_pool(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    ceil: bool,
    with_padding: bool,
    divisor: int | None,
) -> Tensor:
    return F.avg_pool2d(x, kernel, stride, padding, ceil, with_padding, divisor)


def join(xs: Sequence[Tensor]) -> Tensor:
    """The channels of several images behind one another."""
    return torch.cat(list(xs), 1)


def planes(
    x: Tensor, kernel: int, stride: int, edges: Sequence[int], dilation: int, groups: int
) -> Tensor:
    """What a window along the depth of ``x [N, C, D, H, W]`` reads, as channels of images.

    Of each group the taps behind one another, each with its channels; ``edges`` are zeros before
    and after.
    """
    x = F.pad(x, (0, 0, 0, 0, *edges))
    parts = x.unfold(2, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    # [N, groups, C / groups, D, H, W, kernel]
    parts = parts.unflatten(1, (groups, -1)).permute(0, 3, 1, 6, 2, 4, 5)
    return parts.flatten(2, 4).flatten(0, 1)


def volumes(x: Tensor, count: int) -> Tensor:
    """Images as the planes of so many volumes."""
    return x.unflatten(0, (count, -1)).transpose(1, 2)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm over the last dimension."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def channel_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm over the channels of each pixel of ``x [N, C, H, W]``."""
    x = x.permute(0, 2, 3, 1)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps).permute(0, 3, 1, 2)


# --- of constants, once ---------------------------------------------------------------------------


def norm_factor(weight: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    """What a batch norm with fixed statistics multiplies with, in float64."""
    factor = torch.rsqrt(variance.double() + eps)
    return factor if weight is None else factor * weight.double()


def norm_shift(bias: Tensor | None, mean: Tensor, factor: Tensor) -> Tensor:
    """What a batch norm with fixed statistics adds, in float64."""
    shift = -mean.double() * factor
    return shift if bias is None else shift + bias.double()


def as_type(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def scaled_weight(weight: Tensor, factor: Tensor) -> Tensor:
    """A weight ``[C_out, …]`` whose results are multiplied by ``factor`` (of C_out numbers)."""
    shape = (-1, *[1] * (weight.dim() - 1))
    return (weight.double() * factor.double().reshape(shape)).to(weight.dtype)


def shifted_bias(weight: Tensor, bias: Tensor | None, factor: Tensor, shift: Tensor) -> Tensor:
    """``bias · factor + shift``, as wide as ``weight`` and of its type."""
    shift = shift.double().reshape(-1)
    if bias is not None:
        shift = bias.double() * factor.double().reshape(-1) + shift
    return shift.expand(len(weight)).to(weight.dtype)


def scaled_bias(bias: Tensor, factor: Tensor) -> Tensor:
    return (bias.double() * factor.double().reshape(-1)).to(bias.dtype)


def merged_weight(weight: Tensor, other: Tensor, top: int, left: int) -> Tensor:
    """``weight [C_out, C_in, kh, kw]`` plus a smaller one that begins at a tap of it."""
    out, (height, width) = weight.double().clone(), other.shape[2:]
    out[:, :, top : top + height, left : left + width] += other.double()
    return out.to(weight.dtype)


def merged_bias(bias: Tensor, other: Tensor) -> Tensor:
    return (bias.double() + other.double()).to(bias.dtype)


def norm_weight(weight: Tensor, factor: Tensor, groups: int) -> Tensor:
    """A weight ``[C_out, C_in / groups, 1, 1]`` that multiplies each channel by its ``factor``."""
    channels, inputs = weight.shape[:2]
    out = factor.new_zeros(channels, inputs, 1, 1)
    here = torch.arange(channels)
    out[here, here % inputs, 0, 0] = factor
    return out


def phase_offsets(kernel: int, stride: int, padding: int, phase: int) -> list[int]:
    """Which points every stride-th result of a transposed convolution reads, 0 where none.

    Result ``stride · q + phase`` is the sum over these ``d`` of point ``q + d`` times tap ``phase +
    padding - stride · d``.
    """
    whole, part = divmod(phase + padding, stride)
    return [whole - m for m in range(-(-(kernel - part) // stride))] or [0]


def phase_taps(kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """(the first point that a phase reads, how many up to the last that any reads)."""
    offsets = [
        at for phase in range(stride) for at in phase_offsets(kernel, stride, padding, phase)
    ]
    return min(offsets), max(offsets) - min(offsets) + 1


def phases_weight(
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A transposed weight ``[C_in, C_out / groups, kh, kw]`` as those of all phases one behind
    another, ``[sy·sx·C_out, C_in / groups, th, tw]``: what ``phase_offsets`` says along each
    dimension. Between taps that lie ``dilation`` apart are zeros, but for strides of 1."""
    ways = zip((2, 3), stride, padding, dilation, strict=True)
    for dim, step, edge, apart in sorted(ways, reverse=True):
        weight = _spread(weight, dim, apart) if step > 1 else weight
        kernel = weight.shape[dim]
        first, taps = phase_taps(kernel, step, edge)
        sizes = weight.shape
        out = weight.new_zeros([*sizes[:dim], step, taps, *sizes[dim + 1 :]])
        for phase in range(step):
            for at in phase_offsets(kernel, step, edge, phase):
                tap = phase + edge - step * at
                if 0 <= tap < kernel:
                    out.select(dim, phase).select(dim, at - first).copy_(weight.select(dim, tap))
        weight = out
    # [groups, C_in / groups, C_out / groups, sy, th, sx, tw]
    weight = weight.unflatten(0, (groups, -1))
    return weight.permute(3, 5, 0, 2, 1, 4, 6).flatten(0, 3)


def _spread(weight: Tensor, dim: int, apart: int) -> Tensor:
    """Zeros between taps."""
    sizes = list(weight.shape)
    sizes[dim] = apart * (sizes[dim] - 1) + 1
    out = weight.new_zeros(sizes)
    out[(slice(None),) * dim + (slice(None, None, apart),)] = weight
    return out


def shuffled_rows(x: Tensor, groups: int) -> Tensor:
    """A weight or bias whose results are shuffled."""
    return x.unflatten(0, (groups, -1)).transpose(0, 1).flatten(0, 1).contiguous()


def phases_bias(bias: Tensor, phases: int) -> Tensor:
    return bias.repeat(phases)


def planes_weight(weight: Tensor) -> Tensor:
    """A weight ``[C_out, C_in, kd, kh, kw]`` as that of images whose channels ``planes`` gives."""
    return weight.transpose(1, 2).flatten(1, 2).contiguous()


def as_kernel(weight: Tensor) -> Tensor:
    """The weight ``[C_out, C_in]`` of a linear layer as that of a pointwise convolution."""
    return weight[:, :, None, None]


FUNCTIONS = {
    function.__name__: function
    for function in (
        conv, conv_bf16, linear, linear_bf16, activate, add, multiply, scale, affine, chain, reduce,
        softmax, attention, from_bools, norm_terms, shuffle, part, mean, max_pool, avg_pool, join,
        squeeze_excite,
        layer_norm, channel_norm, norm_factor, norm_shift, as_type, scaled_weight, shifted_bias,
        scaled_bias, merged_weight, merged_bias, norm_weight, phases_weight, phases_bias,
        shuffled_rows, as_kernel, planes, volumes, planes_weight,
    )
} | vocabulary_int8.FUNCTIONS  # fmt: skip
"""Name to function, for what is written to a file."""
