"""What stands in an ONNX file, in PyTorch's terms: types, tensors, attributes and inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointwise.extras import import_extra
from pointwise.messages import first_line


class Unreadable(Exception):
    """Says what of a file cannot be read."""


class Takes(NamedTuple):
    """An input: its name, its sizes (None where the file leaves one open) and its type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


def takes_of(value: Any) -> Takes:
    """An input as the file describes it."""
    kind = value.type.tensor_type
    if not kind.elem_type or not kind.HasField("shape"):
        raise Unreadable(f"its input {value.name!r} is no tensor of a known rank")
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    return Takes(value.name, shape, dtype_of(kind.elem_type))


_DTYPES = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "BOOL": torch.bool,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
}


def dtype_of(kind: int) -> torch.dtype:
    """PyTorch's name of one of ONNX's types."""
    onnx = import_extra("onnx", "bench")
    try:
        name = onnx.TensorProto.DataType.Name(kind)
    except (TypeError, ValueError):
        raise Unreadable(f"numbers of type {kind!r}, which ONNX does not have") from None
    if name not in _DTYPES:
        raise Unreadable(f"numbers of type {name.lower()}")
    return _DTYPES[name]


def tensor_of(part: Any) -> Tensor:
    """A constant of the file, in memory of its own."""
    onnx = import_extra("onnx", "bench")
    dtype = dtype_of(part.data_type)
    try:
        array = onnx.numpy_helper.to_array(part)
        if dtype is torch.bfloat16:
            array = array.astype("float32")
        return torch.from_numpy(array.copy()).to(dtype).reshape(tuple(part.dims))
    except (TypeError, ValueError, RuntimeError) as error:
        raise Unreadable(f"the constant {part.name!r}: {first_line(error)}") from error


def attributes_of(node: Any) -> dict[str, Any]:
    """The attributes of an operator by name: numbers, texts, lists and tensors."""
    onnx = import_extra("onnx", "bench")
    found = {}
    for part in node.attribute:
        value = onnx.helper.get_attribute_value(part)
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, onnx.TensorProto):
            value = tensor_of(value)
        found[part.name] = value
    return found
