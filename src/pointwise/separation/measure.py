"""Times and errors, before and after: of layers and of whole networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pointwise.layers import Conv2d, DepthwiseSeparableConv2d, conv_norm_act
from pointwise.messages import duration
from pointwise.separation.probe import Calls, hooked, inference
from pointwise.timing import Run, Times, in_turns

BeforeAfter = tuple[Times, Times]
SAMPLES = 40  # in eight rounds
SECONDS = 1.0  # for each side of a layer
BATCH = 16  # images at a time where outputs are compared


def layer_times(conv: nn.Conv2d, made: nn.Module, calls: Calls, batch: int) -> BeforeAfter:
    """The times of a convolution and of what stands in for it, in inference."""
    generator = torch.Generator().manual_seed(0)
    images, *sizes = calls.inputs[0]  # for one image, but a network may cut it into several
    x = torch.randn(batch * images, *sizes, generator=generator).to(conv.weight)
    if calls.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    runs: dict[str, Run] = {"before": lambda: conv(x), "after": lambda: made(x)}
    if isinstance(conv, Conv2d):  # called by its block, which keeps packed weights
        runs["before"] = lambda: conv_norm_act(x, conv)
    with inference(conv, made):
        times = in_turns(runs, SAMPLES, SECONDS)
    return times["before"], times["after"]


def network_times(before: nn.Module, after: nn.Module, input: Tensor) -> BeforeAfter:
    """The times of two networks, in inference."""
    with inference(before, after):
        times = in_turns(
            {"before": lambda: before(input), "after": lambda: after(input)}, SAMPLES, 5 * SECONDS
        )
    return times["before"], times["after"]


def contradiction(layers: Mapping[str, BeforeAfter], network: BeforeAfter) -> str:
    """Where a layer never took as little as its whole network nearly always did: that it did."""
    for name, times in layers.items():
        for layer, whole in zip(times, network, strict=True):
            if layer.min > whole.p95:
                return (
                    f"{name or 'the convolution'} alone took longer ({duration(layer.min)}) than"
                    f" the whole network ({duration(whole.p95)})"
                )
    return ""


def layer_errors(
    module: nn.Module, made: Mapping[nn.Module, DepthwiseSeparableConv2d], images: Tensor
) -> dict[nn.Module, float]:
    """For each convolution, how far its stand-in is off on what the convolution reads.

    The root of the sum of squared errors, over that of the results' spread about each channel's
    mean; in the network as it was, so that a layer answers for nobody else.
    """
    sums: dict[nn.Module, list[Any]] = {}

    def note(conv: nn.Module, inputs: tuple, output: Tensor) -> None:
        y = output.double().transpose(-3, 0).flatten(1)  # [C_out, all else]
        off = float((made[conv](inputs[0]) - output).double().square().sum())
        found = [off, y.square().sum(), y.sum(1), y.shape[1]]
        have = sums.get(conv)
        sums[conv] = found if have is None else [a + b for a, b in zip(have, found, strict=True)]

    with inference(module, *made.values()), hooked(list(made), note):
        for batch in images.split(BATCH):
            module(batch)
    return {conv: _relative(*found) for conv, found in sums.items()}


def _relative(off: float, squares: Tensor, total: Tensor, count: int) -> float:
    spread = float(squares - total.square().sum() / count)
    # What rounding leaves of a constant is no spread.
    return math.sqrt(off / spread) if spread > 1e-12 * float(squares) else 0.0


def network_error(before: nn.Module, after: nn.Module, images: Tensor) -> float:
    """``‖ŷ − y‖ / ‖y‖`` over all numbers that the networks return."""
    off = whole = 0.0
    with inference(before, after):
        for batch in images.split(BATCH):
            for one, other in zip(_numbers(before(batch)), _numbers(after(batch)), strict=True):
                off += float((other - one).square().sum())
                whole += float(one.square().sum())
    return math.sqrt(off / whole) if whole else 0.0


def _numbers(output: Any) -> Sequence[Tensor]:
    leaves = tree_leaves(output)
    return [x.double() for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]
