"""Accelerated models as bytes: the graph as JSON, the weights as safetensors.

No code is stored: calls are stored by name, and a name is looked up among PyTorch's operators that
only compute, the planner's vocabulary and arithmetic (``foreign.py``); everything else in a file
is compared with what this library writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pointwise.acceleration import foreign, vocabulary

_VERSION = 3
_META = ("path", "what", "order", "orders", "always")


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
        _check_node(entry)
        args, kwargs = (_from_plain(entry[part], nodes) for part in ("args", "kwargs"))
        target = _target(entry["target"]) if entry["op"] == "call_function" else entry["name"]
        node = graph.create_node(entry["op"], target, args, kwargs, entry["name"])
        node.meta = {key: entry["meta"][key] for key in _META if key in entry["meta"]}
        nodes[entry["name"]] = node
    return graph, found


def _check_node(entry: Mapping[str, Any]) -> None:
    """Names become code where a graph runs as plain PyTorch, and orders become addresses."""
    if entry["op"] not in ("placeholder", "call_function", "output"):
        raise ValueError(f"a graph has no nodes of kind {entry['op']!r}")
    for name in (entry["name"], *entry["kwargs"].get("dict", ())):
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"a name of a graph must be an identifier, got {name!r}")
    meta = entry["meta"]
    for order in (meta.get("order"), *(meta.get("orders") or ())):
        if order is not None and sorted(order) != list(range(len(order))):
            raise ValueError(f"an order of dimensions must name each once, got {order}")
    if not all(type(place) is int for place in meta.get("always") or ()):
        raise ValueError(f"results are named by their places, got {meta['always']}")
    if not all(isinstance(meta.get(name, ""), str) for name in ("path", "what")):
        raise ValueError("a path must be text")


def weights_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save(dict(tensors))


def as_tensor(data: bytes) -> Tensor:
    """Bytes as a tensor, which torch.save writes as they are."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def weights_from_bytes(data: bytes | Tensor) -> dict[str, Tensor]:
    """The inverse of ``weights_to_bytes``, also of ``as_tensor``."""
    from safetensors.torch import load

    if isinstance(data, Tensor):
        if type(data) is not Tensor or data.dtype != torch.uint8 or data.is_meta:
            raise ValueError(
                f"the weights of an accelerated model must be bytes, got {data.dtype} on "
                f"{data.device}"
            )
        data = data.cpu().numpy().tobytes()
    return load(data)


def spec_from_text(text: str) -> pytree.TreeSpec:
    """How inputs or results are arranged."""
    foreign.check_structure(text)
    return pytree.treespec_loads(text)


def _name_of(node: fx.Node) -> str:
    name = getattr(node.target, "__name__", "")
    if vocabulary.FUNCTIONS.get(name) is node.target:
        return f"vocabulary.{name}"
    return foreign.name_of(node.target)


def _target(name: str) -> Any:
    kind, _, rest = name.partition(".")
    if kind == "vocabulary" and rest in vocabulary.FUNCTIONS:
        return vocabulary.FUNCTIONS[rest]
    return foreign.call_of(name)


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
