"""Packed clouds: making them, converting them, and remembering their neighbourhoods."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointwise.cloud.neighborhood import Neighborhood
from pointwise.cloud.point_cloud import PointCloud, pack_padded, pad_packed


def some(count=12, *offsets):
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(count))
    return PointCloud(points, torch.tensor(offsets) if offsets else None)


def test_one_cloud_by_default():
    cloud = some(5)
    assert cloud.offsets.tolist() == [0, 5]
    assert len(cloud) == 5
    assert repr(some(5, 0, 2, 2, 5)) == "PointCloud(5 points in 3 clouds)"


def test_wrong_positions_and_offsets_are_refused():
    with pytest.raises(ValueError, match=r"PointCloud: points must be a tensor \[N, 3\]"):
        PointCloud(torch.rand(3, 5))
    with pytest.raises(ValueError, match="PointCloud: offsets must start at 0"):
        PointCloud(torch.rand(3, 3), torch.tensor([0, 2]))


def test_neighborhoods_are_remembered_for_each_kernel_and_query():
    cloud, asked = some(30), some(10)
    first = cloud.neighborhood(0.2)
    assert cloud.neighborhood(0.2, 3, 1) is first
    assert cloud.neighborhood(0.2, queries=cloud) is first
    others = [
        cloud.neighborhood(0.3),
        cloud.neighborhood(0.2, 5),
        cloud.neighborhood(0.2, 3, 2),
        cloud.neighborhood(0.2, queries=asked),
        cloud.neighborhood(0.2, search="kdtree"),
    ]
    assert len({id(first), *map(id, others)}) == 6
    assert cloud.neighborhood(0.2, queries=asked) is others[3]


def test_queries_that_are_gone_are_not_mistaken_for_new_ones():
    cloud = some(30)
    for _ in range(20):  # a new object soon gets the address of an old one
        asked = PointCloud(torch.rand(4, 3) + 5 * torch.rand(1))
        found = cloud.neighborhood(0.2, queries=asked)
        assert found.queries is asked.points


def test_the_tables_go_with_the_cloud():
    # Not when the cyclic collector next runs: it counts objects, and tables are gigabytes.
    gc.disable()
    try:
        cloud = some(30)
        table = weakref.ref(cloud.neighborhood(0.2))
        assert table() is not None
        del cloud
        assert table() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda cloud: pickle.loads(pickle.dumps(cloud))],
    ids=["copy", "pickle"],
)
def test_copies_answer_the_same(again):
    cloud = some(30, 0, 10, 30)
    pairs = cloud.neighborhood(0.3).pairs
    other = again(cloud)
    assert other is not cloud
    assert torch.equal(other.points, cloud.points)
    assert other.offsets.tolist() == [0, 10, 30]
    found = other.neighborhood(0.3)
    assert found.points is other.points
    assert torch.equal(found.pairs, pairs)


def test_copies_remember_too(monkeypatch):
    cloud, asked = some(30), some(10)
    kept = [cloud.neighborhood(0.2), cloud.neighborhood(0.2, queries=asked)]
    other, other_asked = pickle.loads(pickle.dumps((cloud, asked)))
    with monkeypatch.context() as patch:
        patch.setattr(Neighborhood, "_table", None)  # a search would fail
        found = [other.neighborhood(0.2), other.neighborhood(0.2, queries=other_asked)]
    assert found[1].queries is other_asked.points
    for old, new in zip(kept, found, strict=True):
        assert torch.equal(old.pairs, new.pairs)


def test_batch_vector_there_and_back():
    cloud = some(7, 0, 3, 3, 7)
    assert cloud.batch.tolist() == [0, 0, 0, 2, 2, 2, 2]
    again = PointCloud.from_batch(cloud.points, cloud.batch)
    assert again.offsets.tolist() == [0, 3, 3, 7]
    assert PointCloud.from_batch(torch.zeros(0, 3), torch.zeros(0).long()).offsets.tolist() == [0]


@pytest.mark.parametrize(
    "batch",
    [torch.tensor([0, 1, 0]), torch.tensor([0, 0]), torch.zeros(3, 1).long()],
    ids=["falling", "short", "two dimensions"],
)
def test_batch_vector_that_does_not_fit(batch):
    with pytest.raises(
        ValueError, match=r"from_batch: batch must be \[N=3\] and ascending, .* sort the points"
    ):
        PointCloud.from_batch(torch.rand(3, 3), batch)


def test_padded_there_and_back():
    padded = torch.rand(3, 5, 3)
    cloud = PointCloud.from_padded(padded, torch.tensor([5, 0, 2]))
    assert cloud.offsets.tolist() == [0, 5, 5, 7]
    assert torch.equal(cloud.points, torch.cat([padded[0], padded[2, :2]]))
    again = pad_packed(cloud.points, cloud.offsets, fill=-1.0)
    assert again.shape == (3, 5, 3)
    assert torch.equal(again[2, :2], padded[2, :2])
    assert bool((again[1] == -1).all())
    assert bool((again[2, 2:] == -1).all())
    assert PointCloud.from_padded(padded).offsets.tolist() == [0, 5, 10, 15]


def test_padding_that_does_not_fit():
    with pytest.raises(ValueError, match=r"from_padded: points must be \[B, N, 3\], got \(5, 3\)"):
        PointCloud.from_padded(torch.rand(5, 3))
    for lengths in ([6, 1], [1], [-1, 2]):
        with pytest.raises(ValueError, match=r"lengths must be \[B=2\] between 0 and 5, got \["):
            pack_padded(torch.rand(2, 5, 3), torch.tensor(lengths))


@given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 4))
def test_pad_and_pack_are_inverse(lengths, channels):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    values = torch.rand(int(offsets[-1]), channels)
    packed, again = pack_padded(pad_packed(values, offsets), torch.tensor(lengths).long())
    assert torch.equal(packed, values)
    assert torch.equal(again, offsets)


def test_an_unknown_search_is_refused():
    with pytest.raises(ValueError, match="search must be one of 'grid', 'kdtree', got 'octree'"):
        some(3).neighborhood(0.1, search="octree")


def test_wrong_kernels_are_refused():
    with pytest.raises(ValueError, match="neighborhood: cell_size must be a positive length"):
        some(3).neighborhood(-0.1)
    with pytest.raises(ValueError, match="neighborhood: kernel_size must be an odd whole number"):
        some(3).neighborhood(0.1, 4)
