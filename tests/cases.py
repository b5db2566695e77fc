"""One table of inputs, of which the tests of search, gathers and functions are made."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import oracle
import pytest
import torch

from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud
from pointwise.engine.cpu.gemm import ROWS

F32, F64 = torch.float32, torch.float64


def uniform(count, extent=1.0, seed=0):
    """Points anywhere in a cube."""
    return np.random.default_rng(seed).random((count, 3)) * extent


def walls(count, seed=0):
    """Points on the floor and two walls of a room of 1 × 1 × 1, as a scanner sees it."""
    points = uniform(count, 1.0, seed)
    points[np.arange(count), np.arange(count) % 3] = 0.0
    return points


def lattice(side, step):
    """A lattice in random order; with cells of a few exact steps, points lie on cell borders."""
    axes = np.arange(side) * step
    points = np.stack(np.meshgrid(axes, axes, axes), axis=-1).reshape(-1, 3)
    return points[np.random.default_rng(1).permutation(len(points))]


def repeated(points, times):
    """Every point several times, in random order."""
    return np.random.default_rng(2).permutation(np.repeat(points, times, axis=0))


def with_outlier(points, *position):
    """One point far from all others."""
    return np.concatenate([points, [position]])


@dataclass
class Case:
    """Inputs of a convolution: where the points lie, how the kernel looks, and what is computed."""

    name: str
    points: np.ndarray
    channels: tuple[int, int] = (3, 7)
    cell_size: float = 0.2
    kernel_size: int = 3
    dilation: int = 1
    reduction: str = "mean"
    dtype: torch.dtype = F32
    coordinates: torch.dtype = F64
    offsets: tuple[int, ...] | None = None
    queries: np.ndarray | None = None
    query_offsets: tuple[int, ...] | None = None
    layout: str = "contiguous"
    bias: bool = True

    def __post_init__(self) -> None:
        # The oracle sees the coordinates as the search does: after rounding to their own type.
        self.points = torch.as_tensor(self.points, dtype=self.coordinates).numpy()
        if self.queries is not None:
            self.queries = torch.as_tensor(self.queries, dtype=self.coordinates).numpy()

    @property
    def mean(self) -> bool:
        return self.reduction == "mean"

    @property
    def cells(self) -> int:
        return self.kernel_size**3

    @property
    def asked(self) -> np.ndarray:
        return self.points if self.queries is None else self.queries

    @property
    def rows(self) -> int:
        return len(self.asked)

    @cached_property
    def table(self) -> np.ndarray:
        """The oracle's (query, cell, point)."""
        query_offsets = self.offsets if self.queries is None else self.query_offsets
        return oracle.neighbours(self.points, self.asked, self.cell_size, self.kernel_size,
                                 self.dilation, self.offsets, query_offsets)  # fmt: skip

    @property
    def terms(self) -> int:
        return oracle.terms(self.table, max(self.channels), self.cells)

    def clouds(self) -> tuple[PointCloud, PointCloud]:
        """(points, queries) anew; the same object twice where the points ask about themselves."""
        cloud = _cloud(self.points, self.offsets)
        return cloud, cloud if self.queries is None else _cloud(self.queries, self.query_offsets)

    def neighborhood(self, search: str = "grid") -> Neighborhood:
        cloud, asked = self.clouds()
        return cloud.neighborhood(self.cell_size, self.kernel_size, self.dilation, asked, search)

    def random(self, role: str, *shape: int, scale: float = 1.0) -> torch.Tensor:
        """Numbers in the case's type and layout, always the same for a role."""
        generator = np.random.default_rng(zlib.crc32(f"{self.name} {role}".encode()))
        values = torch.from_numpy(scale * generator.standard_normal(shape)).to(self.dtype)
        return values if role == "bias" else laid_out(values, self.layout)

    def features(self) -> torch.Tensor:
        return self.random("features", len(self.points), self.channels[0])

    def weight(self) -> torch.Tensor:
        c_in, c_out = self.channels
        scale = (c_in * self.cells) ** -0.5
        return self.random("weight", c_out, c_in, *[self.kernel_size] * 3, scale=scale)

    def depthwise_weight(self) -> torch.Tensor:
        scale = self.cells**-0.5
        return self.random("depthwise", self.channels[0], 1, *[self.kernel_size] * 3, scale=scale)

    def pointwise_weight(self) -> torch.Tensor:
        return self.random("pointwise", *self.channels[::-1], scale=self.channels[0] ** -0.5)

    def bias_values(self) -> torch.Tensor | None:
        return self.random("bias", self.channels[1]) if self.bias else None

    def gradient(self, channels: int) -> torch.Tensor:
        return self.random("gradient", self.rows, channels)


