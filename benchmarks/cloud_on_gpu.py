"""``pointwise bench cloud --device cuda``: the same clouds on a GPU, against PyTorch there.

``paper_forward``, ``paper_backward``
               the paper's batch and network, as on the CPU: from raw points to logits, the four
               neighbourhoods included, and back to the weights' gradients. ``torch`` computes the
               same by index_add and one matrix product per layer, on tables that ours has found:
               its times are without a search. ``compiled`` is that by torch.compile.
``search_N``   all neighbours in a landscape of N points, some 30 each. ``through_cpu`` is our
               search on the CPU, points and tables copied.
``conv_N_f32``, ``conv_N_bf16``
               a convolution of 32 to 32 channels on them, forward and backward.
``unet_N``     a training step of CellUNet, forward and backward, everything searched anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import device as frame_of_device
import torch
from cloud import CELL_SIZE, CHANNELS, CLASSES, DILATIONS, LANDSCAPE_CELL, Sizes, paper_batch
from device import agree_there
from frame import OURS, Case, Contestant
from planned import Planned
from shapes import landscape
from torch import Tensor
from torch.nn import functional as F

from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional import cell_conv
from pointwise.networks import CellUNet, Hua2018Segmentation

WHOLE = Sizes(scaling=(10_000, 100_000, 1_000_000), scan=300_000)
QUICK = Sizes(clouds=3, points=256, scaling=(500, 2000), scan=3000)
# How far sums of so many numbers may be apart, in which order they are taken, TF32 included.
_TOLERANCES = {torch.float32: 1e-2, torch.bfloat16: 5e-2}


def run(json: Path | None, rounds: int, quick: bool, only: str | None) -> None:
    """Times everything on the GPU and prints a table; writes it to ``json`` if given."""
    frame_of_device.run(plan(QUICK if quick else WHOLE), json, rounds, quick, only)


def plan(sizes: Sizes, device: str = "cuda") -> list[Planned]:
    """All cases, in the order of the table."""
    paper = cache(partial(paper_cases, sizes, device))
    planned = [
        Planned("paper_forward", lambda: paper()[0]),
        Planned("paper_backward", lambda: paper()[1]),
    ]
    for count in sizes.scaling:
        planned.append(Planned(f"search_{count}", partial(search_case, count, device)))
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            case = f"conv_{count}_{name}"
            planned.append(Planned(case, partial(convolution_case, case, count, dtype, device)))
    return [*planned, Planned(f"unet_{sizes.scan}", partial(unet_case, sizes.scan, device))]


def paper_cases(sizes: Sizes, device: str) -> list[Case]:
    """Forward and backward of the paper's segmentation network, in training."""
    points, offsets = (each.to(device) for each in paper_batch(sizes))
    torch.manual_seed(0)
    ours = Hua2018Segmentation(in_channels=3, classes=CLASSES, cell_size=CELL_SIZE).to(device)
    layers: list[Any] = [*ours.trunk.layers, ours.head]  # type: ignore[union-attr, list-item]
    weights, gradient = list(ours.parameters()), torch.randn(len(points), CLASSES, device=device)
    cloud = PointCloud(points, offsets)
    tables = {d: cloud.neighborhood(CELL_SIZE, dilation=d).decode() for d in DILATIONS}

    def forward(_: object = None) -> Tensor:
        return ours(points, points, offsets)

    def plain(_: object = None) -> Tensor:
        x, outputs = points, []
        for layer in layers[:-1]:
            x = F.selu(plain_convolution(x, tables[layer.dilation], layer.weight))
            outputs.append(x)
        return F.selu(plain_convolution(torch.cat(outputs, 1), tables[1], layers[-1].weight))

    def backward(logits: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(logits, weights, gradient)

    forwards = {OURS: forward, "torch": plain, "compiled": torch.compile(plain)}
    same_logits, same_gradients = agree_there(1e-2), agree_there(1e-2)
    once = points.numel() + gradient.numel()
    weighs = sum(weight.numel() for weight in weights)
    return [
        Case(
            "paper_forward",
            [Contestant(who, function) for who, function in forwards.items()],
            lambda results: same_logits({who: [found] for who, found in results.items()}),
            bytes=4 * (once + weighs),
        ),
        Case(
            "paper_backward",
            [Contestant(who, backward, function) for who, function in forwards.items()],
            same_gradients,
            bytes=4 * (once + 2 * weighs),
        ),
    ]


def plain_convolution(x: Tensor, table: tuple[Tensor, ...], weight: Tensor) -> Tensor:
    """The convolution by PyTorch's own calls, none of which waits."""
    query, cell, point = table
    cells = weight[0, 0].numel()
    where = query * cells + cell
    sums = x.new_zeros(len(x) * cells, x.shape[1]).index_add(0, where, x[point])
    number = x.new_zeros(len(sums)).index_add(0, where, x.new_ones(len(where))).clamp(min=1)
    mix = weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
    return (sums / number[:, None]).view(len(x), -1) @ mix


def _landscape(count: int, device: str) -> Tensor:
    return torch.from_numpy(landscape(count).points).to(device)


def search_case(count: int, device: str) -> Case:
    """All neighbours in a landscape."""
    points = _landscape(count, device)

    def search(points: Tensor) -> Neighborhood:
        return PointCloud(points).neighborhood(LANDSCAPE_CELL)

    def table(found: Neighborhood) -> list[Tensor]:
        return [found.row_start, found.pairs]

    contestants = [
        Contestant(OURS, lambda _: table(search(points))),
        Contestant("through_cpu", lambda _: table(search(points.cpu()).to(device))),
    ]
    moved = points.nbytes + sum(each.nbytes for each in contestants[0].run(None))
    return Case(f"search_{count}", contestants, agree_there(0.0), bytes=moved)


def convolution_case(name: str, count: int, dtype: torch.dtype, device: str) -> Case:
    """A convolution on the neighbours that were found, forward and backward."""
    neighborhood = PointCloud(_landscape(count, device)).neighborhood(LANDSCAPE_CELL)
    decoded = neighborhood.decode()
    torch.manual_seed(0)
    x = torch.randn(count, CHANNELS, device=device).to(dtype).requires_grad_()
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, 3, device=device)
    weight = weight.div_(30).to(dtype).requires_grad_()
    gradient = torch.randn(count, CHANNELS, device=device).to(dtype)

    def step(convolve: Callable[[], Tensor], _: object) -> list[Tensor]:
        out = convolve()
        return [out, *torch.autograd.grad(out, (x, weight), gradient)]

    contestants = [
        Contestant(OURS, partial(step, lambda: cell_conv(x, neighborhood, weight))),
        Contestant("torch", partial(step, lambda: plain_convolution(x, decoded, weight))),
    ]
    moved = neighborhood.pairs.nbytes + 4 * x.nbytes + 2 * weight.nbytes
    return Case(name, contestants, agree_there(_TOLERANCES[dtype]), bytes=moved)


def unet_case(count: int, device: str) -> Case:
    """A step of CellUNet on a landscape."""
    points, offsets = _landscape(count, device), torch.tensor([0, count], device=device)
    torch.manual_seed(0)
    network = CellUNet(4, CLASSES, LANDSCAPE_CELL).to(device)
    features = torch.randn(count, 4, device=device)
    labels = torch.randint(CLASSES, (count,), device=device)

    def step(_: object) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(network(points, features, offsets), labels)
        return torch.autograd.grad(loss, list(network.parameters()))

    def finite(results: dict[str, Any]) -> str | None:
        fine = all(bool(each.isfinite().all()) for each in results[OURS])
        return None if fine else "a gradient is not finite"

    return Case(f"unet_{count}", [Contestant(OURS, step)], finite)
