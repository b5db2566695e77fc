"""Accelerated models as bytes: the graph as JSON, the weights as safetensors.

No code is stored: calls are stored by name, and a name is looked up among PyTorch's operators, the
planner's vocabulary and arithmetic.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

import pointwise.operators  # noqa: F401  (registers torch.ops.pointwise)
from pointwise.acceleration import vocabulary

_VERSION = 2
_META = ("path", "what", "order", "orders")
_ARITHMETIC = {"operator": operator, "math": math}
_TORCH = (
    "sym_max",
    "sym_min",
    "sym_int",
    "sym_float",
    "sym_not",
    "sym_ite",
    "sym_sum",
    "_sym_sqrt",
)


def graph_to_text(graph: fx.Graph, more: Mapping[str, Any]) -> str:
    """Raises ValueError for what cannot be written down."""
    nodes = [
        {
            "name": node.name,
            "op": node.op,
            "target": _name_of(node) if node.op == "call_function" else None,
            "args": _to_plain(node.args),
            "kwargs": _to_plain(node.kwargs),
            "meta": {key: node.meta[key] for key in _META if key in node.meta},
        }
        for node in graph.nodes
    ]
    return json.dumps({"version": _VERSION, "nodes": nodes, **more})


def graph_from_text(text: str) -> tuple[fx.Graph, dict[str, Any]]:
    """The graph, and whatever else was written with it."""
    found = json.loads(text)
    if found.get("version") != _VERSION:
        raise ValueError(
            f"an accelerated model of version {found.get('version')}, and this is for version "
            f"{_VERSION}: make it again from the model"
        )
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for entry in found.pop("nodes"):
        args, kwargs = (_from_plain(entry[part], nodes) for part in ("args", "kwargs"))
        target = _target(entry["target"]) if entry["op"] == "call_function" else entry["name"]
        node = graph.create_node(entry["op"], target, args, kwargs, entry["name"])
        node.meta = entry["meta"]
        nodes[entry["name"]] = node
    return graph, found


def weights_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save(dict(tensors))


def weights_from_bytes(data: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(data)


def _name_of(node: fx.Node) -> str:
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        return f"ops.{target}"
    name = getattr(target, "__name__", "")
    if vocabulary.FUNCTIONS.get(name) is target:
        return f"vocabulary.{name}"
    for module, where in _ARITHMETIC.items():
        if getattr(where, name, None) is target:
            return f"{module}.{name}"
    if name in _TORCH and getattr(torch, name, None) is target:
        return f"torch.{name}"
    raise ValueError(f"{target} cannot be saved by its name")


def _target(name: str) -> Any:
    kind, *rest = name.split(".")
    rest = rest or [""]
    if kind == "ops" and len(rest) == 3:
        space, call, overload = rest
        return getattr(getattr(getattr(torch.ops, space), call), overload)
    if kind == "vocabulary" and len(rest) == 1 and rest[0] in vocabulary.FUNCTIONS:
        return vocabulary.FUNCTIONS[rest[0]]
    if kind in _ARITHMETIC and len(rest) == 1 and not rest[0].startswith("_"):
        return getattr(_ARITHMETIC[kind], rest[0])
    if kind == "torch" and len(rest) == 1 and rest[0] in _TORCH:
        return getattr(torch, rest[0])
    raise ValueError(f"no call is named {name!r}")


def _to_plain(part: Any) -> Any:
    if isinstance(part, fx.Node):
        return {"node": part.name}
    if isinstance(part, tuple):
        return {"tuple": [_to_plain(item) for item in part]}
    if isinstance(part, list):
        return [_to_plain(item) for item in part]
    if isinstance(part, dict):
        return {"dict": {name: _to_plain(item) for name, item in part.items()}}
    if isinstance(part, slice):
        return {"slice": [_to_plain(x) for x in (part.start, part.stop, part.step)]}
    if isinstance(part, (torch.dtype, torch.layout, torch.memory_format)):
        return {"torch": str(part).removeprefix("torch.")}
    if isinstance(part, torch.device):
        return {"device": str(part)}
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    raise ValueError(f"{part!r} cannot be saved as an argument of a call")


def _from_plain(part: Any, nodes: Mapping[str, fx.Node]) -> Any:
    if isinstance(part, list):
        return [_from_plain(item, nodes) for item in part]
    if not isinstance(part, dict):
        return part
    ((kind, value),) = part.items()
    if kind == "node":
        return nodes[value]
    if kind == "tuple":
        return tuple(_from_plain(item, nodes) for item in value)
    if kind == "dict":
        return {name: _from_plain(item, nodes) for name, item in value.items()}
    if kind == "slice":
        return slice(*(_from_plain(item, nodes) for item in value))
    if kind == "torch":
        found = getattr(torch, value, None)
        if isinstance(found, (torch.dtype, torch.layout, torch.memory_format)):
            return found
    if kind == "device":
        return torch.device(value)
    raise ValueError(f"an argument of no kind that is known: {part!r}")
