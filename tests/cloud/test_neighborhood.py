"""The object that holds who lies in which cell of whom."""

from __future__ import annotations

import oracle
import pytest
import torch
from cases import each, named

from pointwise.cloud import kdtree
from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud

FEW = named(
    "lattice, half a cell apart",
    "batch, down",
    "kernel 5, dilation 2, sum",
    "no points",
    "queries of nothing",
)


@each(FEW)
def test_decode_gives_query_cell_point(case):
    neighborhood = case.neighborhood()
    decoded = torch.stack(neighborhood.decode(), dim=1)
    assert decoded.tolist() == case.table.tolist()
    assert neighborhood.cells == case.kernel_size**3


@each(FEW)
def test_the_transposed_table_is_built_once(case):
    neighborhood = case.neighborhood()
    row_start, pairs = neighborhood.transposed
    turned = oracle.turned(case.table)
    oracle.assert_same_table(row_start, pairs, turned, len(case.points), case.rows)
    assert neighborhood.transposed[1] is pairs


def test_backward_needs_no_table_where_no_pair_lies_on_a_border():
    inside, on_border, other = (
        case.neighborhood()
        for case in named("UTM", "lattice, half a cell apart", "queries partly outside")
    )
    assert bool(inside.symmetric)
    assert inside.backward_table() == (None, None)
    for neighborhood in (on_border, other):
        assert not bool(neighborhood.symmetric)
        assert neighborhood.backward_table() is neighborhood.transposed


def test_kdtree_is_used_where_asked(monkeypatch):
    (case,) = named("batch, down")
    calls = []
    search = kdtree.kdtree_search

    def watched(*arguments):
        calls.append(arguments)
        return search(*arguments)

    monkeypatch.setattr(kdtree, "kdtree_search", watched)
    neighborhood = case.neighborhood("kdtree")
    assert len(calls) == 1
    assert torch.equal(neighborhood.pairs, case.neighborhood("grid").pairs)
    assert len(calls) == 1


def test_repr_says_how_many():
    cloud = PointCloud(torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [5.0, 0.0, 0.0]]))
    assert repr(cloud.neighborhood(0.1, 3, 2)) == (
        "Neighborhood(3 queries among 3 points, cell_size=0.1, kernel_size=3, dilation=2: "
        "3 pairs, 1.0 per query)"
    )


def test_gradients_do_not_flow_into_positions():
    points = torch.rand(20, 3, requires_grad=True)
    neighborhood = PointCloud(points).neighborhood(0.5)
    assert not neighborhood.pairs.requires_grad
    assert len(neighborhood.pairs) > 20


def test_as_many_queries_clouds_as_point_clouds():
    cloud, asked = (
        PointCloud(torch.rand(4, 3)),
        PointCloud(torch.rand(4, 3), torch.tensor([0, 1, 4])),
    )
    with pytest.raises(ValueError, match="1 clouds of points but 2 of queries"):
        cloud.neighborhood(0.1, queries=asked)


def test_directly_with_a_cell_size_that_is_a_whole_number():
    points, offsets = torch.rand(10, 3), torch.tensor([0, 10])
    neighborhood = Neighborhood(points, offsets, points, offsets, 1, 1, 1)
    assert len(neighborhood.pairs) > 10
