"""Convolutions, linear layers and norms of ONNX files."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pointwise.onnx import functions
from pointwise.onnx.call import Call, are_constant, padding

_CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def conv(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    window = _window(call, x, weight, bias, _CONVS)
    dims, begin, end = len(window.kernel), window.begin, window.end
    if window.auto.startswith("SAME"):
        x = call(
            functions.pad_same,
            x,
            window.kernel,
            window.stride,
            window.dilation,
            window.auto == "SAME_UPPER",
        )
    elif begin != end:
        x, begin = call(F.pad, x, functions.as_torch(begin, end)), [0] * dims
    groups = call.get("group", 1)
    made = _CONVS[dims](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(window.kernel),
        tuple(window.stride),
        tuple(begin),
        tuple(window.dilation),
        groups,
        bias is not None,
    )
    return call.builder.module(call.name, _filled(made, weight, bias), weight, x)


def conv_transpose(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    window = _window(call, x, weight, bias, _TRANSPOSED)
    dims = len(window.kernel)
    if window.auto.startswith("SAME") or call.get("output_shape"):
        raise call.refuse("has its padding worked out from its size")
    if window.begin != window.end:
        raise call.refuse("has padding that is not the same on both sides")
    groups = call.get("group", 1)
    made = _TRANSPOSED[dims](
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(window.kernel),
        tuple(window.stride),
        tuple(window.begin),
        tuple(call.get("output_padding", [0] * dims)),
        groups,
        bias is not None,
        tuple(window.dilation),
    )
    return call.builder.module(call.name, _filled(made, weight, bias), weight, x)


class _Window(NamedTuple):
    """The window of a convolution, along each axis of an image."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    begin: list[int]
    end: list[int]
    auto: str


def _window(call: Call, x: Any, weight: Any, bias: Any, known: dict[int, Any]) -> _Window:
    if not are_constant(weight, bias):
        raise call.refuse("has a weight that is computed")
    if not isinstance(x, fx.Node):
        raise call.refuse("is of a constant")
    dims = weight.dim() - 2
    if dims not in known:
        raise call.refuse(f"is over {dims} dimensions")
    kernel = list(weight.shape[2:])
    if list(call.get("kernel_shape", kernel)) != kernel:
        raise call.refuse(f"has kernel_shape {call.get('kernel_shape')} and a kernel of {kernel}")
    pads, auto = padding(call, dims)
    ones = [1] * dims
    return _Window(
        kernel,
        list(call.get("strides", ones)),
        list(call.get("dilations", ones)),
        pads[:dims],
        pads[dims:],
        auto,
    )


def gemm(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    call.without_effect("broadcast")  # of what could not be added without
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    transposed = call.get("transB")
    if call.get("transA"):
        a = call(torch.t, a)
    plain = alpha == beta == 1 and isinstance(a, fx.Node) and are_constant(b, c)
    if plain and (c is None or c.dim() == 1):
        weight = b if transposed else b.t()
        if c is None or len(c) == len(weight):
            return _linear(call, a, b, weight, c)
    b = call(torch.t, b) if transposed else b
    out = call(torch.matmul, a, b)
    out = out if alpha == 1 else call(torch.mul, out, alpha)
    if c is None:
        return out
    return call(torch.add, out, c if beta == 1 else call(torch.mul, c, beta))


def matmul(call: Call, a: Any, b: Any) -> Any:
    if isinstance(a, fx.Node) and isinstance(b, Tensor) and b.dim() == 2:
        return _linear(call, a, b, b.t(), None)
    return call(torch.matmul, a, b)


def _linear(call: Call, x: fx.Node, named: Tensor, weight: Tensor, bias: Tensor | None) -> fx.Node:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return call.builder.module(call.name, _filled(made, weight.contiguous(), bias), named, x)


def _filled(made: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made


def add(call: Call, a: Any, b: Any) -> Any:
    """A sum; the bias of a linear layer goes into the layer."""
    call.one_of("broadcast", 0)
    for x, bias in ((a, b), (b, a)):
        layer = _layer_of(call, x)
        if (
            not isinstance(layer, nn.Linear)
            or layer.bias is not None
            or call.builder.uses_of(x) != 1
        ):
            continue
        if isinstance(bias, Tensor) and bias.shape == (layer.out_features,):
            layer.bias = nn.Parameter(bias, requires_grad=False)
            return x
    return call(operator.add, call.scalar(a), call.scalar(b))


def _layer_of(call: Call, x: Any) -> Any:
    """The layer that makes a value, if one does."""
    is_layer = isinstance(x, fx.Node) and x.op == "call_module"
    return call.builder.root.get_submodule(str(x.target)) if is_layer else None


# --- norms ----------------------------------------------------------------------------------------


def batch_norm(call: Call, x: Any, *rows: Any) -> Any:
    call.without_effect("momentum")
    # Up to version 13, results for the statistics are what tells of training.
    trains = call.get("training_mode") or (call.version < 14 and any(call.outputs[1:]))
    if trains or (call.version < 7 and not call.get("is_test")) or not are_constant(*rows):
        raise call.refuse("is in training mode")
    call.one_of("spatial", 1)
    weight, bias, mean, variance = rows
    eps = call.get("epsilon", 1e-5)
    if isinstance(_layer_of(call, x), nn.Conv2d):
        made = nn.BatchNorm2d(len(weight), eps)
        _filled(made, weight, bias)
        made.running_mean, made.running_var = mean, variance
        return call.builder.module(call.name, made, weight, x)
    return call(F.batch_norm, x, mean, variance, weight, bias, False, 0.0, eps)


def layer_norm(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    call.one_of("stash_type", 1)
    if not are_constant(weight, bias):
        raise call.refuse("has a factor that is computed")
    axis, eps = call.get("axis", -1), call.get("epsilon", 1e-5)
    whole = axis == -weight.dim() and 1 not in weight.shape
    if whole and (bias is None or bias.shape == weight.shape):
        return call(F.layer_norm, x, tuple(weight.shape), weight, bias, eps)
    return call(functions.layer_norm, x, axis, weight, bias, eps)


def instance_norm(call: Call, x: Any, weight: Any, bias: Any) -> Any:
    return call(functions.instance_norm, x, weight, bias, call.get("epsilon", 1e-5))


def local_response_norm(call: Call, x: Any) -> Any:
    size = call.get("size")
    if size % 2 == 0:
        raise call.refuse(f"has a size of {size}, and no middle")
    return call(
        F.local_response_norm,
        x,
        size,
        call.get("alpha", 1e-4),
        call.get("beta", 0.75),
        call.get("bias", 1.0),
    )
