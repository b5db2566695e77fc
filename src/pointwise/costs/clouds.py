"""What convolutions on point clouds cost: it depends on which points are neighbours.

From a ``Neighborhood`` the counts are exact. From a number of points they are upper bounds: every
point is then taken for a neighbour of every query, and every cell for occupied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pointwise import checks
from pointwise.convolution.cells import index_bits
from pointwise.convolution.shift import offset_channels
from pointwise.costs.convolutions import FLOAT
from pointwise.costs.count import Count

if TYPE_CHECKING:
    from torch import Tensor

    from pointwise.cloud.neighborhood import Neighborhood


@dataclass(frozen=True)
class TableSize:
    """The size of a neighbourhood, or where it is not ``exact`` the largest it can be."""

    points: int
    queries: int
    pairs: int
    occupied: int  # cells with a neighbour in them, over all queries
    reached: int  # queries with a neighbour at all
    cells: int  # of the kernel, k³
    exact: bool = True

    @property
    def bytes(self) -> int:
        """Of the table itself: where each row starts, and a cell and a point for each pair."""
        return 8 * (self.queries + 1) + 4 * self.pairs


def table_of(neighborhood: Neighborhood) -> TableSize:
    """Counts the pairs and occupied cells of a neighbourhood."""
    points = neighborhood.points.shape[0]
    return count_table(neighborhood.row_start, neighborhood.pairs, points, neighborhood.cells)


def count_table(row_start: Tensor, pairs: Tensor, points: int, cells: int) -> TableSize:
    """The same from ``row_start [Nq+1]`` and ``pairs [P]`` (see ``Neighborhood``)."""
    cell, begins = _cells_of_pairs(row_start, pairs, points)
    reached = int(np.count_nonzero(np.diff(row_start.detach().cpu().numpy())))
    occupied = int(np.count_nonzero(begins))
    return TableSize(points, len(row_start) - 1, len(cell), occupied, reached, cells)


def _cells_of_pairs(row_start: Tensor, pairs: Tensor, points: int) -> tuple[np.ndarray, np.ndarray]:
    """(cell ``[P]``, whether a run of neighbours in one cell begins ``[P]``) of every pair."""
    starts = row_start.detach().cpu().numpy()
    cell = pairs.detach().cpu().numpy().view(np.uint32) >> np.uint32(index_bits(points))
    begins = np.ones(len(cell), dtype=bool)
    np.not_equal(cell[1:], cell[:-1], out=begins[1:])
    begins[starts[:-1][starts[:-1] < len(cell)]] = True
    return cell, begins


def largest_table(points: int, queries: int, cells: int, pairs: int | None = None) -> TableSize:
    """The largest table that so many points and queries can have."""
    pairs = queries * points if pairs is None else pairs
    occupied = min(queries * cells, pairs)
    return TableSize(points, queries, pairs, occupied, min(queries, pairs), cells, exact=False)


def cell_conv(
    cloud: Neighborhood | int,
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    queries: int | None = None,
    reduction: str = "mean",
    bias: bool = False,
    number_bytes: int = FLOAT,
) -> Count:
    """``functional.cell_conv`` on a neighbourhood; an upper bound for a number of points.

    With ``reduction="mean"`` each occupied cell and channel takes a multiplication, by one over the
    number of neighbours; then each occupied cell takes in_channels · out_channels multiply-adds.
    ``kernel_size`` and ``queries`` (without: as many as points) go with a number of points; a
    neighbourhood knows its own.
    """
    table = _table("cell_conv", cloud, kernel_size, queries, reduction)
    checks.positive("cell_conv", "in_channels", in_channels)
    checks.positive("cell_conv", "out_channels", out_channels)
    return count_cells(table, in_channels, out_channels, reduction == "mean", bias, number_bytes)


def cell_depthwise_conv(
    cloud: Neighborhood | int,
    channels: int,
    kernel_size: int = 3,
    *,
    queries: int | None = None,
    reduction: str = "mean",
    number_bytes: int = FLOAT,
) -> Count:
    """``functional.cell_depthwise_conv``: one multiply-add for each occupied cell and channel."""
    table = _table("cell_depthwise_conv", cloud, kernel_size, queries, reduction)
    checks.positive("cell_depthwise_conv", "channels", channels)
    return count_cells_depthwise(table, channels, reduction == "mean", number_bytes)


def cell_separable_conv(
    cloud: Neighborhood | int,
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    queries: int | None = None,
    reduction: str = "mean",
    bias: bool = False,
    number_bytes: int = FLOAT,
    joined: bool = False,
) -> Count:
    """``functional.cell_separable_conv``: the depthwise one, then a pointwise mix at each query.

    ``joined`` is for both in one tile loop, as in inference: what lies between stays in cache.
    """
    from pointwise.costs.convolutions import join

    table = _table("cell_separable_conv", cloud, kernel_size, queries, reduction)
    checks.positive("cell_separable_conv", "in_channels", in_channels)
    checks.positive("cell_separable_conv", "out_channels", out_channels)
    first = count_cells_depthwise(table, in_channels, reduction == "mean", number_bytes)
    second = count_matrix(table.queries, in_channels, out_channels, bias, number_bytes)
    return sum(join(first, second) if joined else (first, second), Count())


def count_cells(
    table: TableSize, in_channels: int, out_channels: int, mean: bool, bias: bool, number_bytes: int
) -> Count:
    """``cell_conv`` over a table: means, then the mix of what is in occupied cells."""
    gathered = table.occupied * in_channels
    products = gathered * out_channels
    outputs = table.queries * out_channels
    weights = table.cells * in_channels * out_channels
    biases = out_channels if bias else 0
    sums_in_cells = table.pairs * in_channels - gathered
    sums_over_cells = products - table.reached * out_channels
    return Count(
        parameters=weights + biases,
        multiplications=products + (gathered if mean else 0),
        multiply_adds=products,
        additions=sums_in_cells + sums_over_cells + (outputs if bias else 0),
        outputs=outputs,
        bytes_read=table.bytes + number_bytes * (table.points * in_channels + weights + biases),
        bytes_written=number_bytes * outputs,
        exact=table.exact,
    )


def count_cells_depthwise(table: TableSize, channels: int, mean: bool, number_bytes: int) -> Count:
    """``cell_depthwise_conv`` over a table."""
    products = table.occupied * channels
    weights = table.cells * channels
    return Count(
        parameters=weights,
        multiplications=products * (2 if mean else 1),
        multiply_adds=products,
        additions=(table.pairs - table.reached) * channels,
        outputs=table.queries * channels,
        bytes_read=table.bytes + number_bytes * (table.points * channels + weights),
        bytes_written=number_bytes * table.queries * channels,
        exact=table.exact,
    )


def count_cells_shift(
    table: TableSize,
    moved: tuple[int, int],
    in_channels: int,
    out_channels: int,
    mean: bool,
    bias: bool,
    number_bytes: int,
) -> Count:
    """``cell_shift_conv`` over a table: as many means as there are channels, then the mix.

    ``moved`` is what ``count_moved`` finds: only means multiply, by one over a number.
    """
    mix = count_matrix(table.queries, in_channels, out_channels, bias, number_bytes)
    gathered, occupied = moved
    features = (table.points - table.queries) * in_channels  # read in place of the mix's rows
    return replace(
        mix,
        multiplications=mix.multiplications + (occupied if mean else 0),
        additions=mix.additions + gathered - occupied,
        bytes_read=mix.bytes_read + table.bytes + number_bytes * features,
        exact=table.exact,
    )


def count_moved(
    row_start: Tensor, pairs: Tensor, points: int, cells: int, channels: int
) -> tuple[int, int]:
    """(pairs, occupied cells) over all channels, each of which reads one kernel cell."""
    cell, begins = _cells_of_pairs(row_start, pairs, points)
    gathered, occupied = (np.bincount(found, minlength=cells) for found in (cell, cell[begins]))
    own = [(int(cell), len(some)) for cell, some in offset_channels(channels, cells)]
    return sum(int(gathered[m]) * n for m, n in own), sum(int(occupied[m]) * n for m, n in own)


def count_matrix(
    rows: int, in_channels: int, out_channels: int, bias: bool, number_bytes: int = FLOAT
) -> Count:
    """``x @ weight.T + bias`` for ``x [rows, in_channels]``: a linear layer, or a pointwise one."""
    products = rows * in_channels * out_channels
    weights, biases = in_channels * out_channels, out_channels if bias else 0
    outputs = rows * out_channels
    return Count(
        parameters=weights + biases,
        multiplications=products,
        multiply_adds=products,
        additions=products - (0 if bias else outputs),
        outputs=outputs,
        bytes_read=number_bytes * (rows * in_channels + weights + biases),
        bytes_written=number_bytes * outputs,
    )


def _table(
    caller: str, cloud: Neighborhood | int, kernel_size: int, queries: int | None, reduction: str
) -> TableSize:
    from pointwise.cloud.neighborhood import Neighborhood

    checks.one_of(caller, "reduction", reduction, ("mean", "sum"))
    if isinstance(cloud, Neighborhood):
        return table_of(cloud)
    if not checks.whole(cloud) or cloud < 1:
        raise ValueError(
            f"{caller}: cloud must be a Neighborhood, for exact counts, or a number of points, for "
            f"upper bounds, got {cloud!r}"
        )
    checks.kernel(caller, 1.0, kernel_size, 1)
    if queries is not None:
        checks.positive(caller, "queries", queries)
    return largest_table(cloud, cloud if queries is None else queries, kernel_size**3)
