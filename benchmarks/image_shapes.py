"""The convolutions and blocks of MobileNetV1, MobileNetV2 and ResNet-50, each shape once.

They are read from the networks as these run, on tensors without content, so that no table can
disagree with a network. Each has a name that says what it is: ``dw3_s1_112x112x32`` is a depthwise
3×3 with stride 1 on 112×112 pixels of 32 channels, ``pw_56x56x128_256`` a pointwise from 128 to 256
channels, ``conv3_s2_56x56x128_128`` a standard 3×3 with stride 2. Sizes are those of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from plain_networks import (
    Bottleneck,
    Inverted,
    Separable,
    mobilenet_v1,
    mobilenet_v2,
    resnet50,
)
from torch import nn

NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet50": resnet50,
}
SIZE = 224  # pixels along both sides of an image


@dataclass(frozen=True)
class Convolution:
    """``[N, c_in, size, size]`` to ``[N, c_out, ⌈size/stride⌉, ⌈size/stride⌉]``, without bias."""

    size: int
    c_in: int
    c_out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1

    @property
    def kind(self) -> str:
        """``pw``, ``dw`` with the kernel, or ``conv`` with the kernel."""
        if self.kernel == 1:
            return "pw"
        return f"dw{self.kernel}" if self.groups == self.c_in else f"conv{self.kernel}"

    @property
    def name(self) -> str:
        step = f"_s{self.stride}" if self.kernel > 1 or self.stride > 1 else ""
        channels = self.c_in if self.kind.startswith("dw") else f"{self.c_in}_{self.c_out}"
        return f"{self.kind}{step}_{self.size}x{self.size}x{channels}"

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out(self) -> int:
        """Pixels along both sides of the result."""
        return (self.size - 1) // self.stride + 1


@dataclass(frozen=True)
class Block:
    """``[N, c_in, size, size]`` to ``[N, c_out, …]`` by a ``separable``, ``inverted`` or
    ``bottleneck`` block; ``inner`` is the width between, that of its k×k convolution."""

    kind: str
    size: int
    c_in: int
    c_out: int
    inner: int
    stride: int

    @property
    def name(self) -> str:
        return f"block_{self.kind}_s{self.stride}_{self.size}x{self.size}x{self.c_in}_{self.c_out}"


def network_convolutions(
    network: nn.Module, size: int = SIZE, channels: int = 3
) -> list[Convolution]:
    """Every convolution of a network or block in the order they run, repeated ones too.

    It runs on an image ``[1, channels, size, size]``, and is left in the mode that it is in.
    """
    found: list[Convolution] = []

    def note(conv: nn.Conv2d, inputs: tuple[torch.Tensor], _: object) -> None:
        found.append(
            Convolution(inputs[0].shape[2], conv.in_channels, conv.out_channels,
                        conv.kernel_size[0], conv.stride[0], conv.groups))  # fmt: skip

    _watch(network, (nn.Conv2d,), note, size, channels)
    return found


def convolutions(network: str) -> list[Convolution]:
    """Each convolution of a network of ``NETWORKS`` at 224 × 224, once."""
    return _shapes(network)[0]


def blocks(network: str) -> list[Block]:
    """Each block of a network of ``NETWORKS`` at 224 × 224, once."""
    return _shapes(network)[1]


def all_convolutions() -> list[Convolution]:
    """Each convolution of all networks, once."""
    return list(dict.fromkeys(shape for network in NETWORKS for shape in convolutions(network)))


@cache
def _shapes(name: str) -> tuple[list[Convolution], list[Block]]:
    kinds = {Separable: "separable", Inverted: "inverted", Bottleneck: "bottleneck"}
    found: list[Block] = []

    def note(block: nn.Module, inputs: tuple[torch.Tensor], out: torch.Tensor) -> None:
        (batch,) = inputs
        wide = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
        found.append(
            Block(kinds[type(block)], batch.shape[2], batch.shape[1], out.shape[1],
                  wide[0].out_channels, wide[0].stride[0]))  # fmt: skip

    with torch.device("meta"):
        network = NETWORKS[name]()
    _watch(network, tuple(kinds), note, SIZE, 3)
    return list(dict.fromkeys(network_convolutions(network))), list(dict.fromkeys(found))


def _watch(
    network: nn.Module, kinds: tuple[type, ...], note: Callable, size: int, channels: int
) -> None:
    """Runs a network and calls ``note(module, inputs, output)`` for its modules of some kinds."""
    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, kinds)]
    device, training = next(network.parameters()).device, network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, channels, size, size, device=device))
    network.train(training)
    for hook in hooks:
        hook.remove()
