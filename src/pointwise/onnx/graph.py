"""The graph that an ONNX file becomes, as it grows: calls, layers, constants and sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from pointwise.onnx.numbers import Numbers, tensor


class GraphBuilder:
    """A graph and the module with its layers and constants.

    ``values`` are those of the file by name: a node, a tensor where it is constant, or None where
    it is left out; ``uses`` says how often each name is read. Nodes among ``numbers`` are whole
    numbers or lists of them, such as sizes, and no tensors. They become tensors for operators that
    take none of them.
    """

    def __init__(self) -> None:
        self.graph, self.root = fx.Graph(), nn.Module()
        self.values: dict[str, fx.Node | Tensor | None] = {"": None}
        self.uses: Counter[str] = Counter()
        self.names: dict[int, str] = {}  # of constants that came with one, by their ids
        self.numbers: dict[fx.Node, Numbers] = {}

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
        return value if kind is None else self.call(tensor, value, kind.dtype)

    def module(
        self, call_name: str, made: nn.Module, weight: Tensor, x: fx.Node, *more: Any
    ) -> fx.Node:
        """A layer, under the name of its weight ``a.b.weight``, or of its call ``/a/b/Conv``."""
        name = self.names.get(id(weight), "")
        path = name.rpartition(".")[0]
        if not path:
            path = ".".join(call_name.strip("/").split("/")[:-1]) or re.sub(r"\W+", "_", name)
        given = (x, *map(self.argument, more))
        return self.graph.call_module(self._put(path or type(made).__name__.lower(), made), given)

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

    def uses_of(self, x: fx.Node) -> int:
        """How often a value is read in the file, under all the names that it has there."""
        return sum(self.uses[name] for name, value in self.values.items() if value is x)

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


def _flat(part: Any) -> list[Any]:
    if isinstance(part, (list, tuple)):
        return [x for item in part for x in _flat(item)]
    return [part]
