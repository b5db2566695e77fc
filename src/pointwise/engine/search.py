"""What searches share on all devices: what they refuse, and how wide the rows of a grid are."""

from __future__ import annotations

import math

from torch import Tensor

from pointwise import checks

# Lengths and coordinates in this range can be divided, multiplied and added up in float64.
SMALLEST, LARGEST = 1e-150, 1e150
# The indices of a point along the axes, and the number of its cloud, are one sorting key.
KEY_BITS = 62
# An index along one axis: it fits int32, and rounding stays far below the margin.
INDEX_BITS = 31
# Rows are matched on rounded indices; this margin (in cells) is far above the rounding of
# coordinates and far below the price of a row more.
MARGIN = 1e-6


def check(
    points: Tensor,
    point_offsets: Tensor,
    queries: Tensor,
    query_offsets: Tensor,
    cell_size: float,
    kernel_size: int,
    dilation: int,
    read_offsets: bool = True,
) -> None:
    """Refuses all that kernels could not be run on, but for coordinates.

    Without ``read_offsets`` their values are left to the caller, where reading them would wait.
    """
    checks.positions("cell_search", "points", points)
    checks.positions("cell_search", "queries", queries)
    alike = point_offsets.shape == query_offsets.shape
    for name, offsets, of in (
        ("point_offsets", point_offsets, points),
        ("query_offsets", query_offsets, queries),
    ):
        checks.offsets("cell_search", name, offsets, len(of), values=read_offsets or not alike)
        checks.same_device("cell_search", name, offsets, "points", points)
    checks.same_device("cell_search", "queries", queries, "points", points)
    checks.kernel("cell_search", cell_size, kernel_size, dilation)
    checks.table_width("cell_search", max(len(points), len(queries)), kernel_size)
    if not alike:
        raise ValueError(
            f"cell_search: {len(point_offsets) - 1} clouds of points but "
            f"{len(query_offsets) - 1} of queries; every query searches the cloud of its own number"
        )
    check_size("cell_search", cell_size)


def check_size(caller: str, size: float) -> None:
    """Refuses the edge of a cell that float64 cannot divide by, or add up."""
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(
            f"{caller}: a cell of edge {size!r} is beyond what float64 can compute with; use one "
            f"from {SMALLEST:g} to {LARGEST:g}, or another unit"
        )


def refuse_point(caller: str, points: Tensor, index: int) -> None:
    """Raises ValueError for the point at ``index``, which is not finite or too far away."""
    row = points[index].tolist()
    checks.finite(caller, "points", -1 if all(map(math.isfinite, row)) else index, row)
    raise ValueError(
        f"{caller}: points[{index}] is {row}; coordinates must lie within ±{LARGEST:g}, which "
        "float64 can compute with: use a larger unit, or drop such points first"
    )


def reach_of(cell_size: float, kernel_size: int, dilation: int) -> float:
    """How far from a query the kernel's last cell ends, along each axis."""
    return (kernel_size - 1) // 2 * (dilation * cell_size) + cell_size / 2


def row_edge(cell_size: float, kernel_size: int, dilation: int) -> float:
    """Of the square that a row of the grid has as its cross-section.

    A contiguous kernel needs 3 × 3 rows of half its width; one with gaps looks only at the rows
    that its cells touch, for which narrower rows are better. All dilations of a 3 × 3 × 3 kernel
    share one grid.
    """
    narrow = dilation > 1 or kernel_size == 3
    reach = reach_of(cell_size, kernel_size, dilation)
    return (1.5 * cell_size if narrow else reach) * (1 + MARGIN)
