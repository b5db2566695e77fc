"""The constants of a graph: their values, and folded weights as the kernels read them.

Constants are parameters and buffers. Someone may write to them at any time (an optimiser, a
``load_state_dict``, ``parameter.data``): whoever holds ``Constants`` asks a ``Snapshot`` whether
they are still what they were, and makes new ones where they are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.engine import choose
from pointwise.engine.cpu.loops import excite


class Constants:
    """The nodes of a graph that follow from constants, and their values once asked for."""

    def __init__(self, graph: fx.Graph, placeholders: set[fx.Node]) -> None:
        self.fixed = constant_nodes(graph, placeholders)
        self._places = [node for node in graph.nodes if node in placeholders]
        self._owner = graph.owning_module
        self._values: dict[fx.Node, Any] = {}
        self._likes: dict[fx.Node, tuple[torch.Size, torch.dtype]] = {}
        self._packed: dict[tuple, choose.Weight] = {}
        self._excitations: dict[tuple, excite.Excitation] = {}

    @contextmanager
    def given(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Where values may be asked for; ``tensors`` are those of the placeholders.

        Afterwards, only what is packed is kept.
        """
        self._values = dict(zip(self._places, (x.detach() for x in tensors), strict=True))
        try:
            yield
        finally:
            self._values = {}

    def value(self, node: fx.Node) -> Any:
        """The tensor of a constant node."""
        if node not in self._values and node.op == "get_attr":
            self._values[node] = attrgetter(str(node.target))(self._owner).detach()
        elif node not in self._values:
            args = fx.map_arg(node.args, self.value)
            kwargs = fx.map_arg(node.kwargs, self.value)
            with torch.no_grad():
                self._values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return self._values[node]

    def owns(self, node: fx.Node) -> bool:
        """Whether a constant's memory is ours, as of what is folded, and not the caller's."""
        return node.op != "placeholder"

    def like(self, node: fx.Node) -> tuple[torch.Size, torch.dtype]:
        """Shape and type of a constant."""
        if node not in self._likes:
            value = self.value(node)
            self._likes[node] = value.shape, value.dtype
        return self._likes[node]

    def packed_matrix(
        self, weight: fx.Node, bias: fx.Node | None, choice: choose.Choice
    ) -> choose.Weight:
        """``packed`` of a linear layer's weight ``[C_out, C_in]``."""
        key = (weight, bias, choice)
        if key not in self._packed:
            matrix, row = self.value(weight), None if bias is None else self.value(bias)
            self._packed[key] = choose.pack(choice, 1, matrix[:, :, None, None], row)
        return self._packed[key]

    def packed(
        self, weight: fx.Node, bias: fx.Node | None, groups: int, choice: choose.Choice
    ) -> choose.Weight:
        """A convolution's weight and bias for the loop chosen, made once for all plans."""
        key = (weight, bias, groups, choice)
        if key not in self._packed:
            row = None if bias is None else self.value(bias).contiguous()
            self._packed[key] = choose.pack(choice, groups, self.value(weight), row)
        return self._packed[key]

    def packed_excitation(
        self, narrow: fx.Node, first: fx.Node | None, wide: fx.Node, second: fx.Node | None
    ) -> excite.Excitation:
        """The weights and biases of a squeeze and excitation."""
        key = (narrow, first, wide, second)
        if key not in self._excitations:
            values: list[Any] = [None if node is None else self.value(node) for node in key]
            self._excitations[key] = excite.packed(*values)
        return self._excitations[key]

    def packed_bytes(
        self, weight: fx.Node, factor: fx.Node, shift: fx.Node, choice: choose.Choice, zero: int
    ) -> choose.Weight:
        """``packed`` of a quantised convolution."""
        key = (weight, factor, shift, choice, zero)
        if key not in self._packed:
            rows = self.value(factor), self.value(shift)
            self._packed[key] = choose.pack_bytes(choice, self.value(weight), *rows, zero)
        return self._packed[key]


def constant_nodes(graph: fx.Graph, constants: set[fx.Node]) -> set[fx.Node]:
    """The nodes that follow from constants alone."""
    fixed = set(constants)
    for node in graph.nodes:
        if node.op == "get_attr" or (
            node.op == "call_function"
            and node.all_input_nodes
            and all(part in fixed for part in node.all_input_nodes)
            and not _is_chance(node)
        ):
            fixed.add(node)
    return fixed


def _is_chance(node: fx.Node) -> bool:
    """Whether a call gives something else every time, or does more than to return something."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return target not in vocabulary.FUNCTIONS.values() and _module_of(target) != "_operator"
    return target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags


def _module_of(target: Any) -> str:
    return getattr(target, "__module__", "")
