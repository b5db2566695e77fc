"""The classes of the points of a scan, and of whole clouds, by a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, overload

import numpy as np
import torch

from pointwise.cloud.frame import Frame
from pointwise.cloud.scan import Scan
from pointwise.training.data import Sample, cut, pack
from pointwise.training.recipe import Prepared, Recipe
from pointwise.training.run import Run

VOTES = 3
Progress = Callable[[int, int], object]  # called with what is done and what there is to do


@overload
def label_scan(
    run: Run,
    scan: Scan,
    progress: Progress | None = None,
    confidence: Literal[False] = False,
    votes: int = VOTES,
) -> np.ndarray: ...


@overload
def label_scan(
    run: Run,
    scan: Scan,
    progress: Progress | None = None,
    *,
    confidence: Literal[True],
    votes: int = VOTES,
) -> tuple[np.ndarray, np.ndarray]: ...


def label_scan(
    run: Run,
    scan: Scan,
    progress: Progress | None = None,
    confidence: bool = False,
    votes: int = VOTES,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """The class codes int64 ``[N]`` of a scan's points, one each.

    Each block is read ``votes`` times, turned about the vertical as training did, and the
    probabilities are averaged: three votes are worth some two points of mIoU, and cost three times
    as much. Reads the scan block by block, in memory that grows only by the codes and one sort.
    With ``confidence`` also the probability float32 ``[N]`` of each point's class; ``progress`` is
    called with what is done and what there is. Raises ValueError where the scan lacks a feature
    that the run was trained with.
    """
    labels = label_tile(run, scan, votes=votes, progress=progress)
    return (labels.codes, labels.confidence) if confidence else labels.codes


class Labels(NamedTuple):
    """The class of each point, and how probable the network holds it to be."""

    codes: np.ndarray  # int64 [N]
    confidence: np.ndarray  # float32 [N]


def label_tile(
    run: Run,
    tile: Scan,
    neighbours: Sequence[Scan] = (),
    frame: Frame | None = None,
    *,
    votes: int = VOTES,
    progress: Progress | None = None,
) -> Labels:
    """The labels of a tile's points, which see those of the neighbours across the seams.

    ``frame`` is that around the whole survey, in the unit learned, and ``neighbours`` hold all its
    points within ``run.recipe.reach`` of the tile; what is further away, or lacks a feature that
    the tile has, is left out here. Then a point has the label that it would have in the merged
    scan, where the run knows its ground's side. Without both, the tile stands alone. Otherwise as
    ``label_scan``.
    """
    codes = np.empty(len(tile), dtype=np.int64)
    certain = np.empty(len(tile), dtype=np.float32)
    if not len(tile):
        return Labels(codes, certain)
    tile, *neighbours = map(run.recipe.in_unit, (tile, *neighbours))
    prepared = run.recipe.prepare(_with_neighbours(run.recipe, tile, neighbours), frame=frame)
    cube = prepared.cube if prepared.cube is not None else np.arange(len(prepared.scan))
    cube = cube[: len(tile)]
    wanted = np.zeros(len(prepared.scan), dtype=bool)
    wanted[cube] = True
    done, count = 0, int(wanted.sum())
    found = np.empty(len(wanted), dtype=np.int64)
    probable = np.empty(len(wanted), dtype=np.float32)
    for index, core in cut(run.recipe, prepared):
        asked = core & wanted[index]
        if not asked.any():
            continue
        probabilities = _mean_of_votes(run, [(prepared, index)], votes)[torch.from_numpy(asked)]
        best, place = probabilities.max(dim=1)
        found[index[asked]] = run.recipe.classes.code(place.cpu().numpy())
        probable[index[asked]] = best.cpu().numpy()
        done += int(asked.sum())
        if progress is not None:
            progress(done, count)
    np.take(found, cube, out=codes)
    np.take(probable, cube, out=certain)
    return Labels(codes, certain)


def _with_neighbours(recipe: Recipe, tile: Scan, neighbours: Sequence[Scan]) -> Scan:
    """The tile's points, and behind them those of the neighbours that it can see."""
    window = Frame.of(tile.points).grown(recipe.reach)
    near = [scan for scan in neighbours if not lacking(recipe, tile, scan)]
    near = [scan.select(window.holds(scan.points)) for scan in near]
    together = [tile, *(scan for scan in near if len(scan))]
    if len(together) == 1:
        return tile
    fields = [name for name in recipe.features.names if name in tile.fields]
    return replace(
        tile,
        points=np.concatenate([scan.points for scan in together]),
        fields={name: np.concatenate([s.fields[name] for s in together]) for name in fields},
        labels=None,
        codes=None,
    )


