"""The classes of the points of a scan, and of whole clouds, by a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, overload

import numpy as np
import torch

from pointwise.cloud.scan import Scan
from pointwise.training.data import Sample, cut, pack
from pointwise.training.recipe import Prepared
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
    codes = np.empty(len(scan), dtype=np.int64)
    certain = np.empty(len(scan) if confidence else 0, dtype=np.float32)
    done = 0
    if len(scan):
        prepared = run.recipe.prepare(scan)
        count = len(prepared.scan)
        for index, core in cut(run.recipe, prepared):
            kept = index[core]
            probabilities = _mean_of_votes(run, prepared, index, votes)[torch.from_numpy(core)]
            best, place = probabilities.max(dim=1)
            codes[kept] = run.recipe.classes.code(place.numpy())
            if confidence:
                certain[kept] = best.numpy()
            done += len(kept)
            if progress is not None:
                progress(done, count)
        if prepared.cube is not None:
            codes[:] = codes[prepared.cube]
            if confidence:
                certain[:] = certain[prepared.cube]
    return (codes, certain) if confidence else codes


def _mean_of_votes(run: Run, prepared: Prepared, index: np.ndarray, votes: int) -> torch.Tensor:
    """The probabilities ``[n, classes]`` of a block's points, averaged over its turns."""
    angles = _angles(votes, run.recipe.rotate)
    total = torch.zeros(())
    for angle in angles:
        points, features = run.recipe.sample(prepared, index, angle=angle)
        total = total + _logits(run, [(points, features, index)]).softmax(dim=1)
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


def classify_scan(run: Run, scan: Scan) -> np.ndarray:
    """The probabilities float32 ``[classes]`` of one cloud, in the order of the run's classes."""
    return next(classify_scans(run, [scan]))


def classify_scans(run: Run, scans: Sequence[Scan], batch: int = 16) -> Iterator[np.ndarray]:
    """The probabilities of many clouds, ``batch`` at a time; raises ValueError for an empty one."""
    for first in range(0, len(scans), batch):
        samples = [_cloud(run, scan) for scan in scans[first : first + batch]]
        yield from _logits(run, samples).softmax(dim=1).numpy()


def _cloud(run: Run, scan: Scan) -> Sample:
    if not len(scan):
        raise ValueError(f"label: {scan.source or scan.name} has no points to classify")
    prepared = run.recipe.prepare(scan)
    # The same points each time, so that a cloud's answer does not change.
    index = run.recipe.thin(np.arange(len(prepared.scan)), np.random.default_rng(0))
    return *run.recipe.sample(prepared, index), index


@torch.inference_mode()
def _logits(run: Run, samples: Sequence[Sample]) -> torch.Tensor:
    run.network.eval()
    inputs = (part.to(run.device) for part in pack(samples).inputs)
    return run.network(*inputs).float().cpu()


def label_probabilities(
    run: Run, scan: Scan, votes: int = VOTES
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields ``(index [n], probabilities [n, classes])`` of a scan's points, block by block.

    Every point is in one block; its class by ``label_scan`` is the likeliest.
    """
    prepared = run.recipe.prepare(scan)
    cube = prepared.cube
    order = np.arange(0) if cube is None else np.argsort(cube, kind="stable")
    first = np.searchsorted(order if cube is None else cube[order], np.arange(len(prepared.scan)))
    for index, core in cut(run.recipe, prepared):
        kept = index[core]
        probabilities = _mean_of_votes(run, prepared, index, votes)[torch.from_numpy(core)].numpy()
        if cube is None:
            yield kept, probabilities
            continue
        count = np.append(first, len(order))[kept + 1] - first[kept]  # original points of each
        begin = np.repeat(first[kept] - np.cumsum(count) + count, count)
        row = np.repeat(np.arange(len(kept)), count)
        yield order[begin + np.arange(len(row))], probabilities[row]
