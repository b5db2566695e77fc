"""What a graph's constants come to: folded weights, as the kernels read them, and whether it holds.

Constants are parameters and buffers. Someone may write to them at any time (an optimiser, a
``load_state_dict``, ``parameter.data``); a ``Snapshot`` of them tells, and then everything here is
made anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx

from pointwise.acceleration.fuse import constant_nodes
from pointwise.engine.cpu.loops import excite
from pointwise.engine.cpu.loops import images as conv_images
from pointwise.engine.cpu.loops import images_int8 as conv_images_int8
from pointwise.engine.cpu.loops import winograd as conv_images_winograd


class Constants:
    """The nodes of a graph that follow from constants, and their values as they are asked for."""

    def __init__(self, graph: fx.Graph, placeholders: set[fx.Node]) -> None:
        self.fixed = constant_nodes(graph, placeholders)
        self._places = [node for node in graph.nodes if node in placeholders]
        self._owner = graph.owning_module
        self._values: dict[fx.Node, Any] = {}
        self._likes: dict[fx.Node, tuple[torch.Size, torch.dtype]] = {}
        self._packed: dict[tuple, conv_images.Weights] = {}
        self._filtered: dict[tuple, conv_images_winograd.Filtered] = {}
        self._excitations: dict[tuple, excite.Excitation] = {}
        self._bytes: dict[tuple, conv_images_int8.Mix | conv_images_int8.Taps] = {}

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

    def packed_matrix(self, weight: fx.Node, bias: fx.Node | None) -> conv_images.Weights:
        """``packed`` of a linear layer's weight ``[C_out, C_in]``."""
        key = (weight, bias)
        if key not in self._packed:
            matrix, row = self.value(weight), None if bias is None else self.value(bias)
            self._packed[key] = conv_images.mix(matrix[:, :, None, None], row)
        return self._packed[key]

    def packed(self, weight: fx.Node, bias: fx.Node | None, groups: int) -> conv_images.Weights:
        """A convolution's weight and bias as kernels read them, made once for all plans."""
        key = (weight, bias, groups)
        if key not in self._packed:
            kernel = self.value(weight)
            row = None if bias is None else self.value(bias).contiguous()
            if conv_images.is_stencil(kernel.shape, groups):
                self._packed[key] = conv_images.taps(kernel, row)
            else:
                self._packed[key] = conv_images.mix(kernel, row, groups)
        return self._packed[key]

    def filtered(
        self, weight: fx.Node, bias: fx.Node | None, outputs: int
    ) -> conv_images_winograd.Filtered:
        """``packed`` of a 3×3 convolution that runs in Winograd's tile loop."""
        key = (weight, bias, outputs)
        if key not in self._filtered:
            row = None if bias is None else self.value(bias)
            self._filtered[key] = conv_images_winograd.filtered(self.value(weight), row, outputs)
        return self._filtered[key]

    def packed_excitation(
        self, narrow: fx.Node, first: fx.Node | None, wide: fx.Node, second: fx.Node | None
    ) -> excite.Excitation:
        """The weights and biases of a squeeze and excitation."""
        key = (narrow, first, wide, second)
        if key not in self._excitations:
            values: list[Any] = [None if node is None else self.value(node) for node in key]
            self._excitations[key] = excite.packed(*values)
        return self._excitations[key]

    def packed_int8(
        self, weight: fx.Node, factor: fx.Node, shift: fx.Node, groups: int, zero: int
    ) -> conv_images_int8.Mix | conv_images_int8.Taps:
        """``packed`` of a convolution of bytes."""
        key = (weight, factor, shift, groups, zero)
        if key not in self._bytes:
            kernel = self.value(weight)
            stencil = conv_images.is_stencil(kernel.shape, groups)
            pack = conv_images_int8.taps if stencil else conv_images_int8.mix
            self._bytes[key] = pack(kernel, self.value(factor), self.value(shift), zero)
        return self._bytes[key]
