from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointwise.training.columns import Columns, blocks


def clouds(seed: int, count: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 10, size=(count, 3))
    if kind == "utm":
        points += (499_999.123, 5_400_000.7, 0)
    if kind == "grid":  # many points exactly on the edges of cells and blocks
        points = np.round(points)
    if kind == "pole":
        points[: count // 2, :2] = 3.0
    if kind == "far":
        points[0] = 1e7
    if kind == "line":
        points[:, 1] = 2.0
    return points


KINDS = ["plain", "utm", "grid", "pole", "far", "line"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    count=st.integers(1, 400),
    kind=st.sampled_from(KINDS),
    side=st.floats(0.3, 20),
    most=st.integers(1, 60),
)
def test_every_point_is_in_exactly_one_core(seed, count, kind, side, most):
    points = clouds(seed, count, kind)
    seen = np.zeros(count, dtype=int)
    for index, core in blocks(Columns(points, side / 8), side, side / 8, most):
        assert 0 < len(index) <= most
        assert len(np.unique(index)) == len(index)
        assert core.any()
        seen[index[core]] += 1
    assert (seen == 1).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(KINDS),
    low=st.tuples(st.floats(-3, 11), st.floats(-3, 11)),
    size=st.tuples(st.floats(0, 14), st.floats(0, 14)),
)
def test_rectangle_finds_what_a_mask_finds(seed, kind, low, size):
    points = clouds(seed, 200, kind)
    low = np.array(low) + np.median(np.round(points[:, :2] / 1e4) * 1e4, axis=0)
    high = low + size
    found = Columns(points, 0.7).rectangle(low, high)
    inside = ((points[:, :2] >= low) & (points[:, :2] < high)).all(axis=1)
    np.testing.assert_array_equal(np.sort(found), np.flatnonzero(inside))


def test_a_core_sees_its_margin():
    points = clouds(0, 4000, "plain")
    for index, core in blocks(Columns(points, 0.5), side=4.0, margin=0.5, most=4000):
        low, high = points[index[core], :2].min(axis=0), points[index[core], :2].max(axis=0)
        # The core reaches at least as far as its points, and the margin goes half a unit beyond.
        near = ((points[:, :2] > low - 0.5) & (points[:, :2] < high + 0.5)).all(axis=1)
        assert np.isin(np.flatnonzero(near), index).all()
        assert (np.ptp(points[index, :2], axis=0) <= 4.0).all()


def test_a_small_scan_is_one_block():
    points = clouds(0, 50, "utm")
    parts = list(blocks(Columns(points, 2), side=30.0, margin=3.0, most=50))
    assert len(parts) == 1
    assert parts[0][1].all()


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_do_not_depend_on_the_order_of_the_points(kind):
    points = clouds(3, 300, kind)
    order = np.random.default_rng(0).permutation(300)
    one = {frozenset(i[c]) for i, c in blocks(Columns(points, 0.5), 4.0, 0.5, 300)}
    two = {frozenset(order[i[c]]) for i, c in blocks(Columns(points[order], 0.5), 4.0, 0.5, 300)}
    assert one == two
