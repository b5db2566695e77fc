from __future__ import annotations

import numpy as np
import pytest
from toys import cloud, scene

from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.classes import Classes, class_weights, find_classes


def test_classes_are_those_that_occur():
    classes = find_classes([scene(0), scene(1)])
    assert classes.codes == (10, 20, 30)
    assert classes.names == ("floor", "red box", "green box")


def test_codes_to_indices_and_back():
    classes = find_classes([scene(0)])
    index = classes.index(np.array([30, 10, UNLABELLED, 99, 20, 5]))
    np.testing.assert_array_equal(index, [2, 0, -1, -1, 1, -1])
    np.testing.assert_array_equal(classes.code(np.array([2, 0, 1])), [30, 10, 20])


def test_whole_clouds_have_one_code_each():
    assert find_classes([cloud(0, 0), cloud(1, 0)]) == Classes((0, 1), ("pillar", "slab"))


def test_classes_of_one_name_stay_apart():
    scan = Scan(np.zeros((2, 3)), labels=np.array([1, 2]), classes={1: "tree", 2: "tree"})
    assert find_classes([scan]).names == ("tree (1)", "tree (2)")


def test_one_class_is_not_enough():
    with pytest.raises(ValueError, match="the training data has pillar, but at least two classes"):
        find_classes([cloud(0, 0)])


def test_weights_rise_with_rarity_and_keep_the_loss_at_its_size():
    weights = class_weights([900, 100])
    assert weights[1] / weights[0] == pytest.approx(9 ** (1 / 3))
    assert (weights * [0.9, 0.1]).sum() == pytest.approx(1)