def _cloud(points: np.ndarray, offsets) -> PointCloud:
    return PointCloud(torch.from_numpy(points), None if offsets is None else torch.tensor(offsets))


def laid_out(values: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values, contiguous or with the strides of a slice or of a transpose."""
    if layout == "sliced":
        wide = values.new_full([2 * n + 1 for n in values.shape], float("nan"))
        part = wide[tuple(slice(1, None, 2) for _ in values.shape)]
        return part.copy_(values)
    if layout == "transposed":
        order = tuple(reversed(range(values.dim())))
        return values.permute(order).contiguous().permute(order)
    return values


UTM = np.array([500_000.0, 5_400_000.0, 300.0])

CASES = [
    # How many points: around the tile of rows (T = ROWS … 8·ROWS) and the tile of queries (256).
    *[
        Case(f"{n} points", uniform(n, seed=n), dtype=dtype)
        for n, dtype in ((1, F32), (2, F64), (ROWS - 1, F32), (ROWS, F64), (ROWS + 1, F32))
    ],
    *[
        Case(f"{n} points, kernel 1", uniform(n, seed=n), (1, 3), kernel_size=1, dtype=dtype)
        for n, dtype in ((8 * ROWS - 1, F32), (8 * ROWS, F64), (8 * ROWS + 1, F32))
    ],
    *[Case(f"{n} points, search", walls(n), (1, 1), 0.1) for n in (31, 33, 255, 256, 257)],
    # Channels: no multiple of a register, and more than fit in four.
    *[
        Case(f"{c} channels", walls(40), (c, 9), dtype=F32)
        for c in (1, 3, 7, 9, 16, 17, 33, 64, 70)
    ],
    *[Case(f"{c} channels, float64", walls(40), (c, 17), dtype=F64) for c in (9, 17, 33, 70)],
    *[Case(f"to {c} channels", walls(40), (5, c), bias=c != 33) for c in (1, 16, 17, 33, 64, 70)],
    # Kernels.
    *[
        Case(f"kernel {k}, dilation {d}, {how}", walls(90, seed=k), (4, 5), 0.12, k, d, how)
        for k, d, how in (
            (1, 1, "sum"),
            (1, 3, "mean"),
            (3, 1, "sum"),
            (3, 2, "mean"),
            (3, 3, "sum"),
            (5, 1, "mean"),
            (5, 2, "sum"),
            (5, 3, "mean"),
        )
    ],
    # Nobody there.
    Case("no points", np.zeros((0, 3))),
    Case("no queries", walls(10), queries=np.zeros((0, 3))),
    Case("queries of nothing", np.zeros((0, 3)), queries=walls(10)),
    Case("empty clouds in a batch", uniform(30), offsets=(0, 0, 12, 12, 12, 30, 30)),
    Case(
        "a batch where one side is empty",
        uniform(30),
        offsets=(0, 0, 10, 30),
        queries=uniform(20, seed=1),
        query_offsets=(0, 10, 10, 20),
    ),
    Case("queries outside", uniform(30), queries=uniform(30, seed=1) + [3.0, 0.0, 0.0]),
    Case("queries partly outside", walls(30), queries=2 * walls(45, seed=1) - 0.5, dtype=F64),
    Case("alone in the own cell", uniform(40, extent=1000.0)),
    # Many in one place.
    Case("all equal", np.full((40, 3), 0.3), reduction="sum"),
    Case("all equal, mean", np.full((70, 3), 0.3), (9, 2), dtype=F64),
    Case("duplicates", repeated(walls(20), 4), kernel_size=5, dtype=F64),
    Case("crowded cell", uniform(120, 0.4), (2, 3), 1.0, kernel_size=1),
    # On the borders of half-open cells.
    Case("lattice, one cell apart", lattice(4, 0.5), cell_size=0.5, dtype=F64),
    Case("lattice, half a cell apart", lattice(4, 0.25), cell_size=0.5),
    Case("lattice, quarter of a cell apart", lattice(5, 0.125), (2, 3), 0.5, dtype=F64),
    Case("lattice, dilated", lattice(6, 0.25), (2, 3), 0.5, 3, 2),
    Case("lattice, dilated by 3, sum", lattice(6, 0.5), (2, 3), 1.0, 3, 3, "sum", F64),
    Case("lattice, float32", lattice(4, 0.25), cell_size=0.25, coordinates=F32),
    Case("lattice of tenths", lattice(5, 0.1), (2, 2), 0.1, coordinates=F32),
    # Where in the world.
    Case("UTM", walls(60) + UTM, cell_size=0.1, dtype=F64),
    Case("UTM, lattice", lattice(4, 0.25) + UTM, cell_size=0.5, kernel_size=5),
    Case("UTM in float32", walls(60) * 20 + UTM, cell_size=2.0, coordinates=F32),
    Case("negative", walls(60) - 7.7, cell_size=0.15),
    Case(
        "kilometres of centimetres",
        repeated(uniform(50, 5000.0), 2) + 0.004 * uniform(100),
        cell_size=0.01,
    ),
    Case("a long line", uniform(80) * [8000.0, 0.02, 0.02], cell_size=50.0, kernel_size=5),
    Case("a tall thin mast", uniform(80) * [0.02, 0.02, 90.0], cell_size=0.5, dilation=3),
    Case("outlier along x", with_outlier(walls(60), 1e10, 0.5, 0.5)),
    Case("outlier along y", with_outlier(walls(60), 0.5, -1e15, 0.5)),
    Case("outlier along z", with_outlier(walls(60), 0.5, 0.5, 1e13), dilation=2),
    Case("outlier along all axes", with_outlier(walls(60), 1e12, -1e12, 1e12)),
    # Layouts of the features and weights in memory.
    Case("sliced", walls(50), (9, 5), layout="sliced"),
    Case("sliced, float64", walls(50), (5, 18), layout="sliced", dtype=F64, reduction="sum"),
    Case("transposed", walls(50), (17, 5), layout="transposed"),
    Case(
        "transposed, other queries",
        walls(50),
        (5, 5),
        layout="transposed",
        dtype=F64,
        queries=uniform(33, seed=3),
    ),
    # Batches.
    Case("batch", walls(90), offsets=(0, 1, 40, 90), dtype=F64),
    Case(
        "batch, down",
        walls(90),
        offsets=(0, 50, 90),
        queries=walls(20, seed=1),
        query_offsets=(0, 5, 20),
        cell_size=0.3,
    ),
    Case(
        "batch, up, sum",
        walls(20),
        (8, 3),
        0.4,
        reduction="sum",
        offsets=(0, 5, 20),
        queries=walls(90, seed=1),
        query_offsets=(0, 50, 90),
        kernel_size=5,
    ),
]


def named(*names: str) -> list[Case]:
    """Some of the cases."""
    by_name = {case.name: case for case in CASES}
    return [by_name[name] for name in names]


def each(cases=CASES):
    """Runs a test once for every case."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)
