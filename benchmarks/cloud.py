"""``pointwise bench cloud``: point clouds, against SciPy, Open3D and plain PyTorch.

The setting is the paper's (Hua, Tran, Yeung, CVPR 2018): 128 clouds of 2,048 points in the unit
sphere, cells of 0.1, its segmentation network of five layers with dilations 1, 2, 3, 4 and 1.

``paper_forward``  from raw points to logits as in training, the four neighbourhoods included.
``paper_backward`` from the logits' gradient to the weights' gradients. Ours reads the forward
                   pass's tables from the other side, and counts the neighbours in each cell again.
                   (Transposed tables would be made in the forward pass, if two points of this batch
                   lay just on the border of each other's cells; none do.)
``search``         the neighbourhoods of all five layers, of which two are the same. Ours finds who
                   is in which kernel cell. The others list who is in the cube around all cells, no
                   more: putting neighbours into cells would cost them extra and is not timed.
                   ``ckdtree`` builds a tree per cloud and asks it once per dilation, on all cores,
                   ``open3d`` a hash table per dilation for all clouds. ``ckdtree_pairs`` lists each
                   pair once, and by no query: less than a convolution needs, but the fastest that
                   SciPy offers.
``label_5m``       the labels of a scan of five million points by CellUNet with random weights;
                   memory is that of the whole process.
``grid_vs_kdtree_N``, ``conv_N``
                   the search, and a convolution of 32 to 32 channels on the neighbourhood found, in
                   a landscape of N points with some 30 neighbours each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import work
from frame import OURS, Case, Contestant, agree, measure, show, with_limits, write
from neighbours import in_cells, of_lists, of_pairs, of_rows, triples
from peers import KdTree, PlainSegmentation, cells, hashed_grid, reach
from planned import QUICK_NOTE, Planned, chosen
from rich.console import Console
from shapes import clouds, landscape
from torch import Tensor

from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional import cell_conv
from pointwise.networks import Hua2018Segmentation
from pointwise.timing import gpu

CELL_SIZE, KERNEL_SIZE, DILATIONS = 0.1, 3, (1, 2, 3, 4)
CLASSES = 13
LANDSCAPE_CELL = 0.6  # metres, for some 30 neighbours
CHANNELS = 32
KDTREE_SECONDS = 60.0  # where the kd-tree would take longer, it is left out
_CHECKED = 2048  # queries whose neighbours are compared one by one


@dataclass(frozen=True)
class Sizes:
    """How large the cases are."""

    clouds: int = 128
    points: int = 2048
    scaling: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 5_000_000)
    scan: int = 5_000_000


QUICK = Sizes(clouds=3, points=256, scaling=(500, 2000), scan=30_000)


def main(
    json: Path | None = None,
    rounds: int = 7,
    quick: bool = False,
    only: str | None = None,
    device: str = "cpu",
) -> None:
    """Times everything against everyone and prints a table; writes it to ``json`` if given.

    On a GPU, what is timed is described in ``cloud_on_gpu``.
    """
    if device != "cpu":
        import cloud_on_gpu  # which reads this file

        gpu.chosen("bench", device)
        return cloud_on_gpu.run(json, rounds, quick, only)
    console = Console(highlight=False)
    some = chosen(plan(QUICK if quick else Sizes()), only)
    before = machine.measured(quick)
    cases = [planned.make() for planned in some]
    rows = measure(cases, min(rounds, 2) if quick else rounds, console)
    limits = machine.better(before, machine.measured(quick))
    rows = with_limits(rows, cases, limits)
    show(rows, limits, console, QUICK_NOTE if quick else "")
    if json is not None:
        write(rows, limits, json)


def plan(sizes: Sizes) -> list[Planned]:
    """All cases, in the order of the table."""
    paper = cache(partial(paper_cases, sizes))
    planned = [
        Planned("paper_forward", lambda: paper()[0]),
        Planned("paper_backward", lambda: paper()[1]),
        Planned("search", partial(search_case, sizes)),
    ]
    for count in sizes.scaling:
        scaling = cache(partial(scaling_cases, count))
        planned += [
            Planned(f"grid_vs_kdtree_{count}", lambda made=scaling: made()[0]),  # type: ignore[misc]
            Planned(f"conv_{count}", lambda made=scaling: made()[1]),  # type: ignore[misc]
        ]
    return [*planned, Planned("label_5m", partial(label_case, sizes))]


# --- the paper's network --------------------------------------------------------------------------


def paper_batch(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Points ``[N, 3]`` float32 and offsets of the batch."""
    batch = torch.from_numpy(clouds(sizes.clouds, sizes.points))
    return batch.flatten(0, 1), torch.arange(sizes.clouds + 1) * sizes.points


