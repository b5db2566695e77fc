"""A voxel grid: one point for each occupied cube, at the mean of the points inside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointwise import checks
from pointwise.engine.cpu.search import grid
from pointwise.engine.search import check_size


def voxel_grid(points: Tensor, offsets: Tensor, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """(mean positions ``[V, 3]``, offsets ``[B+1]``, parent ``[N]``: the voxel of each point).

    Each cloud's grid starts at its lowest corner. Voxels are in the order (cloud, z, y, x), so that
    neighbours in space are neighbours in memory. A mean is the sum of its points one by one, in
    their own order, over their number: so that every device gives the same bits.
    """
    checks.offsets("voxel_grid", "offsets", offsets, len(points))
    check_size("voxel_grid", size)
    exact = grid.as_float64(points)
    offsets_here = offsets.cpu().contiguous()
    corners = grid.bounds("voxel_grid", exact, offsets_here)
    count = len(points)
    if count == 0:
        parent = torch.zeros(0, dtype=torch.int64, device=points.device)
        return points.new_zeros(0, 3), torch.zeros_like(offsets), parent
    order, new = _sorted(exact, offsets_here, corners, size)
    starts = np.flatnonzero(new)
    voxel = np.empty(count, dtype=np.int64)
    voxel[order] = np.cumsum(new) - 1
    sizes = np.diff(np.append(starts, count))
    sums = [np.bincount(voxel, weights=axis) for axis in exact.numpy().T]
    mean = torch.from_numpy(np.stack(sums, axis=1) / sizes[:, None]).to(points)
    coarse = np.searchsorted(starts, offsets_here.numpy())
    return (
        mean,
        torch.from_numpy(coarse).to(offsets.device, torch.int64),
        torch.from_numpy(voxel).to(points.device),
    )


def _sorted(
    points: Tensor, offsets: Tensor, corners: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """(order ``[N]``, whether each point in that order begins a new voxel)."""
    count = len(points)
    frame = grid.make_frame(corners, size, size)
    if frame.edge == size:
        built = grid.build(points, offsets, frame)
        new = np.concatenate(([True], built.key[1:] != built.key[:-1]))
        return built.order[:count], new
    # Some point is so far away that the indices do not fit one key: the same in NumPy, slower.
    cloud = np.repeat(np.arange(len(offsets) - 1), offsets.diff().numpy())
    index = np.floor((points.numpy() - frame.origin[cloud]) * (1 / size))
    order = np.lexsort((*index.T, cloud))
    sorted_index = np.column_stack([cloud, index])[order]
    new = np.concatenate(([True], (sorted_index[1:] != sorted_index[:-1]).any(axis=1)))
    return order, new
