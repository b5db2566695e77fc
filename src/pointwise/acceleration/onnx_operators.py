"""What the operators of ONNX files are in PyTorch.

Each function here is given a ``Call`` and the operator's inputs: nodes of the graph, tensors where
they are constants, or None where they are left out. It returns the result, or a tuple of results.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pointwise.acceleration import onnx_functions, onnx_numbers

if TYPE_CHECKING:
    from pointwise.acceleration.onnx_file import Reader


class Unreadable(Exception):
    """Says what of a file cannot be read."""


@dataclass(frozen=True)
class Call:
    """An operator of a file: what it is, its names, those of inputs and results, and attributes."""

    reader: Reader
    kind: str
    name: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: dict[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def refuse(self, why: str) -> Unreadable:
        name = f" of {self.outputs[0]!r}" if self.outputs else ""
        return Unreadable(f"{self.kind}{name} {why}")

    def __call__(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        return self.reader.call(function, *args, **kwargs)

    def whole(self, value: Any, name: str) -> list[int] | None:
        """Whole numbers that are an attribute or, in newer versions, a constant."""
        if name in self.attributes:
            return list(self.attributes[name])
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise self.refuse(f"has {name} that depend on the input")
        return value.reshape(-1).tolist()

    def scalar(self, value: Any) -> Any:
        """A constant of one number as that number; anything else as it is."""
        if isinstance(value, Tensor) and value.dim() == 0:
            return value.item()
        return value


# --- convolutions and linear layers ---------------------------------------------------------------

_CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def _conv(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    if not _are_constant(weight, bias) or not isinstance(x, fx.Node):
        raise call.refuse("has a weight that is computed")
    dims = weight.dim() - 2
    if dims not in _CONVS:
        raise call.refuse(f"is over {dims} dimensions")
    kernel = list(weight.shape[2:])
    stride, dilation = call.get("strides", [1] * dims), call.get("dilations", [1] * dims)
    auto = call.get("auto_pad", "NOTSET")
    pads = call.get("pads", [0] * (2 * dims)) if auto in ("NOTSET", "") else [0] * (2 * dims)
    begin, end = pads[:dims], pads[dims:]
    if auto.startswith("SAME"):
        x = call(onnx_functions.pad_same, x, kernel, stride, dilation, auto == "SAME_UPPER")
    elif begin != end:
        x, begin = call(F.pad, x, onnx_functions.as_torch(begin, end)), [0] * dims
    groups = call.get("group", 1)
    made = _CONVS[dims](
        weight.shape[1] * groups, weight.shape[0], tuple(kernel), tuple(stride), tuple(begin),
        tuple(dilation), groups, bias is not None,
    )  # fmt: skip
    return call.reader.module(call, _filled(made, weight, bias), weight, x)


def _conv_transpose(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    if not _are_constant(weight, bias) or not isinstance(x, fx.Node):
        raise call.refuse("has a weight that is computed")
    dims = weight.dim() - 2
    pads = call.get("pads", [0] * (2 * dims))
    if call.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in call.attributes:
        raise call.refuse("has its padding worked out from its size")
    if dims not in _TRANSPOSED or pads[:dims] != pads[dims:]:
        raise call.refuse("has padding that is not the same on both sides")
    groups, ones = call.get("group", 1), [1] * dims
    made = _TRANSPOSED[dims](
        weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]),
        tuple(call.get("strides", ones)), tuple(pads[:dims]),
        tuple(call.get("output_padding", [0] * dims)), groups, bias is not None,
        tuple(call.get("dilations", ones)),
    )  # fmt: skip
    return call.reader.module(call, _filled(made, weight, bias), weight, x)


def _gemm(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if call.get("transA"):
        a = call(torch.t, a)
    plain = alpha == beta == 1 and isinstance(a, fx.Node) and _are_constant(b, c)
    if plain and (c is None or c.dim() == 1):
        weight = b if call.get("transB") else b.t()
        if c is None or len(c) == len(weight):
            return _linear(call, a, b, weight, c)
    b = call(torch.t, b) if call.get("transB") else b
    out = call(torch.matmul, a, b)
    out = out if alpha == 1 else call(torch.mul, out, alpha)
    if c is None:
        return out
    return call(torch.add, out, c if beta == 1 else call(torch.mul, c, beta))


def _matmul(call: Call, a: Any, b: Any) -> Any:
    if isinstance(a, fx.Node) and isinstance(b, Tensor) and b.dim() == 2:
        return _linear(call, a, b, b.t(), None)
    return call(torch.matmul, a, b)


def _linear(call: Call, x: fx.Node, named: Tensor, weight: Tensor, bias: Tensor | None) -> fx.Node:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return call.reader.module(call, _filled(made, weight.contiguous(), bias), named, x)


def _filled(made: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made


def _are_constant(*values: Any) -> bool:
    return all(value is None or isinstance(value, Tensor) for value in values)


def _add(call: Call, a: Any, b: Any) -> Any:
    """A sum; the bias of a linear layer goes into the layer."""
    for x, bias, name in ((a, b, call.inputs[0]), (b, a, call.inputs[1])):
        if not isinstance(x, fx.Node) or x.op != "call_module" or call.reader.uses[name] != 1:
            continue
        layer: Any = call.reader.root.get_submodule(str(x.target))
        if not isinstance(layer, nn.Linear) or layer.bias is not None:
            continue
        if isinstance(bias, Tensor) and bias.shape == (layer.out_features,):
            layer.bias = nn.Parameter(bias, requires_grad=False)
            return x
    return call(operator.add, call.scalar(a), call.scalar(b))


# --- norms ----------------------------------------------------------------------------------------


def _batch_norm(call: Call, x: Any, *rows: Any) -> Any:
    if call.get("training_mode") or not _are_constant(*rows):
        raise call.refuse("is in training mode")
    weight, bias, mean, variance = rows
    eps = call.get("epsilon", 1e-5)
    before = isinstance(x, fx.Node) and x.op == "call_module"
    if before and isinstance(call.reader.root.get_submodule(str(x.target)), nn.Conv2d):
        made = nn.BatchNorm2d(len(weight), eps)
        _filled(made, weight, bias)
        made.running_mean, made.running_var = mean, variance
        return call.reader.module(call, made, weight, x)
    return call(F.batch_norm, x, mean, variance, weight, bias, False, 0.0, eps)


def _layer_norm(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(weight, Tensor):
        raise call.refuse("has a factor that is computed")
    axis = call.get("axis", -1)
    if axis not in (-1, -weight.dim()) and axis < 0:
        raise call.refuse(f"is over axis {axis} with a factor of {weight.dim()} dimensions")
    return call(F.layer_norm, x, tuple(weight.shape), weight, bias, call.get("epsilon", 1e-5))


def _instance_norm(call: Call, x: Any, weight: Any, bias: Any) -> Any:
    return call(F.instance_norm, x, None, None, weight, bias, True, 0.0, call.get("epsilon", 1e-5))


# --- number by number -----------------------------------------------------------------------------


def _unary(function: Callable) -> Callable:
    return lambda call, x, *_: call(function, x)


def _binary(function: Callable) -> Callable:
    return lambda call, a, b: call(function, call.scalar(a), call.scalar(b))


def _clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    if not _are_constant(low, high):
        raise call.refuse("has bounds that are computed")
    low = call.get("min", None if low is None else low.item())
    high = call.get("max", None if high is None else high.item())
    if low is None and high is None:
        return x
    if low == 0 and high == 6:
        return call(F.relu6, x)
    return call(torch.clamp, x, low, high)


def _hard_sigmoid(call: Call, x: Any) -> Any:
    slope, shift = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and shift == 0.5:
        return call(F.hardsigmoid, x)
    return call(onnx_functions.hard_sigmoid, x, slope, shift)


def _gelu(call: Call, x: Any) -> Any:
    return call(F.gelu, x, approximate=call.get("approximate", "none"))


def _softmax(call: Call, x: Any) -> Any:
    if call.reader.version >= 13:
        return call(F.softmax, x, call.get("axis", -1))
    return call(onnx_functions.softmax_of_all_behind, x, call.get("axis", 1))


def _cast(call: Call, x: Any, *_: Any) -> Any:
    from pointwise.acceleration.onnx_file import dtype_of

    return call(Tensor.to, x, dtype_of(call.get("to")))


# --- images ---------------------------------------------------------------------------------------


def _pool(function: Callable) -> Callable:
    def read(call: Call, x: Any) -> Any:
        kernel = call.get("kernel_shape")
        ones = [1] * len(kernel)
        dilation = call.get("dilations", ones)
        auto = call.get("auto_pad", "NOTSET")
        pads = call.get("pads", [0] * (2 * len(kernel))) if auto in ("NOTSET", "") else None
        if auto == "VALID":
            pads = [0] * (2 * len(kernel))
        if function is onnx_functions.average_pool and dilation != ones:
            raise call.refuse("has gaps in its windows")
        more = (
            dilation
            if function is onnx_functions.max_pool
            else bool(call.get("count_include_pad", 0))
        )
        return call(function, x, kernel, call.get("strides", ones), pads, auto == "SAME_UPPER",
                    bool(call.get("ceil_mode", 0)), more)  # fmt: skip

    return read


def _reduce(function: Callable) -> Callable:
    def read(call: Call, x: Any, axes: Any = None) -> Any:
        dims = call.whole(axes, "axes")
        if not dims and call.get("noop_with_empty_axes"):
            return x
        return call(function, x, dims or None, bool(call.get("keepdims", 1)))

    return read


def _pad(call: Call, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    edges, dims = call.whole(pads, "pads"), call.whole(axes, "axes")
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        call.get("mode", "constant")
    )
    if mode is None or not _are_constant(value):
        raise call.refuse(f"pads by {call.get('mode')!r}")
    if not any(edges or ()):
        return x
    number = call.get("value", 0.0 if value is None else value.item())
    return call(onnx_functions.pad, x, edges, mode, number, dims)


def _resize(call: Call, x: Any, region: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    how = call.get("mode", "nearest"), call.get("coordinate_transformation_mode", "half_pixel")
    exact = call.get("nearest_mode", "round_prefer_floor")
    if call.reader.version < 11 and scales is None:
        scales, region = region, None
    modes = {("nearest", "asymmetric"): "nearest" if exact == "floor" else None,
             ("nearest", "half_pixel"): "nearest-exact",
             ("linear", "half_pixel"): "linear",
             ("linear", "pytorch_half_pixel"): "linear",
             ("linear", "align_corners"): "corners"}  # fmt: skip
    mode = modes.get(how) if not call.get("antialias") else None
    if mode is None or "axes" in call.attributes:
        raise call.refuse(f"works by {', '.join((*how, exact))}")
    if isinstance(scales, Tensor) and scales.numel():
        factors = scales.tolist()
        if factors[:2] != [1, 1] or (
            mode == "nearest-exact" and any(part != int(part) for part in factors)
        ):
            raise call.refuse(f"scales by {factors}")
        return call(onnx_functions.resize_by, x, factors[2:], mode)
    if sizes is None or mode == "nearest-exact":
        raise call.refuse("has scales that are computed")
    if isinstance(sizes, Tensor):
        sizes = sizes.tolist()
    return call(onnx_functions.resize_to, x, sizes, mode)


# --- shapes ---------------------------------------------------------------------------------------


def _shape(call: Call, x: Any) -> Any:
    return call.reader.sizes(onnx_numbers.sizes, x, call.get("start", 0), call.get("end"))


def _reshape(call: Call, x: Any, shape: Any = None) -> Any:
    wanted = shape if isinstance(shape, fx.Node) else call.whole(shape, "shape")
    return call(onnx_functions.reshape, x, wanted, bool(call.get("allowzero", 0)))


def _flatten(call: Call, x: Any) -> Any:
    axis = call.get("axis", 1)
    return call(torch.flatten, x, 1) if axis == 1 else call(onnx_functions.flatten, x, axis)


def _transpose(call: Call, x: Any) -> Any:
    order = call.get("perm")
    return call(onnx_functions.turned, x) if order is None else call(torch.permute, x, order)


def _squeeze(call: Call, x: Any, axes: Any = None) -> Any:
    dims = call.whole(axes, "axes")
    return call(torch.squeeze, x) if dims is None else call(torch.squeeze, x, tuple(dims))


def _unsqueeze(call: Call, x: Any, axes: Any = None) -> Any:
    return call(onnx_functions.unsqueeze, x, call.whole(axes, "axes"))


def _concat(call: Call, *xs: Any) -> Any:
    mixed = [_as_tensor(call, x) for x in xs]
    return call(torch.cat, mixed, call.get("axis"))


def _as_tensor(call: Call, x: Any) -> Any:
    return call(torch.tensor, x) if x in call.reader.numbers else x


def _split(call: Call, x: Any, sizes: Any = None) -> Any:
    count, axis = len(call.outputs), call.get("axis", 0)
    parts = call.whole(sizes, "split")
    if parts is None:
        made = call(onnx_functions.split_evenly, x, count, axis)
    else:
        made = call(torch.split, x, parts, axis)
    return tuple(call(operator.getitem, made, i) for i in range(count))


def _slice(call: Call, x: Any, *inputs: Any) -> Any:
    names = ("starts", "ends", "axes", "steps")
    given = [*inputs, *[None] * (4 - len(inputs))]
    found = [
        value if isinstance(value, fx.Node) else call.whole(value, name)
        for value, name in zip(given, names, strict=True)
    ]
    return call(onnx_functions.slices, x, *found)


def _gather(call: Call, x: Any, index: Any) -> Any:
    axis = call.get("axis", 0)
    if isinstance(index, Tensor) and index.dim() == 0:
        return call(torch.select, x, axis, index.item())
    return call(onnx_functions.gather, x, index, axis)


def _constant(call: Call) -> Any:
    ((name, value),) = call.attributes.items()
    if isinstance(value, Tensor):
        return value
    if name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise call.refuse(f"is a {name}")
    return torch.tensor(value)


def _constant_of_shape(call: Call, shape: Any) -> Any:
    value = call.get("value", torch.zeros(1))
    if isinstance(shape, fx.Node) and shape.target is onnx_numbers.length:
        return call.reader.sizes(onnx_numbers.repeat, value.item(), shape)
    wanted = shape.tolist() if isinstance(shape, Tensor) else shape
    return call(torch.full, wanted, value.item(), dtype=value.dtype)


def _expand(call: Call, x: Any, shape: Any) -> Any:
    wanted = shape.tolist() if isinstance(shape, Tensor) else shape
    return call(onnx_functions.expand, x, wanted)


def _same(call: Call, x: Any, *_: Any) -> Any:
    return x


def _dropout(call: Call, x: Any, ratio: Any = None, training: Any = None) -> Any:
    if training is not None and (not isinstance(training, Tensor) or training.item()):
        raise call.refuse("is in training mode")
    return x


OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": lambda call, x: call(F.local_response_norm, x, call.get("size"),
                                call.get("alpha", 1e-4), call.get("beta", 0.75),
                                call.get("bias", 1.0)),
    "Relu": _unary(F.relu),
    "LeakyRelu": lambda call, x: call(F.leaky_relu, x, call.get("alpha", 0.01)),
    "Elu": lambda call, x: call(F.elu, x, call.get("alpha", 1.0)),
    "PRelu": lambda call, x, slope: call(onnx_functions.prelu, x, slope),
    "Clip": _clip,
    "Sigmoid": _unary(torch.sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "Gelu": _gelu,
    "Mish": _unary(F.mish),
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
    "Add": _add,
    "Sub": _binary(operator.sub),
    "Mul": _binary(operator.mul),
    "Div": _binary(onnx_functions.divide),
    "Pow": _binary(torch.pow),
    "Equal": _binary(torch.eq),
    "Where": lambda call, *parts: call(torch.where, *(_as_tensor(call, x) for x in parts)),
    "GlobalAveragePool": _unary(onnx_functions.global_mean),
    "GlobalMaxPool": _unary(onnx_functions.global_max),
    "AveragePool": _pool(onnx_functions.average_pool),
    "MaxPool": _pool(onnx_functions.max_pool),
    "ReduceMean": _reduce(onnx_functions.mean),
    "ReduceSum": _reduce(torch.sum),
    "Pad": _pad,
    "Resize": _resize,
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
