"""The voxel grid against the oracle."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from cases import Case, each, lattice, named, repeated, uniform, walls, with_outlier
from hypothesis import given
from hypothesis import strategies as st

from pointwise.cloud.point_cloud import PointCloud

CASES = [
    Case("one point", uniform(1)),
    Case("none", np.zeros((0, 3))),
    Case("walls", walls(200), cell_size=0.1),
    Case("walls, float32", walls(200), cell_size=0.1, coordinates=torch.float32),
    Case("one voxel", walls(50), cell_size=7.0),
    Case("a voxel each", lattice(4, 0.5), cell_size=0.5),
    Case("on borders", lattice(6, 0.25), cell_size=0.5),
    Case("duplicates", repeated(uniform(20), 5), cell_size=0.3),
    Case("batch", uniform(60), cell_size=0.5, offsets=(0, 0, 1, 30, 30, 60)),
    Case("flat", uniform(100) * [1.0, 1.0, 0.0], cell_size=0.1),
    Case("outlier", with_outlier(walls(60), 2e4, 3e4, -2e4)),
    *named("UTM", "negative", "a long line", "kilometres of centimetres"),
]
FAR = [
    Case("outlier at 100 km", with_outlier(walls(60), 1e5, -1e5, 1e5), cell_size=0.05),
    Case("outlier at 1e10", with_outlier(walls(60), 1e10, 0.5, 0.5), cell_size=0.05),
    Case(
        "outliers of a batch",
        with_outlier(walls(60), 1e12, 1e12, 1e12),
        cell_size=0.3,
        offsets=(0, 0, 30, 61),
    ),
]


def assert_voxels(case: Case) -> None:
    cloud, _ = case.clouds()
    coarse, parent = cloud.voxels(case.cell_size)
    means, offsets, parents = oracle.voxel_grid(case.points, case.cell_size, case.offsets)
    assert parent.tolist() == parents.tolist()
    assert coarse.offsets.tolist() == offsets.tolist()
    assert coarse.points.dtype == case.coordinates
    oracle.assert_close(coarse.points.numpy(), means, terms=len(case.points), what="means")


@each(CASES)
def test_voxels_are_the_oracle(case):
    assert_voxels(case)


@each(FAR)
def test_far_outliers_do_not_make_voxels_larger(case):
    assert_voxels(case)


@given(
    st.lists(st.tuples(*[st.integers(-20, 20).map(lambda n: n / 8)] * 3), max_size=50),
    st.sampled_from([0.125, 0.25, 0.3, 1.0, 40.0]),
)
def test_any_points(rows, size):
    assert_voxels(Case("drawn", np.array(rows).reshape(-1, 3), cell_size=size))


def test_every_point_lies_within_a_voxel_of_its_mean():
    cloud = PointCloud(torch.from_numpy(walls(500)))
    coarse, parent = cloud.voxels(0.1)
    assert 0 < len(coarse) < 500
    assert float((cloud.points - coarse.points[parent]).abs().max()) < 0.1
    assert parent.unique().tolist() == list(range(len(coarse)))


def test_a_size_that_is_no_length():
    with pytest.raises(ValueError, match=r"voxels: .*size must be a positive length.*got 0"):
        PointCloud(torch.rand(4, 3)).voxels(0)


def test_the_first_point_that_is_not_finite_is_named():
    points = torch.rand(9, 3)
    points[5, 1] = float("nan")
    with pytest.raises(ValueError, match=r"voxel_grid: points\[5\] is .*nan"):
        PointCloud(points).voxels(0.1)


def test_a_size_that_float64_cannot_compute_with():
    with pytest.raises(ValueError, match=r"voxel_grid: a cell of edge 1e-300 is beyond"):
        PointCloud(torch.rand(4, 3)).voxels(1e-300)