def paper_cases(sizes: Sizes) -> list[Case]:
    """Forward and backward of the segmentation network, in training."""
    points, offsets = paper_batch(sizes)
    torch.manual_seed(0)
    ours = Hua2018Segmentation(in_channels=3, classes=CLASSES, cell_size=CELL_SIZE)
    plain = PlainSegmentation(ours)
    gradient = torch.randn(len(points), CLASSES)
    layers = _paper_layers(ours, points, offsets)
    weights = sum(weight.numel() for weight in ours.parameters())

    def ours_forward(_: object = None) -> Tensor:
        return ours(points, points, offsets)

    def plain_forward(_: object = None) -> Tensor:
        return plain(points, offsets)

    def ours_backward(logits: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(logits, list(ours.parameters()), gradient)
        return [g.flatten(2).permute(2, 1, 0).flatten(0, 1) for g in found]

    def plain_backward(logits: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(logits, list(plain.parameters()), gradient))

    eps = torch.finfo(torch.float32).eps
    widest = KERNEL_SIZE**3 * layers[-1].in_channels
    same_logits = agree(4 * eps * math.sqrt(widest) * len(layers))
    return [
        Case(
            "paper_forward",
            [Contestant(OURS, ours_forward), Contestant("torch", plain_forward)],
            lambda results: same_logits({who: [r.detach()] for who, r in results.items()}),
            flops=work.forward(layers),
            bytes=4 * (points.numel() + weights + gradient.numel()),
        ),
        Case(
            "paper_backward",
            [
                Contestant(OURS, ours_backward, ours_forward),
                Contestant("torch", plain_backward, plain_forward),
            ],
            agree(4 * eps * math.sqrt(len(points)) * len(layers)),  # sums over all points
            flops=work.backward(layers),
            bytes=4 * (points.numel() + 2 * weights + gradient.numel()),
        ),
    ]


def _paper_layers(
    network: Hua2018Segmentation, points: Tensor, offsets: Tensor
) -> list[work.Layer]:
    cloud = PointCloud(points, offsets)
    tables = {d: work.table_of(cloud.neighborhood(CELL_SIZE, KERNEL_SIZE, d)) for d in DILATIONS}
    convolutions = [*network.trunk.layers, network.head]
    layers = []
    for convolution in convolutions:
        c_out, c_in = convolution.weight.shape[:2]  # type: ignore[union-attr, index]
        layers.append(work.Layer(tables[convolution.dilation], c_in, c_out))  # type: ignore[index]
    return layers


# --- search ---------------------------------------------------------------------------------------


def search_case(sizes: Sizes) -> Case:
    """The neighbourhoods that one pass of the paper's network needs."""
    points, offsets = paper_batch(sizes)
    parts = [part.numpy() for part in points.split(sizes.points)]
    radii = [reach(CELL_SIZE, KERNEL_SIZE, d) for d in DILATIONS]

    def grid(_: object) -> list[Neighborhood]:
        cloud = PointCloud(points, offsets)
        return [cloud.neighborhood(CELL_SIZE, KERNEL_SIZE, d) for d in DILATIONS]

    def by_trees(ask: Callable[[KdTree, float], Any], _: object) -> list[Any]:
        kept: list[Any] = []  # what is found in the first cloud, for the check
        for tree in map(KdTree, parts):
            found = [ask(tree, radius) for radius in radii]
            kept = kept or found
        return kept

    contestants = [
        Contestant(OURS, grid),
        Contestant("ckdtree", partial(by_trees, partial(KdTree.lists, kept=_CHECKED))),
        Contestant("ckdtree_pairs", partial(by_trees, KdTree.pairs)),
    ]
    if (hashed := hashed_grid()) is not None:

        def hashed_search(_: object) -> list[tuple[Tensor, Tensor]]:
            first = int(offsets[1])
            found = [hashed(points, offsets, radius) for radius in radii]
            return [(starts[: first + 1], index[: starts[first]]) for starts, index in found]

        contestants.append(Contestant("open3d", hashed_search))

    def check(results: dict[str, Any]) -> str | None:
        listed = {
            "ckdtree": lambda found: of_lists(found[1]),
            "ckdtree_pairs": lambda found: of_pairs(found, len(parts[0])),
            "open3d": lambda found: of_rows(*found),
        }
        for number, dilation in enumerate(DILATIONS):
            mine = triples(results[OURS][number], len(parts[0]))
            for who, decode in listed.items():
                if who in results:
                    query, point = decode(results[who][number])
                    theirs = in_cells(points.double(), query, point, CELL_SIZE, dilation)
                    if not torch.equal(mine, theirs):
                        return (
                            f"{who} finds {len(theirs):,} neighbours in the first cloud at "
                            f"dilation {dilation} where {OURS} finds {len(mine):,}, or others"
                        )
        return None

    tables = [work.table_of(table) for table in grid(None)]
    moved = 4 * points.numel() + sum(table.bytes for table in tables)
    return Case("search", contestants, check, bytes=moved)


# --- the number of points -------------------------------------------------------------------------


def scaling_cases(count: int) -> list[Case]:
    """Search and convolution in a landscape of ``count`` points."""
    positions = landscape(count).points
    points = torch.from_numpy(positions)
    radius = reach(LANDSCAPE_CELL, KERNEL_SIZE, 1)

    def grid(_: object = None) -> Neighborhood:
        return PointCloud(points).neighborhood(LANDSCAPE_CELL, KERNEL_SIZE)

    def by_tree(ask: Callable[[KdTree, float], Any], positions: np.ndarray) -> Any:
        return ask(KdTree(positions), radius)

    peers = {
        "ckdtree": partial(by_tree, partial(KdTree.lists, kept=_CHECKED)),
        "ckdtree_pairs": partial(by_tree, KdTree.pairs),
    }
    contestants = [Contestant(OURS, grid)] + [
        Contestant(who, search, prepare=lambda: positions)
        for who, search in peers.items()
        if expected_seconds(search, count) < KDTREE_SECONDS
    ]
    neighborhood = grid()
    table = work.table_of(neighborhood)
    search = Case(
        f"grid_vs_kdtree_{count}",
        contestants,
        lambda results: _wrong_neighbours(results, points),
        bytes=positions.nbytes + table.bytes,
    )

    torch.manual_seed(0)
    features = torch.randn(count, CHANNELS)
    weight = torch.randn(CHANNELS, CHANNELS, *[KERNEL_SIZE] * 3)
    layer = work.Layer(table, CHANNELS, CHANNELS)
    convolution = Case(
        f"conv_{count}",
        [Contestant(OURS, lambda _: cell_conv(features, neighborhood, weight))],
        lambda results: _wrong_convolution(results[OURS], points, features, weight),
        flops=layer.gather + layer.mix,
        bytes=4 * (2 * features.numel() + weight.numel()) + table.bytes,
    )
    return [search, convolution]


def expected_seconds(search: Callable[[np.ndarray], object], count: int) -> float:
    """About how long a kd-tree's search takes on ``count`` points, from 20,000 at most."""
    sample = min(count, 20_000)
    positions = landscape(sample).points
    start = time.perf_counter()
    search(positions)
    seconds = time.perf_counter() - start
    return seconds * (count * math.log(count)) / (sample * math.log(sample))


def _wrong_neighbours(results: dict[str, Any], points: Tensor) -> str | None:
    """How many neighbours each point has, by everyone; and which, of the first ones."""
    counts = results[OURS].row_start.diff()
    for query in torch.linspace(0, len(points) - 1, 16).long().tolist():
        inside, _ = cells(points - points[query], LANDSCAPE_CELL, KERNEL_SIZE, 1)
        if int(inside.sum()) != int(counts[query]):
            return f"{OURS} finds {counts[query]} neighbours of point {query}, not {inside.sum()}"
    theirs = {}
    if "ckdtree" in results:
        theirs["ckdtree"] = results["ckdtree"][0]
    if "ckdtree_pairs" in results:
        pairs = results["ckdtree_pairs"]
        theirs["ckdtree_pairs"] = 1 + np.bincount(pairs.ravel(), minlength=len(points))
    for who, many in theirs.items():
        if not np.array_equal(counts.numpy(), many):
            return f"{who} finds {many.sum():,} neighbours, {OURS} {counts.sum():,}, or of others"
    if "ckdtree" not in results:
        return None
    lists = results["ckdtree"][1]
    first = PointCloud(points).neighborhood(
        LANDSCAPE_CELL, KERNEL_SIZE, queries=PointCloud(points[: len(lists)])
    )
    listed = in_cells(points, *of_lists(lists), LANDSCAPE_CELL, 1)
    same = torch.equal(triples(first, len(lists)), listed)
    return None if same else "the first points have other neighbours by ckdtree"


def _wrong_convolution(
    result: Tensor, points: Tensor, features: Tensor, weight: Tensor
) -> str | None:
    """Some outputs again, by the definition, in float64."""
    chosen = torch.linspace(0, len(points) - 1, 16).long()
    expected = torch.zeros(len(chosen), CHANNELS, dtype=torch.float64)
    for row, query in enumerate(chosen.tolist()):
        inside, cell = cells(points - points[query], LANDSCAPE_CELL, KERNEL_SIZE, 1)
        x = features[inside].double()
        for m in cell.unique().tolist():
            z, y, x_ = m // 9, m // 3 % 3, m % 3
            expected[row] += weight[:, :, z, y, x_].double() @ x[cell == m].mean(dim=0)
    eps = torch.finfo(torch.float32).eps
    same = agree(4 * eps * math.sqrt(KERNEL_SIZE**3 * CHANNELS))
    return same({"the definition": [expected], OURS: [result[chosen]]})


# --- a whole scan ---------------------------------------------------------------------------------


def label_case(sizes: Sizes) -> Case:
    """The labels of a large scan, block by block."""
    prepare = partial(labelling, sizes.scan)
    label = prepare()
    contestant = Contestant(OURS, lambda _: label(), alone=prepare)
    return Case("label_5m", [contestant], partial(_wrong_labels, count=sizes.scan))


def labelling(count: int) -> Callable[[], np.ndarray]:
    """Makes a run and a scan of ``count`` points; what it returns labels them."""
    from pointwise.training.label import label_scan

    run, scan = _random_run(), landscape(count)
    return lambda: label_scan(run, scan)


def _random_run() -> Any:
    """An untrained CellUNet for landscapes: labels that mean nothing take as long."""
    from pointwise.training.plan import plan
    from pointwise.training.sources import Data

    torch.manual_seed(0)
    run = plan(Data("segmentation", [landscape(100_000, seed=1)], [], []))
    run.network.eval()
    return run


def _wrong_labels(results: dict[str, Any], count: int) -> str | None:
    """Every point has a class; and one block gets what the network itself says of it."""
    from pointwise.training.label import label_scan

    run, codes = _random_run(), results[OURS]
    if codes.shape != (count,) or not np.isin(codes, run.recipe.classes.codes).all():
        return f"not each of {count:,} points has a class"
    scan = landscape(10_000, seed=2)
    prepared = run.recipe.prepare(scan)
    index = np.arange(len(prepared.scan))
    points, features = (torch.from_numpy(a) for a in run.recipe.sample(prepared, index))
    with torch.inference_mode():
        logits = run.network(points, features, torch.tensor([0, len(index)]))
    # Each point has the class of the one that stands for it.
    expected = run.recipe.classes.code(logits.argmax(dim=1).numpy())[prepared.cube]
    share = (label_scan(run, scan, votes=1) == expected).mean()
    # The order of the points is another, and so is the last bit of a sum: ties may fall otherwise.
    return None if share > 0.999 else f"only {share:.1%} of a block's labels are the network's own"


if __name__ == "__main__":
    import typer

    typer.run(main)
