"""What one call of a small convolution costs, by turns with PyTorch's: Python, more than numbers.

    python benchmarks/calls.py [--threads 1] [--size 7] [--channels 32] [--only conv2d]

One image of 32 channels and 7×7 pixels, in channels_last and float32, takes a kernel a few
microseconds; the rest is what it takes to get there. Functions and layers without gradients, then
forward and backward: the loss is the sum of the result, and the gradients those of image, weight
and bias. A cloud of 64 points has no peer in PyTorch. Results agree with PyTorch's, or nothing is
timed. Times are of calls back to back, a hundred at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pointwise
from pointwise import functional, layers
from pointwise.costs.machine import cpu_name
from pointwise.timing import Watch, in_turns, ratio

CALLS = 100  # of one time
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
        "conv2d 3×3": (
            lambda: functional.conv2d(x, full, bias, padding=1),
            lambda: F.conv2d(x, full, bias, padding=1),
        ),
        "pointwise_conv2d": (
            lambda: functional.pointwise_conv2d(x, square, bias),
            lambda: F.conv2d(x, wide, bias),
        ),
        "depthwise_conv2d 3×3": (
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
        "Conv2d 3×3": (layers.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)),
        "PointwiseConv2d": (layers.PointwiseConv2d(c, c), nn.Conv2d(c, c, 1)),
        "DepthwiseConv2d 3×3": (
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


def runs_of(channels: int, size: int) -> Kinds:
    """What is called, by name: ours and PyTorch's."""
    torch.manual_seed(0)
    x = image(channels, size)
    found = functions(x)
    for name, (ours, theirs) in modules(x).items():
        ours.eval(), theirs.eval()
        found[name] = (lambda own=ours: own(x)), (lambda own=theirs: own(x))
    found |= cloud(channels)
    for name, (ours, theirs) in modules(x).items():
        found[f"{name}, both ways"] = step_of(ours.train(), x), step_of(theirs.train(), x)
    return found


def calls(run: Run, wants_gradients: bool) -> Callable[[], None]:
    def some() -> None:
        with torch.set_grad_enabled(wants_gradients):
            for _ in range(CALLS):
                run()

    return some


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--size", type=int, default=7, help="of the image, in pixels")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--only", default="", help="what has this in its name")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{cpu_name()}, {options.threads} thread(s), {options.channels} channels, "
        f"{options.size}×{options.size} pixels; microseconds of a call (median)"
    )
    for name, (ours, theirs) in runs_of(options.channels, options.size).items():
        if options.only.lower() not in name.lower():
            continue
        both = name.endswith("both ways")
        with torch.set_grad_enabled(both):
            if theirs is not None:
                torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
        runs = {"pointwise": calls(ours, both)}
        if theirs is not None:
            runs["PyTorch"] = calls(theirs, both)
        with Watch() as watch:
            times = in_turns(runs, options.samples)
        line = f"{name:33} {1e3 * times['pointwise'].median / CALLS:7.1f}"
        if theirs is not None:
            took = 1e3 * times["PyTorch"].median / CALLS
            line += f"   PyTorch {took:7.1f}   {ratio(times['PyTorch'], times['pointwise'])}"
        print(f"{line} {watch.busy(*times.values())}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