def lacking(recipe: Recipe, tile: Scan, neighbour: Scan) -> list[str]:
    """The features that a tile has and its neighbour not, or not alike: it cannot be seen then."""
    return [
        name
        for name in recipe.features.names
        if name in tile.fields
        and (
            name not in neighbour.fields
            or neighbour.fields[name].shape[1:] != tile.fields[name].shape[1:]
        )
    ]


def _mean_of_votes(
    run: Run, clouds: Sequence[tuple[Prepared, np.ndarray]], votes: int
) -> torch.Tensor:
    """The probabilities ``[n, classes]``, averaged over the turns, of the points ``index`` of each
    ``(prepared, index)``, or of each of them as a whole."""
    angles = _angles(votes, run.recipe.rotate)
    total = torch.zeros(())
    for angle in angles:
        samples = [
            (*run.recipe.sample(prepared, index, angle=angle), index) for prepared, index in clouds
        ]
        total = total + _logits(run, samples).softmax(dim=1)
    return total / len(angles)


def _angles(votes: int, largest: float) -> list[float]:
    """Turns in degrees, the first of them none, spread over those that training has made."""
    if votes < 1:
        raise ValueError(f"label: --votes must be 1 or more, got {votes}")
    if largest >= 180:
        return [360 * vote / votes for vote in range(votes)]
    if largest <= 0 or votes == 1:
        return [0.0]
    turns = np.linspace(-largest, largest, 2 * (votes // 2) + 1).tolist()
    return sorted(turns, key=abs)[:votes]


def classify_scan(run: Run, scan: Scan, votes: int = VOTES) -> np.ndarray:
    """The probabilities float32 ``[classes]`` of one cloud, in the order of the run's classes."""
    return next(classify_scans(run, [scan], votes=votes))


def classify_scans(
    run: Run, scans: Sequence[Scan], batch: int = 16, votes: int = VOTES
) -> Iterator[np.ndarray]:
    """The probabilities of many clouds, ``batch`` at a time, each a mean of ``votes``.

    Raises ValueError for an empty one.
    """
    for first in range(0, len(scans), batch):
        clouds = [_cloud(run, scan) for scan in scans[first : first + batch]]
        yield from _mean_of_votes(run, clouds, votes).cpu().numpy()


def _cloud(run: Run, scan: Scan) -> tuple[Prepared, np.ndarray]:
    """A cloud as the network reads it, and which of its points."""
    if not len(scan):
        raise ValueError(f"label: {scan.source or scan.name} has no points to classify")
    prepared = run.recipe.prepare(scan)
    # The same points each time, so that a cloud's answer does not change.
    return prepared, run.recipe.thin(np.arange(len(prepared.scan)), np.random.default_rng(0))


@torch.inference_mode()
def _logits(run: Run, samples: Sequence[Sample]) -> torch.Tensor:
    run.network.eval()
    inputs = (part.to(run.device) for part in pack(samples).inputs)
    return run.network(*inputs).float()


def label_probabilities(
    run: Run, scan: Scan, votes: int = VOTES
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields ``(index [n], probabilities [n, classes], share [n])`` of a scan's points, by blocks.

    Every point is in one block; its class by ``label_scan`` is the likeliest. Its share is that of
    a point as the network reads them, which is one for each cube of so many.
    """
    prepared = run.recipe.prepare(scan)
    cube = prepared.cube
    order = np.arange(0) if cube is None else np.argsort(cube, kind="stable")
    first = np.searchsorted(order if cube is None else cube[order], np.arange(len(prepared.scan)))
    for index, core in cut(run.recipe, prepared):
        kept = index[core]
        mean = _mean_of_votes(run, [(prepared, index)], votes)[torch.from_numpy(core)]
        probabilities = mean.cpu().numpy()
        if cube is None:
            yield kept, probabilities, np.ones(len(kept))
            continue
        count = np.append(first, len(order))[kept + 1] - first[kept]  # original points of each
        begin = np.repeat(first[kept] - np.cumsum(count) + count, count)
        row = np.repeat(np.arange(len(kept)), count)
        yield order[begin + np.arange(len(row))], probabilities[row], (1 / count)[row]
