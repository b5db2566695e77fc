"""A graph of float32 as one of bytes where that pays: post-training quantisation.

A tensor's bytes go evenly from the lowest to the highest number that the calibration data showed
(asymmetric, and 0 is one of them exactly); an output channel's weights from -127 to 127 times a
scale of its own (symmetric). Batch norm is folded already. An activation that only keeps results
within bounds needs nothing: its bytes end there. What rounding the weights does to the mean of a
channel, for inputs with the means of the calibration data, is taken off its bias.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018; Krishnamoorthi, "Quantizing deep convolutional networks
for efficient inference", 2018 (a scale for each channel); Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", 2019, section 4.2.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration import vocabulary, vocabulary_int8
from pointwise.acceleration.ranges import Seen
from pointwise.acceleration.report import describe
from pointwise.convolution.epilogue import ACTIVATIONS
from pointwise.convolution.problem import is_depthwise
from pointwise.engine import choose

_BOUNDS = {row.name: row.bounds for row in ACTIVATIONS.values() if row.bounds is not None}
# A convolution whose input has to be rounded for it alone has to do so many multiplications with
# each number of it.
_LEAST_WORK = 16
# More steps of depth could overflow a sum of 32 bits.
_MOST_DEPTH = (1 << 31) // (255 * 128) - 1


@dataclass(frozen=True)
class Scale:
    """What bytes stand for: ``(q - zero)·step``."""

    step: float
    zero: int


def scale_of(low: float, high: float) -> Scale:
    """The 256 numbers from ``low`` to ``high``, 0 being one of them."""
    step = (high - low) / 255 or 1.0
    return Scale(step, min(255, max(0, round(-low / step))))


def steps_of(weight: Tensor) -> Tensor:
    """What the whole numbers from -127 to 127 stand for, of each output channel of a weight."""
    steps = weight.flatten(1).abs().amax(1) / 127
    steps[steps == 0] = 1.0
    return steps


def chosen(
    graph: fx.Graph, tensors: Mapping[str, Tensor], among: Container[fx.Node] | None = None
) -> set[fx.Node]:
    """The convolutions that are to be made in bytes, of all or of some."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if among is not None and node not in among:
            continue
        if _can_be(node, tensors) and (node.args[0] in found or _work(node, tensors)):
            found.add(node)
    return found


def _can_be(node: fx.Node, tensors: Mapping[str, Tensor]) -> bool:
    if node.target is not vocabulary.conv or node.args[-1] not in _BOUNDS:
        return False
    args: Any = node.args
    x, weight, bias, residual, stride, _, dilation, groups, _ = args
    if not isinstance(x, fx.Node) or x.name in tensors:
        return False
    if not isinstance(weight, fx.Node) or weight.name not in tensors:
        return False
    kernel = tensors[weight.name]
    if kernel.dtype != torch.float32 or kernel[0].numel() > _MOST_DEPTH:
        return False
    if bias is not None and (not isinstance(bias, fx.Node) or bias.name not in tensors):
        return False
    if isinstance(residual, fx.Node) and residual.name in tensors:
        return False
    if choose.why_not_quantised(kernel.shape, stride, dilation, groups):
        return False
    return not is_depthwise(kernel.shape, groups) or (
        residual is None and len(kernel) == groups > 1
    )


