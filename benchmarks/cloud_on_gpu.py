"""``pointwise bench cloud --device cuda``: the same clouds on a GPU, against PyTorch there.

Times are of CUDA events, so that they are what the GPU takes, its waits for the CPU included. Who
takes part runs once before, for kernels are compiled then, and everyone's results are compared.

``paper_forward``, ``paper_backward``
             the paper's batch and network, as on the CPU: from raw points to logits, the four
             neighbourhoods included, and back to the weights' gradients. ``torch`` computes the
             same by index_add and one matrix product per layer, on tables that ours has found: so
             its time is without a search. ``compiled`` is that by torch.compile.
``search_N`` all neighbours in a landscape of N points, some 30 each. ``through_cpu`` is our search
             on the CPU, points and tables copied.
``conv_N``   a convolution of 32 to 32 channels on them, forward and backward, in float32 and in
             bfloat16.
``unet_N``   a training step of CellUNet, forward and backward, everything searched anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cloud import CELL_SIZE, CHANNELS, CLASSES, DILATIONS, LANDSCAPE_CELL, Sizes, paper_batch
from device import Case, Contestant, measure, report
from rich.console import Console
from shapes import landscape
from torch import Tensor
from torch.nn import functional as F

from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional import cell_conv
from pointwise.networks import CellUNet, Hua2018Segmentation

QUICK = Sizes(clouds=3, points=256, scaling=(500, 2000), scan=3000)
WHOLE = Sizes(scaling=(10_000, 100_000, 1_000_000), scan=300_000)
Plan = dict[str, Callable[[], list[Case]]]


def run(json: Path | None, rounds: int, quick: bool, only: str | None) -> None:
    """Times everything on the GPU and prints a table; writes it to ``json`` if given."""
    report(measure(plan(QUICK if quick else WHOLE), rounds, only), Console(highlight=False), quick,
           json)  # fmt: skip


def plan(sizes: Sizes, device: str = "cuda") -> Plan:
    """What makes the cases of each name, in the order of the table."""
    made: Plan = {"paper": partial(paper_cases, sizes, device)}
    for count in sizes.scaling:
        made[f"search_{count}"] = partial(search_cases, count, device)
        made[f"conv_{count}"] = partial(convolution_cases, count, device)
    made[f"unet_{sizes.scan}"] = partial(unet_cases, sizes.scan, device)
    return made


def paper_cases(sizes: Sizes, device: str) -> list[Case]:
    """Forward and backward of the paper's segmentation network, in training."""
    points, offsets = (each.to(device) for each in paper_batch(sizes))
    torch.manual_seed(0)
    ours = Hua2018Segmentation(in_channels=3, classes=CLASSES, cell_size=CELL_SIZE).to(device)
    gradient = torch.randn(len(points), CLASSES, device=device)
    weights = list(ours.parameters())
    cloud = PointCloud(points, offsets)
    decoded = {d: cloud.neighborhood(CELL_SIZE, 3, d).decode() for d in DILATIONS}

    def forward(_: object = None) -> Tensor:
        return ours(points, points, offsets)

    def plain(_: object = None) -> Tensor:
        x, outputs = points, []
        for layer in ours.trunk.layers:  # type: ignore[union-attr]
            x = F.selu(_plain_convolution(x, decoded[layer.dilation], layer.weight))
            outputs.append(x)
        x = torch.cat(outputs, dim=1)
        return F.selu(_plain_convolution(x, decoded[1], ours.head.weight))

    compiled = torch.compile(plain)

    def backward(logits: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(logits, weights, gradient)

    forwards = {"pointwise": forward, "torch": plain, "compiled": compiled}
    moved = 4 * (points.numel() + gradient.numel() + sum(w.numel() for w in weights))
    return [
        Case("paper_forward", [Contestant(w, f) for w, f in forwards.items()], 1e-4, moved),
        Case(
            "paper_backward",
            [Contestant(w, backward, f) for w, f in forwards.items()],
            1e-3,
            moved,
        ),
    ]


def _plain_convolution(x: Tensor, table: tuple[Tensor, ...], weight: Tensor) -> Tensor:
    """The convolution by PyTorch's own calls."""
    query, cell, point = table
    cells = weight[0, 0].numel()
    where = query * cells + cell
    sums = x.new_zeros(len(x) * cells, x.shape[1]).index_add(0, where, x[point])
    ones = torch.ones(len(where), dtype=x.dtype, device=x.device)
    number = x.new_zeros(len(sums)).index_add(0, where, ones).clamp(min=1)
    mix = weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
    return (sums / number[:, None]).view(len(x), -1) @ mix


def _landscape(count: int, device: str) -> Tensor:
    return torch.from_numpy(landscape(count).points).to(device)


def search_cases(count: int, device: str) -> list[Case]:
    """All neighbours in a landscape."""
    points = _landscape(count, device)

    def search(points: Tensor) -> Neighborhood:
        return PointCloud(points).neighborhood(LANDSCAPE_CELL)

    def through_cpu(_: object) -> tuple[Tensor, ...]:
        there = search(points.cpu()).to(device)
        return there.row_start, there.pairs

    def here(_: object) -> tuple[Tensor, ...]:
        found = search(points)
        return found.row_start, found.pairs

    moved = 24 * count + sum(t.nbytes for t in here(None))
    contestants = [Contestant("pointwise", here), Contestant("through_cpu", through_cpu)]
    return [Case(f"search_{count}", contestants, 0.0, moved)]


def convolution_cases(count: int, device: str) -> list[Case]:
    """A convolution on the neighbours that were found, forward and backward."""
    neighborhood = PointCloud(_landscape(count, device)).neighborhood(LANDSCAPE_CELL)
    query, cell, point = neighborhood.decode()
    cases = []
    for dtype, tolerance in ((torch.float32, 1e-2), (torch.bfloat16, 5e-2)):
        torch.manual_seed(0)
        x = torch.randn(count, CHANNELS, device=device).to(dtype).requires_grad_()
        weight = torch.randn(CHANNELS, CHANNELS, 3, 3, 3, device=device)
        weight = weight.div_(30).to(dtype).requires_grad_()
        gradient = torch.randn(count, CHANNELS, device=device).to(dtype)

        def step(
            convolve: Callable[[Tensor, Tensor], Tensor],
            _: object,
            x: Tensor = x,
            weight: Tensor = weight,
            gradient: Tensor = gradient,
        ) -> tuple[Tensor, ...]:
            out = convolve(x, weight)
            return (out, *torch.autograd.grad(out, (x, weight), gradient))

        ours = partial(step, lambda x, w: cell_conv(x, neighborhood, w))
        plain = partial(step, lambda x, w: _plain_convolution(x, (query, cell, point), w))
        name = f"conv_{count}_{'f32' if dtype == torch.float32 else 'bf16'}"
        contestants = [Contestant("pointwise", ours), Contestant("torch", plain)]
        moved = neighborhood.pairs.nbytes + 4 * x.nbytes + 2 * weight.nbytes
        cases.append(Case(name, contestants, tolerance, moved))
    return cases


def unet_cases(count: int, device: str) -> list[Case]:
    """A step of CellUNet on a landscape, everything searched anew."""
    points = _landscape(count, device)
    offsets = torch.tensor([0, count], device=device)
    torch.manual_seed(0)
    network = CellUNet(4, CLASSES, LANDSCAPE_CELL).to(device)
    features = torch.randn(count, 4, device=device)
    labels = torch.randint(CLASSES, (count,), device=device)

    def step(_: object) -> tuple[Any, ...]:
        loss = F.cross_entropy(network(points, features, offsets), labels)
        return torch.autograd.grad(loss, list(network.parameters()))

    return [Case(f"unet_{count}", [Contestant("pointwise", step)], 0.0, None)]
