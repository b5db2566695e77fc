from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from short_runs import new_run
from toys import scene

from pointwise.cloud.scan import UNLABELLED
from pointwise.training.label import label_probabilities, label_scan
from pointwise.training.suggest import Region, choose, entropy, regions, squares


@pytest.fixture
def run():
    return new_run()


def unlabelled(seed):
    return replace(scene(seed), labels=None)


def test_probabilities_are_those_that_labelling_decides_by(run):
    scan = scene(5)
    rows = np.full((len(scan), 3), np.nan)
    times = np.zeros(len(scan), int)
    for index, probabilities in label_probabilities(run, scan):
        rows[index] = probabilities
        times[index] += 1
    assert (times == 1).all()
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    assert (run.recipe.classes.code(rows.argmax(1)) == label_scan(run, scan)).all()
    # Points of one cube have the same.
    whole = replace(run, recipe=replace(run.recipe, spacing=0.0))
    index, probabilities = next(label_probabilities(whole, scan))
    assert len(index) == len(probabilities)


def test_entropy_is_a_share_of_the_largest():
    rows = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(entropy(rows), [1, 0, 0.5], atol=1e-9)


def test_every_point_is_in_the_square_around_it():
    scan = scene(0)
    scan.points[7] += (1e6, 0, 0)  # a stray
    number, corners = squares(scan, 2.5)
    assert number[7] == -1
    inside = np.delete(np.arange(len(scan)), 7)
    below = scan.points[inside, :2] - corners[number[inside]]
    assert (below >= 0).all()
    assert (below < 2.5).all()
    assert len(np.unique(corners, axis=0)) == len(corners) == number.max() + 1


def test_regions_count_what_has_no_label(run):
    scan = scene(1)
    scan.labels[scan.points[:, 0] < 500_006.0] = 10
    scan.labels[scan.points[:, 0] >= 500_006.0] = UNLABELLED
    found = regions(run, [unlabelled(2), scan], side=2.0)
    number, _ = squares(scan, 2.0)
    own = [region for region in found if region.scan == 1]
    for region in own:
        assert region.points == ((number == region.square) & (scan.labels == UNLABELLED)).sum()
    assert sum(region.points for region in own) <= (scan.labels == UNLABELLED).sum()
    assert {round(region.low[0]) for region in own} == {500_006, 500_008, 500_010}
    assert regions(run, [replace(scan, labels=np.full(len(scan), 10))], side=2.0) == []


def test_a_regions_doubt_is_the_mean_entropy_of_its_points(run):
    scan = unlabelled(2)
    found = {region.square: region for region in regions(run, [scan], side=3.0)}
    number, _ = squares(scan, 3.0)
    rows = np.empty((len(scan), 3))
    for index, probabilities in label_probabilities(run, scan):
        rows[index] = probabilities
    for square, region in found.items():
        own = rows[number == square]
        assert region.uncertainty == pytest.approx(entropy(own).mean(), abs=1e-5)
        best, likely = np.sort(own.argsort(1)[:, -2:], axis=1), own.argmax(1)
        pair = region.between
        mass = [entropy(own)[(best == both).all(1)].sum() for both in ((0, 1), (0, 2), (1, 2))]
        assert pair == ((0, 1), (0, 2), (1, 2))[int(np.argmax(mass))]
        np.testing.assert_allclose(region.shares, np.bincount(likely, minlength=3) / len(own))


def region(*doubts):
    """A region with so much doubt between classes 0 and 1, 2 and 3."""
    full = np.zeros((4, 4))
    full[0, 1], full[2, 3] = doubts
    return Region(0, 0, 100, (0.0, 0.0), 1.0, full + full.T, np.full(4, 0.25))


def test_the_second_choice_is_another_doubt():
    found = [region(0.9, 0), region(0.8, 0), region(0, 0.3), region(0, 0), region(0.1, 0)]
    assert choose(found, 3) == [0, 2, 1]
    assert choose(found, 9) == [0, 2, 1, 4, 3]
    assert choose([], 3) == []


def test_the_greedy_choice_is_nearly_the_best():
    rng = np.random.default_rng(0)
    found = [region(*rng.random(2) ** 3) for _ in range(9)]

    def worth(places):
        return np.sqrt(sum(np.triu(found[place].doubts) for place in places)).sum()

    best = max(worth(places) for places in itertools.combinations(range(9), 3))
    assert (1 - 1 / np.e) * best <= worth(choose(found, 3)) <= best + 1e-9
