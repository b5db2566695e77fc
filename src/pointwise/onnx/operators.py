"""What the operators of ONNX files are in PyTorch.

Each function here is given a ``Call`` and the operator's inputs: nodes of the graph, tensors where
they are constants, or None where they are left out. It returns the result, or a tuple of results.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.onnx import functions, numbers
from pointwise.onnx.call import Call
from pointwise.onnx.elementwise import ELEMENTWISE, unary
from pointwise.onnx.images import (
    average_pool,
    depth_to_space,
    max_pool,
    pad,
    resize,
    space_to_depth,
    upsample,
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
from pointwise.onnx.norms import group_norm, lp_norm, mean_variance, rms_norm
from pointwise.onnx.numbers import Numbers
from pointwise.onnx.protobuf import dtype_of
from pointwise.onnx.recurrent import recurrent
from pointwise.onnx.reductions import REDUCTIONS

# --- types and shapes ----------------------------------------------------------------------------


def _cast(call: Call, x: Any) -> Any:
    call.without_effect("saturate", "round_mode")  # but for types that are not read
    return call(Tensor.to, x, dtype_of(call.get("to")))


def _cast_like(call: Call, x: Any, other: Any) -> Any:
    call.without_effect("saturate", "round_mode")
    return call(functions.of_the_type, x, other)


def _shape(call: Call, x: Any) -> Any:
    start, end = call.get("start", 0), call.get("end")
    if isinstance(x, Tensor):
        return torch.tensor(numbers.sizes(x, start, end), dtype=torch.int64)
    return call.builder.sizes(numbers.sizes, (x, start, end), Numbers(1))


def _reshape(call: Call, x: Any, shape: Any = None) -> Any:
    zeros = bool(call.get("allowzero", 0))
    return call(functions.reshape, x, call.sizes(shape, "shape"), zeros)


def _flatten(call: Call, x: Any) -> Any:
    return call(functions.flatten, x, call.get("axis", 1))


def _transpose(call: Call, x: Any) -> Any:
    order = call.get("perm")
    return (
        call(functions.reversed_dimensions, x) if order is None else call(torch.permute, x, order)
    )


def _squeeze(call: Call, x: Any, axes: Any = None) -> Any:
    return call(functions.squeeze, x, call.whole(axes, "axes") or None)


def _unsqueeze(call: Call, x: Any, axes: Any = None) -> Any:
    return call(functions.unsqueeze, x, call.whole(axes, "axes"))


def _concat(call: Call, *xs: Any) -> Any:
    return call(torch.cat, list(xs), call.get("axis", 1))  # which has no default since version 4


def _split(call: Call, x: Any, sizes: Any = None) -> Any:
    count, axis = len(call.outputs), call.get("axis", 0)
    parts = call.whole(sizes, "split")
    if call.get("num_outputs", count) != count:
        raise call.refuse(f"has {count} results and num_outputs {call.get('num_outputs')}")
    if parts is None:
        made = call(functions.split_evenly, x, count, axis, call.version >= 18)
    elif len(parts) != count:
        raise call.refuse(f"has {count} results and a split into {len(parts)}")
    else:
        made = call(torch.split, x, parts, axis)
    return tuple(call(operator.getitem, made, i) for i in range(count))


def _slice(call: Call, x: Any, *inputs: Any) -> Any:
    names = ("starts", "ends", "axes", "steps")
    given = [*inputs, *[None] * (4 - len(inputs))]
    found = [call.sizes(value, name) for value, name in zip(given, names, strict=True)]
    return call(functions.slices, x, *found)


def _gather(call: Call, x: Any, index: Any) -> Any:
    axis = call.get("axis", 0)
    if isinstance(index, Tensor) and index.dim() == 0:
        return call(torch.select, x, axis, index.item())
    return call(functions.gather, x, index, axis)


_KINDS = {
    "value_float": torch.float32,
    "value_floats": torch.float32,
    "value_int": torch.int64,
    "value_ints": torch.int64,
}


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
    if isinstance(wanted, fx.Node) and wanted.target is numbers.length:
        known = Numbers(1, value.dtype)
        if value.dtype in (torch.int64, torch.int32, torch.bool):
            return call.builder.sizes(numbers.repeat, (value.item(), wanted), known)
    return call(torch.full, wanted, value.item(), dtype=value.dtype)


def _expand(call: Call, x: Any, shape: Any) -> Any:
    return call(functions.expand, x, call.sizes(shape, "shape"))


def _tile(call: Call, x: Any, repeats: Any, axis: Any = None) -> Any:
    if axis is not None:
        raise call.refuse("is along one axis, as in version 1")
    return call(Tensor.repeat, x, call.sizes(repeats, "repeats"))


def _triangle(call: Call, x: Any, shift: Any = None) -> Any:
    (diagonal,) = call.whole(shift, "k") or [0]
    return call(torch.triu if call.get("upper", 1) else torch.tril, x, diagonal)


def _gather_elements(call: Call, x: Any, index: Any) -> Any:
    return call(functions.gather_elements, x, index, call.get("axis", 0))


def _scatter(call: Call, x: Any, index: Any, updates: Any) -> Any:
    call.one_of("reduction", "none")
    return call(functions.scatter, x, index, updates)


def _einsum(call: Call, *xs: Any) -> Any:
    return call(torch.einsum, call.get("equation"), *xs)


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


TAKE_SIZES = {
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "Resize": (3,),
}
"""Which inputs may be sizes instead of tensors, by operator."""

OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
    "RMSNormalization": rms_norm,
    "MeanVarianceNormalization": mean_variance,
    "LpNormalization": lp_norm,
    "LRN": local_response_norm,
    "LSTM": recurrent,
    "GRU": recurrent,
    "RNN": recurrent,
    **{row.onnx: unary(row.plain) for row in ACTIVATIONS.values() if row.onnx is not None},
    **ELEMENTWISE,
    **REDUCTIONS,
    "Add": add,
    "GlobalAveragePool": unary(functions.global_mean),
    "GlobalMaxPool": unary(functions.global_max),
    "AveragePool": average_pool,
    "MaxPool": max_pool,
    "Pad": pad,
    "Resize": resize,
    "Upsample": upsample,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
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
    "CastLike": _cast_like,
    "Tile": _tile,
    "Trilu": _triangle,
    "GatherElements": _gather_elements,
    "ScatterND": _scatter,
    "Einsum": _einsum,
}
"""By ONNX's names."""
