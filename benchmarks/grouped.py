"""Convolutions of groups, by turns: the loop of groups, patches gathered, and PyTorch.

    python benchmarks/grouped.py [--threads 1] [--images 8] [--only 128_g32] [--samples 50]

``128_g32_56x56_s2`` is a 3×3 convolution of 128 channels in 32 groups with stride 2 on 56×56 pixels
(``k1`` behind it: 1×1). Shapes are those of ResNeXt and RegNet, and of wider groups, so that it
shows where ``grouped.is_better`` has to change its mind. Everyone in float32 with images and
weights in channels_last, weights packed beforehand; then both gradients, as functions compute them.
Who differs from PyTorch by more than rounding ends it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from pointwise.convolution.problem import Convolution, describe
from pointwise.costs.machine import cpu_name
from pointwise.engine import choose
from pointwise.engine.cpu.memory import empty_image
from pointwise.timing import Watch, in_turns, ratio

LOOPS = ("grouped", "mixed")
PEERS = {
    "grouped": "PyTorch", "mixed": "PyTorch", "gradient of x": "PyTorch's gradient of x",
    "of the weight": "PyTorch's of the weight",
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    channels: int
    groups: int
    size: int
    stride: int = 1
    kernel: int = 3

    @property
    def name(self) -> str:
        kernel = "" if self.kernel == 3 else f"_k{self.kernel}"
        step = "" if self.stride == 1 else f"_s{self.stride}"
        return f"{self.channels}_g{self.groups}_{self.size}x{self.size}{step}{kernel}"

    def described(self, images: int) -> Convolution:
        edges, step = (self.kernel // 2,) * 4, (self.stride,) * 2
        size = (self.channels, self.channels // self.groups, self.kernel, self.kernel)
        return describe((images, self.channels, self.size, self.size), size, step, edges, (1, 1),
                        self.groups, torch.float32)  # fmt: skip


SHAPES = [
    Shape(64, 32, 56), Shape(128, 32, 56), Shape(256, 32, 28), Shape(512, 32, 14),
    Shape(1024, 32, 7), Shape(256, 32, 56, 2), Shape(512, 32, 28, 2),  # ResNeXt-50 32×4d
    Shape(224, 28, 56), Shape(448, 56, 28), Shape(240, 10, 56), Shape(1344, 56, 14),  # RegNet
    Shape(256, 16, 28), Shape(256, 8, 28), Shape(512, 16, 28), Shape(480, 10, 28),
    Shape(512, 8, 28),
    Shape(240, 3, 28, 1, 1), Shape(256, 32, 28, 1, 1), Shape(256, 16, 28, 1, 1),
]  # fmt: skip


def runs_of(shape: Shape, images: int) -> dict:
    """What is timed, by name; agreed with PyTorch beforehand."""
    torch.manual_seed(0)
    given = shape.described(images)
    x = torch.randn(images, shape.channels, shape.size, shape.size)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape.channels, shape.channels // shape.groups, shape.kernel, shape.kernel)
    weight = weight.contiguous(memory_format=torch.channels_last)
    geometry = shape.stride, shape.kernel // 2, 1, shape.groups
    wanted = F.conv2d(x, weight, None, *geometry)
    grad = torch.randn_like(wanted)
    runs = {"PyTorch": lambda: F.conv2d(x, weight, None, *geometry)}
    for algorithm in LOOPS:
        prepared = choose.prepare(given, weight, None, choose.choose(given, algorithm=algorithm))
        launch = choose.launch(x, (prepared,), empty_image(given.shape, x.dtype))
        torch.testing.assert_close(launch.run(), wanted, rtol=1e-4, atol=1e-4)
        runs[algorithm] = launch.run
    runs["PyTorch's gradient of x"] = lambda: conv2d_input(x.shape, weight, grad, *geometry)
    runs["gradient of x"] = lambda: choose.input_gradient(given, grad, weight)
    runs["PyTorch's of the weight"] = lambda: conv2d_weight(x, weight.shape, grad, *geometry)
    runs["of the weight"] = lambda: choose.weight_gradient(given, grad, x)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--only", default="", help="shapes whose names have this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{cpu_name()}, {options.threads} thread(s), {options.images} image(s); medians in "
        "milliseconds, in brackets PyTorch's through ours"
    )
    for shape in SHAPES:
        if options.only not in shape.name:
            continue
        with torch.no_grad(), Watch() as watch:
            times = in_turns(runs_of(shape, options.images), options.samples)
        parts = [f"PyTorch {times['PyTorch'].median:.2f}"]
        for name, peer in PEERS.items():
            parts.append(f"{name} {times[name].median:.2f} ({ratio(times[peer], times[name])})")
        chosen = choose.choose(shape.described(options.images)).algorithm
        print(f"{shape.name} [{chosen}]: {', '.join(parts)} {watch.busy(*times.values())}".rstrip())


if __name__ == "__main__":
    main()
