"""What is planned and labelled with a few points far away: as if they were not there."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pointwise.cloud.scan import Scan
from pointwise.training.columns import Columns, blocks
from pointwise.training.data import feed
from pointwise.training.ground import Ground
from pointwise.training.label import classify_scan, label_scan
from pointwise.training.plan import plan
from pointwise.training.recipe import sizes_differ, to_unit_sphere
from pointwise.training.sources import Data
from pointwise.training.spacing import default_block, default_cell_size
from pointwise.training.split import cut_in_space

SITE = np.random.default_rng(0).random((5000, 3)) * (100, 100, 2) + (500_000, 5_500_000, 100)
SITE[:, 2] += 0.3 * (SITE[:, 0] - 500_000)  # a slope
FAR = {
    "origin": np.zeros((1, 3)),
    "20 km": SITE[:1] + (20_000, 0, 0),
    "no data": np.full((3, 3), 3.4e38),
    "below": SITE[:3] - (0, 0, 2000),
    "5 %, elsewhere": SITE[:250] + 1e5,
}


def with_far(kind: str) -> Scan:
    points = np.concatenate([SITE, FAR[kind]])
    labels = np.where(np.arange(len(points)) % 2, 2, 6)
    return Scan(points, labels=labels)


@pytest.mark.parametrize("kind", FAR)
def test_sizes_are_those_of_the_rest(kind):
    scan, alone = with_far(kind), Scan(SITE)
    assert default_cell_size([scan], occupancy=5) == default_cell_size([alone], occupancy=5)
    for most in (10_000, 1000):  # the scan as a whole, or in blocks
        sizes = [default_block([each], points=500, most=most) for each in (scan, alone)]
        assert sizes[0] == sizes[1]
    assert np.abs(Ground(scan.points).height(SITE) - Ground(SITE).height(SITE)).max() < 1e-3
    assert not sizes_differ([alone, alone, scan]) or kind == "5 %, elsewhere"


def test_each_of_two_sites_has_its_own_ground():
    there = SITE + (100_000, 0, 500)
    height = Ground(np.concatenate([SITE, there])).height(np.concatenate([SITE, there]))
    np.testing.assert_allclose(height[:5000], Ground(SITE).height(SITE), atol=1e-3)
    np.testing.assert_allclose(height[5000:], height[:5000], atol=1e-3)


@pytest.mark.parametrize("kind", FAR)
def test_every_point_is_labelled_and_none_trained_about_is_a_stray(kind):
    scan = with_far(kind)
    run = plan(Data("segmentation", [scan], [], []), network="TinyPoints")
    tracemalloc.start()
    codes = label_scan(run, scan, votes=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e7
    assert len(codes) == len(scan)
    assert set(codes.tolist()) <= {2, 6}
    batches = feed(run.recipe, [scan], [scan]).train.dataset
    for points, features, _ in (batches[i] for i in range(20)):
        assert np.isfinite(features).all()
        assert len(points) > 100
        assert np.abs(points[:, :2]).max() < 150


@pytest.mark.parametrize("kind", FAR)
def test_coordinates_in_a_block_keep_their_digits(kind):
    scan = with_far(kind)
    run = plan(Data("segmentation", [scan], [], []), network="TinyPoints")
    prepared = run.recipe.prepare(scan)
    inside = np.flatnonzero((np.abs(prepared.scan.points - SITE[0]) < 150).all(axis=1))
    index = np.append(inside, len(prepared.scan) - 1)  # with one that is far
    local = run.recipe.sample(prepared, index)[0]
    points = prepared.scan.points[inside]
    error = (local[: len(inside)] - local[0]) - (points - points[0])
    assert np.abs(error).max() < 1e-4 or kind == "5 %, elsewhere"  # which no block joins
    assert np.isfinite(local).all()


def test_every_point_is_in_one_core_however_far():
    points = np.concatenate([SITE, np.zeros((700, 3)), [[1e300, -1e300, 0]]])
    away = np.arange(len(points)) >= 5000
    seen = np.zeros(len(points), dtype=int)
    for index, core in blocks(Columns(points, 2.0, away), 20.0, 2.0, 300):
        assert len(index) <= 300
        np.add.at(seen, index[core], 1)
        assert away[index].all() or not away[index].any()
    assert (seen == 1).all()


def test_tiles_cost_what_they_hold_and_not_the_way_between():
    points = np.concatenate([SITE, SITE + (1e9, 1e9, 0)])
    tracemalloc.start()
    cores = sum(core.sum() for _, core in blocks(Columns(points, 1.0), 10.0, 1.0, 10_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cores == 10_000
    assert peak < 1e7


def test_whole_clouds_are_of_their_class_whatever_lies_far_away():
    def cloud(seed, *far):
        points = np.random.default_rng(seed).random((300, 3)) * (1, 1, 1 + seed % 2)
        return Scan(np.concatenate([points, *far]), label=seed % 2)

    clean = [cloud(seed) for seed in range(4)]
    run = plan(Data("classification", clean, [], []), network="TinyClouds")
    run.network.eval()
    stray = cloud(0, np.full((1, 3), 1e6))
    np.testing.assert_array_equal(classify_scan(run, stray), classify_scan(run, clean[0]))
    np.testing.assert_array_equal(to_unit_sphere(stray).points, to_unit_sphere(clean[0]).points)
    again = plan(Data("classification", [stray, *clean[1:]], [], []), network="TinyClouds")
    assert again.arguments == run.arguments
    assert again.recipe.unit_sphere == run.recipe.unit_sphere


def test_a_scene_is_cut_where_it_is_long():
    points = SITE * (1, 0.1, 1)
    labels = np.arange(5001) % 2
    far = [[points[0, 0], -1e7, 0]]
    kept, held = cut_in_space(Scan(np.concatenate([points, far]), labels=labels), 0.25)
    assert held.points[:-1, 0].min() > kept.points[:, 0].max() or (
        held.points[:, 0].max() < kept.points[:, 0].min()
    )
    assert 0.2 < len(held) / 5001 < 0.5
