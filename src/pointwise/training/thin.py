"""Fewer points, evenly spread: what lies in one small cube becomes one point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from pointwise import operators  # noqa: F401  (registers torch.ops.pointwise)
from pointwise.cloud.extent import find_extent
from pointwise.cloud.frame import Frame
from pointwise.cloud.scan import UNLABELLED, Scan

FEW = 100  # points that tell nothing of how dense a scan is


def thin(
    scan: Scan, spacing: float, fields: Sequence[str] = (), frame: Frame | None = None
) -> tuple[Scan, np.ndarray]:
    """One point for each occupied cube of edge ``spacing``, and the cube of each point ``[N]``.

    A point is the mean of those in its cube, in its place and in ``fields``, and has the label that
    most of them have. So a scanner's dense surroundings weigh no more than the rest of the room.
    Strays stay as they are. The first cube lies in the scan's lowest corner, or in that of the
    ``frame`` which the scan is a part of.
    """
    position, cube = _cubes(scan.points, spacing, frame)
    count = np.bincount(cube, minlength=len(position))
    means = {name: _mean(scan.fields[name], cube, count) for name in fields if name in scan.fields}
    labels = None if scan.labels is None else _most_frequent(scan.labels, cube, len(position))
    return replace(scan, points=position, fields=means, labels=labels, codes=None), cube


def far_sparser(scan: Scan, spacing: float) -> bool:
    """Whether next to no two points share a cube, even one of eight times the ``spacing``."""
    return len(scan) > FEW and len(_cubes(scan.points, 8 * spacing, None)[0]) > 0.9 * len(scan)


def _cubes(
    points: np.ndarray, spacing: float, frame: Frame | None
) -> tuple[np.ndarray, np.ndarray]:
    """The mean position of each cube, and the cube of each point; a stray has one of its own."""
    stray = find_extent(points).stray
    # A mapped file cannot be written to, of which PyTorch warns: so it is copied.
    whole = np.require(points, requirements=["C", "W"])
    inside = torch.from_numpy(points[~stray] if stray.any() else whole)
    if frame is None:
        position, cube = _grid(inside, spacing)
    else:
        # The grid begins in the lowest corner of what it is given. Coordinates of files are round
        # numbers, often on the border of two cubes, so that no other corner would do.
        corner = torch.tensor([frame.low], dtype=torch.float64)
        position, cube = _grid(torch.cat([corner, inside]), spacing)
        cube = cube[1:]
        if (first := cube == 0).any():
            position[0] = inside.numpy()[first].mean(axis=0)
        else:
            position, cube = position[1:], cube - 1
    if not stray.any():
        return position, cube
    cubes = np.empty(len(points), dtype=np.int64)
    cubes[~stray] = cube
    cubes[stray] = len(position) + np.arange(stray.sum())
    return np.concatenate([position, points[stray]]), cubes


def _grid(points: torch.Tensor, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    found = torch.ops.pointwise.voxel_grid(points, torch.tensor([0, len(points)]), spacing)
    return found[0].numpy(), found[2].numpy()


def _mean(values: np.ndarray, cube: np.ndarray, count: np.ndarray) -> np.ndarray:
    columns = values.reshape(len(values), -1).T
    sums = [np.bincount(cube, weights=column, minlength=len(count)) for column in columns]
    mean = (np.stack(sums, axis=1) / count[:, None]).astype(np.float32)
    return mean.reshape(len(count), *values.shape[1:])


def _most_frequent(labels: np.ndarray, cube: np.ndarray, cubes: int) -> np.ndarray:
    """The label of each cube; the lowest where several are as frequent, none where none has one."""
    known = labels != UNLABELLED
    codes, index = np.unique(labels[known], return_inverse=True)
    pairs, count = np.unique(cube[known] * len(codes) + index, return_counts=True)
    found = np.full(cubes, UNLABELLED, dtype=np.int64)
    order = np.lexsort((-pairs, count))  # the most frequent last, which is the one that stays
    if len(codes):
        found[pairs[order] // len(codes)] = codes[pairs[order] % len(codes)]
    return found
