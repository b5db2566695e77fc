"""The witness's entries of images: every function and every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from witness_inputs import Draw

import pointwise as pw
from pointwise import layers

Entry = tuple[str, Callable[[Draw], Any]]
FLOATS = (torch.float32, torch.float64)
PARTLY_BY_PYTORCH = ("gelu", "with bias", "multiplier")
"""Layers whose norm is PyTorch's own in training, the gradients of which depend on threads."""
ACTIVATIONS = (None, "relu", "relu6", "hardswish", "silu", "gelu", "sigmoid")

# Channels, batch, (height, width), kernel, stride, padding, dilation, depth multiplier.
DEPTHWISE: tuple[tuple, ...] = (
    (1, 1, (9, 14), 3, 1, 1, 1, 1),
    (3, 2, (7, 5), 3, 1, "same", 1, 1),
    (5, 1, (1, 17), 3, 1, 1, 1, 1),
    (17, 3, (6, 31), 3, 1, 0, 1, 1),
    (33, 1, (56, 57), 3, 1, 1, 1, 1),
    (64, 8, (7, 7), 3, 1, 1, 1, 1),
    (1024, 1, (7, 7), 3, 1, 1, 1, 1),
    (32, 1, (15, 16), 3, 2, 1, 1, 1),
    (33, 2, (16, 15), 3, 2, "same", 1, 1),
    (5, 1, (2, 2), 3, 2, 1, 1, 1),
    (64, 1, (40, 41), 3, 2, 0, 1, 1),
    (17, 1, (12, 13), 5, 1, 2, 1, 1),
    (64, 2, (4, 9), 5, 1, "same", 1, 1),
    (33, 1, (13, 28), 5, 2, 2, 1, 1),
    (32, 3, (14, 6), 5, 2, "same", 1, 1),
    (32, 1, (15, 14), 7, 1, 3, 1, 1),
    (5, 2, (3, 40), 7, 1, 3, 1, 1),
    (17, 1, (15, 14), 7, 2, 3, 1, 1),
    (33, 1, (12, 11), 3, 1, 2, 2, 1),
    (17, 2, (17, 16), 3, 2, "same", 3, 1),
    (32, 1, (9, 9), 2, 1, 0, 1, 1),
    (5, 2, (10, 12), 4, 2, "same", 1, 1),
    (64, 1, (8, 20), (3, 5), (2, 1), (1, 2), 1, 1),
    (3, 1, (11, 9), (1, 7), (1, 3), (0, 3), 1, 1),
    (3, 1, (9, 19), (9, 11), 1, "same", 1, 1),
    (33, 1, (20, 20), 3, 4, 1, 1, 1),
    (5, 1, (9, 9), 3, 1, 4, 1, 1),
    (3, 2, (9, 8), 3, 1, 1, 1, 2),
    (17, 1, (9, 8), 3, 2, 1, 1, 3),
    (32, 1, (1, 1), 3, 1, 1, 1, 1),
)

# Channels in and out, batch, (height, width), kernel, stride, padding, dilation, groups.
STANDARD: tuple[tuple, ...] = (
    (1, 1, 1, (5, 6), 3, 1, 1, 1, 1),
    (3, 32, 1, (33, 32), 3, 2, 1, 1, 1),
    (3, 17, 2, (20, 21), 7, 2, 3, 1, 1),
    (5, 33, 3, (9, 8), 3, 1, "same", 1, 1),
    (64, 64, 1, (14, 14), 3, 1, 1, 1, 1),
    (33, 5, 1, (7, 13), 3, 2, "same", 1, 1),
    (17, 64, 1, (12, 12), 3, 1, 2, 2, 1),
    (16, 24, 8, (6, 6), 5, 1, 2, 1, 1),
    (32, 32, 1, (9, 9), 2, 2, 0, 1, 1),
    (12, 18, 2, (10, 9), 3, 1, 1, 1, 3),
    (64, 32, 1, (8, 8), 3, 2, 1, 1, 2),
    (3, 3, 1, (7, 1), 3, 1, 1, 1, 1),
    (5, 7, 1, (1, 1), 3, 1, 1, 1, 1),
    (8, 1, 1, (9, 10), 4, 3, "same", 1, 1),
    (8, 6, 1, (9, 10), (1, 5), (1, 2), (0, 2), 1, 1),
    (8, 6, 1, (19, 10), (5, 3), (2, 1), 0, (2, 3), 1),
    (1024, 8, 1, (5, 5), 3, 1, 1, 1, 1),
)

