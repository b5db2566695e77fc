from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from pointwise.training.metrics import scores


def test_scores_agree_with_torchmetrics():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(5, size=400), rng.integers(5, size=400)
    predicted[::2] = truth[::2]
    matrix = np.zeros((5, 5), dtype=int)
    np.add.at(matrix, (truth, predicted), 1)
    result = scores(matrix)
    said, true = torch.from_numpy(predicted), torch.from_numpy(truth)
    accuracy = multiclass_accuracy(said, true, 5, average="micro")
    assert result.overall_accuracy == pytest.approx(float(accuracy))
    each = multiclass_accuracy(said, true, 5, average="none").numpy()
    np.testing.assert_allclose(result.class_accuracy, each, rtol=1e-6)
    iou = multiclass_jaccard_index(said, true, 5, average="none").numpy()
    np.testing.assert_allclose(result.iou, iou, rtol=1e-6)
    assert result.mean_iou == pytest.approx(iou.mean())


def test_a_class_that_is_not_there_is_not_averaged():
    result = scores(np.array([[8, 0, 2], [0, 10, 0], [0, 0, 0]]))
    assert np.isnan(result.iou[2])
    assert result.mean_iou == pytest.approx((0.8 + 1) / 2)
    assert result.mean_class_accuracy == pytest.approx((0.8 + 1) / 2)


def test_nothing_labelled():
    result = scores(np.zeros((2, 2)))
    assert np.isnan(result.overall_accuracy)
    assert np.isnan(result.mean_iou)
