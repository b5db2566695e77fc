"""ONNX files as PyTorch: a ``torch.fx.GraphModule`` of ordinary layers and functions.

Read are the operators that networks on images are made of (``onnx_operators.py``); a file with
others is refused, and so is what an operator has that PyTorch cannot do exactly: nothing is passed
over. What follows from constants alone is worked out as the file is read. Sizes that a file leaves
open may be different from call to call. Initial values that are listed as inputs too (all weights,
in old files) are constants.

Source of what operators mean: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import keyword
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from pointwise.extras import import_extra
from pointwise.onnx import numbers as onnx_numbers
from pointwise.onnx import schema as onnx_schema
from pointwise.onnx.call import Call, Unreadable
from pointwise.onnx.numbers import Numbers
from pointwise.onnx.operators import OPERATORS, TAKE_SIZES

_DOMAINS = ("", "ai.onnx")


class Takes(NamedTuple):
    """An input: its name, its sizes (None where the file leaves one open) and its type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype


def read(path: Path) -> tuple[fx.GraphModule, tuple[Takes, ...]]:
    """The network of an ONNX file, in evaluation mode, and its inputs.

    Raises ValueError for a broken file, one with operators that are not known here, or one whose
    weights are in another file that is missing; OSError where there is no file; ImportError without
    the package ``onnx``.
    """
    model = _loaded(path)
    own = {function.name for function in model.functions if function.domain in _DOMAINS}
    unknown = Counter(
        node.op_type if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"
        for node in model.graph.node
        if node.op_type not in OPERATORS or node.domain not in _DOMAINS or node.op_type in own
    )
    if unknown:
        listed = ", ".join(f"{name} ({count}×)" for name, count in unknown.most_common(8))
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise ValueError(f"{path} has operators that are not read here: {listed}{more}")
    try:
        return Reader(model.graph, _version(model)).read()
    except Unreadable as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _version(model: Any) -> int:
    """Which of the operators' versions the file was written for."""
    onnx = import_extra("onnx", "bench")
    versions = {entry.version for entry in model.opset_import if entry.domain in _DOMAINS}
    if len(versions) != 1:
        raise Unreadable(f"it names {len(versions)} versions of ONNX's operators, not one")
    (version,) = versions
    newest = min(onnx.defs.onnx_opset_version(), onnx_schema.NEWEST)
    if not 1 <= version <= newest:
        raise Unreadable(
            f"it needs version {version} of ONNX's operators; known here are 1 to {newest}"
        )
    return version


def _loaded(path: Path) -> Any:
    """The file's contents, weights of other files included."""
    onnx = import_extra("onnx", "bench")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and others
        raise ValueError(f"{path} is no ONNX file, or is broken ({_line(error)})") from error
    if not model.graph.node or not model.opset_import:
        raise ValueError(f"{path} is no ONNX file, or is broken (there is no graph in it)")
    _check_places(onnx, model, path)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ValueError(
            f"{path} has its weights in another file, which cannot be read: {_line(error)}"
        ) from error
    return model


def _check_places(onnx: Any, model: Any, path: Path) -> None:
    """Raises ValueError where weights are to be read from outside of the file's folder."""
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        for entry in tensor.external_data:
            inside = os.path.normpath(entry.value)
            if entry.key == "location" and (
                os.path.isabs(inside) or inside.split(os.sep)[0] == ".."
            ):
                raise ValueError(
                    f"{path} has weights in {entry.value!r}, which is outside of its folder; put "
                    "that file beside it, and its name into the model"
                )


def _line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip()[:160] if lines else type(error).__name__


