"""``pointwise bench calls``: what one call of a small convolution costs, beside PyTorch's.

An image of 32 channels and 7×7 pixels, in channels_last and float32, takes a kernel a few
microseconds; the rest is what it takes to get there: Python, more than numbers. Functions and
layers without gradients, and, with ``_both_ways`` at the end, forward and backward: the loss is the
sum of the result, and the gradients are those of image, weight and bias. A cloud of 64 points has
no peer in PyTorch, but for its pointwise convolution. ``OMP_NUM_THREADS=1`` shows Python's part
without that of waking threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from frame import OURS, Case, Contestant, agree
from planned import Planned, run
from torch import Tensor, nn

import pointwise
from pointwise import functional, layers

CHANNELS, SIZE = 32, 7
Run = Callable[[], Tensor]
Kinds = dict[str, tuple[Run, Run | None]]


def image(channels: int, size: int) -> Tensor:
    return torch.rand(1, channels, size, size).contiguous(memory_format=torch.channels_last)


def functions(x: Tensor) -> Kinds:
    """Ours and PyTorch's of each function, for an image."""
    c = x.shape[1]
    full, square = torch.rand(c, c, 3, 3) / c, torch.rand(c, c) / c
    own, bias = torch.rand(c, 1, 3, 3), torch.rand(c)
    wide = square[:, :, None, None]
    return {
        "conv2d_3x3": (
            lambda: functional.conv2d(x, full, bias, padding=1),
            lambda: F.conv2d(x, full, bias, padding=1),
        ),
        "pointwise_conv2d": (
            lambda: functional.pointwise_conv2d(x, square, bias),
            lambda: F.conv2d(x, wide, bias),
        ),
        "depthwise_conv2d_3x3": (
            lambda: functional.depthwise_conv2d(x, own, bias, padding=1),
            lambda: F.conv2d(x, own, bias, padding=1, groups=c),
        ),
        "depthwise_separable_conv2d": (
            lambda: functional.depthwise_separable_conv2d(x, own, square, None, bias, padding=1),
            lambda: F.conv2d(F.conv2d(x, own, padding=1, groups=c), wide, bias),
        ),
    }


def modules(x: Tensor) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Layers of ours and of PyTorch, with the same weights."""
    c = x.shape[1]
    found: dict[str, tuple[nn.Module, nn.Module]] = {
        "Conv2d_3x3": (layers.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)),
        "PointwiseConv2d": (layers.PointwiseConv2d(c, c), nn.Conv2d(c, c, 1)),
        "DepthwiseConv2d_3x3": (
            layers.DepthwiseConv2d(c, 3, padding=1),
            nn.Conv2d(c, c, 3, padding=1, groups=c),
        ),
        "ConvNormAct": (
            layers.ConvNormAct(c, c, 3),
            nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU()),
        ),
    }
    for ours, theirs in found.values():
        theirs.load_state_dict(
            dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
        )
        theirs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return found


def step_of(module: nn.Module, x: Tensor) -> Run:
    """Forward and backward; the gradient of the image."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()

    def step() -> Tensor:
        module.zero_grad()
        x.grad = None
        module(x).sum().backward()
        assert x.grad is not None
        return x.grad

    return step


def cloud(channels: int) -> Kinds:
    """The convolution of a small cloud, of which PyTorch has none."""
    points = torch.rand(64, 3)
    of_points = pointwise.PointCloud(points)
    features = torch.rand(64, channels)
    weight = torch.rand(channels, channels, 3, 3, 3) / channels
    square = torch.rand(channels, channels)
    table = of_points.neighborhood(0.2)
    layer = layers.CellConv(channels, channels, cell_size=0.2)
    return {
        "cell_conv": (lambda: functional.cell_conv(features, table, weight), None),
        "CellConv": (lambda: layer(features, of_points), None),
        "pointwise_conv": (
            lambda: functional.pointwise_conv(features, square),
            lambda: F.linear(features, square),
        ),
    }


def runs() -> Kinds:
    """What is called, by name: ours and PyTorch's."""
    torch.manual_seed(0)
    x = image(CHANNELS, SIZE)
    found = functions(x)
    for name, (ours, theirs) in modules(x).items():
        ours.eval(), theirs.eval()
        found[name] = partial(ours, x), partial(theirs, x)
    found |= cloud(CHANNELS)
    for name, (ours, theirs) in modules(x).items():
        found[f"{name}_both_ways"] = step_of(ours.train(), x), step_of(theirs.train(), x)
    return found


def case_of(name: str) -> Case:
    ours, theirs = runs()[name]
    wanted = name.endswith("both_ways")

    def called(call: Run) -> Callable[[None], list[Tensor]]:
        def once(_: None) -> list[Tensor]:
            with torch.set_grad_enabled(wanted):
                return [call().detach()]

        return once

    people = [Contestant(OURS, called(ours), steady=True)]
    if theirs is not None:
        people.append(Contestant("PyTorch", called(theirs), steady=True))
    return Case(name, people, agree(1e-4))


def main(
    json: Path | None = None, rounds: int = 7, quick: bool = False, only: str | None = None
) -> None:
    """Times calls back to back; the table's milliseconds are those of one."""
    plans = [Planned(name, partial(case_of, name)) for name in runs()]
    run(plans, json, rounds, quick, only)


if __name__ == "__main__":
    import typer

    typer.run(main)
