"""What the operators of ONNX files are in PyTorch.

Each function here is given a ``Call`` and the operator's inputs: nodes of the graph, tensors where
they are constants, or None where they are left out. It returns the result, or a tuple of results.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.onnx import functions as onnx_functions
from pointwise.onnx import numbers as onnx_numbers
from pointwise.onnx.call import Call, are_constant
from pointwise.onnx.images import (
    average_pool,
    max_pool,
    pad,
    reduce,
    resize,
)
from pointwise.onnx.layers import (
    add,
    batch_norm,
    conv,
    conv_transpose,
    gemm,
    instance_norm,
    layer_norm,
    local_response_norm,
    matmul,
)
from pointwise.onnx.numbers import Numbers

# --- number by number -----------------------------------------------------------------------------


def _unary(function: Callable) -> Callable:
    return lambda call, x: call(function, x)


def _binary(function: Callable) -> Callable:
    def read(call: Call, a: Any, b: Any) -> Any:
        call.one_of("broadcast", 0)
        return call(function, call.scalar(a), call.scalar(b))

    return read


def _pow(call: Call, x: Any, exponent: Any) -> Any:
    call.one_of("broadcast", 0)
    return call(onnx_functions.power, x, call.scalar(exponent))


def _prelu(call: Call, x: Any, slope: Any) -> Any:
    if call.version >= 7:
        return call(onnx_functions.prelu, x, slope)
    if not are_constant(slope):
        raise call.refuse("has slopes that are computed")
    return call(F.prelu, x, slope.reshape(-1))  # one of each channel, or one of all


def _clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    if not are_constant(low, high):
        raise call.refuse("has bounds that are computed")
    largest = torch.finfo(torch.float32).max if 6 <= call.version < 11 else None
    least = None if largest is None else -largest
    low = call.get("min", least if low is None else low.item())
    high = call.get("max", largest if high is None else high.item())
    if low is None and high is None:
        return x
    if low == 0 and high == 6:
        return call(F.relu6, x)
    return call(torch.clamp, x, low, high)


def _hard_sigmoid(call: Call, x: Any) -> Any:
    slope, shift = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-8 and shift == 0.5:
        return call(F.hardsigmoid, x)
    return call(onnx_functions.hard_sigmoid, x, slope, shift)


def _gelu(call: Call, x: Any) -> Any:
    return call(F.gelu, x, approximate=call.one_of("approximate", "none", "tanh"))


def _softmax(call: Call, x: Any) -> Any:
    if call.version >= 13:
        return call(F.softmax, x, call.get("axis", -1))
    return call(onnx_functions.softmax_of_all_behind, x, call.get("axis", 1))


def _cast(call: Call, x: Any) -> Any:
    from pointwise.onnx.file import dtype_of

    call.without_effect("saturate", "round_mode")  # but for types that are not read
    return call(Tensor.to, x, dtype_of(call.get("to")))


# --- shapes ---------------------------------------------------------------------------------------


def _shape(call: Call, x: Any) -> Any:
    start, end = call.get("start", 0), call.get("end")
    if isinstance(x, Tensor):
        return torch.tensor(onnx_numbers.sizes(x, start, end), dtype=torch.int64)
    return call.reader.sizes(onnx_numbers.sizes, (x, start, end), Numbers(1))


def _reshape(call: Call, x: Any, shape: Any = None) -> Any:
    zeros = bool(call.get("allowzero", 0))
    return call(onnx_functions.reshape, x, call.sizes(shape, "shape"), zeros)


def _flatten(call: Call, x: Any) -> Any:
    return call(onnx_functions.flatten, x, call.get("axis", 1))


def _transpose(call: Call, x: Any) -> Any:
    order = call.get("perm")
    return call(onnx_functions.turned, x) if order is None else call(torch.permute, x, order)


def _squeeze(call: Call, x: Any, axes: Any = None) -> Any:
    return call(onnx_functions.squeeze, x, call.whole(axes, "axes") or None)


def _unsqueeze(call: Call, x: Any, axes: Any = None) -> Any:
    return call(onnx_functions.unsqueeze, x, call.whole(axes, "axes"))


def _concat(call: Call, *xs: Any) -> Any:
    return call(torch.cat, list(xs), call.get("axis", 1))  # which has no default since version 4


def _split(call: Call, x: Any, sizes: Any = None) -> Any:
    count, axis = len(call.outputs), call.get("axis", 0)
    parts = call.whole(sizes, "split")
    if call.get("num_outputs", count) != count:
        raise call.refuse(f"has {count} results and num_outputs {call.get('num_outputs')}")
    if parts is None:
        made = call(onnx_functions.split_evenly, x, count, axis, call.version >= 18)
    elif len(parts) != count:
        raise call.refuse(f"has {count} results and a split into {len(parts)}")
    else:
        made = call(torch.split, x, parts, axis)
    return tuple(call(operator.getitem, made, i) for i in range(count))


def _slice(call: Call, x: Any, *inputs: Any) -> Any:
    names = ("starts", "ends", "axes", "steps")
    given = [*inputs, *[None] * (4 - len(inputs))]
    found = [call.sizes(value, name) for value, name in zip(given, names, strict=True)]
    return call(onnx_functions.slices, x, *found)


def _gather(call: Call, x: Any, index: Any) -> Any:
    axis = call.get("axis", 0)
    if isinstance(index, Tensor) and index.dim() == 0:
        return call(torch.select, x, axis, index.item())
    return call(onnx_functions.gather, x, index, axis)


_KINDS = {"value_float": torch.float32, "value_floats": torch.float32,
          "value_int": torch.int64, "value_ints": torch.int64}  # fmt: skip


def _constant(call: Call) -> Any:
    if len(call.attributes) != 1:
        raise call.refuse(f"has {len(call.attributes)} values, not one")
    (name,) = call.attributes
    if name == "value":
        return call.get(name)
    if name not in _KINDS:
        raise call.refuse(f"is a {name}")
    return torch.tensor(call.get(name), dtype=_KINDS[name])


def _constant_of_shape(call: Call, shape: Any) -> Any:
    value = call.get("value", torch.zeros(1))
    if value.numel() != 1:
        raise call.refuse(f"has {value.numel()} values, not one")
    wanted = call.sizes(shape, "shape")
    if isinstance(wanted, fx.Node) and wanted.target is onnx_numbers.length:
        known = Numbers(1, value.dtype)
        if value.dtype in (torch.int64, torch.int32, torch.bool):
            return call.reader.sizes(onnx_numbers.repeat, (value.item(), wanted), known)
    return call(torch.full, wanted, value.item(), dtype=value.dtype)


def _expand(call: Call, x: Any, shape: Any) -> Any:
    return call(onnx_functions.expand, x, call.sizes(shape, "shape"))


def _same(call: Call, x: Any) -> Any:
    return x


def _dropout(call: Call, x: Any, ratio: Any = None, training: Any = None) -> Any:
    call.without_effect("ratio", "seed")
    trains = call.version < 7 and not call.get("is_test", 0)
    if training is not None and (not isinstance(training, Tensor) or training.item()):
        trains = True
    if trains:
        raise call.refuse("is in training mode")
    return x


TAKE_SIZES = {"Reshape": (1,), "Slice": (1, 2, 3, 4), "ConstantOfShape": (0,), "Expand": (1,),
              "Resize": (3,)}  # fmt: skip
"""Which inputs may be sizes that follow from the input's, and no tensors."""

OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response_norm,
    **{row.onnx: _unary(row.plain) for row in ACTIVATIONS.values() if row.onnx is not None},
    "LeakyRelu": lambda call, x: call(F.leaky_relu, x, call.get("alpha", 0.01)),
    "Elu": lambda call, x: call(F.elu, x, call.get("alpha", 1.0)),
    "PRelu": _prelu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Softplus": _unary(F.softplus),
    "Erf": _unary(torch.erf),
    "Tanh": _unary(torch.tanh),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Reciprocal": _unary(torch.reciprocal),
    "Neg": _unary(torch.neg),
    "Abs": _unary(torch.abs),
    "Softmax": _softmax,
    "Add": add,
    "Sub": _binary(operator.sub),
    "Mul": _binary(operator.mul),
    "Div": _binary(onnx_functions.divide),
    "Pow": _pow,
    "Equal": _binary(torch.eq),
    "Where": lambda call, *parts: call(torch.where, *parts),
    "GlobalAveragePool": _unary(onnx_functions.global_mean),
    "GlobalMaxPool": _unary(onnx_functions.global_max),
    "AveragePool": average_pool,
    "MaxPool": max_pool,
    "ReduceMean": reduce(onnx_functions.mean),
    "ReduceSum": reduce(onnx_functions.total),
    "Pad": pad,
    "Resize": resize,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Shape": _shape,
    "Gather": _gather,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Identity": _same,
    "Dropout": _dropout,
    "Cast": _cast,
}  # fmt: skip
"""By ONNX's names."""
