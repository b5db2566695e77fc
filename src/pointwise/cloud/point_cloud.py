"""A batch of point clouds, packed one behind the other."""

from __future__ import annotations

import torch
from torch import Tensor

from pointwise import checks
from pointwise.cloud.neighborhood import SEARCHES, Neighborhood


class PointCloud:
    """Positions of one or several clouds, and the neighbourhoods built on them so far.

    ``points [N, 3]`` float32 or float64; ``offsets [B+1]`` int64: cloud b is
    ``points[offsets[b]:offsets[b+1]]`` (default: one cloud of all points). Features are kept apart,
    one row ``[N, C]`` per point. Raises ValueError for wrong shapes, and when a neighbourhood is
    built for coordinates that are not finite.

    >>> cloud = PointCloud(torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    >>> cloud.neighborhood(cell_size=0.1)
    Neighborhood(2 queries among 2 points, cell_size=0.1, kernel_size=3, dilation=1: 4 pairs, 2.0 per query)
    """  # noqa: E501

    def __init__(self, points: Tensor, offsets: Tensor | None = None) -> None:
        checks.positions("PointCloud", "points", points)
        if offsets is None:  # made on the device: to copy it there would be to wait
            offsets = torch.arange(2, device=points.device) * points.shape[0]
        else:
            checks.offsets("PointCloud", "offsets", offsets, points.shape[0])
        self.points = points
        self.offsets = offsets
        self._built: dict[tuple, Neighborhood] = {}

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        return f"PointCloud({len(self.points):,} points in {len(self.offsets) - 1} clouds)"

    def neighborhood(
        self,
        cell_size: float,
        kernel_size: int = 3,
        dilation: int = 1,
        queries: PointCloud | None = None,
        search: str = "grid",
    ) -> Neighborhood:
        """The neighbours of ``queries`` (default: of the points themselves) among the points.

        Cell m of query q is the half-open cube of edge ``cell_size`` (in the unit of the points)
        centred at ``q + dilation·cell_size·(m - (k-1)/2)``. Built at the first call and remembered.
        ``search`` is "grid", or "kdtree" (SciPy) for comparison; both give the same answer.
        """
        checks.kernel("neighborhood", cell_size, kernel_size, dilation)
        checks.one_of("neighborhood", "search", search, SEARCHES)
        asked = self if queries is None else queries
        # The key holds the queries themselves, so that no other object takes their place; and not
        # this cloud, which would then keep itself and its tables alive.
        key = (float(cell_size), kernel_size, dilation, None if asked is self else asked, search)
        if key not in self._built:
            self._built[key] = Neighborhood(
                self.points,
                self.offsets,
                asked.points,
                asked.offsets,
                float(cell_size),
                kernel_size,
                dilation,
                search,
            )
        return self._built[key]

    def voxels(self, size: float) -> tuple[PointCloud, Tensor]:
        """One point for each occupied cube of edge ``size``, and each point's cube ``[N]``."""
        checks.length("voxels", "size", size)
        points, offsets, parent = torch.ops.pointwise.voxel_grid(
            self.points, self.offsets, float(size)
        )
        coarse = PointCloud(points)
        coarse.offsets = offsets  # right as they are: a check would wait for a GPU
        return coarse, parent

    @property
    def batch(self) -> Tensor:
        """The number of the cloud of each point, ``[N]`` int64 (PyTorch Geometric's ``batch``)."""
        clouds = torch.arange(self.offsets.shape[0] - 1, device=self.offsets.device)
        return torch.repeat_interleave(
            clouds, self.offsets.diff(), output_size=self.points.shape[0]
        )

    @classmethod
    def from_batch(cls, points: Tensor, batch: Tensor) -> PointCloud:
        """From PyTorch Geometric's form: ``batch [N]`` int64, ascending."""
        checks.positions("PointCloud.from_batch", "points", points)
        fits = isinstance(batch, Tensor) and batch.dim() == 1 and batch.dtype == torch.int64
        fits = fits and len(batch) == len(points) and (len(batch) == 0 or int(batch[0]) >= 0)
        if not fits or bool((batch.diff() < 0).any()):
            raise ValueError(
                f"PointCloud.from_batch: batch must be [N={len(points)}] and ascending, "
                f"got {checks.describe(batch)}; sort the points by batch first"
            )
        clouds = int(batch[-1]) + 1 if len(batch) else 0
        counts = torch.bincount(batch, minlength=clouds)
        return cls(points, torch.cat((counts.new_zeros(1), counts.cumsum(0))))

    @classmethod
    def from_padded(cls, points: Tensor, lengths: Tensor | None = None) -> PointCloud:
        """From ``[B, N, 3]``, of which the first ``lengths [B]`` rows of each cloud count."""
        if not isinstance(points, Tensor) or points.dim() != 3 or points.shape[2] != 3:
            raise ValueError(
                f"PointCloud.from_padded: points must be [B, N, 3], got {checks.describe(points)}"
            )
        packed, offsets = pack_padded(points, lengths)
        return cls(packed, offsets)


def pack_padded(values: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``[B, N, C]`` as (``[ΣN, C]``, offsets ``[B+1]``), without the padding."""
    clouds, most = values.shape[:2]
    if lengths is None:
        lengths = torch.full((clouds,), most, device=values.device)
    if lengths.shape != (clouds,) or bool((lengths > most).any()) or bool((lengths < 0).any()):
        raise ValueError(
            f"pack_padded: lengths must be [B={clouds}] between 0 and {most}, "
            f"got {lengths.tolist()}"
        )
    inside = torch.arange(most, device=values.device) < lengths[:, None]
    offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
    return values[inside], offsets.long()


def pad_packed(values: Tensor, offsets: Tensor, fill: float = 0.0) -> Tensor:
    """``[ΣN, C]`` as ``[B, N, C]``, with ``fill`` behind the shorter clouds."""
    lengths = offsets.diff()
    most = int(lengths.max()) if len(lengths) else 0
    padded = values.new_full((len(lengths), most, *values.shape[1:]), fill)
    inside = torch.arange(most, device=values.device) < lengths[:, None]
    padded[inside] = values
    return padded
