"""Counts of convolutions on clouds: exact on a neighbourhood, upper bounds without one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from pointwise import PointCloud, costs


@pytest.fixture
def cloud() -> PointCloud:
    generator = torch.Generator().manual_seed(4)
    return PointCloud(torch.rand(60, 3, generator=generator), torch.tensor([0, 25, 60]))


@pytest.fixture
def queries() -> PointCloud:
    generator = torch.Generator().manual_seed(5)
    points = torch.rand(14, 3, generator=generator)
    points[3] += 50  # who has no neighbour at all
    return PointCloud(points, torch.tensor([0, 6, 14]))


def by_loops(neighborhood, c_in, c_out, mean):
    """(multiplications, multiply-adds, additions) of equation 1, query by query."""
    cells = Counter(zip(*(part.tolist() for part in neighborhood.decode()[:2]), strict=True))
    products = scales = additions = 0
    for query in range(len(neighborhood.queries)):
        occupied = [count for (q, _), count in cells.items() if q == query]
        additions += sum((count - 1) * c_in for count in occupied)  # neighbours of a cell
        scales += len(occupied) * c_in if mean else 0
        products += len(occupied) * c_in * c_out
        additions += max(0, len(occupied) * c_in - 1) * c_out  # products of a result
    return products + scales, products, additions


@pytest.mark.parametrize("mean", [True, False])
def test_cell_conv_is_counted_as_loops_do(cloud, queries, mean):
    reduction = "mean" if mean else "sum"
    for neighborhood in (cloud.neighborhood(0.2), cloud.neighborhood(0.2, queries=queries)):
        found = costs.cell_conv(neighborhood, 5, 7, reduction=reduction)
        expected = by_loops(neighborhood, 5, 7, mean)
        assert (found.multiplications, found.multiply_adds, found.additions) == expected
        assert found.exact
        assert found.parameters == 27 * 5 * 7
        table = 8 * (len(neighborhood.queries) + 1) + 4 * len(neighborhood.pairs)
        assert found.bytes_read == table + 4 * (60 * 5 + found.parameters)
        assert found.bytes_written == 4 * len(neighborhood.queries) * 7
        with_bias = costs.cell_conv(neighborhood, 5, 7, reduction=reduction, bias=True)
        assert with_bias.additions - found.additions == len(neighborhood.queries) * 7
        assert with_bias.parameters - found.parameters == 7


def test_the_depthwise_one_takes_a_multiply_add_for_each_cell_and_channel(cloud, queries):
    neighborhood = cloud.neighborhood(0.2, queries=queries)
    multiplications, products, _ = by_loops(neighborhood, 5, 1, True)
    found = costs.cell_depthwise_conv(neighborhood, 5)
    assert (found.multiplications, found.multiply_adds) == (multiplications, products)
    assert costs.cell_depthwise_conv(neighborhood, 5, reduction="sum").multiplications == products
    reached = len(set(neighborhood.decode()[0].tolist()))
    assert reached < len(queries)
    assert found.additions == (len(neighborhood.pairs) - reached) * 5


def test_the_separable_one_is_its_halves(cloud):
    neighborhood = cloud.neighborhood(0.2)
    found = costs.cell_separable_conv(neighborhood, 5, 7, bias=True)
    first = costs.cell_depthwise_conv(neighborhood, 5)
    assert found.multiply_adds - first.multiply_adds == 60 * 5 * 7
    assert found.parameters == 27 * 5 + 5 * 7 + 7
    joined = costs.cell_separable_conv(neighborhood, 5, 7, bias=True, joined=True)
    assert found.bytes - joined.bytes == 2 * 4 * 60 * 5


@pytest.mark.parametrize("size", [0.05, 0.3, 5.0])
def test_without_neighbours_the_counts_are_upper_bounds(cloud, size):
    neighborhood = cloud.neighborhood(size)
    for make in (
        lambda where: costs.cell_conv(where, 5, 7),
        lambda where: costs.cell_depthwise_conv(where, 5),
        lambda where: costs.cell_separable_conv(where, 5, 7),
    ):
        exact, most = make(neighborhood), make(60)
        assert exact.exact
        assert not most.exact
        for name in ("multiplications", "multiply_adds", "additions", "bytes_read"):
            assert getattr(exact, name) <= getattr(most, name)
        assert exact.bytes_written == most.bytes_written
        assert exact.parameters == most.parameters


def test_the_bound_is_reached():
    """27 points, one in each cell of the middle one; and all of them neighbours of one query."""
    axis = torch.tensor([-1.0, 0.0, 1.0])
    points = torch.cartesian_prod(axis, axis, axis)
    queries = PointCloud(torch.zeros(1, 3))
    found = costs.cell_conv(PointCloud(points).neighborhood(1.0, queries=queries), 2, 3)
    most = costs.cell_conv(27, 2, 3, queries=1)
    assert found.multiply_adds == most.multiply_adds == 27 * 2 * 3
    assert found.additions == most.additions
    assert found.bytes == most.bytes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: costs.cell_conv("cloud", 3, 4), "cloud must be a Neighborhood, for exact counts"),
        (lambda: costs.cell_conv(0, 3, 4), "or a number of points, for upper bounds, got 0"),
        (lambda: costs.cell_conv(9, 3, 4, 2), "kernel_size must be an odd whole number"),
        (lambda: costs.cell_conv(9, 0, 4), "cell_conv: in_channels must be a whole number"),
        (lambda: costs.cell_conv(9, 3, 0), "cell_conv: out_channels must be a whole number"),
        (lambda: costs.cell_conv(9, 3, 4, queries=0), "queries must be a whole number from 1"),
        (lambda: costs.cell_conv(9, 3, 4, reduction="max"), "reduction must be one of"),
        (lambda: costs.cell_depthwise_conv(9, 0), "channels must be a whole number from 1"),
        (lambda: costs.cell_separable_conv(9, 0, 2), "in_channels must be a whole number from 1"),
        (lambda: costs.cell_separable_conv(9, 2, 0), "out_channels must be a whole number from 1"),
    ],
)
def test_wrong_clouds_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
