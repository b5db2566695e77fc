from __future__ import annotations

import numpy as np
import pytest
from toys import cloud, scene

from pointwise.cloud.scan import Scan
from pointwise.training.classes import codes_of
from pointwise.training.split import cut_in_space, hold_out


def named(scans):
    return {scan.name for scan in scans}


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_classes_are_shared_out(seed):
    scans = [cloud(label, i) for label in (0, 1) for i in range(12)]
    train, test = hold_out(scans, "classification", 0.25, seed=seed)
    assert len(train) + len(test) == 24
    assert not {s.group for s in train} & {s.group for s in test}
    for label in (0, 1):
        held = sum(s.label == label for s in test)
        assert 3 <= held <= 5  # a quarter of 12 clouds, in groups of two


def test_the_seed_decides():
    scans = [scene(i, 200) for i in range(8)]
    tests = [named(hold_out(scans, "segmentation", 0.25, seed=s)[1]) for s in (0, 0, 1, 2, 3)]
    assert tests[0] == tests[1]
    assert any(test != tests[0] for test in tests[2:])
    assert len(tests[0]) == 2


def test_a_rare_class_is_on_both_sides():
    scans = [scene(i, 200) for i in range(10)]
    for i in (0, 1):
        scans[i].labels[:5] = 77
    for seed in range(5):
        for part in hold_out(scans, "segmentation", 0.25, seed=seed):
            assert any(77 in codes_of(scan) for scan in part)


def test_the_only_group_of_a_class_is_kept():
    scans = [cloud(0, i) for i in range(8)] + [cloud(1, 0), cloud(1, 1)]
    train, test = hold_out(scans, "classification", 0.25, seed=0)
    assert {s.label for s in train} == {0, 1}
    assert {s.label for s in test} == {0}


def test_a_lone_scene_is_cut_straight():
    scan = scene(0, 4000)
    (train,), (test,) = hold_out([scan], "segmentation", 0.25)
    assert len(train) + len(test) == 4000
    assert 0.25 <= len(test) / 4000 < 0.3
    # Across the longer axis, x: all of one part lies on one side of the other.
    left, right = sorted([train.points[:, 0], test.points[:, 0]], key=np.min)
    assert left.max() < right.min()
    assert set(codes_of(train)) == set(codes_of(test)) == {10, 20, 30}


def test_the_cut_moves_to_where_all_classes_are_on_both_sides():
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0, 0), (100, 10, 1), size=(5000, 3))
    labels = np.where((points[:, 0] > 40) & (points[:, 0] < 70), 1, 0)
    _, held = cut_in_space(Scan(points, labels=labels), 0.25)
    assert 0.3 < len(held) / 5000 < 0.45
    assert set(codes_of(held)) == {0, 1}


def test_one_recording_cannot_be_divided():
    scans = [cloud(label, 0) for label in (0, 1)]
    for scan in scans:
        scan.group = "one"
    with pytest.raises(ValueError, match="all clouds are of one group"):
        hold_out(scans, "classification", 0.25)


def test_whole_clouds_are_not_cut():
    with pytest.raises(ValueError, match="--split space cuts scenes"):
        hold_out([cloud(0, 0)], "classification", 0.25, how="space")


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match="--hold-out must lie between 0 and 1"):
        hold_out([scene(0)], "segmentation", share)


def test_a_scene_without_width():
    scan = Scan(np.zeros((10, 3)), labels=np.arange(10), name="stack")
    with pytest.raises(ValueError, match="stack cannot be cut in two; give --test"):
        cut_in_space(scan, 0.25)
