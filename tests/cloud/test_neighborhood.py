"""The object that holds who lies in which cell of whom."""

from __future__ import annotations

import copy
import pickle

import oracle
import pytest
import torch
from cases import each, named

from pointwise.cloud import neighborhood as module
from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud
from pointwise.functional.cells import cell_conv, cell_depthwise_conv

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
    search = module.kdtree_search

    def counted(*arguments):
        calls.append(arguments)
        return search(*arguments)

    monkeypatch.setattr(module, "kdtree_search", counted)
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


def pairs_left_out(neighborhood):
    """Every third pair is dropped: no search finds such a table, and nothing mirrors it."""
    assert len(neighborhood.transposed) == 2  # built before, not to be used after
    query, _, _ = neighborhood.decode()
    kept = torch.arange(len(query)) % 3 > 0
    ends = torch.bincount(query[kept], minlength=len(neighborhood.queries)).cumsum(0)
    neighborhood.row_start = torch.cat([ends.new_zeros(1), ends])
    neighborhood.pairs = neighborhood.pairs[kept]


def a_pair_written_to(neighborhood):
    neighborhood.pairs[0] ^= 1  # another point in the same cell


def points_moved(neighborhood):
    neighborhood.points += 5 * torch.arange(len(neighborhood.points))[:, None]


def another_cell_size_named(neighborhood):
    neighborhood.cell_size /= 3


CHANGES = [pairs_left_out, a_pair_written_to, points_moved, another_cell_size_named]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("others", [False, True], ids=["own points", "other queries"])
def test_gradients_follow_a_table_that_was_changed(change, others, reduction):
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(12, 3, dtype=torch.float64, generator=generator)
    offsets = torch.tensor([0, 12])
    asked = (points[:7] + 0.01, torch.tensor([0, 7])) if others else (points, offsets)
    neighborhood = Neighborhood(points, offsets, *asked, 0.3, 3, 1)
    change(neighborhood)
    features = torch.rand(12, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.rand(3, 2, 3, 3, 3, dtype=torch.float64, generator=generator)
    for convolve, kernel in ((cell_conv, weight), (cell_depthwise_conv, weight[:2, :1])):
        torch.autograd.gradcheck(
            lambda x, f=convolve, w=kernel: f(x, neighborhood, w, reduction=reduction), features
        )


@each(FEW)
def test_a_transposed_table_is_the_one_a_search_finds(case):
    found, replaced = case.neighborhood(), case.neighborhood()
    replaced.pairs = replaced.pairs.clone()
    for one, other in zip(found.transposed, replaced.transposed, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_a_copy_knows_whether_its_table_is_the_one_found(copied):
    neighborhood = PointCloud(torch.rand(9, 3)).neighborhood(0.3)
    assert copied(neighborhood).backward_table() == (None, None)
    neighborhood.pairs = neighborhood.pairs.clone()
    assert copied(neighborhood).backward_table() != (None, None)


def test_a_table_put_in_that_is_none_is_refused():
    neighborhood = PointCloud(torch.rand(9, 3)).neighborhood(0.3)
    features, weight = torch.rand(9, 2, requires_grad=True), torch.rand(2, 2, 3, 3, 3)
    neighborhood.pairs = neighborhood.pairs | 15
    with pytest.raises(ValueError, match="are no table of 9 points and 27 kernel cells"):
        cell_conv(features, neighborhood, weight)


def test_a_neighbourhood_that_is_there_already_is_not_copied():
    neighborhood = PointCloud(torch.rand(9, 3)).neighborhood(0.3)
    assert neighborhood.to("cpu") is neighborhood


@each(named("UTM", "lattice, half a cell apart", "batch, down"))
def test_a_neighbourhood_moves_with_its_tables_and_what_is_known_of_them(case, monkeypatch):
    here = case.neighborhood()
    back = here.backward_table()
    monkeypatch.setattr(Neighborhood, "_table", None)  # nothing is searched again
    there = here.to("meta")  # where no value could be read
    tensors = (there.points, there.queries, there.row_start, there.pairs, there.symmetric)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (there.points is there.queries) == (here.points is here.queries)
    assert there.row_start.shape == here.row_start.shape
    moved = there.backward_table()
    if back == (None, None):
        assert moved == back
    else:
        assert [each.shape for each in moved] == [each.shape for each in back]
        assert {each.device.type for each in moved} == {"meta"}
    assert here.pairs.device.type == "cpu"


def test_a_table_put_in_stays_one_that_was_put_in_when_it_moves():
    here = PointCloud(torch.rand(9, 3)).neighborhood(0.3)
    here.pairs = here.pairs.clone()
    assert not here.to("meta")._is_as_found()