class Reader:
    """Makes the graph, operator by operator, in the file's order.

    A value of the file is an ``fx.Node``, or a tensor where it is a constant. Nodes among
    ``numbers`` are whole numbers or lists of them, such as sizes, and no tensors. They become
    tensors for operators that take none of them.
    """

    def __init__(self, proto: Any, version: int) -> None:
        self.proto, self.version = proto, version
        self.graph, self.root = fx.Graph(), nn.Module()
        self.values: dict[str, fx.Node | Tensor | None] = {"": None}
        self.names: dict[int, str] = {}  # of constants that came with one
        self.numbers: dict[fx.Node, Numbers] = {}
        self.uses = Counter(name for node in proto.node for name in node.input)
        self.uses.update(value.name for value in proto.output)

    def read(self) -> tuple[fx.GraphModule, tuple[Takes, ...]]:
        takes = self._begin()
        for node in self.proto.node:
            self._read(node)
        results = []
        for value in self.proto.output:
            if value.name not in self.values:
                raise Unreadable(f"nothing makes its result {value.name!r}")
            results.append(self._result(self.values[value.name]))
        self.graph.output(results[0] if len(results) == 1 else tuple(results))
        network = fx.GraphModule(self.root, self.graph, "OnnxNetwork").eval()
        network.graph.eliminate_dead_code()
        network.recompile()
        return network, takes

    def _begin(self) -> tuple[Takes, ...]:
        if self.proto.sparse_initializer:
            names = [part.values.name for part in self.proto.sparse_initializer]
            raise Unreadable(f"its constant {names[0]!r} is sparse")
        for part in self.proto.initializer:
            constant = tensor_of(part)
            self._define(part.name, constant)
            self.names[id(constant)] = part.name
        takes = []
        for value in self.proto.input:
            if isinstance(self.values.get(value.name), Tensor):
                continue  # old files list their weights as inputs
            takes.append(_takes(value))
            self._define(value.name, self.graph.placeholder(self._parameter(value.name)))
        if not takes:
            raise Unreadable("it has no inputs")
        return tuple(takes)

    def _define(self, name: str, value: fx.Node | Tensor | None) -> None:
        if name in self.values:
            raise Unreadable(f"{name!r} is made twice")
        self.values[name] = value

    def _parameter(self, name: str) -> str:
        """What ``forward`` calls an input: its name, where Python and other names allow it."""
        plain = re.sub(r"\W", "_", name)
        taken = {node.target for node in self.graph.nodes} | {"self"}
        if not plain.isidentifier() or keyword.iskeyword(plain) or plain in taken:
            plain = f"input_{len(taken)}"
        while plain in taken:
            plain += "_"
        return plain

    def _read(self, node: Any) -> None:
        inputs = []
        for name in node.input:
            if name not in self.values:
                raise Unreadable(f"nothing makes {name!r}, which {node.op_type} reads")
            inputs.append(self.values[name])
        names = node.name, list(node.input), list(node.output)
        call = Call(self, node.op_type, *names, _attributes(node))
        fault = onnx_schema.fault(node, self.version)
        if fault is not None:
            raise call.refuse(fault)
        try:
            made = self._of_numbers(call, inputs)
            if made is None:
                made = OPERATORS[node.op_type](call, *self._tensors(call.kind, inputs))
        except Unreadable:
            raise
        except Exception as error:  # PyTorch's, of constants that do not fit
            raise call.refuse(f"cannot be worked out: {_line(error)}") from error
        for name in call.unseen():
            raise call.refuse(f"has the attribute {name!r}, which is not read here")
        results = made if isinstance(made, tuple) else (made,)
        for name, result in zip(node.output, results, strict=False):
            if name:  # not one that is left out
                self._define(name, result)
        for name in node.output[len(results) :]:
            if name and self.uses[name]:
                raise Unreadable(f"more than one result of {node.op_type} is used")

    def _of_numbers(self, call: Call, inputs: list[Any]) -> Any:
        """An operator on sizes and the like, which are computed outside of tensors."""
        kinds = [self._kind(part) for part in inputs]
        given = [kind for part, kind in zip(inputs, kinds, strict=True) if part is not None]
        if not any(isinstance(part, fx.Node) for part in inputs) or None in given:
            return None
        plain = [part.tolist() if isinstance(part, Tensor) else part for part in inputs]
        made = onnx_numbers.read(call, plain, kinds)
        return None if made is None else self.sizes(*made)

    def _kind(self, value: Any) -> Numbers | None:
        """What a value is among sizes; None if it is none of them."""
        if isinstance(value, Tensor) and value.dim() <= 1:
            plain = value.dtype in (torch.int64, torch.int32, torch.bool)
            return Numbers(value.dim(), value.dtype) if plain else None
        return self.numbers.get(value) if isinstance(value, fx.Node) else None

    def _tensors(self, kind: str, inputs: list[Any]) -> list[Any]:
        """Inputs, with tensors for sizes where the operator takes none."""
        kept = TAKE_SIZES.get(kind, ())
        return [part if i in kept else self.tensor(part) for i, part in enumerate(inputs)]

    def _result(self, value: Any) -> Any:
        """What the network returns: never its own memory, which others could write to."""
        value = self.argument(self.tensor(value))
        origin = value
        while origin.op == "call_function" and isinstance(origin.args[0], fx.Node):
            origin = origin.args[0]
        if origin.op != "get_attr":
            return value
        return self.graph.call_function(torch.clone, (value,))

    # --- what operators ask for ---

    def call(self, function: Callable, *args: Any, **kwargs: Any) -> fx.Node | Tensor:
        """``function`` of values: at once where all are constants, or as a node of the graph."""
        if not any(isinstance(part, fx.Node) for part in _flat((args, list(kwargs.values())))):
            with torch.no_grad():
                return function(*args, **kwargs)
        given = tuple(self.argument(part) for part in args)
        named = {name: self.argument(part) for name, part in kwargs.items()}
        return self.graph.call_function(function, given, named)

    def sizes(self, function: Callable, args: tuple, gives: Numbers) -> fx.Node:
        """``call`` of what gives whole numbers."""
        made: Any = self.call(function, *args)
        self.numbers[made] = gives
        return made

    def tensor(self, value: Any) -> Any:
        """Whole numbers as a tensor; anything else as it is."""
        kind = self.numbers.get(value) if isinstance(value, fx.Node) else None
        return value if kind is None else self.call(onnx_numbers.tensor, value, kind.dtype)

    def module(self, call: Call, made: nn.Module, weight: Tensor, x: fx.Node) -> fx.Node:
        """A layer, under the name of its weight ``a.b.weight``, or of its call ``/a/b/Conv``."""
        name = self.names.get(id(weight), "")
        path = name.rpartition(".")[0]
        if not path:
            path = ".".join(call.name.strip("/").split("/")[:-1]) or re.sub(r"\W+", "_", name)
        return self.graph.call_module(self._put(path or type(made).__name__.lower(), made), (x,))

    def argument(self, value: Any) -> Any:
        """A value as an argument of a node; constants become buffers."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.argument(part) for part in value)
        if not isinstance(value, Tensor):
            return value
        name = re.sub(r"\W+", "_", self.names.get(id(value), "constant"))
        target = self._free(name)
        self.root.register_buffer(target, value)
        return self.graph.get_attr(target)

    def _put(self, path: str, made: nn.Module) -> str:
        """Where in the model a layer now is: at ``path``, if its parts can be names there."""
        parts = path.split(".")
        if not all(re.fullmatch(r"\w+", part) for part in parts):
            parts = [re.sub(r"\W+", "_", path)]
        at = self.root
        for part in parts[:-1]:
            if not hasattr(at, part):
                at.add_module(part, nn.Module())
            at = getattr(at, part)
            if type(at) is not nn.Module:  # a layer has that name
                at, parts = self.root, ["_".join(parts)]
                break
        parts[-1] = self._free(parts[-1], at)
        at.add_module(parts[-1], made)
        return ".".join(parts)

    def _free(self, name: str, at: nn.Module | None = None) -> str:
        at, name = self.root if at is None else at, name or "constant"
        free, count = name, 1
        while hasattr(at, free):
            free, count = f"{name}_{count}", count + 1
        return free


def _takes(value: Any) -> Takes:
    kind = value.type.tensor_type
    if not kind.elem_type or not kind.HasField("shape"):
        raise Unreadable(f"its input {value.name!r} is no tensor of a known rank")
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    return Takes(value.name, shape, dtype_of(kind.elem_type))


_DTYPES = {
    "FLOAT": torch.float32, "DOUBLE": torch.float64, "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16, "BOOL": torch.bool, "INT8": torch.int8, "INT16": torch.int16,
    "INT32": torch.int32, "INT64": torch.int64, "UINT8": torch.uint8, "UINT16": torch.uint16,
    "UINT32": torch.uint32, "UINT64": torch.uint64,
}  # fmt: skip


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
        raise Unreadable(f"the constant {part.name!r}: {_line(error)}") from error


def _attributes(node: Any) -> dict[str, Any]:
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


def _flat(part: Any) -> list[Any]:
    if isinstance(part, (list, tuple)):
        return [x for item in part for x in _flat(item)]
    return [part]
