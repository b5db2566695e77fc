"""A graph with its constants folded: what is left of them, and a graph that stands on its own.

Weights that only kernels read are kept as kernels read them and nothing else, so that a model needs
them once; they are put back in order when it is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary
from pointwise.acceleration.constants import Constants
from pointwise.acceleration.graph import end_of
from pointwise.acceleration.report import describe, path_of
from pointwise.engine import choose
from pointwise.engine.cpu.loops.excite import Excitation
from pointwise.engine.cpu.weights import GroupedWeight, PackedWeight, StencilWeight

_WEIGHTS = (vocabulary.conv, vocabulary.linear)


def fold(graph: fx.Graph, constants: Constants) -> tuple[fx.Graph, dict[str, Tensor]]:
    """The graph without what follows from constants alone, and the constants that it still reads.

    They become its first placeholders. Nothing is shared with the tensors they came from.
    """
    output = end_of(graph)
    moving = [node for node in graph.nodes if node not in constants.fixed]
    needed = dict.fromkeys(part for node in moving for part in node.all_input_nodes
                           if part in constants.fixed)  # fmt: skip
    new, twins, tensors = fx.Graph(), {}, {}
    for i, node in enumerate(needed):
        twins[node] = new.placeholder(f"constant_{i}")
        tensors[twins[node].name] = constants.value(node).clone(
            memory_format=torch.contiguous_format
        )
    for node in moving:
        twins[node] = new.node_copy(node, lambda part: twins[part])
        meta = {"path": path_of(node), "what": describe(node), "order": node.meta.get("order")}
        twins[node].meta = {name: value for name, value in meta.items() if value}
    twins[output].meta["orders"] = output.meta.get("orders")
    return new, tensors


class Frozen(Constants):
    """Constants that never change: those of ``fold``, by the names of their placeholders."""

    def __init__(self, graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
        nodes = {node for node in graph.nodes if node.op == "placeholder" and node.name in tensors}
        super().__init__(graph, nodes)
        self._values.update({node: tensors[node.name] for node in nodes})
        self._originals: dict[fx.Node, tuple] = {}  # how they are packed

    def value(self, node: fx.Node) -> Any:
        if node not in self._values and node in self._originals:
            return self._unpacked(node)
        return super().value(node)

    def owns(self, node: fx.Node) -> bool:
        return True  # copies, all of them

    def packed(
        self, weight: fx.Node, bias: fx.Node | None, groups: int, choice: choose.Choice
    ) -> choose.Weight:
        found = super().packed(weight, bias, groups, choice)
        self._let_go(weight, (weight, bias, groups, choice))
        return found

    def packed_matrix(
        self, weight: fx.Node, bias: fx.Node | None, choice: choose.Choice
    ) -> choose.Weight:
        found = super().packed_matrix(weight, bias, choice)
        self._let_go(weight, (weight, bias, choice))
        return found

    def packed_excitation(
        self, narrow: fx.Node, first: fx.Node | None, wide: fx.Node, second: fx.Node | None
    ) -> Excitation:
        found = super().packed_excitation(narrow, first, wide, second)
        for node in (narrow, wide):
            self._let_go(node, (narrow, first, wide, second))
        return found

    def _let_go(self, node: fx.Node, key: tuple) -> None:
        """Lets go of a weight that is packed now, where nobody else reads it."""
        alone = all(_is_weight_of(node, user) for user in node.users)
        if not alone or node not in self._values:
            return
        self.like(node)
        self._originals[node] = key
        if torch.equal(self._unpacked(node), self._values[node]):
            del self._values[node]
        else:
            del self._originals[node]

    def tensors(self) -> dict[str, Tensor]:
        """All constants by name, in PyTorch's order."""
        return {node.name: self.value(node) for node in self._places}

    def _unpacked(self, node: fx.Node) -> Tensor:
        key, (shape, _) = self._originals[node], self.like(node)
        if key in self._excitations:
            return self._excitations[key].unpacked(node is key[0])
        weights = self._packed[key]
        if isinstance(weights, StencilWeight):
            return weights.weight.t().reshape(shape).contiguous()
        if isinstance(weights, GroupedWeight) and weights.shared:
            taps = weights.packed.unflatten(1, (-1, weights.shared))
            rows_of_taps = taps.permute(0, 3, 2, 1).flatten(0, 1)
            return rows_of_taps[: shape[0]].reshape(shape).contiguous()
        if not isinstance(weights, (PackedWeight, GroupedWeight)) or weights.packed.dim() != 4:
            return torch.empty(0)
        outputs, inputs, *kernel = (*shape, 1, 1) if len(shape) == 2 else shape
        groups, panels, depth, lanes = weights.packed.shape
        if depth != inputs * kernel[0] * kernel[1]:
            return torch.empty(0)
        rows = weights.packed.transpose(2, 3).reshape(groups, panels * lanes, depth)
        rows = rows[:, : weights.columns].reshape(outputs, *kernel, inputs)
        return rows.permute(0, 3, 1, 2).reshape(shape).contiguous()


def _is_weight_of(node: fx.Node, user: fx.Node) -> bool:
    if user.target is vocabulary.squeeze_excite:
        return node in (user.args[1], user.args[3])
    return user.target in _WEIGHTS and user.args[1] is node
