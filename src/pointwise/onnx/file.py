"""ONNX files as PyTorch: a ``torch.fx.GraphModule`` of ordinary layers and functions.

Read are the operators that networks on images are made of (``operators.py``); a file with
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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.extras import import_extra
from pointwise.messages import first_line
from pointwise.onnx import number_operators, schema
from pointwise.onnx.call import Call
from pointwise.onnx.graph import GraphBuilder
from pointwise.onnx.numbers import Numbers
from pointwise.onnx.operators import OPERATORS, TAKE_SIZES
from pointwise.onnx.protobuf import (
    Takes,
    Unreadable,
    attributes_of,
    takes_of,
    tensor_of,
)

_DOMAINS = ("", "ai.onnx")


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
    newest = min(onnx.defs.onnx_opset_version(), schema.NEWEST)
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
        raise ValueError(f"{path} is no ONNX file, or is broken ({first_line(error)})") from error
    if not model.graph.node or not model.opset_import:
        raise ValueError(f"{path} is no ONNX file, or is broken (there is no graph in it)")
    _check_places(onnx, model, path)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ValueError(
            f"{path} has its weights in another file, which cannot be read: {first_line(error)}"
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


class Reader:
    """Makes the graph, operator by operator, in the file's order."""

    def __init__(self, proto: Any, version: int) -> None:
        self.proto, self.version = proto, version
        self.builder = GraphBuilder()
        self.builder.uses.update(name for node in proto.node for name in node.input)
        self.builder.uses.update(value.name for value in proto.output)

    def read(self) -> tuple[fx.GraphModule, tuple[Takes, ...]]:
        takes = self._begin()
        for node in self.proto.node:
            self._read(node)
        results = []
        for value in self.proto.output:
            if value.name not in self.builder.values:
                raise Unreadable(f"nothing makes its result {value.name!r}")
            results.append(self._result(self.builder.values[value.name]))
        graph = self.builder.graph
        graph.output(results[0] if len(results) == 1 else tuple(results))
        network = fx.GraphModule(self.builder.root, graph, "OnnxNetwork").eval()
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
            self.builder.names[id(constant)] = part.name
        takes = []
        for value in self.proto.input:
            if isinstance(self.builder.values.get(value.name), Tensor):
                continue  # old files list their weights as inputs
            takes.append(takes_of(value))
            self._define(value.name, self.builder.graph.placeholder(self._parameter(value.name)))
        if not takes:
            raise Unreadable("it has no inputs")
        return tuple(takes)

    def _define(self, name: str, value: fx.Node | Tensor | None) -> None:
        if name in self.builder.values:
            raise Unreadable(f"{name!r} is made twice")
        self.builder.values[name] = value

    def _parameter(self, name: str) -> str:
        """What ``forward`` calls an input: its name, where Python and other names allow it."""
        plain = re.sub(r"\W", "_", name)
        taken = {node.target for node in self.builder.graph.nodes} | {"self"}
        if not plain.isidentifier() or keyword.iskeyword(plain) or plain in taken:
            plain = f"input_{len(taken)}"
        while plain in taken:
            plain += "_"
        return plain

    def _read(self, node: Any) -> None:
        inputs = []
        for name in node.input:
            if name not in self.builder.values:
                raise Unreadable(f"nothing makes {name!r}, which {node.op_type} reads")
            inputs.append(self.builder.values[name])
        names = node.name, list(node.input), list(node.output)
        call = Call(self.builder, self.version, node.op_type, *names, attributes_of(node))
        fault = schema.fault(node, self.version)
        if fault is not None:
            raise call.refuse(fault)
        try:
            made = self._of_numbers(call, inputs)
            if made is None:
                made = OPERATORS[node.op_type](call, *self._tensors(call.kind, inputs))
        except Unreadable:
            raise
        except Exception as error:  # PyTorch's, of constants that do not fit
            raise call.refuse(f"cannot be worked out: {first_line(error)}") from error
        for name in call.unasked():
            raise call.refuse(f"has the attribute {name!r}, which is not read here")
        results = made if isinstance(made, tuple) else (made,)
        for name, result in zip(node.output, results, strict=False):
            if name:  # not one that is left out
                self._define(name, result)
        for name in node.output[len(results) :]:
            if name and self.builder.uses[name]:
                raise Unreadable(f"more than one result of {node.op_type} is used")

    def _of_numbers(self, call: Call, inputs: list[Any]) -> Any:
        """An operator on sizes and the like, which are computed outside of tensors."""
        kinds = [self._kind(part) for part in inputs]
        given = [kind for part, kind in zip(inputs, kinds, strict=True) if part is not None]
        if not any(isinstance(part, fx.Node) for part in inputs) or None in given:
            return None
        plain = [part.tolist() if isinstance(part, Tensor) else part for part in inputs]
        made = number_operators.read(call, plain, kinds)
        return None if made is None else self.builder.sizes(*made)

    def _kind(self, value: Any) -> Numbers | None:
        """The kind of numbers that a value is; None for a tensor."""
        if isinstance(value, Tensor) and value.dim() <= 1:
            plain = value.dtype in (torch.int64, torch.int32, torch.bool)
            return Numbers(value.dim(), value.dtype) if plain else None
        return self.builder.numbers.get(value) if isinstance(value, fx.Node) else None

    def _tensors(self, kind: str, inputs: list[Any]) -> list[Any]:
        """Inputs, with tensors for sizes where the operator takes none."""
        kept = TAKE_SIZES.get(kind, ())
        return [part if i in kept else self.builder.tensor(part) for i, part in enumerate(inputs)]

    def _result(self, value: Any) -> Any:
        """What the network returns: never its own memory, which others could write to."""
        value = self.builder.argument(self.builder.tensor(value))
        origin = value
        while origin.op == "call_function" and isinstance(origin.args[0], fx.Node):
            origin = origin.args[0]
        if origin.op != "get_attr":
            return value
        return self.builder.graph.call_function(torch.clone, (value,))