# Channels in and out, batch, (height, width), stride, padding, groups.
POINTWISE: tuple[tuple, ...] = (
    (1, 1, 1, (1, 1), 1, 0, 1),
    (3, 5, 2, (3, 5), 1, 0, 1),
    (17, 33, 1, (1, 2), 1, 0, 1),
    (32, 64, 1, (14, 14), 1, 0, 1),
    (33, 17, 3, (7, 9), 1, 0, 1),
    (64, 128, 8, (7, 7), 1, 0, 1),
    (64, 96, 1, (56, 56), 1, 0, 1),
    (1024, 32, 1, (7, 7), 1, 0, 1),
    (2048, 1000, 1, (1, 1), 1, 0, 1),
    (32, 24, 1, (13, 14), 2, 0, 1),
    (24, 36, 2, (8, 8), 1, 0, 3),
    (16, 8, 1, (5, 5), 1, 1, 1),
    (16, 8, 1, (6, 5), (2, 1), "same", 2),
)

# Channels in and out, batch, (height, width), kernel, stride, padding, dilation, groups,
# depth multiplier.
SEPARABLE: tuple[tuple, ...] = (
    (3, 5, 1, (9, 8), 3, 1, 1, 1, 1, 1),
    (32, 64, 1, (28, 28), 3, 1, 1, 1, 1, 1),
    (33, 17, 2, (13, 12), 3, 2, "same", 1, 1, 1),
    (17, 32, 1, (9, 14), 5, 1, 2, 1, 1, 1),
    (64, 33, 3, (14, 13), 5, 2, 2, 1, 1, 1),
    (32, 16, 1, (12, 12), 7, 1, 3, 1, 1, 1),
    (5, 64, 1, (12, 11), 3, 1, 2, 2, 1, 1),
    (16, 8, 1, (9, 9), 4, 2, 0, 1, 1, 1),
    (512, 1100, 1, (5, 5), 3, 1, 1, 1, 1, 1),
    (12, 24, 1, (8, 8), 3, 1, 1, 1, 2, 1),
    (6, 10, 2, (8, 8), 3, 1, 1, 1, 1, 2),
    (1024, 8, 1, (5, 5), 3, 1, 1, 1, 1, 1),
)


def entries() -> Iterator[Entry]:
    yield from _functions()
    yield from _activations()
    yield from _lines_and_volumes()
    yield from _hard_inputs()
    yield from _layers()
    yield from _training()


# --- functions ------------------------------------------------------------------------------------


