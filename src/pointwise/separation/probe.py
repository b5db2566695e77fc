"""What a network does with an input: which convolutions run, in which order, and on what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pointwise.separation.candidates import convolutions


@dataclass
class Calls:
    """What a convolution was called with: the shapes of inputs and results, and the layout."""

    inputs: list[torch.Size] = field(default_factory=list)
    outputs: list[torch.Size] = field(default_factory=list)
    channels_last: bool = False

    @property
    def points(self) -> int:
        """Results of each channel, over all calls; for each, every weight is used once."""
        return sum(shape.numel() // shape[-3] for shape in self.outputs)


def probe(module: nn.Module, input: Tensor) -> dict[str, Calls]:
    """Runs the network once, in inference: its convolutions, in the order in which they ran."""
    names: dict[nn.Module, str] = {part: name for name, part in convolutions(module).items()}
    calls: dict[str, Calls] = {}

    def note(part: nn.Module, inputs: tuple, output: Any) -> None:
        (x, *_) = inputs
        each = calls.setdefault(names[part], Calls())
        each.inputs.append(x.shape)
        each.outputs.append(output.shape)
        each.channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)

    with inference(module), hooked(list(names), note):
        module(input)
    return calls


@contextmanager
def hooked(parts: list[nn.Module], hook: Callable) -> Iterator[None]:
    """Forward hooks for as long as the block lasts."""
    handles = [part.register_forward_hook(hook) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def inference(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation and without gradients; each part in its own mode again afterwards."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def standard_weights(conv: nn.Conv2d) -> int:
    """How many weights a convolution has, without its bias."""
    return conv.out_channels * (conv.in_channels // conv.groups) * math.prod(conv.kernel_size)


def separable_weights(conv: nn.Conv2d, rank: int) -> int:
    """How many weights its depthwise and pointwise halves have; each is used once per result."""
    own = math.prod(conv.kernel_size) + conv.out_channels // conv.groups
    return conv.in_channels * rank * own


def most_ranks(conv: nn.Conv2d) -> int:
    """The highest rank that takes fewer multiplications than the convolution; 0 where none does."""
    once = separable_weights(conv, 1)
    return min((standard_weights(conv) - 1) // once, full_rank(conv))


def full_rank(conv: nn.Conv2d) -> int:
    """The rank from which on a separable convolution can equal this one."""
    return min(conv.out_channels // conv.groups, math.prod(conv.kernel_size))
