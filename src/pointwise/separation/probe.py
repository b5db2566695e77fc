"""What a network does with an input: which convolutions run, when, on what, and what they cost.

This is the one place that counts here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pointwise.separation.candidates import convolutions


@dataclass
class Calls:
    """What a convolution was called with: the shapes of inputs and results, and the layout."""

    inputs: list[torch.Size] = field(default_factory=list)
    outputs: list[torch.Size] = field(default_factory=list)
    channels_last: bool = False

    @property
    def points(self) -> int:
        """Results of each channel, over all images and calls."""
        return sum(shape.numel() // shape[-3] for shape in self.outputs)


@dataclass
class Probe:
    """By name, in the order in which they first ran; and all multiply-adds of the network."""

    calls: dict[str, Calls]
    multiply_adds: int


def probe(module: nn.Module, input: Tensor) -> Probe:
    """Runs the network once, in inference.

    Counted are convolutions and linear layers: everything else is small beside them.
    """
    names = {part: name for name, part in convolutions(module).items()}
    calls: dict[str, Calls] = {}
    total = 0

    def note(part: nn.Module, inputs: tuple, output: Any) -> None:
        nonlocal total
        x = inputs[0]
        # Every weight is used once for each result, or, transposed, once for each input.
        used = x if isinstance(part, _ConvTransposeNd) else output
        if isinstance(part, nn.Linear):
            total += output.numel() * part.in_features
            return
        assert isinstance(part, _ConvNd)
        channels = used.shape[-1 - len(part.kernel_size)]
        total += used.numel() // channels * part.weight.numel()
        each = calls.setdefault(names[part], Calls())
        each.inputs.append(x.shape)
        each.outputs.append(output.shape)
        each.channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)

    watched = [part for part in module.modules() if isinstance(part, (_ConvNd, nn.Linear))]
    with inference(module), hooked(watched, note):
        module(input)
    return Probe(calls, total)


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
    """Of the convolution as it is, without its bias."""
    return conv.out_channels * (conv.in_channels // conv.groups) * math.prod(conv.kernel_size)


def separable_weights(conv: nn.Conv2d, rank: int) -> int:
    """Of both halves that stand in for it; each is used once for every point of the result."""
    own = math.prod(conv.kernel_size) + conv.out_channels // conv.groups
    return conv.in_channels * rank * own


def most_ranks(conv: nn.Conv2d) -> int:
    """The highest rank that multiplies less than the convolution itself; 0 where none does."""
    once = separable_weights(conv, 1)
    return min((standard_weights(conv) - 1) // once, full_rank(conv))


def full_rank(conv: nn.Conv2d) -> int:
    """From which on the separable convolution can do all that this one can."""
    return min(conv.out_channels // conv.groups, math.prod(conv.kernel_size))
