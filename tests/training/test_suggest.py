from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from short_runs import new_run
from toys import scene

from pointwise.cloud.scan import UNLABELLED
from pointwise.training.label import label_probabilities, label_scan
from pointwise.training.suggest import Region, Regions, choose, cubes, entropy, regions


@pytest.fixture
def run():
    return new_run()


def unlabelled(seed):
    return replace(scene(seed), labels=None)


def test_probabilities_are_those_that_labelling_decides_by(run):
    scan = scene(5)
    rows = np.full((len(scan), 3), np.nan)
    times = np.zeros(len(scan), int)
    shares = np.zeros(len(scan))
    for index, probabilities, share in label_probabilities(run, scan):
        rows[index], shares[index] = probabilities, share
        times[index] += 1
    assert (times == 1).all()
    thinned = run.recipe.prepare(scan)
    assert thinned.cube is not None
    np.testing.assert_allclose(shares, 1 / np.bincount(thinned.cube)[thinned.cube])
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    assert (run.recipe.classes.code(rows.argmax(1)) == label_scan(run, scan)).all()
    # Points of one cube have the same.
    whole = replace(run, recipe=replace(run.recipe, spacing=0.0))
    index, probabilities, share = next(label_probabilities(whole, scan))
    assert len(index) == len(probabilities)
    assert (share == 1).all()


def test_entropy_is_a_share_of_the_largest():
    rows = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(entropy(rows), [1, 0, 0.5], atol=1e-9)


def test_every_point_is_in_the_cube_around_it():
    scan = scene(0)
    scan.points[7] += (1e6, 0, 0)  # a stray
    number, corners = cubes(scan, 2.5)
    assert number[7] == -1
    inside = np.delete(np.arange(len(scan)), 7)
    below = scan.points[inside] - corners[number[inside]]
    assert (below >= 0).all()
    assert (below < 2.5).all()
    assert len(np.unique(corners, axis=0)) == len(corners) == number.max() + 1


def test_regions_count_what_has_no_label(run):
    scan = scene(1)
    labelled = scan.points[:, 0] < 500_006.0
    scan.labels[labelled] = 10
    scan.labels[~labelled] = UNLABELLED
    looked = regions(run, [unlabelled(2), scan], side=2.0)
    number, _ = cubes(scan, 2.0)
    own = [region for region in looked.found if region.scan == 1]
    cube = run.recipe.prepare(scan).cube
    share = 1 / np.bincount(cube)[cube]
    for region in own:
        inside = (number == region.cube) & ~labelled
        assert region.points == inside.sum()
        assert region.size == pytest.approx(share[inside].sum())
    assert sum(region.points for region in own) <= (~labelled).sum()
    assert {round(region.low[0]) for region in own} == {500_006, 500_008, 500_010}
    of_10 = run.recipe.classes.codes.index(10)
    assert looked.known[of_10] == pytest.approx(share[labelled].sum())
    assert looked.known.sum() == looked.known[of_10]
    nothing = regions(run, [replace(scan, labels=np.full(len(scan), 10))], side=2.0)
    assert nothing.found == []
    assert choose(nothing) == []


def test_a_regions_doubt_is_the_mean_entropy_of_its_points(run):
    scan = unlabelled(2)
    found = {region.cube: region for region in regions(run, [scan], side=3.0).found}
    number, _ = cubes(scan, 3.0)
    rows, shares = np.empty((len(scan), 3)), np.empty(len(scan))
    for index, probabilities, share in label_probabilities(run, scan):
        rows[index], shares[index] = probabilities, share
    for cube, region in found.items():
        own, share = rows[number == cube], shares[number == cube]
        doubt = share * entropy(own)
        assert region.uncertainty == pytest.approx(doubt.sum() / share.sum(), abs=1e-5)
        best = np.sort(own.argsort(1)[:, -2:], axis=1)
        pair = region.between
        mass = [doubt[(best == both).all(1)].sum() for both in ((0, 1), (0, 2), (1, 2))]
        assert pair == ((0, 1), (0, 2), (1, 2))[int(np.argmax(mass))]
        np.testing.assert_allclose(region.expected, doubt @ own, rtol=1e-5)


def region(*expected, size=10.0):
    """A region that so many doubtful points of each class are expected in."""
    none = np.zeros((len(expected), len(expected)))
    return Region(0, 0, 100, size, (0.0, 0.0, 0.0), 1.0, none, np.array(expected, dtype=float))


def looked(*found, known=(0.0, 0.0)):
    return Regions(list(found), np.array(known))


def test_the_second_choice_is_another_class():
    found = looked(region(9, 0), region(8, 0), region(0, 3), region(0, 0), region(1, 0))
    assert choose(found, 3) == [0, 2, 1]
    assert choose(found, 9) == choose(found) == [0, 2, 1, 4, 3]


def test_what_is_labelled_already_is_worth_less():
    found = region(4, 0), region(0, 3)
    assert choose(looked(*found)) == [0, 1]
    assert choose(looked(*found, known=(200.0, 0.0))) == [1, 0]


def test_a_region_costs_its_size():
    assert choose(looked(region(4, 0, size=30.0), region(3, 0, size=10.0))) == [1, 0]


def test_the_greedy_choice_is_nearly_the_best():
    """Of regions of one size."""
    rng = np.random.default_rng(0)
    found = looked(*(region(*rng.random(2) ** 3) for _ in range(9)))

    def worth(places):
        return np.sqrt(sum(found.found[place].expected for place in places)).sum()

    best = max(worth(places) for places in itertools.combinations(range(9), 3))
    assert (1 - 1 / np.e) * best <= worth(choose(found, 3)) <= best + 1e-9
