"""The same work with other tools: SciPy's kd-tree, Open3D's hashed grid, and plain PyTorch.

Nothing here uses pointwise's own search or kernels, so that agreeing with it means something.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pointwise.extras import import_extra

# Search radii are a little larger than the kernel, and what is beyond is filtered out: a neighbour
# on the very edge must not be lost to rounding (Open3D's coordinates are float32).
_WIDER = 1 + 1e-6
_QUERIES_AT_ONCE = 1 << 16  # of which SciPy's Python lists fit into memory


def reach(cell_size: float, kernel_size: int, dilation: int) -> float:
    """How far a kernel reaches from its centre along an axis, in the unit of ``cell_size``."""
    return ((kernel_size - 1) // 2 * dilation + 0.5) * cell_size


def cells(
    delta: Tensor, cell_size: float, kernel_size: int, dilation: int
) -> tuple[Tensor, Tensor]:
    """(which offsets ``[P, 3]`` float64 lie in the kernel, the cell number of those)."""
    centre, pitch = (kernel_size - 1) // 2, dilation * cell_size
    cell = torch.floor(delta * (1 / pitch) + 0.5)
    rest = delta - cell * pitch
    inside = cell.abs().amax(dim=1) <= centre
    if dilation > 1:
        inside &= ((rest >= -cell_size / 2) & (rest < cell_size / 2)).all(dim=1)
    x, y, z = (cell[inside].long() + centre).unbind(1)
    return inside, (z * kernel_size + y) * kernel_size + x


class KdTree:
    """SciPy's kd-tree of one cloud ``[N, 3]``, which answers for cubes of any size."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points.astype(np.float64)
        self.tree = import_extra("scipy.spatial", "bench").cKDTree(self.points)

    def lists(self, radius: float, kept: int = 0) -> tuple[np.ndarray, list[list[int]]]:
        """How many points lie in the cube about each point, and the first ``kept`` lists.

        Everyone's neighbours are listed; only as many lists are kept as memory should hold.
        """
        counts, first = [], []
        for start in range(0, len(self.points), _QUERIES_AT_ONCE):
            found = self.tree.query_ball_point(
                self.points[start : start + _QUERIES_AT_ONCE],
                radius,
                p=np.inf,
                workers=torch.get_num_threads(),
                return_sorted=False,
            )
            counts.append(np.fromiter(map(len, found), dtype=np.int64, count=len(found)))
            first += found[: max(0, kept - start)].tolist()
        return np.concatenate(counts), first

    def pairs(self, radius: float) -> np.ndarray:
        """Each pair of points ``[P, 2]`` in each other's cube once, and no point with itself.

        Many times as fast as the lists, on one thread, but in no order: still to be doubled, and
        sorted by query, before anyone's neighbours can be read from it.
        """
        return self.tree.query_pairs(radius, p=np.inf, output_type="ndarray")

    def table(
        self, cell_size: float, kernel_size: int, dilation: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(query, cell, point) of every neighbour, each ``[P]``, in no order."""
        pairs = torch.from_numpy(self.pairs(reach(cell_size, kernel_size, dilation) * _WIDER))
        own = torch.arange(len(self.points))
        query = torch.cat((pairs[:, 0], pairs[:, 1], own))
        point = torch.cat((pairs[:, 1], pairs[:, 0], own))
        points = torch.from_numpy(self.points)
        inside, cell = cells(points[point] - points[query], cell_size, kernel_size, dilation)
        return query[inside], cell, point[inside]


class HashedGrid:
    """Open3D's fixed-radius search, in the L∞ metric, on a batch of clouds.

    It builds a hash table for each radius, and searches on all cores.
    """

    def __init__(self) -> None:
        layers = import_extra("open3d.ml.torch", "bench").layers
        self.layer = layers.FixedRadiusSearch(metric="Linf", ignore_query_point=False)

    def __call__(self, points: Tensor, offsets: Tensor, radius: float) -> tuple[Tensor, Tensor]:
        """(row starts ``[N + 1]``, neighbours ``[P]``) of float32 points, in the cube of each."""
        found = self.layer(points, points, radius * _WIDER, offsets, offsets)
        return found.neighbors_row_splits, found.neighbors_index


def hashed_grid() -> HashedGrid | None:
    """Open3D's search, or None where there is no wheel for this system or this PyTorch."""
    try:
        return HashedGrid()
    except Exception:  # Open3D raises a bare Exception where it was built for another PyTorch
        return None


class PlainSegmentation(nn.Module):
    """``Hua2018Segmentation`` in plain PyTorch, with the weights of one.

    A kd-tree per cloud, asked once for each dilation; means by ``index_add``; one matrix product
    per layer. It goes cloud by cloud, so that what it gathers stays in cache.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        trunk = list(network.trunk.layers)  # type: ignore[union-attr, arg-type]
        convolutions = [*trunk, network.head]
        self.kernels = [(c.cell_size, c.kernel_size, c.dilation) for c in convolutions]
        # [C_out, C_in, k, k, k] as [M·C_in, C_out], as it is multiplied.
        self.weights = nn.ParameterList(
            c.weight.detach().flatten(2).permute(2, 1, 0).flatten(0, 1).clone()
            for c in convolutions
        )

    def forward(self, points: Tensor, offsets: Tensor) -> Tensor:
        spans = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        return torch.cat([self._cloud(points[first:last]) for first, last in spans])

    def _cloud(self, points: Tensor) -> Tensor:
        tree = KdTree(points.numpy())
        tables = {kernel: tree.table(*kernel) for kernel in dict.fromkeys(self.kernels)}
        x, outputs = points, []
        for kernel, weight in zip(self.kernels[:-1], self.weights[:-1], strict=True):
            x = torch.selu(_convolve(x, tables[kernel], weight))
            outputs.append(x)
        return torch.selu(
            _convolve(torch.cat(outputs, dim=1), tables[self.kernels[-1]], self.weights[-1])
        )


def _convolve(x: Tensor, table: tuple[Tensor, Tensor, Tensor], weight: Tensor) -> Tensor:
    """``x [N, C_in]`` to ``[N, C_out]``, for ``weight [M·C_in, C_out]``."""
    query, cell, point = table
    count = len(weight) // x.shape[1]
    where = query * count + cell
    sums = x.new_zeros(len(x) * count, x.shape[1]).index_add(0, where, x[point])
    number = torch.bincount(where, minlength=len(sums)).clamp(min=1)
    return (sums / number[:, None]).view(len(x), -1) @ weight
