"""A voxel grid: one point for each occupied cube, at the mean of the points inside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise.cloud import grid


def voxel_grid(points: Tensor, offsets: Tensor, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """(mean positions ``[V, 3]``, offsets ``[B+1]``, parent ``[N]``: the voxel of each point).

    Each cloud's grid starts at its lowest corner. Voxels are in the order (cloud, z, y, x), so that
    neighbours in space are neighbours in memory.
    """
    exact = grid.as_float64(points)
    offsets_here = offsets.cpu().contiguous()
    corners = grid.bounds("voxel_grid", exact, offsets_here)
    sorted_points = grid.build(exact, offsets_here, grid.make_frame(corners, size, size))
    count = len(points)
    if count == 0:
        parent = torch.zeros(0, dtype=torch.int64, device=points.device)
        return points.new_zeros(0, 3), torch.zeros_like(offsets), parent
    keys = sorted_points.key
    new = np.concatenate(([True], keys[1:] != keys[:-1]))
    starts = np.flatnonzero(new)
    parent = np.empty(count, dtype=np.int64)
    parent[sorted_points.order[:count]] = np.cumsum(new) - 1
    sizes = np.diff(np.append(starts, count))
    sums = np.add.reduceat(sorted_points.position[:, :count], starts, axis=1)
    mean = torch.from_numpy(np.ascontiguousarray((sums / sizes).T)).to(points)
    coarse = np.searchsorted(starts, offsets_here.numpy())
    return (
        mean,
        torch.from_numpy(coarse).to(offsets.device, torch.int64),
        torch.from_numpy(parent).to(points.device),
    )