def _work(node: fx.Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a convolution alone is worth that its input is rounded."""
    args: Any = node.args
    weight, stride, groups = (args[i] for i in (1, 4, 7))
    kernel = tensors[weight.name]
    each = kernel.shape[0] // groups * kernel.shape[2] * kernel.shape[3]
    return each / (stride[0] * stride[1]) >= _LEAST_WORK


def asked_for(nodes: set[fx.Node]) -> set[fx.Node]:
    """The values whose ranges have to be known."""
    found = set(nodes)
    for node in nodes:
        found.update(part for part in (node.args[0], node.args[3]) if isinstance(part, fx.Node))
    return found


def in_bytes(
    graph: fx.Graph, tensors: Mapping[str, Tensor], nodes: set[fx.Node],
    seen: Mapping[fx.Node, Seen],
) -> tuple[fx.Graph, dict[str, Tensor]]:  # fmt: skip
    """The graph with ``nodes`` made in bytes, and its constants, which are its first inputs."""
    return _Rewriting(graph, tensors, nodes, seen).done()


class _Rewriting:
    def __init__(
        self, graph: fx.Graph, tensors: Mapping[str, Tensor], nodes: set[fx.Node],
        seen: Mapping[fx.Node, Seen],
    ) -> None:  # fmt: skip
        self.old, self.old_tensors, self.nodes, self.seen = graph, tensors, nodes, seen
        self.scales = {node: scale_of(found.low, found.high) for node, found in seen.items()}
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.floats: dict[fx.Node, fx.Node] = {}  # of the old graph's nodes, their values
        self.bytes: dict[fx.Node, fx.Node] = {}
        self.weights: dict[fx.Node, tuple[fx.Node, ...]] = {}

    def done(self) -> tuple[fx.Graph, dict[str, Tensor]]:
        moving = [node for node in self.old.nodes if node.name not in self.old_tensors]
        self._constants(moving)
        for node in moving:
            if node in self.nodes:
                self._convolution(node)
            elif node.op == "output":
                copy = self.graph.output(fx.map_arg(node.args[0], self._float))
                copy.meta = dict(node.meta)
            else:
                self.floats[node] = self.graph.node_copy(node, self._float)
        return self.graph, self.tensors

    # --- constants ---

    def _constants(self, moving: list[fx.Node]) -> None:
        """Placeholders, which stand before all others: of what is still read, and new weights."""
        read = dict.fromkeys(
            part for node in moving if node not in self.nodes for part in node.all_input_nodes
            if part.name in self.old_tensors
        )  # fmt: skip
        for node in read:
            self.floats[node] = self._constant(self.old_tensors[node.name])
        for node in moving:
            if node in self.nodes:
                self.weights[node] = tuple(map(self._constant, self._numbers(node)))

    def _constant(self, tensor: Tensor) -> fx.Node:
        node = self.graph.placeholder(f"constant_{len(self.tensors)}")
        self.tensors[node.name] = tensor
        return node

    def _numbers(self, node: fx.Node) -> tuple[Tensor, Tensor, Tensor]:
        """A convolution's weight as int8, and the factor and shift of each channel."""
        args: Any = node.args
        x, weight, bias, residual = args[:4]
        kernel = self.old_tensors[weight.name].double()
        steps = steps_of(kernel)
        rounded = (kernel / steps.view(-1, 1, 1, 1)).round().to(torch.int8)
        factor = steps * self.scales[x].step
        shift = torch.zeros_like(steps)
        if bias is not None:
            shift = self.old_tensors[bias.name].double()
        lost = (kernel - rounded.double() * steps.view(-1, 1, 1, 1)).sum((2, 3))
        mean = self.seen[x].mean
        shift = shift + (lost[:, 0] * mean if args[7] != 1 else lost @ mean)
        if isinstance(residual, fx.Node):
            given = self.scales[residual]
            shift = shift - given.step * given.zero
        if self._gives_bytes(node):
            own = self.scales[node]
            factor, shift = factor / own.step, shift / own.step + own.zero
        return rounded.contiguous(), factor.float(), shift.float()

    # --- calls ---

    def _gives_bytes(self, node: fx.Node) -> bool:
        """Whether a convolution's result is read as bytes; a stencil's results are nothing else."""
        groups: Any = node.args[7]
        return groups != 1 or any(
            user in self.nodes and node in (user.args[0], user.args[3]) for user in node.users
        )

    def _convolution(self, node: fx.Node) -> None:
        args: Any = node.args
        x, _, _, residual, *geometry, groups, activation = args
        as_bytes = self._gives_bytes(node)
        low, high = _BOUNDS[activation]
        times = 0.0
        if isinstance(residual, fx.Node):
            times = self.scales[residual].step / (self.scales[node].step if as_bytes else 1.0)
        given = None if residual is None else self._byte(residual)
        arguments = (self._byte(x), *self.weights[node], given, *geometry, groups,
                     self.scales[x].zero, times, low, high, as_bytes)  # fmt: skip
        new = self.graph.call_function(vocabulary_int8.conv_int8, arguments)
        new.meta = {**node.meta, "what": f"int8 {describe(node)}"}
        (self.bytes if as_bytes else self.floats)[node] = new

    def _byte(self, node: Any) -> fx.Node:
        if node not in self.bytes:
            own, x = self.scales[node], self._float(node)
            arguments = (x, 1 / own.step, own.zero)
            new = self.graph.call_function(vocabulary_int8.quantize, arguments)
            new.meta = {"path": node.meta.get("path", ""), "what": "to bytes"}
            self.bytes[node] = new
        return self.bytes[node]

    def _float(self, node: Any) -> fx.Node:
        if node not in self.floats:
            own = self.scales[node]
            arguments = (self.bytes[node], own.step, own.zero)
            new = self.graph.call_function(vocabulary_int8.dequantize, arguments)
            new.meta = {"path": node.meta.get("path", ""), "what": "from bytes"}
            if "order" in node.meta:
                new.meta["order"] = node.meta["order"]
            self.floats[node] = new
        return self.floats[node]