def _functions() -> Iterator[Entry]:
    for dtype in FLOATS:
        kind = str(dtype).removeprefix("torch.")
        for row in DEPTHWISE:
            channels, batch, size, kernel, stride, padding, dilation, multiplier = row
            call = partial(pw.depthwise_conv2d, stride=stride, padding=padding, dilation=dilation)
            weight = (channels * multiplier, 1, *_pair(kernel))
            yield _function(
                f"depthwise {row} {kind}", call, (batch, channels, *size), weight, dtype
            )
        for row in STANDARD:
            channels, out, batch, size, kernel, stride, padding, dilation, groups = row
            call = partial(
                pw.conv2d, stride=stride, padding=padding, dilation=dilation, groups=groups
            )
            weight = (out, channels // groups, *_pair(kernel))
            yield _function(f"standard {row} {kind}", call, (batch, channels, *size), weight, dtype)
        for row in POINTWISE:
            channels, out, batch, size, stride, padding, groups = row
            call = partial(pw.pointwise_conv2d, stride=stride, padding=padding, groups=groups)
            yield _function(
                f"pointwise {row} {kind}",
                call,
                (batch, channels, *size),
                (out, channels // groups),
                dtype,
            )
        for row in SEPARABLE:
            yield f"separable {row} {kind}", partial(_separable, row, dtype)


def _pair(kernel: int | tuple[int, int]) -> tuple[int, int]:
    return (kernel, kernel) if isinstance(kernel, int) else kernel


def _function(
    name: str, call: Callable, shape: tuple, weight: tuple, dtype: torch.dtype
) -> tuple[str, Callable[[Draw], Any]]:
    def run(draw: Draw) -> dict[str, Any]:
        x, w = draw.image(*shape, dtype=dtype), draw.normal(*weight, dtype=dtype)
        bias = draw.normal(weight[0], dtype=dtype)
        plain = call(x, w)
        residual = draw.image(*plain.shape, dtype=dtype)
        return {
            "plain": plain,
            "finished": call(x, w, bias, activation="relu6", residual=residual),
            "bias": call(x, w, bias, activation="hardswish"),
            "gradients": draw.gradients(call, {"input": x, "weight": w, "bias": bias}),
        }

    return name, run


def _separable(row: tuple, dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    channels, out, batch, size, kernel, stride, padding, dilation, groups, multiplier = row
    inner = channels * multiplier
    x = draw.image(batch, channels, *size, dtype=dtype)
    tensors = {
        "input": x,
        "depthwise": draw.normal(inner, 1, *_pair(kernel), dtype=dtype),
        "pointwise": draw.normal(out, inner // groups, dtype=dtype),
        "depthwise_bias": draw.normal(inner, dtype=dtype),
        "bias": draw.normal(out, dtype=dtype),
    }
    call = partial(
        pw.depthwise_separable_conv2d,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    with_activations = partial(call, depthwise_activation="relu6", activation="silu")
    plain = call(*list(tensors.values())[:3])
    residual = draw.image(*plain.shape, dtype=dtype)
    return {
        "plain": plain,
        "finished": with_activations(*tensors.values(), residual=residual),
        "gradients": draw.gradients(with_activations, tensors),
    }


def _activations() -> Iterator[Entry]:
    for dtype in FLOATS:
        for name in ACTIVATIONS:
            yield f"activation {name} {dtype}", partial(_activation, name, dtype)


def _activation(name: str | None, dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    x = 3 * draw.image(2, 19, 9, 10, dtype=dtype)
    stencil, mix = draw.normal(19, 1, 3, 3, dtype=dtype), draw.normal(35, 19, dtype=dtype)
    whole = draw.normal(18, 19, 3, 3, dtype=dtype)
    near, far = (draw.image(2, n, 9, 10, dtype=dtype) for n in (19, 35))
    same: dict[str, Any] = {"padding": 1, "activation": name}
    return {
        "depthwise": pw.depthwise_conv2d(x, stencil, **same),
        "depthwise with residual": pw.depthwise_conv2d(x, stencil, residual=near, **same),
        "pointwise": pw.pointwise_conv2d(x, mix, activation=name),
        "pointwise with residual": pw.pointwise_conv2d(x, mix, activation=name, residual=far),
        "standard": pw.conv2d(x, whole, **same),
        "separable": pw.depthwise_separable_conv2d(
            x, stencil, mix, padding=1, activation=name, depthwise_activation=name
        ),
        "gradients": draw.gradients(partial(pw.conv2d, **same), {"input": x, "weight": whole}),
    }


def _lines_and_volumes() -> Iterator[Entry]:
    for dtype in FLOATS:
        yield f"lines {dtype}", partial(_lines, dtype)
        yield f"volumes {dtype}", partial(_volumes, dtype)


def _lines(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    x = draw.normal(2, 12, 23, dtype=dtype)
    stencil, mix = draw.normal(12, 1, 5, dtype=dtype), draw.normal(8, 12, dtype=dtype)
    depthwise = partial(pw.depthwise_conv1d, stride=2, padding="same", activation="relu")
    return {
        "depthwise": draw.gradients(depthwise, {"input": x, "weight": stencil}),
        "dilated": pw.depthwise_conv1d(x, stencil, padding=4, dilation=2),
        "pointwise": draw.gradients(pw.pointwise_conv1d, {"input": x, "weight": mix}),
        "separable": pw.depthwise_separable_conv1d(x, stencil, mix, padding=2),
    }


def _volumes(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    x = draw.normal(2, 6, 5, 7, 8, dtype=dtype)
    stencil, mix = draw.normal(6, 1, 3, 3, 3, dtype=dtype), draw.normal(8, 6, dtype=dtype)
    depthwise = partial(pw.depthwise_conv3d, stride=(1, 2, 2), padding=1)
    return {
        "depthwise": draw.gradients(depthwise, {"input": x, "weight": stencil}),
        "pointwise": draw.gradients(pw.pointwise_conv3d, {"input": x, "weight": mix}),
        "separable": pw.depthwise_separable_conv3d(x, stencil, mix, padding=1, activation="silu"),
    }


def _hard_inputs() -> Iterator[Entry]:
    for dtype in FLOATS:
        yield f"not finite {dtype}", partial(_not_finite, dtype)
        yield f"layouts {dtype}", partial(_layouts, dtype)
        yield f"empty {dtype}", partial(_empty, dtype)
        yield f"second derivatives {dtype}", partial(_second, dtype)
    for dtype in (torch.float16, torch.bfloat16):
        yield f"half {dtype}", partial(_layouts, dtype)
    yield "autocast", _autocast


def _all_four(x: Tensor, draw: Draw) -> dict[str, Tensor]:
    channels, dtype = x.shape[-3], x.dtype
    stencil, mix = draw.normal(channels, 1, 3, 3, dtype=dtype), draw.normal(9, channels)
    mix = mix.to(dtype)
    whole = draw.normal(7, channels, 3, 3, dtype=dtype)
    return {
        "depthwise": pw.depthwise_conv2d(x, stencil, padding=1, activation="relu"),
        "pointwise": pw.pointwise_conv2d(x, mix, activation="relu6"),
        "standard": pw.conv2d(x, whole, padding=1, activation="silu"),
        "separable": pw.depthwise_separable_conv2d(x, stencil, mix, padding=1),
    }


def _not_finite(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    x = draw.image(1, 20, 8, 9, dtype=dtype)
    x[0, 3, 2, 2], x[0, 5, 6, 4], x[0, 19, 0, 8] = torch.nan, torch.inf, -torch.inf
    return _all_four(x, draw)


def _layouts(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    wide = draw.normal(2, 12, 18, 20, dtype=dtype)
    return {
        "contiguous": _all_four(wide, draw),
        "sliced": _all_four(wide[:, 1:10, 1::2, 3:], draw),
        "transposed": _all_four(wide.transpose(2, 3), draw),
        "expanded": _all_four(wide[:1, :, :1].expand(2, 12, 5, 20), draw),
        "without a batch": _all_four(wide[0], draw),
    }


def _empty(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    x = torch.zeros(0, 6, 9, 9, dtype=dtype).to(memory_format=torch.channels_last)
    weight = draw.normal(6, 1, 3, 3, dtype=dtype)
    call = partial(pw.depthwise_conv2d, padding=1)
    mix = {"input": x, "weight": draw.normal(4, 6, dtype=dtype)}
    return {
        "results": _all_four(x, draw),
        "depthwise": draw.gradients(call, {"input": x, "weight": weight}),
        "pointwise": draw.gradients(pw.pointwise_conv2d, mix),
    }


def _second(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    found = {}
    for name, weight, groups in (("depthwise", (6, 1, 3, 3), 6), ("standard", (4, 6, 3, 3), 1)):
        x = draw.image(1, 6, 7, 8, dtype=dtype).requires_grad_()
        w = draw.normal(*weight, dtype=dtype).requires_grad_()
        out = pw.conv2d(x, w, stride=2, padding=1, groups=groups).square().sum()
        first = torch.autograd.grad(out, (x, w), create_graph=True)
        total = first[0].square().sum() + first[1].square().sum()
        found[name] = torch.autograd.grad(total, (x, w))
    return found


def _autocast(draw: Draw) -> dict[str, Any]:
    with torch.autocast("cpu"):
        return _all_four(draw.image(1, 12, 8, 8), draw)


# --- layers ---------------------------------------------------------------------------------------


def modules() -> Iterator[tuple[str, Callable[[], nn.Module], tuple[int, ...]]]:
    """Name, how to make it, and the shape of its input."""
    block, separable = pw.ConvNormAct, pw.DepthwiseSeparableConv2d
    yield "stem", lambda: block(3, 24, 3, 2), (2, 3, 21, 20)
    yield "stem 7", lambda: block(3, 17, 7, 2, activation="silu"), (1, 3, 30, 29)
    yield "pointwise", lambda: block(17, 33, 1, activation="hardswish"), (1, 17, 9, 8)
    yield "pointwise stride", lambda: block(16, 33, 1, 2, activation=None), (2, 16, 9, 8)
    yield "grouped", lambda: block(16, 24, 3, groups=4, activation="relu6"), (2, 16, 9, 8)
    yield "dilated", lambda: block(16, 24, 3, dilation=2), (2, 16, 9, 8)
    yield "gelu", lambda: block(16, 24, 3, activation="gelu"), (2, 16, 9, 8)
    yield "without norm", lambda: block(16, 24, 3, norm=None), (2, 16, 9, 8)
    yield "with bias", lambda: block(16, 24, 3, bias=True), (2, 16, 9, 8)
    yield "large weight", lambda: block(512, 1100, 1), (1, 512, 5, 5)
    for k, s in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2), (4, 2), (9, 1)):
        yield f"depthwise {k} {s}", partial(block, 33, 33, k, s, groups=33), (2, 33, 12, 13)
        yield (
            f"separable {k} {s}",
            partial(separable, 33, 24, k, s, norm=nn.BatchNorm2d, activation="relu6"),
            (3, 33, 12, 13),
        )
        yield (
            f"inverted {k} {s}",
            partial(pw.InvertedResidual, 16, 16 * s, 72, k, s),
            (2, 16, 14, 13),
        )
    for k, edge in ((3, 0), (5, 1)):  # with the taps of a stride the other way round
        yield (
            f"depthwise {k} 2 padding {edge}",
            partial(block, 33, 33, k, 2, edge, groups=33),
            (2, 33, 12, 13),
        )
    yield "depthwise dilated", lambda: block(17, 17, 3, dilation=2, groups=17), (2, 17, 12, 13)
    yield (
        "depthwise sigmoid",
        lambda: block(17, 17, 3, groups=17, activation="sigmoid"),
        (1, 17, 12, 13),
    )
    yield (
        "multiplier",
        lambda: separable(12, 8, depth_multiplier=3, norm=nn.BatchNorm2d),
        (2, 12, 9, 8),
    )
    yield "xception", lambda: separable(32, 48, norm=nn.BatchNorm2d, between=False), (1, 32, 14, 14)
    yield (
        "silu between",
        lambda: separable(32, 48, norm=nn.BatchNorm2d, activation="silu"),
        (2, 32, 14, 14),
    )
    yield "separable too large", lambda: separable(512, 1100, norm=nn.BatchNorm2d), (1, 512, 5, 5)
    yield "separable groups", lambda: separable(12, 24, groups=3), (1, 12, 9, 9)
    yield "separable dilated", lambda: separable(17, 24, dilation=2), (1, 17, 12, 13)
    yield "inverted dilated lines", lambda: pw.InvertedResidual(24, 24, 96, (3, 5)), (4, 24, 20, 9)
    yield "inverted large", lambda: pw.InvertedResidual(16, 24, 96, 3, 2), (1, 16, 64, 66)
    yield "inverted without expansion", lambda: pw.InvertedResidual(24, 16, 24), (2, 24, 9, 8)
    yield (
        "inverted excited",
        lambda: pw.InvertedResidual(
            24, 24, 64, 5, squeezed=8, gate="hardsigmoid", activation="hardswish"
        ),
        (2, 24, 14, 14),
    )
    yield "bottleneck", lambda: pw.Bottleneck(64, 16), (2, 64, 9, 8)
    yield "bottleneck stride", lambda: pw.Bottleneck(48, 16, 2), (2, 48, 9, 8)
    yield "bottleneck grouped", lambda: pw.Bottleneck(48, 16, 1, 2, 4), (1, 48, 9, 8)
    yield "excite", lambda: pw.SqueezeExcite(48, 12, "silu"), (2, 48, 9, 8)
    yield "excite hard", lambda: pw.SqueezeExcite(33, 8, gate="hardsigmoid"), (1, 33, 9, 8)
    yield "channel attention", lambda: pw.ChannelAttention(48, 6), (2, 48, 9, 8)
    yield "efficient attention", lambda: pw.EfficientChannelAttention(48), (2, 48, 9, 8)
    yield "inception", lambda: pw.InceptionReduction(24, 24, 16, (12, 14)), (1, 24, 15, 15)
    yield "stem form", stem_form, (1, 3, 65, 64)
    yield "in sequence", _Sequence, (2, 16, 20, 20)


def stem_form() -> nn.Module:
    """A stem, a depthwise and a pointwise convolution, as networks begin with them."""
    first = pw.ConvNormAct(3, 32, 3, 2, activation="relu6")
    return _Sequence(
        first, pw.DepthwiseSeparableConv2d(32, 16, norm=nn.BatchNorm2d, activation="relu6")
    )


class _Sequence(nn.Module):
    """Blocks that ``in_sequence`` runs together."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            blocks
            or (
                pw.DepthwiseSeparableConv2d(16, 32, 3, 2, norm=nn.BatchNorm2d, activation="relu"),
                pw.ConvNormAct(32, 96, 1, activation="hardswish"),
                pw.ConvNormAct(96, 96, 5, groups=96, activation="silu"),
                pw.ConvNormAct(96, 24, 1, activation=None),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return layers.in_sequence(x, self.blocks)


def _layers() -> Iterator[Entry]:
    for dtype in FLOATS:
        for name, make, shape in modules():
            if dtype == torch.float64 and "large" in name:
                continue
            yield f"layer {name} {dtype}", partial(_layer, make, shape, dtype)


def _layer(
    make: Callable[[], nn.Module], shape: tuple, dtype: torch.dtype, draw: Draw
) -> dict[str, Any]:
    module, x = draw.fill(make(), dtype), draw.image(*shape, dtype=dtype)
    module.eval()
    with torch.no_grad():
        first, again = module(x), module(x)
        changed = draw.image(shape[0] + 1, shape[1], shape[2] + 3, shape[3] + 1, dtype=dtype)
        found = {"eval": first, "again": again, "another shape": module(changed)}
        pw.freeze(module)
        found |= {"frozen": module(x), "frozen again": module(x)}
    return found


def _training() -> Iterator[Entry]:
    for dtype in FLOATS:
        for name, make, shape in modules():
            if "large" not in name:
                by = ", partly by PyTorch" if name in PARTLY_BY_PYTORCH else ""
                yield f"training {name} {dtype}", partial(_step, make, shape, dtype, by)
        yield f"training with residual {dtype}", partial(_with_residual, dtype)


def _step(
    make: Callable[[], nn.Module], shape: tuple, dtype: torch.dtype, by: str, draw: Draw
) -> dict[str, Any]:
    module, x = draw.fill(make(), dtype), draw.image(*shape, dtype=dtype)
    found = {f"step{by}": draw.training(module, x)}
    return found | {f"gradients in eval{by}": draw.gradients(module.eval(), {"x": x})}


def _with_residual(dtype: torch.dtype, draw: Draw) -> dict[str, Any]:
    found = {}
    for activation in ACTIVATIONS:
        module = draw.fill(pw.ConvNormAct(12, 20, 3, activation=activation), dtype)
        x, residual = (draw.image(2, n, 7, 8, dtype=dtype) for n in (12, 20))
        found[f"eval {activation}"] = module.eval()(x, residual).detach()
        by = ", partly by PyTorch" if activation == "gelu" else ""
        found[f"train {activation}{by}"] = draw.training(module, x, residual)
    return found
