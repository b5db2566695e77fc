"""Scores from a confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Shares in 0..1; NaN for a class that does not occur in the truth."""

    overall_accuracy: float
    mean_class_accuracy: float  # over the classes that occur
    mean_iou: float  # over the classes that occur
    class_accuracy: np.ndarray  # [K], the recall
    precision: np.ndarray  # [K]; NaN where a class was never predicted
    iou: np.ndarray  # [K]
    counts: np.ndarray  # [K] how many points or clouds truly have the class


def scores(matrix: np.ndarray) -> Scores:
    """Scores of a matrix ``[K, K]`` that counts truth (rows) against prediction (columns)."""
    matrix = np.asarray(matrix, dtype=np.float64)
    right, counts = np.diag(matrix), matrix.sum(axis=1)
    present = counts > 0
    if not present.any():
        nothing = np.full(len(matrix), np.nan)
        return Scores(np.nan, np.nan, np.nan, nothing, nothing, nothing, counts.astype(np.int64))
    with np.errstate(invalid="ignore"):
        accuracy = np.where(present, right / counts, np.nan)
        precision = right / matrix.sum(axis=0)
        iou = np.where(present, right / (counts + matrix.sum(axis=0) - right), np.nan)
    return Scores(
        overall_accuracy=float(right.sum() / counts.sum()),
        mean_class_accuracy=float(accuracy[present].mean()),
        mean_iou=float(iou[present].mean()),
        class_accuracy=accuracy,
        precision=precision,
        iou=iou,
        counts=counts.astype(np.int64),
    )
