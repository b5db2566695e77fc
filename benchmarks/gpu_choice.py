"""``pointwise bench gpu_choice``: which kernels run on this GPU, ours or PyTorch's own.

Every depthwise convolution of MobileNetV1, MobileNetV2, EfficientNet-B0 and ConvNeXt-Tiny, forward
and both gradients, and every depthwise convolution with the pointwise one behind it, in bfloat16,
float16 and float32: our kernel and PyTorch's take turns, timed by CUDA events while the GPU has
work enough that Python is not waited for. The times go to the user's cache (``--json`` copies them
to another file), from where ``pointwise.engine.choose_gpu`` reads them, for this device and these
versions of PyTorch and Triton. Without a table, a rule chooses.
"""

from __future__ import annotations

import json as json_
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import image_shapes
import torch
from image_shapes import Convolution
from planned import chosen
from rich.console import Console

from pointwise.atomic import replacing
from pointwise.cli.progress import bar
from pointwise.convolution.problem import Convolution as Problem
from pointwise.convolution.problem import describe
from pointwise.engine import choose_gpu
from pointwise.timing import gpu

BATCH = 64
"""Times of a batch stand for all: a larger one takes as many times as long on both sides."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)

# Depthwise convolutions of EfficientNet-B0 (with their kernels and strides) and ConvNeXt-Tiny, and
# how many channels the pointwise one behind each of them makes; 0 where another layer is between.
_MORE = (
    *(Convolution(size, c, c, kernel, stride, c) for size, c, kernel, stride in (
        (112, 32, 3, 1), (112, 96, 3, 2), (56, 144, 3, 1), (56, 144, 5, 2), (28, 240, 5, 1),
        (28, 240, 3, 2), (14, 480, 3, 1), (14, 480, 5, 1), (14, 672, 5, 1), (14, 672, 5, 2),
        (7, 1152, 5, 1), (7, 1152, 3, 1))),
    *(Convolution(size, c, c, 7, 1, c) for size, c in ((56, 96), (28, 192), (14, 384), (7, 768))),
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What is timed; ``columns`` are the results of a point of a separable convolution."""

    shape: Convolution
    task: str
    dtype: torch.dtype
    columns: int = 0
    usual: bool = True

    @property
    def name(self) -> str:
        to = f"_{self.columns}" if self.columns else ""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.shape.name}{to}_{self.task.replace(' ', '_')}_{dtype}"

    def problem(self, batch: int = BATCH) -> Problem:
        shape = self.shape
        kernel, step, edge = (shape.kernel,) * 2, (shape.stride,) * 2, (shape.padding,) * 4
        size = (batch, shape.c_in, shape.size, shape.size)
        return describe(size, (shape.c_out, 1, *kernel), step, edge, (1, 1), shape.groups,
                        self.dtype)  # fmt: skip

    @property
    def key(self) -> str:
        return choose_gpu.key_of(self.problem(), self.task, self.columns)


def main(
    json: Path | None = None,
    rounds: int = 7,
    quick: bool = False,
    only: str | None = None,
    device: str = "cuda",
) -> None:
    """Times everything on both sides, keeps the times, and says who runs what."""
    there = gpu.chosen("bench", device)
    console = Console(highlight=False)
    some = chosen([*tasks()][:: 40 if quick else 1], only)
    found: dict[str, tuple[float, float]] = {}
    with bar("measuring") as advance:
        for number, task in enumerate(some, start=1):
            sides = calls(task, there, 2 if quick else BATCH)
            one, other = gpu.in_turns(sides, 2 if quick else rounds)
            found[task.key] = one.median, other.median
            advance(number, len(some))
    for task in some:
        ours, theirs = found[task.key]
        who = "pointwise" if ours < theirs else "PyTorch"
        console.print(f"{task.name:43} {ours:8.3f} {theirs:8.3f} ms  {who}")
    won = sum(ours < theirs for ours, theirs in found.values())
    console.print(f"ours in {won} of {len(found)}, on {gpu.name_of(there)}")
    if quick:
        console.print("Quick: the batches are tiny; nothing was kept.")
    else:
        console.print(f"kept in {choose_gpu.remember(there, found)}", soft_wrap=True)
    if json is not None:
        with replacing(json) as part:
            result = {"device": gpu.name_of(there), "milliseconds": found}
            part.write_text(json_.dumps(result, indent=2) + "\n", encoding="utf-8")


def tasks() -> Iterator[Task]:
    """Everything that is to be measured, each shape once."""
    shapes = [shape for shape in image_shapes.all_convolutions() if shape.kind.startswith("dw")]
    pairs = {
        (one, two.c_out)
        for network in ("mobilenet_v1", "mobilenet_v2")
        for one, two in pairwise(image_shapes.convolutions(network))
        if one.kind.startswith("dw") and two.kind == "pw" and two.c_in == one.c_out
    }
    for dtype in DTYPES:
        for shape in dict.fromkeys((*shapes, *_MORE)):
            for task in (
                choose_gpu.FORWARD, choose_gpu.INPUT_GRADIENT, choose_gpu.WEIGHT_GRADIENT,
            ):  # fmt: skip
                yield Task(shape, task, dtype)
        for shape, columns in sorted(pairs, key=lambda pair: (pair[0].name, pair[1])):
            yield Task(shape, choose_gpu.SEPARABLE, dtype, columns)


def calls(task: Task, device: torch.device, batch: int) -> list[Callable[[], Any]]:
    """Our kernel and PyTorch's for a task, ready to run."""
    problem, shape = task.problem(batch), task.shape
    options: dict[str, Any] = {"device": device, "dtype": task.dtype}
    x = torch.randn(batch, shape.c_in, shape.size, shape.size, **options)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape.c_out, 1, shape.kernel, shape.kernel, **options)
    placed = [shape.stride] * 2, [shape.padding] * 4, [1, 1]
    grad = torch.randn(problem.shape, **options).contiguous(memory_format=torch.channels_last)
    pointwise = torch.randn(max(1, task.columns), shape.c_out, 1, 1, **options)
    operators = torch.ops.pointwise
    call = {
        choose_gpu.FORWARD: lambda: operators.conv2d(
            x, weight, None, None, *placed, shape.groups, "none"),
        choose_gpu.INPUT_GRADIENT: lambda: operators.conv2d_grad_input(
            grad, weight, list(x.shape), *placed, shape.groups),
        choose_gpu.WEIGHT_GRADIENT: lambda: operators.conv2d_grad_weight(
            grad, x, list(weight.shape), *placed, shape.groups),
        choose_gpu.SEPARABLE: lambda: operators.separable_conv2d(
            x, weight, pointwise, None, None, None, *placed, "relu6", "relu6"),
    }[task.task]  # fmt: skip

    def by(ours: bool) -> Callable[[], Any]:
        def run() -> Any:
            with choose_gpu.forced(ours), torch.no_grad():
                return call()

        return run

    return [by(True), by(False)]


if __name__ == "__main__":
    import typer

    typer.run(main)
